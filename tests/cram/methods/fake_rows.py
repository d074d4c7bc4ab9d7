"""Rows that hold their own number, a source of them, and a reference model, for methods that choose rows."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from cram.data.shards.loader import TrainingRows


def make_rows(numbers: Sequence[int] | np.ndarray, epoch: int = 0) -> TrainingRows:
    """Make rows of these numbers."""
    index = np.asarray(numbers, np.int64)
    tokens = index[:, None].astype(np.int32)
    return TrainingRows(tokens, np.zeros_like(tokens), index, np.full(len(index), epoch, np.int32))


@dataclass
class Source:
    """Gives the rows 0, 1, 2 and so on; `losses` is the mean loss of each, and each has two predicted tokens."""

    losses: np.ndarray
    micro_rows: int = 4
    seed: int = 0
    taken: int = 0
    scored: list[int] = field(default_factory=list)

    @property
    def rows_left(self) -> int:
        return len(self.losses) - self.taken

    def take(self, n: int) -> TrainingRows:
        assert 0 < n <= self.rows_left
        rows = make_rows(np.arange(self.taken, self.taken + n))
        self.taken += n
        return rows

    def join(self, parts: Sequence[TrainingRows]) -> TrainingRows:
        return TrainingRows.join(parts)

    def restore(self, *arrays: np.ndarray) -> TrainingRows:
        return TrainingRows(*arrays)

    def nats_per_row(self, rows: TrainingRows) -> tuple[torch.Tensor, np.ndarray]:
        self.scored += rows.index.tolist()
        return torch.from_numpy(2 * self.losses[rows.index]).float(), np.full(len(rows.index), 2)


@dataclass
class Reference:
    """A reference model whose losses are given, and which notes what it is trained on."""

    losses: np.ndarray
    trained: list[list[int]] = field(default_factory=list)
    begins: list[float] = field(default_factory=list)
    progress: list[float] = field(default_factory=list)
    asked: list[int] = field(default_factory=list)
    blocks: int = 1
    forgotten: bool = False

    def update(self, rows: TrainingRows, begin: float, progress: float) -> None:
        self.trained.append(rows.index.tolist())
        self.begins.append(begin)
        self.progress.append(progress)

    def nats_per_row(self, rows: TrainingRows, progress: float) -> tuple[torch.Tensor, np.ndarray]:
        self.asked += rows.index.tolist()
        return torch.from_numpy(2 * self.losses[rows.index]).float(), np.full(len(rows.index), 2)

    def forget_optimizer(self) -> None:
        self.forgotten = True

    def state_tensors(self) -> dict[str, torch.Tensor]:
        return {"model/weight": torch.ones(1)}

    def load_state_tensors(self, tensors: dict[str, torch.Tensor]) -> None:
        assert torch.equal(tensors["model/weight"], torch.ones(1))


@dataclass
class FakeBeginning:
    """A beginning in which each piece of work spends a hundredth of the budget."""

    model: Reference
    numbers: np.ndarray
    update_rows: int = 4
    spent: float = 0.0

    def cost(self, rows: int) -> float:
        return 0.01

    def read(self, numbers: np.ndarray, epoch: int = 0) -> TrainingRows:
        return make_rows(numbers, epoch)

    def reference(self, layers: int | None = None) -> Reference:
        return self.model

    def spend(self) -> None:
        """Spend a hundredth of the budget."""
        self.spent = round(self.spent + 0.01, 6)

    def run(self, method: Any) -> None:
        """Call `start` until all is done."""
        while not method.start(self):
            self.spend()
