"""Checkpoints: `checkpoints/STEP/` with model.safetensors, optimizer.safetensors and state.json.

A checkpoint is whole or absent: it is written under a temporary name and renamed. `state.json` holds
the sha256 of both tensor files and of itself, and the identity of the run; one that does not hold is passed over,
with a warning, for the one before it. No pickle.
"""

import re
import shutil
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from cram.errors import CramError
from cram.files.atomic import sha256_bytes, write_atomic
from cram.files.sealed import read_sealed, write_sealed

KEPT = 2
STEP = re.compile("0|[1-9][0-9]{0,18}")  # a step as it is written
Tensors = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Checkpoint:
    """What was read back: tensors on the CPU, and the state as JSON."""

    step: int
    model: Tensors
    optimizer: Tensors
    state: dict[str, Any]


class Checkpoints:
    """The checkpoints of one run folder: the newest two, and the newest from which a longer budget can go on.

    Args:
        decay: progress at which the learning rate begins to fall. A longer budget goes on from before it.
        identity: of recipe, data and tokenizer, by name; written into each, and those with another are not read.
    """

    def __init__(self, run: Path, decay: float = 1.0, identity: dict[str, str] | None = None) -> None:
        self.folder = run / "checkpoints"
        self.decay = decay
        self.identity = identity

    def save(self, step: int, model: Tensors, optimizer: Tensors, state: dict[str, Any]) -> None:
        """Write checkpoint `step` and drop those not kept; later ones were passed over, so they go too.

        Errors: CramError when the disk is full; nothing half-written is left.
        """
        temporary = self.folder / f".{step}.partial"
        self._sweep()
        try:
            sums = {}
            for name, tensors in (("model", model), ("optimizer", optimizer)):
                data = save(tensors)
                sums[f"{name}.safetensors"] = sha256_bytes(data)
                write_atomic(temporary / f"{name}.safetensors", data)
            own = {"step": step, "files": sums, "identity": self.identity}
            write_sealed(temporary / "state.json", {**own, **state})
            if (self.folder / str(step)).exists():
                (self.folder / str(step)).rename(self.folder / f".{step}.replaced.partial")
            temporary.rename(self.folder / str(step))
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        self._sweep()
        before = [there for there in self.steps() if there <= step]
        kept = before[:KEPT] + [there for there in before if self._before_decay(there)][:1]
        for other in set(self.steps()).difference(kept):
            shutil.rmtree(self.folder / str(other))

    def _sweep(self) -> None:
        """Remove what was replaced, or left by a crash."""
        for left in self.folder.glob(".*.partial"):
            if left.is_dir() and not left.is_symlink():
                shutil.rmtree(left)
            else:
                left.unlink()

    def _before_decay(self, step: int) -> bool:
        """Whether the learning rate had not begun to fall at a checkpoint; False of a damaged one."""
        try:
            return bool(self.read_state(step)["last_progress"] <= self.decay)
        except (CramError, KeyError):
            return False

    def steps(self) -> list[int]:
        """Steps of the checkpoints that are there, newest first. What else may lie there is not looked at."""
        if not self.folder.is_dir():
            return []
        folders = [path for path in self.folder.iterdir() if STEP.fullmatch(path.name) and path.is_dir()]
        return sorted((int(path.name) for path in folders if not path.is_symlink()), reverse=True)

    def read_newest(self) -> Checkpoint | None:
        """The newest checkpoint whose checksums hold; None where there is none at all.

        Errors: CramError when there are checkpoints and all are damaged.
        """
        steps = self.steps()
        for step in steps:
            try:
                return self.read(step)
            except (CramError, KeyError) as error:
                print(f"warning: checkpoint {step} is damaged and passed over: {error}", flush=True)
        if steps:
            raise CramError(
                f"{self.folder}: every checkpoint is damaged. Remove the run folder, or choose another run=."
            )
        return None

    def read_newest_state(self) -> dict[str, Any] | None:
        """The state of the newest checkpoint whose state is readable; None where there is none."""
        for step in self.steps():
            with suppress(CramError):
                return self.read_state(step)
        return None

    def step_before_decay(self) -> int | None:
        """Step of the newest checkpoint at which the learning rate had not begun to fall; None where there is none."""
        return next((step for step in self.steps() if self._before_decay(step)), None)

    def choose(self, said: str) -> Checkpoint:
        """The checkpoint that `newest` or a number names. Errors: CramError that lists those that are there."""
        steps = self.steps()
        if said == "newest" and steps:
            newest = self.read_newest()
            assert newest is not None
            return newest
        if STEP.fullmatch(said) and int(said) in steps:
            return self.read(int(said))
        there = ", ".join(map(str, sorted(steps))) or "none"
        raise CramError(f"checkpoint={said}: there is none in {self.folder}. Say newest or one of these: {there}.")

    def read_state(self, step: int) -> dict[str, Any]:
        """The state of a checkpoint. Errors: CramError when its checksum does not hold, or it is another run's."""
        path = self.folder / str(step) / "state.json"
        state = read_sealed(path)
        if state["step"] != step:
            raise CramError(f"{path}: of update {state['step']}.")
        if self.identity and state["identity"] != self.identity:
            there = state["identity"] or {}
            others = [name for name, own in self.identity.items() if there.get(name) != own]
            raise CramError(f"{path}: of another run: its {' and '.join(others)} differ.")
        return state

    def read(self, step: int) -> Checkpoint:
        """A checkpoint. Errors: CramError when a file is missing or its checksum does not hold."""
        folder, state = self.folder / str(step), self.read_state(step)
        tensors = {}
        for name, expected in state["files"].items():
            try:
                data = (folder / name).read_bytes()
            except OSError as error:
                raise CramError(f"{folder / name}: cannot be read ({error.strerror}).") from None
            if sha256_bytes(data) != expected:
                raise CramError(f"{folder / name}: the checksum does not hold.")
            try:
                tensors[name] = load(data)
            except (SafetensorError, ValueError, KeyError) as error:
                raise CramError(f"{folder / name}: not a readable safetensors file ({error}).") from None
        return Checkpoint(step, tensors["model.safetensors"], tensors["optimizer.safetensors"], state)
