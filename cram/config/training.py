"""The keys of training: objective, optimizer, schedule, batch, and what surrounds them."""

from dataclasses import dataclass
from typing import Literal

from cram.config.choices import OBJECTIVES, OPTIMIZERS
from cram.config.schema import group, key


@dataclass
class ObjectiveConfig:
    """What the model learns to predict."""

    kind: str = key("masked", "what is learned", choices=OBJECTIVES)
    mask_rate: float = key(0.30, "share of the tokens predicted when masking begins", "share", above=0, most=1)
    final_mask_rate: float | None = key(
        0.15, "share at the end of the budget, linear between (null: constant)", "share", above=0, most=1
    )
    causal_share: float = key(
        0.0,
        "share of the budget, at its start, in which each token is predicted from those before it",
        "share",
        least=0,
        below=1,
    )
    replace_mask: float = key(1.0, "share of the predicted tokens shown as [MASK]", "share", least=0, most=1)
    replace_random: float = key(
        0.0, "share shown as a random token; what is left is shown as it is", "share", least=0, most=1
    )

    @property
    def held_out(self) -> str:
        """How held-out text is scored: `masked` or `causal`."""
        return OBJECTIVES[self.kind].held_out


@dataclass
class MuonConfig:
    """Keys of Muon, which updates the matrices; AdamW updates all other parameters."""

    lr: float = key(
        0.02, "peak learning rate, times the root of rows/columns for a matrix with more rows", least=0, most=1e9
    )
    momentum: float = key(0.95, "decay of the momentum", least=0, below=1)
    momentum_start: float | None = key(None, "decay of the momentum at the start (null: momentum)", least=0, below=1)
    momentum_warmup: float = key(
        0.1, "where the rise from momentum_start to momentum ends", "share of the budget", least=0, most=1
    )
    nesterov: bool = key(True, "look one step ahead along the momentum")
    newton_schulz_steps: int = key(5, "steps that orthogonalise an update", "steps", least=1, most=100)
    weight_decay: float = key(0.025, "decoupled weight decay", least=0)
    cautious: bool = key(False, "decay only the elements that the update is shrinking anyway")


@dataclass
class OptimizerConfig:
    """How gradients change the weights."""

    kind: str = key("adamw", "update rule", choices=OPTIMIZERS)
    lr: float = key(1e-3, "peak learning rate of AdamW", least=0)
    embedding_lr: float | None = key(None, "peak learning rate of the embedding (null: lr)", least=0)
    beta1: float = key(0.9, "decay of the first moment", least=0, below=1)
    beta2: float = key(0.98, "decay of the second moment", least=0, below=1)
    eps: float = key(1e-8, "added to the root of the second moment", least=1e-30, below=1)
    weight_decay: float = key(0.01, "decoupled weight decay of the matrices under AdamW", least=0)
    final_decay: float = key(
        1.0, "weight decay at the end of the budget, linear from 1", "share of weight_decay", least=0
    )
    clip: float | None = key(1.0, "largest global gradient norm (null: no clipping)", above=0)
    muon: MuonConfig = group(MuonConfig)

    def matrices(self) -> "OptimizerConfig | MuonConfig":
        """The keys with the matrices' learning rate and weight decay: `optimizer.KIND.*` if there is such a group."""
        keys: OptimizerConfig | MuonConfig = getattr(self, self.kind, self)
        return keys


@dataclass
class ScheduleConfig:
    """The learning rate over progress."""

    kind: Literal["linear", "cosine", "triangle", "trapezoid", "budget-triangle2"] = key(
        "linear", "learning rate over progress; each lands at zero when the budget is spent"
    )
    warmup: float = key(0.02, "rise from zero (linear, cosine, trapezoid)", "share of the budget", least=0, below=1)
    peak: float = key(0.5, "where triangle turns", "share of the budget", least=0, below=1)
    decay_start: float = key(0.35, "where trapezoid starts to fall", "share of the budget", least=0, below=1)


@dataclass
class BatchConfig:
    """How many tokens an update sees."""

    tokens: int = key(131_072, "batch of one update, reached by accumulation", "tokens", least=1, most=10**12)
    start_tokens: int | None = key(None, "batch at the start of a ramp (null: no ramp)", "tokens", least=1, most=10**12)
    ramp: float = key(0.5, "where a ramp ends", "share of the budget", least=0, most=1)
    micro_rows: int | None = key(None, "rows of one forward pass (null: found by a probe)", "rows", least=1, most=2**24)


@dataclass
class CheckpointConfig:
    """When the state of a run is saved."""

    interval: str = key("10m", "time between checkpoints, as 90s, 10m or 1h", identifies=False)


@dataclass
class CompileConfig:
    """How much of the model `torch.compile` compiles."""

    kind: Literal["auto", "eager", "blocks", "model"] = key(
        "auto",
        "what torch compiles; auto: nothing on a CPU or below 10m, else each block, from 2h on the whole model",
        identifies=False,
    )
    cuda_graphs: bool = key(
        False, "replay compiled code as CUDA graphs, for models so small that launching is slower", identifies=False
    )
    check_updates: int = key(
        3,
        "updates computed eagerly too, and compared, before compiled code is trusted",
        "updates",
        least=0,
        most=1000,
        identifies=False,
    )


@dataclass
class AveragingConfig:
    """Averaging of the weights over updates."""

    start: float | None = key(
        None, "where averaging of the weights begins (null: none)", "share of the budget", least=0, below=1
    )
    decay: float | None = key(
        None, "weight of the old average at each update (null: all updates count alike)", above=0, below=1
    )

    @property
    def enabled(self) -> bool:
        """Whether the weights are averaged."""
        return self.start is not None


@dataclass
class FaultsConfig:
    """What happens when an update is not finite, or the loss jumps."""

    patience: int = key(
        10,
        "updates in a row that are not finite before a rollback to the last checkpoint",
        "updates",
        least=1,
        most=10**9,
    )
    lr_factor: float = key(0.5, "what the learning rate is multiplied by at each rollback", "share", above=0, most=1)
    rollbacks: int = key(3, "rollbacks before the run gives up", "rollbacks", least=0, most=10**6)
    spike: float = key(1.0, "rise of the training loss above its recent mean that is recorded", "nats", above=0)


@dataclass
class EvaluationConfig:
    """Evaluation on held-out text."""

    interval: float | None = key(
        None,
        "held-out evaluation each such share (null: at the end only)",
        "share of the budget",
        least=1e-6,
        most=1,
        identifies=False,
    )
    tokens: int = key(262_144, "held-out text that is evaluated, at most", "tokens", least=1, most=10**12)
    mask_rate: float = key(
        0.15, "share of the held-out tokens predicted, all shown as [MASK]", "share", above=0, most=1
    )


@dataclass
class CardConfig:
    """What the model card of an export says beyond what the run knows."""

    license: str | None = key(
        None, "licence on the model card, as the Hub names it, such as mit (null: not stated)", identifies=False
    )
    language: str | None = key(
        None, "language of the text on the card, ISO 639, such as en or en,de (null: not stated)", identifies=False
    )
