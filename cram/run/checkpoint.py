"""Checkpoints of a run, from which it is resumed.

checkpoints/STEP/    a checkpoint; STEP is the number of updates before it
    model.safetensors        weights
    optimizer.safetensors    state of the optimizer, and of the methods as methods/NAME/...; removed from a checkpoint
                             that is kept for its weights when no resume needs it any more
    state.json               state of everything else, SHA-256 of both files above, identity of the run; carries its own
                             SHA-256

A checkpoint is written to a folder with a temporary name, which is then renamed, so that it is complete or absent. A
checkpoint that is damaged, or belongs to another run, is skipped with a warning, and the one before it is used.
"""

import re
import shutil
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError

from cram.errors import CramError
from cram.files.atomic import sha256_bytes, write_atomic
from cram.files.sealed import read_sealed, write_sealed

if TYPE_CHECKING:
    import torch

NEWEST_KEPT = 2  # checkpoints; if the newest is damaged, the one before it is used
MODEL, OPTIMIZER = "model.safetensors", "optimizer.safetensors"
STEP_NAME = re.compile("0|[1-9][0-9]{0,18}")  # name of the folder of a checkpoint
Tensors = dict[str, "torch.Tensor"]


@dataclass(frozen=True)
class Checkpoint:
    """The content of a checkpoint.

    Attributes:
        step: number of updates before it.
        model: tensors of the model by name, on the CPU.
        optimizer: tensors of the optimizer and of the methods by name, on the CPU; none if only the weights are kept.
        state: everything else, as JSON.
        folder: where it was read.
    """

    step: int
    model: Tensors
    optimizer: Tensors
    state: dict[str, Any]
    folder: Path = Path()


