"""The keys of training, from the schedule to the model card."""

from dataclasses import dataclass
from typing import Literal

from cram.config.choices import SCHEDULES
from cram.config.schema import key


@dataclass
class ScheduleConfig:
    """The keys `schedule.*`: learning rate over the budget."""

    kind: str = key("linear", "shape of the learning rate, which is zero when the budget is spent", choices=SCHEDULES)
    warmup: float = key(
        0.02, "length of the rise from zero, for linear, cosine and trapezoid", "share of the budget", least=0, below=1
    )
    peak: float = key(0.5, "position of the peak, for triangle", "share of the budget", least=0, below=1)
    decay_start: float = key(0.35, "start of the fall, for trapezoid", "share of the budget", least=0, below=1)
    others_decay_start: float | None = key(
        None,
        "start of a straight fall of their own for the learning rates of embedding, gains and biases (null: as the "
        "matrices)",
        "share of the budget",
        least=0,
        below=1,
    )


@dataclass
class BatchConfig:
    """The keys `batch.*`: size of an update."""

    tokens: int = key(
        131_072,
        "size of an update, which is the sum of several forward passes if needed",
        "tokens",
        least=1,
        most=10**12,
    )
    start_tokens: int | None = key(
        None,
        "size of the first update, from where it grows to batch.tokens (null: constant size)",
        "tokens",
        least=1,
        most=10**12,
    )
    ramp: float = key(0.5, "progress at which batch.tokens is reached", "share of the budget", least=0, most=1)
    noise_share: float | None = key(
        None,
        "size of an update as a share of the measured gradient noise scale, from batch.start_tokens to batch.tokens, "
        "instead of by batch.ramp; it never falls (null: by batch.ramp)",
        above=0,
        most=1000,
    )
    micro_rows: int | None = key(
        None, "rows of a forward pass (null: measured before training)", "rows", least=1, most=2**24
    )


@dataclass
class RstConfig:
    """The keys `rst.*`: reference system time, the unit of a budget such as `rst:24h`."""

    table: str | None = key(
        None, "name of a table of a reference machine, or a json file of bench.rst_table (null: none)", path=True
    )
    overheads: bool = key(True, "charge what methods add: forward passes, curvature passes and reference models")


@dataclass
class CheckpointConfig:
    """The keys `checkpoint.*`: when the state of a run is saved."""

    interval: str = key("10m", "time between two checkpoints: 90s, 10m or 1h", identifies=False)
    shares: list[float] = key(
        [],
        "progress at which a checkpoint is written whose weights are kept to the end",
        "share of the budget",
        above=0,
        below=1,
        identifies=False,
    )


@dataclass
class CompileConfig:
    """The keys `compile.*`: `torch.compile`."""

    kind: Literal["auto", "eager", "blocks", "model"] = key(
        "auto",
        "what torch compiles; auto compiles nothing on a CPU or for budgets below 10m, the whole model from 2h on, "
        "each block in between",
        identifies=False,
    )
    cuda_graphs: bool = key(
        False,
        "replay compiled code as CUDA graphs; pays for models so small that launching kernels takes longer than "
        "running them",
        identifies=False,
    )
    check_updates: int = key(
        3,
        "first updates that are also computed without compilation and compared",
        "updates",
        least=0,
        most=1000,
        identifies=False,
    )


@dataclass
class AveragingConfig:
    """The keys `averaging.*`: average of the weights of the last updates, which becomes the result."""

    start: float | None = key(
        None,
        "progress at which averaging of the weights begins (null: no averaging)",
        "share of the budget",
        least=0,
        below=1,
    )
    decay: float | None = key(
        None,
        "weight of the old average in the new one (null: a plain mean of all updates since the start)",
        above=0,
        below=1,
    )

    @property
    def enabled(self) -> bool:
        """Whether the weights are averaged."""
        return self.start is not None


@dataclass
class FaultsConfig:
    """The keys `faults.*`: what a run does about losses that are not finite, and about spikes."""

    patience: int = key(
        10,
        "updates in a row that are not finite, after which the run goes back to the last checkpoint",
        "updates",
        least=1,
        most=10**9,
    )
    lr_factor: float = key(0.5, "factor on the learning rate at each return to a checkpoint", "share", above=0, most=1)
    rollbacks: int = key(
        3, "number of returns to a checkpoint before the run gives up", "rollbacks", least=0, most=10**6
    )
    spike: float = key(
        1.0, "record a spike when the training loss exceeds its recent mean by this much", "nats", above=0
    )


@dataclass
class EvaluationConfig:
    """The keys `evaluation.*`: loss on the held-out documents."""

    interval: float | None = key(
        0.1,
        "distance between two evaluations (null: evaluate only at the end)",
        "share of the budget",
        least=1e-6,
        most=1,
        identifies=False,
    )
    tokens: int = key(262_144, "largest amount of held-out text that is evaluated", "tokens", least=1, most=10**12)
    mask_rate: float = key(
        0.15, "share of the held-out tokens that are predicted, all seen as [MASK]", "share", above=0, most=1
    )


@dataclass
class CardConfig:
    """The keys `card.*`: statements on the model card of an export."""

    license: str | None = key(
        None, "licence of the model by its name on the Hub, such as mit (null: not stated)", identifies=False
    )
    language: str | None = key(
        None, "language of the training text by ISO 639, such as en or en,de (null: not stated)", identifies=False
    )
