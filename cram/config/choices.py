"""Everything that a recipe chooses by name, and the module that holds each choice.

A new choice is one new file and one new line here. `--help`, the check of the word and the building of the object read
the tables. Nothing is imported before it is chosen, so this file needs no torch and `--help` stays quick.

| table        | key               | what the target is                                              |
|--------------|-------------------|-----------------------------------------------------------------|
| `MODELS`     | `model.kind`      | a subclass of `cram.model.transformer.Transformer`              |
| `ATTENTION`  | `model.attention` | an instance of `cram.model.backends.backend.AttentionBackend`   |
| `OBJECTIVES` | `objective.kind`  | a subclass of `cram.objectives.objective.Objective`             |
| `OPTIMIZERS` | `optimizer.kind`  | a subclass of `cram.optim.optimizer.Optimizer`                  |
| `SCHEDULES`  | `schedule.kind`   | a function from `ScheduleConfig` to `cram.optim.schedule.Shape` |
| `METHODS`    | `NAME.*`          | a subclass of `cram.methods.method.Method`                      |
| `TRACKERS`   | `track`           | a class with the methods of `cram.run.trackers.tracker.Tracker` |

Keys of an optimizer's own are a dataclass in `cram.config.optimizer` and one line in `OptimizerConfig`, under the
optimizer's name. If the dataclass has `lr` and `weight_decay`, these are for the matrices. Keys of a method are a
dataclass with a property `enabled` and one line in `Config`, under the method's name.
"""

import importlib
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Choice:
    """One value of a `kind` key.

    Attributes:
        target: `module:name` of the class, function or object behind the choice; empty for `auto`.
        help: a short phrase for `--help`, printed behind the name.
    """

    target: str
    help: str

    def load(self) -> Any:
        """Import and return the target."""
        return load_target(self.target)


@dataclass(frozen=True)
class ModelChoice(Choice):
    """One value of `model.kind`.

    Attributes:
        objectives: values of `objective.kind` that the model can learn; messages suggest the first.
        stock: `module:name` of the `cram.hub.stock.StockModel` that says how `transformers` loads the model; None for
            a model that no class of `transformers` computes, which is not exported.
        rotary: whether positions are rotary, which needs heads of even width; sinusoidal ones need an even model width.
        attention: whether the blocks attend. If not, `model.heads` and `model.mlp_width` have no meaning.
        copies: whether blocks can be copied and left out, by stacking and dropping.
    """

    objectives: tuple[str, ...] = ("masked",)
    stock: str | None = None
    rotary: bool = True
    attention: bool = True
    copies: bool = True


@dataclass(frozen=True)
class ObjectiveChoice(Choice):
    """One value of `objective.kind`.

    Attributes:
        held_out: how held-out text is scored: `masked` (hidden tokens) or `causal` (each token from those before it).
    """

    held_out: str = "masked"


@dataclass(frozen=True)
class OptimizerChoice(Choice):
    """One value of `optimizer.kind`.

    Attributes:
        serves_all: whether a learning rate of the optimizer's own is for all parameters, not for the matrices alone.
    """

    serves_all: bool = False


MODELS: dict[str, ModelChoice] = {
    "encoder": ModelChoice(
        "cram.model.encoder:Encoder", "exports as ModernBERT", stock="cram.hub.modernbert:MODERNBERT"
    ),
    "decoder": ModelChoice(
        "cram.model.decoder:Decoder", "exports as Qwen3", objectives=("causal",), stock="cram.hub.qwen3:QWEN3"
    ),
    "crammed": ModelChoice("cram.model.crammed:Crammed", "Cramming's, cannot be exported", rotary=False),
    "bert": ModelChoice(
        "cram.model.bert:Bert", "the original, exports as BERT", stock="cram.hub.bert:BERT", rotary=False
    ),
    "prenorm_bert": ModelChoice("cram.model.bert:PrenormBert", "that of 24h BERT, cannot be exported", rotary=False),
    "minimal_bert": ModelChoice(
        "cram.model.bert:MinimalBert", "Cramming's smallest change of BERT, cannot be exported", rotary=False
    ),
    "electra": ModelChoice(
        "cram.model.electra:Electra",
        "a generator and a discriminator, which exports as ModernBERT",
        objectives=("replaced",),
        stock="cram.hub.electra:DISCRIMINATOR",
        copies=False,
    ),
    "lstm": ModelChoice(
        "cram.model.lstm:LSTMModel",
        "recurrent, without heads and MLP, cannot be exported",
        objectives=("causal",),
        rotary=False,
        attention=False,
        copies=False,
    ),
}

