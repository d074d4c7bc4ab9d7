"""One training run in flight: what the loop asks of its parts, and the little state that is the loop's own."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

import torch
from torch import nn

from cram.clock import Clock
from cram.errors import CramError
from cram.files.tensors import check_tensors
from cram.run.checkpoint import Checkpoint, Checkpoints
from cram.run.metrics import Metrics
from cram.training.faults import Faults, FaultsConfig
from cram.training.loss_scale import LossScale


def weights_hash(model: nn.Module) -> str:
    """sha256 of a model's weights, in the order of their names."""
    digest = hashlib.sha256()
    for _, tensor in sorted(model.state_dict().items()):
        digest.update(tensor.cpu().numpy().tobytes())
    return digest.hexdigest()


class Loader(Protocol):
    """Rows in training order; what it gives can be sliced by rows."""

    rows_total: int
    rows_taken: int

    @property
    def rows_left(self) -> int: ...
    def next(self, n: int) -> Any: ...
    def peek(self, n: int) -> Any: ...
    def state(self) -> dict[str, Any]: ...
    def resume(self, state: dict[str, Any]) -> None: ...


class Objective(Protocol):
    """Makes a batch of rows on the host, and a loss of a batch on the device.

    `phases` are the values of progress from which on batches are of another kind, the first 0.
    """

    phases: tuple[float, ...]

    def prepare(self, rows: Any, progress: float) -> Any: ...
    def loss(self, model: Any, batch: Any) -> torch.Tensor: ...


class Optimizer(Protocol):
    """An update rule whose learning rate and state are set from outside; it leaves out a step that is not finite."""

    def step(self, multiplier: float, progress: float, finite: torch.Tensor) -> None: ...
    def state_tensors(self) -> dict[str, torch.Tensor]: ...
    def load_state_tensors(self, tensors: dict[str, torch.Tensor]) -> None: ...
    def lr(self) -> float: ...


class Method(Protocol):
    """A technique that works beside the optimizer, driven by progress; its time is charged."""

    name: str

    def after_step(self, model: nn.Module, progress: float) -> None: ...
    def finish(self, model: nn.Module) -> None: ...
    def state_tensors(self) -> dict[str, torch.Tensor]: ...
    def load_state_tensors(self, tensors: dict[str, torch.Tensor], model: nn.Module) -> None: ...


@dataclass
class Window:
    """What has been summed since the last line of metrics; part of a checkpoint."""

    nats: float = 0.0
    predicted: int = 0
    positions: int = 0
    updates: int = 0
    seconds: float = 0.0

    def add(self, nats: float, predicted: int, positions: int, seconds: float) -> None:
        """Count one update."""
        self.nats += nats
        self.predicted += predicted
        self.positions += positions
        self.updates += 1
        self.seconds += seconds


class Launched:
    """An update whose figures are still on their way from the device.

    Args:
        figures: fp32 (2), the sum of its nats, and 1 where everything was finite.
    """

    def __init__(self, positions: int, predicted: int, figures: torch.Tensor) -> None:
        self.positions, self.predicted = positions, predicted
        self._figures, self._arrived = figures, None
        if figures.device.type == "cuda":
            self._figures = torch.empty(2, pin_memory=True).copy_(figures, non_blocking=True)
            self._arrived = torch.cuda.Event()
            self._arrived.record()

    def wait(self) -> tuple[float, bool]:
        """Nats and whether the update was finite, as soon as the device has done it."""
        if self._arrived is not None:
            self._arrived.synchronize()
        nats, finite = self._figures.tolist()
        return nats, bool(finite)


