"""One run in flight: what it is made of, and what has happened in it so far."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch

from cram.clock import Clock
from cram.config.training import FaultsConfig
from cram.distributed.ranks import ALONE, Ranks
from cram.evaluation.held_out import HeldOutSet
from cram.methods.method import Methods
from cram.reference_time import ExecutedWork
from cram.run.checkpoint import Checkpoints
from cram.run.metrics import Metrics
from cram.training.faults import Faults
from cram.training.launched import Launched
from cram.training.loss_scale import LossScale
from cram.training.noise_scale import NoiseScale
from cram.training.protocols import FlopCountProtocol, LoaderProtocol, ObjectiveProtocol, OptimizerProtocol
from cram.training.thread_watch import ThreadWatch
from cram.training.window import Window


@dataclass(frozen=True, kw_only=True)
class UpdateParts:
    """What an update of the weights is computed with, once its rows are there.

    Attributes:
        model: an `nn.Module` with `depth` and `computed_blocks`, numbers of blocks, and `fit_blocks`, which gives it as
            many blocks as the weights that are to be loaded have.
        precision: dtype of the forward pass.
        loss_scale: of fp16 training; None in other precisions.
        methods: techniques of the literature that take part.
        work: counts what is executed.
    """

    model: Any
    objective: ObjectiveProtocol
    optimizer: OptimizerProtocol
    device: torch.device
    precision: torch.dtype
    loss_scale: LossScale | None
    seq_len: int
    methods: Methods = field(default_factory=Methods)
    work: ExecutedWork = field(default_factory=ExecutedWork)


@dataclass(frozen=True, kw_only=True)
class Parts(UpdateParts):
    """What a run is made of, the same whether it starts or resumes. `cram.build` makes it of a config.

    Attributes:
        schedule: multiplier of the peak learning rate over progress.
        others_schedule: the same for embedding, gains and biases; None for no difference.
        rate_progress: progress at which an update reads learning rate, momentum and weight decay, from the progress at
            its begin and at its predicted end.
        decay_begins: progress at which the first learning rate begins to fall.
        batch_tokens: tokens of an update over progress.
        evaluate: computes the figures of the model on held-out rows, by name; the ranks share the rows.
        flops: counts the floating-point operations of executed passes.
        new_reference: makes the parts of a reference model, which has so many blocks (None: as many as the model).
    """

    loader: LoaderProtocol
    schedule: Callable[[float], float]
    rate_progress: Callable[[float, float], float]
    decay_begins: float
    batch_tokens: Callable[[float], float]
    held_out: HeldOutSet
    evaluate: Callable[[HeldOutSet, Ranks], dict[str, Any]]
    flops: FlopCountProtocol
    new_reference: Callable[[int | None], UpdateParts]

    def multipliers(self, progress: float, factor: float = 1.0) -> tuple[float, float | None]:
        """Multipliers of the peak learning rates at some progress: of all, or of the matrices and of the others."""
        others = None if self.others_schedule is None else factor * self.others_schedule(progress)
        return factor * self.schedule(progress), others

    others_schedule: Callable[[float], float] | None = None


@dataclass(frozen=True)
class LoopConfig:
    """The keys of a recipe that the loop itself reads.

    Attributes:
        clip: largest norm of the gradients; None for no clipping.
        checkpoint_seconds: time between two checkpoints.
        checkpoint_shares: progress at which a checkpoint is written that is kept.
        evaluation_interval: share of the budget between two evaluations; None for one at the end only.
        seed: of the random choices in each update.
        dropout: whether the model has dropout.
        noise_share: size of an update as a share of the gradient noise scale; None where progress alone decides.
    """

    clip: float | None
    faults: FaultsConfig
    checkpoint_seconds: float
    evaluation_interval: float | None
    seed: int = 0
    dropout: bool = False
    checkpoint_shares: tuple[float, ...] = ()
    noise_share: float | None = None


@dataclass
class RunState:
    """What has happened in a run so far, beside clock, loader and tensors. All of it is in every checkpoint.

    Attributes:
        micro_rows: rows of a micro-batch of one rank.
        ranks: number of ranks.
        rank_waiting: seconds that a rank has waited for others in updates, a mean over the ranks.
        lone_tokens_per_second: pace of passes of one rank while the others wait; None where it was not measured.
        predicted: tokens that were predicted.
        last_progress: progress at the end of the latest update.
        noise_tokens: size of an update that the gradient noise scale has asked for, which never falls.
        rate_progress: progress at which the latest update has read its rates.
        out_of_memory: how often the micro-batch was halved.
        initial_weights: `weights_hash` before the first update.
        devices: names of all devices that the run has trained on.
        compiled: what was compiled, for the receipt.
        processes: `cram.run.history.record_process` of each process.
        extensions: `cram.run.history.Extension` of each longer budget, as JSON.
        thread_choices: `cram.training.threads.ThreadChoice` of each measurement of the threads, as JSON.
        window: sums since the last line of metrics.
        spike_window: sums since the loss was last compared with its recent mean.
        faults: updates that were left out, rollbacks and jumps of the loss.
        noise_scale: of the gradients.
    """

    micro_rows: int = 1
    ranks: int = 1
    rank_waiting: float = 0.0
    lone_tokens_per_second: float | None = None
    predicted: int = 0
    last_progress: float = 0.0
    noise_tokens: float = 0.0
    rate_progress: float = 0.0
    out_of_memory: int = 0
    initial_weights: str = ""
    devices: list[str] = field(default_factory=list)
    compiled: dict[str, Any] = field(default_factory=dict)
    processes: list[dict[str, Any]] = field(default_factory=list)
    extensions: list[dict[str, Any]] = field(default_factory=list)
    thread_choices: list[dict[str, Any]] = field(default_factory=list)
    window: Window = field(default_factory=Window)
    spike_window: Window = field(default_factory=Window)
    faults: Faults = field(default_factory=Faults)
    noise_scale: NoiseScale = field(default_factory=NoiseScale)


class UpdateSession(Protocol):
    """What the functions of an update ask of a `Session`."""

    @property
    def parts(self) -> UpdateParts:
        """What the update is computed with."""
        ...

    @property
    def config(self) -> LoopConfig:
        """The keys that the loop reads."""
        ...

    @property
    def state(self) -> RunState:
        """The size of the micro-batch, which may shrink, and what else has happened."""
        ...

    @property
    def ranks(self) -> Ranks:
        """The ranks that share the rows of an update."""
        ...


@dataclass(kw_only=True)
class RankSession:
    """A run as every rank has it: what the orders of rank 0 are carried out with.

    Attributes:
        clock: of rank 0; on the others it knows the number of updates only.
        ranks: all ranks of the run.
        state: of rank 0, and saved in every checkpoint; on the others only what `facts` gives is up to date.
    """

    parts: Parts
    config: LoopConfig
    clock: Clock
    ranks: Ranks = ALONE
    state: RunState = field(default_factory=RunState)

    @property
    def step_rows(self) -> int:
        """Rows of the model in a micro-batch of all ranks together."""
        return self.state.micro_rows * self.ranks.size

    def facts(self) -> dict[str, Any]:
        """Give what every rank has to know before it carries out an order, as JSON."""
        state = self.state
        return {
            "updates": self.clock.updates,
            "micro_rows": state.micro_rows,
            "last_progress": state.last_progress,
            "compiled": {name: state.compiled[name] for name in ("kind", "cuda_graphs") if name in state.compiled},
        }

    def learn(self, facts: dict[str, Any]) -> None:
        """Take over what rank 0 knows."""
        self.clock.updates = facts["updates"]
        self.state.micro_rows, self.state.last_progress = facts["micro_rows"], facts["last_progress"]
        self.state.compiled = facts["compiled"]


@dataclass(kw_only=True)
class Session(RankSession):
    """A run at work on rank 0, which decides.

    Attributes:
        show: shows progress and figures to a person.
        show_page: writes the page of the run, if it is to be written while the run goes on.
        stop_requested: whether the run shall save its state and end.
        threads: CPU threads that this process uses now.
        log_interval: updates between two lines of metrics.
        peak_flops: of the device, in operations a second; None where it is not known.
        thread_watch: says when to measure the threads again; None where their number is fixed.
        in_flight: updates whose figures have not come back from the device.
        saved: the update of the checkpoint that was written or read last; None before there is one.
        saved_progress: progress at that checkpoint.
        slow_before: `cram.training.records.slow_so_far` when the latest update ended.
    """

    metrics: Metrics
    checkpoints: Checkpoints
    show: Callable[[float, dict[str, Any]], None]
    stop_requested: Callable[[], bool]
    threads: int
    show_page: Callable[[], None] = lambda: None
    log_interval: int = 1
    peak_flops: float | None = None
    thread_watch: ThreadWatch | None = None
    in_flight: list[Launched] = field(default_factory=list)
    saved: int | None = None
    saved_progress: float = 0.0
    slow_before: dict[str, int] = field(default_factory=dict)
