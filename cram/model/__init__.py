"""The pre-norm encoder: layers, attention, transformer, heads and what they count."""

from cram.model.transformer import Encoder

__all__ = ["Encoder"]
