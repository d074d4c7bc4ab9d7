"""One run in flight: what it is made of, and what has happened in it so far."""

import hashlib
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

import torch
from torch import nn

from cram.clock import Clock
from cram.config.training import FaultsConfig
from cram.errors import CramError
from cram.evaluation.held_out import HeldOutSet
from cram.files.tensors import check_tensors
from cram.methods.method import Methods
from cram.reference_time import ExecutedWork
from cram.run.checkpoint import Checkpoint, Checkpoints
from cram.run.metrics import Metrics
from cram.training.faults import Faults
from cram.training.launched import Launched
from cram.training.loss_scale import LossScale
from cram.training.noise_scale import NoiseScale
from cram.training.protocols import FlopCountProtocol, LoaderProtocol, ObjectiveProtocol, OptimizerProtocol
from cram.training.thread_watch import ThreadWatch
from cram.training.window import Window

PROCESS_STATE = (
    "window",
    "spike_window",
    "faults",
    "noise_scale",
)  # parts of the state that are dataclasses of their own

OF_OBJECTIVE = "objective/"  # prefix of the names of the objective's tensors in a checkpoint


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
        evaluate: computes the figures of the model on held-out rows, by name.
        flops: counts the floating-point operations of executed passes.
        new_reference: makes the parts of a reference model, which has so many blocks (None: as many as the model).
    """

    loader: LoaderProtocol
    schedule: Callable[[float], float]
    rate_progress: Callable[[float, float], float]
    decay_begins: float
    batch_tokens: Callable[[float], float]
    held_out: HeldOutSet
    evaluate: Callable[[HeldOutSet], dict[str, Any]]
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
        micro_rows: rows of a micro-batch.
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


@dataclass
class Session:
    """A run at work in this process.

    Attributes:
        show: shows progress and figures to a person.
        show_page: writes the page of the run, if it is to be written while the run goes on.
        stop_requested: whether the run shall save its state and end.
        threads: CPU threads that this process uses now.
        log_interval: updates between two lines of metrics.
        peak_flops: of the device, in operations a second; None where it is not known.
        thread_watch: says when to measure the threads again; None where their number is fixed.
        state: what is saved in every checkpoint.
        in_flight: updates whose figures have not come back from the device.
        saved: the update of the checkpoint that was written or read last; None before there is one.
        saved_progress: progress at that checkpoint.
        slow_before: `cram.training.records.slow_so_far` when the latest update ended.
    """

    parts: Parts
    config: LoopConfig
    clock: Clock
    metrics: Metrics
    checkpoints: Checkpoints
    show: Callable[[float, dict[str, Any]], None]
    stop_requested: Callable[[], bool]
    threads: int
    show_page: Callable[[], None] = lambda: None
    log_interval: int = 1
    peak_flops: float | None = None
    thread_watch: ThreadWatch | None = None
    state: RunState = field(default_factory=RunState)
    in_flight: list[Launched] = field(default_factory=list)
    saved: int | None = None
    saved_progress: float = 0.0
    slow_before: dict[str, int] = field(default_factory=dict)


def weights_hash(model: nn.Module) -> str:
    """Compute the sha256 of a model's weights, in the order of their names."""
    digest = hashlib.sha256()
    for _, tensor in sorted(model.state_dict().items()):
        digest.update(tensor.cpu().numpy().tobytes())
    return digest.hexdigest()


def checkpoint_state(session: Session) -> dict[str, Any]:
    """Give everything that a resumed run needs beside tensors, as JSON."""
    loss_scale = session.parts.loss_scale
    return {
        "budget": asdict(session.clock.budget),
        "clock": session.clock.state(),
        "loader": session.parts.loader.state(),
        "work": session.parts.work.state(),
        "loss_scale": loss_scale.state() if loss_scale else None,
        "metrics": session.metrics.state(),
        **asdict(session.state),
    }


def checkpoint_tensors(parts: Parts) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Give the tensors of both files of a checkpoint, on the CPU: the weights; the states of all other parts."""
    memory = parts.optimizer.state_tensors()
    memory |= {f"{OF_OBJECTIVE}{name}": tensor for name, tensor in parts.objective.state_tensors().items()}
    for method in parts.methods:
        memory |= {f"methods/{method.name}/{name}": tensor for name, tensor in method.state_tensors().items()}
    weights = {name: tensor.cpu() for name, tensor in parts.model.state_dict().items()}
    return weights, {name: tensor.cpu() for name, tensor in memory.items()}


def load_tensors(session: Session, checkpoint: Checkpoint) -> None:
    """Put back the tensors of a checkpoint and nothing else.

    Raises:
        CramError: naming the file, and a tensor in it that does not fit.
    """
    parts, folder = session.parts, session.checkpoints.folder / str(checkpoint.step)
    if parts.model.fit_blocks(checkpoint.model):  # a method had changed their number
        parts.optimizer.regroup(parts.model, {})
        if parts.loss_scale:
            parts.loss_scale.watch(parts.model.parameters())
    check_tensors(checkpoint.model, parts.model.state_dict(), f"{folder / 'model.safetensors'}: ")
    parts.model.load_state_dict(checkpoint.model)
    prefixes = {method: f"methods/{method.name}/" for method in parts.methods}
    others = (OF_OBJECTIVE, *prefixes.values())
    of_optimizer = {name: tensor for name, tensor in checkpoint.optimizer.items() if not name.startswith(others)}
    try:
        if checkpoint.step and not of_optimizer:
            raise CramError("the state of the optimizer is missing.")
        parts.optimizer.load_state_tensors(of_optimizer)
        parts.objective.load_state_tensors(_with_prefix(checkpoint.optimizer, OF_OBJECTIVE))
        for method, prefix in prefixes.items():
            method.load_state_tensors(_with_prefix(checkpoint.optimizer, prefix), parts.model)
    except CramError as error:
        raise CramError(f"{folder / 'optimizer.safetensors'}: {error}") from None


def _with_prefix(tensors: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    """Take the tensors whose name has a prefix, by the rest of their names."""
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def resume(session: Session, checkpoint: Checkpoint) -> None:
    """Go on from a checkpoint. The metrics must have been cut back to it already.

    Under another budget progress begins where what is spent stands: the only place where progress may fall.

    Raises:
        CramError: for a tensor that does not fit the recipe.
    """
    saved, parts, clock = checkpoint.state, session.parts, session.clock
    load_tensors(session, checkpoint)
    parts.work.load(saved.get("work", {}))  # checkpoints of earlier versions do not have it
    clock.resume(saved["clock"])
    parts.loader.resume(saved["loader"])
    if parts.loss_scale and saved["loss_scale"]:  # a run may have begun on a GPU that needs no loss scale
        parts.loss_scale.load(saved["loss_scale"])
    session.state = RunState(
        # A checkpoint of an earlier version does not have what came later.
        **{name: saved[name] for name in vars(session.state) if name in saved and name not in PROCESS_STATE},
        window=Window(**saved["window"]),
        spike_window=Window(**saved.get("spike_window", {})),  # as the noise scale below
        faults=Faults(**saved["faults"]),
        noise_scale=NoiseScale(**saved.get("noise_scale", {})),  # checkpoints of early versions do not have it
    )
    if saved["budget"] != asdict(clock.budget):
        data_share = parts.loader.rows_taken / parts.loader.rows_total
        session.state.last_progress = min(1.0, max(clock.share(), data_share))
    session.saved, session.saved_progress = checkpoint.step, session.state.last_progress