class Checkpoints:
    """The checkpoints of a run folder: the newest two, the one that a longer budget would continue from, and weights.

    A longer budget continues from the newest checkpoint before the learning rate began to fall. Checkpoints that were
    saved with `kept=True` stay until the run goes back behind them; the older ones of them hold only weights.

    Args:
        run: the run folder.
        decay: progress at which the learning rate begins to fall, from 0 to 1.
        identity: hashes of recipe, data and tokenizer, by name. They are written into every checkpoint, and a
            checkpoint with other hashes is refused. None accepts every checkpoint.
    """

    def __init__(self, run: Path, decay: float = 1.0, identity: dict[str, str] | None = None) -> None:
        self.folder = run / "checkpoints"
        self.decay = decay
        self.identity = identity

    def save(self, step: int, model: Tensors, optimizer: Tensors, state: dict[str, Any], *, kept: bool = False) -> None:
        """Write a checkpoint, and remove what is no longer needed of the others.

        Checkpoints of later updates are removed too: the run went back behind them, because they were damaged or
        because the budget became longer.

        Args:
            kept: whether later saves leave the weights. It stays true for a checkpoint that is saved again.

        Raises:
            CramError: the disk is full. The older checkpoints are still there, and nothing half-written is left.
        """
        # Imported here and in `read` because torch takes seconds, and readers of states and checksums do not need it.
        from safetensors.torch import save

        folder, temporary = self.folder / str(step), self.folder / f".{step}.partial"
        self._remove_partial()
        kept = kept or self._is_kept(step)
        try:
            hashes = {}
            for name, tensors in ((MODEL, model), (OPTIMIZER, optimizer)):
                data = save(tensors)
                hashes[name] = sha256_bytes(data)
                write_atomic(temporary / name, data)
            header = {"step": step, "files": hashes, "identity": self.identity, "kept": kept}
            write_sealed(temporary / "state.json", {**header, **state})
            if folder.exists():
                folder.rename(self.folder / f".{step}.replaced.partial")
            temporary.rename(folder)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        self._remove_partial()
        self._remove_needless(step)

    def _remove_needless(self, newest: int) -> None:
        """Remove checkpoints that nothing will be resumed from; of those that are kept, all but the weights."""
        earlier = [other for other in self.complete_steps() if other <= newest]
        needed = earlier[:NEWEST_KEPT] + [other for other in earlier if self._is_before_decay(other)][:1]
        for other in set(self.steps()).difference(needed):
            if other < newest and self._is_kept(other):
                (self.folder / str(other) / OPTIMIZER).unlink(missing_ok=True)
            else:
                shutil.rmtree(self.folder / str(other))

    def _remove_partial(self) -> None:
        """Remove folders that were replaced, or that a crash left incomplete."""
        for path in self.folder.glob(".*.partial"):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()

    def _is_before_decay(self, step: int) -> bool:
        """Whether the learning rate had not begun to fall at a checkpoint; False for a damaged one."""
        try:
            return bool(self.read_state(step)["last_progress"] <= self.decay)
        except (CramError, KeyError):
            return False

    def _is_kept(self, step: int) -> bool:
        """Whether the weights of a checkpoint are kept to the end; False for a damaged one, and where there is none."""
        try:
            return bool(self.read_state(step).get("kept", False))  # checkpoints of earlier versions do not have it
        except (CramError, KeyError):
            return False

    def _holds_only_weights(self, step: int) -> bool:
        return not (self.folder / str(step) / OPTIMIZER).exists() and self._is_kept(step)

    def complete_steps(self) -> list[int]:
        """Return the steps of all checkpoints, newest first, without those of which only the weights are kept."""
        return [step for step in self.steps() if not self._holds_only_weights(step)]

    def steps(self) -> list[int]:
        """Return the steps of all checkpoints, newest first. Files, links and folders with other names do not count."""
        if not self.folder.is_dir():
            return []
        folders = [path for path in self.folder.iterdir() if STEP_NAME.fullmatch(path.name) and path.is_dir()]
        return sorted((int(path.name) for path in folders if not path.is_symlink()), reverse=True)

    def step_before_decay(self) -> int | None:
        """Return the step of the newest checkpoint before the learning rate began to fall, or None."""
        return next((step for step in self.complete_steps() if self._is_before_decay(step)), None)

    def read_newest(self) -> Checkpoint | None:
        """Read the newest checkpoint that is intact and complete, with a warning for each damaged one.

        Returns:
            The checkpoint; None if the run has no checkpoints.

        Raises:
            CramError: there are checkpoints, but all are damaged or hold only weights.
        """
        for step in self.complete_steps():
            try:
                return self.read(step)
            except (CramError, KeyError) as error:
                print(f"warning: checkpoint {step} is damaged and passed over: {error}", flush=True)
        if steps := self.steps():
            light = [step for step in reversed(steps) if self._holds_only_weights(step)]
            but = f", apart from the weights that are kept of {', '.join(map(str, light))}" if light else ""
            raise CramError(
                f"{self.folder}: every checkpoint is damaged{but}. Remove the run folder, or choose another run=."
            )
        return None

    def read_newest_state(self) -> dict[str, Any] | None:
        """Read the state of the newest complete checkpoint whose state is intact, without tensors; None without one."""
        for step in self.complete_steps():
            with suppress(CramError):
                return self.read_state(step)
        return None

    def choose(self, name: str) -> Checkpoint:
        """Read the checkpoint that a user names.

        Args:
            name: `newest`, or the step of a checkpoint.

        Raises:
            CramError: there is no such checkpoint, or it is damaged. The message lists the checkpoints.
        """
        steps = self.steps()
        if name == "newest" and steps:
            newest = self.read_newest()
            assert newest is not None
            return newest
        if STEP_NAME.fullmatch(name) and int(name) in steps:
            return self.read(int(name))
        names = ", ".join(map(str, sorted(steps))) or "none"
        raise CramError(f"checkpoint={name}: there is none in {self.folder}. Use newest or one of these: {names}.")

    def read_state(self, step: int) -> dict[str, Any]:
        """Read the state of a checkpoint, without its tensors.

        Raises:
            CramError: the state is damaged, or the checkpoint belongs to another update or another run.
        """
        path = self.folder / str(step) / "state.json"
        state = read_sealed(path)
        if state["step"] != step:
            raise CramError(f"{path}: the checkpoint was written at update {state['step']}.")
        if self.identity and state["identity"] != self.identity:
            differing = list_differing_hashes(self.identity, state["identity"])
            raise CramError(f"{path}: the checkpoint of another run: its {' and '.join(differing)} differ.")
        return state

    def read(self, step: int) -> Checkpoint:
        """Read a checkpoint. It has no tensors of the optimizer where only its weights are kept.

        Raises:
            CramError: a file is missing or damaged, or the checkpoint belongs to another update or another run.
        """
        from safetensors.torch import load

        folder, state = self.folder / str(step), self.read_state(step)
        tensors: dict[str, Tensors] = {OPTIMIZER: {}}
        files = dict(state["files"])
        if self._holds_only_weights(step):
            del files[OPTIMIZER]
        for name, digest in files.items():
            try:
                data = (folder / name).read_bytes()
            except OSError as error:
                raise CramError(f"{folder / name}: cannot be read ({error.strerror}).") from None
            if sha256_bytes(data) != digest:
                raise CramError(f"{folder / name}: damaged or edited, its content is not what its sha256 says.")
            try:
                tensors[name] = load(data)
            except (SafetensorError, ValueError, KeyError) as error:
                raise CramError(f"{folder / name}: not a readable safetensors file ({error}).") from None
        return Checkpoint(step, tensors[MODEL], tensors[OPTIMIZER], state, folder)


def list_differing_hashes(identity: dict[str, str], other: dict[str, str] | None) -> list[str]:
    """Return the names, of `recipe`, `data` and `tokenizer`, whose hashes differ between two identities of runs."""
    return [name for name, digest in identity.items() if other is None or other.get(name) != digest]
