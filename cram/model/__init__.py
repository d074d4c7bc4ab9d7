"""The pre-norm encoder and decoder: layers, attention, transformer, heads and what they count."""

from cram.model.decoder import Decoder
from cram.model.transformer import Encoder

__all__ = ["Decoder", "Encoder"]
