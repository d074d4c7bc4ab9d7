"""The keys of the model."""

from dataclasses import dataclass
from typing import Literal

from cram.config.choices import ATTENTION, MODELS
from cram.config.schema import key


@dataclass
class ModelConfig:
    """The keys `model.*`: architecture, size and initial weights."""

    kind: str = key("encoder", "architecture", choices=MODELS)
    size: Literal["given", "auto"] = key(
        "given",
        "given: as the keys say; auto: layers, width, heads, mlp_width, init_std, batch.tokens, the learning rates of "
        "AdamW and the intervals are planned for this machine and budget, except those that you set",
        identifies=False,
    )
    layers: int = key(12, "number of transformer blocks", least=1, most=1000)
    width: int = key(768, "size of the hidden vectors, a multiple of model.heads", least=1, most=2**16)
    heads: int = key(12, "number of attention heads; an LSTM has none", least=1, most=2**12)
    mlp_width: int = key(
        1536,
        "inner width of the MLP, which is gated: GeGLU, or SwiGLU in a decoder; an LSTM has none",
        least=1,
        most=2**18,
    )
    positions: int = key(512, "longest row that a BERT with learned positions can read", "tokens", least=1, most=2**20)
    generator_share: float = key(
        0.25, "width of ELECTRA's generator relative to the discriminator", "share", above=0, most=1
    )
    rope_theta: float = key(10_000.0, "base of the angles of rotary and sinusoidal positions", above=1, most=1e12)
    norm_eps: float = key(1e-5, "epsilon of every normalisation layer", least=1e-15, below=1)
    init_std: float = key(0.02, "standard deviation of the initial weights", above=0, most=10)
    zero_init: bool = key(True, "initialise both output projections of each block with zeros")
    dropout: float = key(
        0.0, "share of each block's changes that training leaves out at random; one epoch needs none", least=0, below=1
    )
    attention: str = key("auto", "implementation of attention", choices=ATTENTION, identifies=False)
