"""Checkpoints: `checkpoints/STEP/` with model.safetensors, optimizer.safetensors and state.json.

A checkpoint is whole or absent: it is written under a temporary name and renamed. `state.json` holds
the sha256 of both tensor files and of itself; one that does not hold is passed over, with a warning,
for the one before it. No pickle.
"""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load, save

from cram.errors import CramError
from cram.record import read_json, sha256_bytes, to_json, write_atomic, write_json

KEPT = 2
Tensors = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Checkpoint:
    """What was read back: tensors on the CPU, and the state as JSON."""

    step: int
    model: Tensors
    optimizer: Tensors
    state: dict[str, Any]


class Checkpoints:
    """The checkpoints of one run folder; the newest two are kept."""

    def __init__(self, run: Path) -> None:
        self.folder = run / "checkpoints"

    def save(self, step: int, model: Tensors, optimizer: Tensors, state: dict[str, Any]) -> None:
        """Write checkpoint `step` and drop all but the newest two; later ones were passed over, so they go too.

        Errors: CramError when the disk is full; nothing half-written is left.
        """
        temporary = self.folder / f".{step}.partial"
        for left in self.folder.glob(".*.partial"):  # by a crash
            shutil.rmtree(left)
        try:
            sums = {}
            for name, tensors in (("model", model), ("optimizer", optimizer)):
                data = save(tensors)
                sums[f"{name}.safetensors"] = sha256_bytes(data)
                write_atomic(temporary / f"{name}.safetensors", data)
            state = {"step": step, "sha256": sums, **state}
            write_json(temporary / "state.json", {**state, "state_sha256": _digest(state)})
            shutil.rmtree(self.folder / str(step), ignore_errors=True)
            temporary.rename(self.folder / str(step))
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        kept = [there for there in self.steps() if there <= step][:KEPT]
        for other in set(self.steps()).difference(kept):
            shutil.rmtree(self.folder / str(other))

    def steps(self) -> list[int]:
        """Steps of the checkpoints that are there, newest first."""
        if not self.folder.is_dir():
            return []
        return sorted((int(path.name) for path in self.folder.iterdir() if path.name.isdigit()), reverse=True)

    def newest(self) -> Checkpoint | None:
        """The newest checkpoint whose checksums hold; None where there is none at all.

        Errors: CramError when there are checkpoints and all are damaged.
        """
        steps = self.steps()
        for step in steps:
            try:
                return self._read(step)
            except (CramError, OSError, KeyError) as error:
                print(f"warning: checkpoint {step} is damaged and passed over: {error}", flush=True)
        if steps:
            raise CramError(
                f"{self.folder}: every checkpoint is damaged. Remove the run folder, or choose another run=."
            )
        return None

    def _read(self, step: int) -> Checkpoint:
        folder = self.folder / str(step)
        state = read_json(folder / "state.json")
        if not isinstance(state, dict) or state.pop("state_sha256", None) != _digest(state):
            raise CramError(f"{folder / 'state.json'}: the checksum does not hold.")
        tensors = {}
        for name, expected in state["sha256"].items():
            data = (folder / name).read_bytes()
            if sha256_bytes(data) != expected:
                raise CramError(f"{folder / name}: the checksum does not hold.")
            tensors[name] = load(data)
        return Checkpoint(step, tensors["model.safetensors"], tensors["optimizer.safetensors"], state)


def _digest(state: dict[str, Any]) -> str:
    return sha256_bytes(to_json(state, sort_keys=True).encode())
