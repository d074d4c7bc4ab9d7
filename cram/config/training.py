"""The keys of training, from the objective to the model card."""

from dataclasses import dataclass
from typing import Literal

from cram.config.choices import OBJECTIVES, OPTIMIZERS, SCHEDULES
from cram.config.schema import group, key


@dataclass
class ObjectiveConfig:
    """The keys `objective.*`: what the model learns to predict."""

    kind: str = key("masked", "what the model learns", choices=OBJECTIVES)
    mask_rate: float = key(
        0.30, "share of the tokens that are predicted, at the start of masking", "share", above=0, most=1
    )
    final_mask_rate: float | None = key(
        0.15, "the same at the end of the budget, linear in between (null: constant)", "share", above=0, most=1
    )
    causal_share: float = key(
        0.0,
        "length of a first phase that predicts each token from those before it",
        "share of the budget",
        least=0,
        below=1,
    )
    discriminator_weight: float = key(
        50.0, "weight of the discriminator's mean loss beside the generator's, for objective.kind=replaced", least=0
    )
    replace_mask: float = key(
        1.0, "share of the predicted tokens that the model sees as [MASK]", "share", least=0, most=1
    )
    replace_random: float = key(
        0.0,
        "share of the predicted tokens that it sees as a random token; the others stay visible",
        "share",
        least=0,
        most=1,
    )

    @property
    def held_out(self) -> str:
        """How held-out text is scored: `masked` or `causal`."""
        return OBJECTIVES[self.kind].held_out

    @property
    def words(self) -> str:
        """The objective in words: one kind, or two phases."""
        share = self.causal_share
        return f"causal for the first {share:.0%}, then {self.kind}" if share else self.kind


@dataclass
class MuonConfig:
    """The keys `optimizer.muon.*`: Muon for the hidden matrices."""

    lr: float = key(
        0.02,
        "peak learning rate; multiplied by sqrt(rows / columns) for a matrix with more rows than columns",
        least=0,
        most=1e9,
    )
    momentum: float = key(0.95, "decay rate of the momentum", least=0, below=1)
    momentum_start: float | None = key(
        None, "decay rate of the momentum at the start (null: as momentum)", least=0, below=1
    )
    momentum_warmup: float = key(
        0.1, "progress at which the rise from momentum_start to momentum ends", "share of the budget", least=0, most=1
    )
    nesterov: bool = key(True, "Nesterov momentum: look one step ahead")
    newton_schulz_steps: int = key(
        5, "Newton-Schulz iterations that orthogonalise an update", "steps", least=1, most=100
    )
    weight_decay: float = key(0.025, "decoupled weight decay", least=0)
    cautious: bool = key(False, "decay only weights that the update makes smaller in magnitude too")


@dataclass
class LionConfig:
    """The keys `optimizer.lion.*`: Lion for all parameters."""

    lr: float = key(7e-4, "peak learning rate, which is about a tenth to a third of AdamW's", least=0, most=1e9)
    beta1: float = key(0.9, "weight of the momentum in the update", least=0, below=1)
    beta2: float = key(0.99, "decay rate of the momentum", least=0, below=1)
    weight_decay: float = key(0.1, "decoupled weight decay, which is three to ten times AdamW's", least=0)


@dataclass
class SophiaConfig:
    """The keys `optimizer.sophia.*`: Sophia-G for all parameters."""

    lr: float = key(4e-4, "peak learning rate", least=0, most=1e9)
    beta1: float = key(0.965, "decay rate of the momentum", least=0, below=1)
    beta2: float = key(0.99, "decay rate of the curvature", least=0, below=1)
    rho: float = key(0.13, "factor of the curvature: more of it clips fewer weights", above=0, most=1e9)
    weight_decay: float = key(0.015, "decoupled weight decay", least=0)
    interval: int = key(10, "updates between two estimates of the curvature", "updates", least=1, most=10**9)
    rows: int | None = key(
        None, "rows of an estimate, at most those of an update (null: a micro-batch)", "rows", least=1, most=10**9
    )


@dataclass
class OptimizerConfig:
    """The keys `optimizer.*`: the update rule. Keys without a group belong to AdamW, or to all optimizers."""

    kind: str = key("adamw", "optimizer", choices=OPTIMIZERS)
    lr: float = key(1e-3, "peak learning rate of AdamW", least=0)
    embedding_lr: float | None = key(None, "peak learning rate of the embedding (null: as the gains)", least=0)
    beta1: float = key(0.9, "decay rate of the first moment", least=0, below=1)
    beta2: float = key(0.98, "decay rate of the second moment", least=0, below=1)
    eps: float = key(1e-8, "added to the square root of the second moment", least=1e-30, below=1)
    weight_decay: float = key(0.01, "decoupled weight decay of the matrices under AdamW", least=0)
    final_decay: float = key(
        1.0, "weight decay at the end of the budget, reached linearly", "share of weight_decay", least=0
    )
    decay_others: bool = key(False, "decay the embedding and the gains of norms too; biases are never decayed")
    clip: float | None = key(1.0, "scale gradients down to this global norm (null: no clipping)", above=0)
    muon: MuonConfig = group(MuonConfig)
    lion: LionConfig = group(LionConfig)
    sophia: SophiaConfig = group(SophiaConfig)

    def matrices(self) -> "OptimizerConfig | MuonConfig | LionConfig | SophiaConfig":
        """Return the group with the learning rate and weight decay of the matrices: `optimizer.KIND.*` if it exists."""
        group: OptimizerConfig | MuonConfig | LionConfig | SophiaConfig = getattr(self, self.kind, self)
        return group

    def serves_all(self) -> bool:
        """Whether the learning rate of `matrices` is that of all parameters, unless embedding_lr is given."""
        return getattr(OPTIMIZERS[self.kind], "serves_all", False)


@dataclass
class ScheduleConfig:
    """The keys `schedule.*`: learning rate over the budget."""

    kind: str = key("linear", "shape of the learning rate, which is zero when the budget is spent", choices=SCHEDULES)
    warmup: float = key(
        0.02, "length of the rise from zero, for linear, cosine and trapezoid", "share of the budget", least=0, below=1
    )
    peak: float = key(0.5, "position of the peak, for triangle", "share of the budget", least=0, below=1)
    decay_start: float = key(0.35, "start of the fall, for trapezoid", "share of the budget", least=0, below=1)


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
