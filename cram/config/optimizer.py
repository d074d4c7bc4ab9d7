"""The keys of the update rules."""

from dataclasses import dataclass
from typing import Literal

from cram.config.choices import OPTIMIZERS
from cram.config.schema import group, key


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
    final_newton_schulz_steps: int | None = key(
        None,
        "Newton-Schulz iterations at the end of the budget, reached in a line, rounded (null: newton_schulz_steps)",
        "steps",
        least=1,
        most=100,
    )
    whitening: Literal["newton_schulz", "mud"] = key(
        "newton_schulz",
        "how an update is made orthogonal; mud: roughly, by one product and a triangular solve instead of the products "
        "of Newton-Schulz",
    )
    products: Literal["auto", "fp32"] = key(
        "auto",
        "precision of the matrix products that orthogonalise an update. auto: bf16 where the device multiplies it in "
        "hardware; fp32: so that runs on different numbers of GPUs differ by the rounding of fp32 alone",
    )
    mud_passes: int = key(1, "passes of whitening=mud", "passes", least=1, most=100)
    row_beta2: float | None = key(
        None,
        "decay rate of the mean square of each row's updates, whose root divides the row, as NorMuon does (null: off)",
        least=0,
        below=1,
    )
    weight_decay: float = key(0.025, "decoupled weight decay", least=0)
    cautious: bool = key(False, "decay only weights that the update makes smaller in magnitude too")

    def mean_steps(self) -> float:
        """Newton-Schulz steps of a mean update. A pass of MUD counts as half of one, as its FLOPs are."""
        if self.whitening == "mud":
            return self.mud_passes / 2
        final = self.newton_schulz_steps if self.final_newton_schulz_steps is None else self.final_newton_schulz_steps
        return (self.newton_schulz_steps + final) / 2


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
class EmaNesterovConfig:
    """The keys `optimizer.ema_nesterov.*`: gradients are taken ahead of the weights, whatever the optimizer."""

    lookahead: float | None = key(
        None,
        "how far ahead of the weights gradients are taken, times the mean movement of an update and the schedule; "
        "published: 0.6 (null: off)",
        above=0,
        most=10,
    )
    decay: float = key(0.99, "decay rate of the mean movement", least=0, below=1)
    start: float = key(0.16, "progress from which gradients are taken ahead", "share of the budget", least=0, most=1)
    end: float = key(0.76, "progress until which they are", "share of the budget", least=0, most=1)


@dataclass
class OptimizerConfig:
    """The keys `optimizer.*`: the update rule. Keys without a group belong to AdamW, or to all optimizers."""

    kind: str = key("adamw", "optimizer", choices=OPTIMIZERS)
    lr: float = key(1e-3, "peak learning rate of AdamW", least=0)
    embedding_lr: float | None = key(None, "peak learning rate of the embedding (null: as the gains)", least=0)
    beta1: float = key(0.9, "decay rate of the first moment", least=0, below=1)
    beta2: float = key(0.98, "decay rate of the second moment", least=0, below=1)
    gains_beta2: float | None = key(
        None,
        "decay rate of the second moment of gains and biases (null: as beta2)",
        least=0,
        below=1,
    )
    eps: float = key(1e-8, "added to the square root of the second moment", least=1e-30, below=1)
    weight_decay: float = key(0.01, "decoupled weight decay of the matrices under AdamW", least=0)
    final_decay: float = key(
        1.0, "weight decay at the end of the budget, reached linearly", "share of weight_decay", least=0
    )
    embedding_decay: float | None = key(
        None, "decoupled weight decay of the embedding (null: none, or with decay_others that of the matrices)", least=0
    )
    decay_others: bool = key(False, "decay the embedding and the gains of norms too; biases are never decayed")
    clip: float | None = key(1.0, "scale gradients down to this global norm (null: no clipping)", above=0)
    muon: MuonConfig = group(MuonConfig)
    lion: LionConfig = group(LionConfig)
    sophia: SophiaConfig = group(SophiaConfig)
    ema_nesterov: EmaNesterovConfig = group(EmaNesterovConfig)

    def matrices(self) -> "OptimizerConfig | MuonConfig | LionConfig | SophiaConfig":
        """Return the group with the learning rate and weight decay of the matrices: `optimizer.KIND.*` if it exists."""
        group: OptimizerConfig | MuonConfig | LionConfig | SophiaConfig = getattr(self, self.kind, self)
        return group

    def serves_all(self) -> bool:
        """Whether the learning rate of `matrices` is that of all parameters, unless embedding_lr is given."""
        return getattr(OPTIMIZERS[self.kind], "serves_all", False)
