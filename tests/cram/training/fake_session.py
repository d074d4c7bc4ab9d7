"""A session whose parts are fakes that can be computed by hand: rows that hold their number, one weight, no data."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cram.budget import Budget
from cram.clock import Clock
from cram.config.training import FaultsConfig
from cram.methods.method import Methods
from cram.model.flop_count import FlopCount
from cram.reference_time import ExecutedWork
from cram.run.checkpoint import Checkpoints
from cram.run.metrics import Metrics
from cram.training.session import LoopConfig, Parts, RunState, Session

SEQ_LEN = 4
CALM = FaultsConfig(spike=1e9)  # the loss of the fake objective grows with the rows


class FakeLoader:
    """Rows that hold their own number."""

    def __init__(self, rows: int) -> None:
        self.rows_total, self.epoch_rows, self.rows_taken = rows, rows, 0

    @property
    def rows_left(self) -> int:
        return self.rows_total - self.rows_taken

    def peek(self, n: int) -> "FakeRows":
        return FakeRows(np.arange(self.rows_taken, self.rows_taken + n, dtype=np.float32))

    def next(self, n: int, progress: float = 0.0) -> "FakeRows":
        rows = self.peek(n)
        self.rows_taken += n
        return rows

    def state(self) -> dict[str, Any]:
        return {"taken": self.rows_taken}

    def resume(self, state: dict[str, Any]) -> None:
        self.rows_taken = state["taken"]


@dataclass
class FakeRows:
    tokens: np.ndarray

    def __getitem__(self, part: slice) -> "FakeRows":
        return FakeRows(self.tokens[part])


@dataclass
class FakeBatch:
    values: torch.Tensor
    predicted: int

    def to(self, device: torch.device) -> "FakeBatch":
        return self


class FakeObjective:
    """Row n has n % 3 predicted tokens; its loss is the weight times the row's number, for each."""

    phases: tuple[float, ...] = (0.0,)

    def __init__(self) -> None:
        self.progress: list[float] = []
        self.largest = 10**9
        self.joined = 1

    def prepare(self, rows: FakeRows, progress: float) -> FakeBatch:
        self.progress.append(progress)
        return FakeBatch(torch.from_numpy(rows.tokens), int((rows.tokens % 3).sum()))

    def rows_joined(self, progress: float) -> int:
        return self.joined if progress < self.phases[-1] else 1

    def begin_update(self, update: int) -> None:
        pass

    def end_update(self, update: int) -> None:
        pass

    def state_tensors(self) -> dict[str, torch.Tensor]:
        return {}

    def load_state_tensors(self, tensors: dict[str, torch.Tensor]) -> None:
        assert not tensors

    def scheduled(self, progress: float) -> dict[str, float]:
        return {"mask_rate": 0.5}

    def predicted_per_row(self, batch: FakeBatch) -> np.ndarray:
        return (batch.values.numpy() % 3).astype(np.int64)

    def nats_per_row(self, model: torch.nn.Linear, batch: FakeBatch) -> torch.Tensor:
        return model.weight.flatten() * batch.values * (batch.values % 3)

    def loss(self, model: torch.nn.Linear, batch: FakeBatch) -> torch.Tensor:
        if len(batch.values) > self.largest:
            raise torch.OutOfMemoryError("fake")
        return (model.weight * batch.values * (batch.values % 3)).sum()


class FakeModel(torch.nn.Linear):
    """A row of weights, which counts as one block."""

    depth = computed_blocks = 1

    def __init__(self, width: int = 1) -> None:
        super().__init__(width, 1, bias=False)

    def fit_blocks(self, names: Any) -> bool:
        return False


class FakeOptimizer:
    kind, curvature_interval, curvature_rows = "adamw", None, None

    def __init__(self, model: torch.nn.Module) -> None:
        self.multipliers: list[float] = []
        self.gradients: list[float] = []
        self.finite: list[bool] = []
        self._model = model

    def held_bytes(self) -> int:
        return 0

    def step(self, multiplier: float, progress: float, finite: torch.Tensor, others: float | None = None) -> None:
        self.multipliers.append(multiplier)
        self.finite.append(bool(finite))
        self.gradients.append(sum(float(p.grad.sum()) for p in self._model.parameters() if p.grad is not None))

    def lr(self) -> dict[str, float]:
        return {"matrices": self.multipliers[-1]}

    def scheduled(self, progress: float) -> dict[str, float]:
        return {"weight_decay": 0.5 * progress}

    def state_tensors(self) -> dict[str, torch.Tensor]:
        return {"nothing": torch.zeros(1)}

    def load_state_tensors(self, tensors: dict[str, torch.Tensor]) -> None:
        pass


class FakeFlops(FlopCount):
    """A position costs one operation, and a predicted token another one."""

    of_prediction = 1.0

    def __init__(self) -> None:
        self._seq_len = SEQ_LEN

    def _position(self, blocks: str) -> float:
        return 1.0


def make_session(run: Path, budget: str = "10steps", rows: int = 1000, batch: int = 8, **changes: Any) -> Session:
    """A session of fake parts; `changes` are fields of the session, its parts, its config or its state."""
    model = FakeModel()
    fields: dict[str, Any] = {
        "model": model,
        "objective": FakeObjective(),
        "optimizer": FakeOptimizer(model),
        "methods": Methods(),
        "loader": FakeLoader(rows),
        "schedule": lambda progress: 1.0 - progress,
        "others_schedule": None,
        "rate_progress": lambda begin, end: 0.5 * (begin + end),
        "decay_begins": 0.0,
        "batch_tokens": lambda progress: batch * SEQ_LEN,
        "held_out": None,
        "evaluate": lambda rows, ranks: {"nats_per_token": 1.0},
        "device": torch.device("cpu"),
        "precision": torch.float32,
        "loss_scale": None,
        "seq_len": SEQ_LEN,
        "clip": None,
        "faults": CALM,
        "log_interval": 3,
        "peak_flops": None,
        "checkpoint_seconds": 1e9,
        "checkpoint_shares": (),
        "noise_share": None,
        "evaluation_interval": None,
        "seed": 0,
        "dropout": False,
        "work": ExecutedWork(),
        "flops": FakeFlops(),
        "new_reference": None,
        "micro_rows": 2,
        "clock": Clock(Budget.parse(budget)),
        "checkpoints": Checkpoints(run),
        "show": lambda progress, figures: None,
        "stop_requested": lambda: False,
        "threads": 1,
        **changes,
    }
    fields["metrics"] = fields.get("metrics") or Metrics(run)

    def take(schema: Any, *names: str) -> dict[str, Any]:
        names = names or tuple(item.name for item in dataclasses.fields(schema))
        return {name: fields[name] for name in names}

    names = ("clock", "metrics", "checkpoints", "show", "stop_requested", "threads", "log_interval", "peak_flops")
    return Session(
        parts=Parts(**take(Parts)),
        config=LoopConfig(**take(LoopConfig)),
        state=RunState(micro_rows=fields["micro_rows"]),
        **take(Session, *names),
    )
