"""The keys of the model."""

from dataclasses import dataclass

from cram.config.choices import ATTENTION, MODELS
from cram.config.schema import key


@dataclass
class ModelConfig:
    """The keys `model.*`: architecture, size and initial weights."""

    kind: str = key("encoder", "architecture", choices=MODELS)
    layers: int = key(12, "transformer blocks", least=1, most=1000)
    width: int = key(768, "hidden size, a multiple of heads", least=1, most=2**16)
    heads: int = key(12, "attention heads", least=1, most=2**12)
    mlp_width: int = key(1536, "inner width of the gated MLP, GeGLU or a decoder's SwiGLU", least=1, most=2**18)
    rope_theta: float = key(10_000.0, "base of the position angles, rotary or sinusoidal", above=1, most=1e12)
    norm_eps: float = key(1e-5, "epsilon of every norm", least=1e-15, below=1)
    init_std: float = key(0.02, "standard deviation of the initial weights", above=0, most=10)
    zero_init: bool = key(True, "start both output projections of each block at zero")
    attention: str = key("auto", "attention kernel", choices=ATTENTION, identifies=False)