@dataclass
class Session:
    """One run in flight: its parts, and the little state that is the loop's own."""

    model: nn.Module
    objective: Objective
    optimizer: Optimizer
    methods: Sequence[Method]
    loader: Loader
    clock: Clock
    metrics: Metrics
    checkpoints: Checkpoints
    schedule: Callable[[float], float]
    batch_tokens: Callable[[float], float]
    evaluate: Callable[[], dict[str, float]]
    show: Callable[[float, dict[str, Any]], None]
    device: torch.device
    precision: torch.dtype
    loss_scale: LossScale | None
    seq_len: int
    micro_rows: int
    clip: float | None
    faults_config: FaultsConfig
    log_interval: int
    checkpoint_seconds: float
    evaluation_interval: float | None
    stop_asked: Callable[[], bool]
    threads: int
    window: Window = field(default_factory=Window)
    faults: Faults = field(default_factory=Faults)
    predicted: int = 0
    last_progress: float = 0.0
    out_of_memory: int = 0
    initial_weights: str = ""  # `weights_hash` right before the first update
    devices: list[str] = field(default_factory=list)  # names of all that this run has trained on
    saved: int | None = None  # update of the checkpoint last written or read
    compiled: dict[str, Any] = field(default_factory=dict)  # what `cram.training.compilation` did, for the receipt
    in_flight: list[Launched] = field(default_factory=list)
    processes: list[dict[str, Any]] = field(default_factory=list)  # `history.process` of each so far
    extensions: list[dict[str, Any]] = field(default_factory=list)  # `history.Extension` of each so far
    slow_before: dict[str, int] = field(default_factory=dict)  # `loop.slow_so_far` when the last update ended

    def state(self) -> dict[str, Any]:
        """Everything a resumed run needs beside tensors, as JSON."""
        return {
            "budget": asdict(self.clock.budget),
            "clock": self.clock.state(),
            "loader": self.loader.state(),
            "window": vars(self.window),
            "faults": asdict(self.faults),
            "loss_scale": self.loss_scale.state() if self.loss_scale else None,
            "metrics": self.metrics.state(),
            **{name: getattr(self, name) for name in _CARRIED},
        }

    def tensors(self) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
        """Weights, and what optimizer and methods remember, on the CPU."""
        memory = self.optimizer.state_tensors()
        for method in self.methods:
            memory |= {f"methods/{method.name}/{name}": value for name, value in method.state_tensors().items()}
        weights = self.model.state_dict()
        return {name: value.cpu() for name, value in weights.items()}, {n: v.cpu() for n, v in memory.items()}

    def load_tensors(self, checkpoint: Checkpoint) -> None:
        """Put back the tensors of a checkpoint and nothing else. Errors: CramError naming one that does not fit."""
        folder, memory = self.checkpoints.folder / str(checkpoint.step), checkpoint.optimizer
        check_tensors(checkpoint.model, self.model.state_dict(), f"{folder / 'model.safetensors'}: ")
        self.model.load_state_dict(checkpoint.model)
        starts = [f"methods/{method.name}/" for method in self.methods]
        own = {name: value for name, value in memory.items() if not name.startswith(tuple(starts))}
        try:
            if checkpoint.step and not own:
                raise CramError("the state of the optimizer is missing.")
            self.optimizer.load_state_tensors(own)
            for method, start in zip(self.methods, starts, strict=True):
                its = {name.removeprefix(start): value for name, value in memory.items() if name.startswith(start)}
                method.load_state_tensors(its, self.model)
        except CramError as error:
            raise CramError(f"{folder / 'optimizer.safetensors'}: {error}") from None

    def resume(self, checkpoint: Checkpoint) -> None:
        """Continue from a checkpoint; `metrics` must have been cut back to it already.

        Under another budget progress begins where what is spent stands: the only place where it may fall.
        """
        state = checkpoint.state
        self.load_tensors(checkpoint)
        self.clock.resume(state["clock"])
        self.loader.resume(state["loader"])
        self.window = Window(**state["window"])
        self.faults = Faults(**state["faults"])
        if self.loss_scale and state["loss_scale"]:  # begun on a GPU that needs none
            self.loss_scale.load(state["loss_scale"])
        for name in _CARRIED:
            setattr(self, name, state[name])
        if state["budget"] != asdict(self.clock.budget):
            data_share = self.loader.rows_taken / self.loader.rows_total
            self.last_progress = min(1.0, max(self.clock.spent() / self.clock.budget.limit, data_share))
        self.saved = checkpoint.step


_CARRIED = (
    "micro_rows", "predicted", "last_progress", "out_of_memory",
    "initial_weights", "devices", "compiled", "processes", "extensions",
)  # fmt: skip