ATTENTION: dict[str, Choice] = {
    "auto": Choice("", "the first of the following that suits device and precision"),
    "flash": Choice("cram.model.backends.flash:FLASH", "the package flash-attn"),
    "varlen": Choice("cram.model.backends.varlen:VARLEN", "torch's varlen_attn"),
    "softmax": Choice("cram.model.backends.softmax:SOFTMAX", "explicit products, which suit bf16 on a CPU"),
    "sdpa": Choice("cram.model.backends.sdpa:SDPA", "torch's SDPA, which suits everything"),
}

OBJECTIVES: dict[str, ObjectiveChoice] = {
    "masked": ObjectiveChoice("cram.objectives.phased:PhasedObjective", "hidden tokens are predicted"),
    "causal": ObjectiveChoice(
        "cram.objectives.causal:CausalObjective", "each token is predicted from those before it", held_out="causal"
    ),
    "replaced": ObjectiveChoice(
        "cram.objectives.replaced:ReplacedObjective", "a discriminator finds the tokens that a generator has replaced"
    ),
}

OPTIMIZERS: dict[str, Choice] = {
    "adamw": OptimizerChoice("cram.optim.adamw:AdamW", "for all parameters", serves_all=True),
    "adam": OptimizerChoice("cram.optim.adam:Adam", "the same with weight decay in the gradient", serves_all=True),
    "muon": OptimizerChoice("cram.optim.muon:Muon", "for the hidden matrices, with AdamW for embedding and gains"),
    "lion": OptimizerChoice("cram.optim.lion:Lion", "steps by the sign of a momentum", serves_all=True),
    "sophia": OptimizerChoice(
        "cram.optim.sophia:Sophia", "a momentum over an estimate of the curvature", serves_all=True
    ),
}

SCHEDULES: dict[str, Choice] = {
    "linear": Choice("cram.optim.schedule:linear_shape", "warm-up, then down to zero"),
    "cosine": Choice("cram.optim.schedule:cosine_shape", "warm-up, then half a cosine"),
    "triangle": Choice("cram.optim.schedule:triangle_shape", "up to peak, then down"),
    "trapezoid": Choice("cram.optim.schedule:trapezoid_shape", "warm-up, constant, then down from decay_start on"),
    "budget-triangle2": Choice("cram.optim.schedule:budget_triangle2_shape", "Cramming's, with the peak at 0.75"),
}

METHODS: dict[str, Choice] = {
    "curriculum": Choice("cram.methods.curriculum:Curriculum", "rows are drawn from the easiest ones at first"),
    "selective": Choice("cram.methods.selective:Selective", "rows with a high loss are trained on more often"),
    "rho": Choice("cram.methods.rho:Rho", "rows are chosen by what a reference model can lower their loss"),
    "pruning": Choice("cram.methods.pruning:Pruning", "a part of the rows is chosen by a reference model"),
    "stacking": Choice("cram.methods.stacking:Stacking", "the model begins with few blocks, which are doubled"),
    "dropping": Choice("cram.methods.dropping:Dropping", "blocks are left out at random"),
    "averaging": Choice("cram.methods.averaging:Averaging", "the mean of the latest weights is the result"),
}

TRACKERS: dict[str, Choice] = {
    "trackio": Choice("cram.run.trackers.trackio:Trackio", "on this machine, or in a Space of the Hub"),
    "wandb": Choice("cram.run.trackers.wandb:Wandb", "Weights & Biases"),
}


def load_target(target: str) -> Any:
    """Import `module:name` and return the named object."""
    module, _, name = target.partition(":")
    return getattr(importlib.import_module(module), name)
