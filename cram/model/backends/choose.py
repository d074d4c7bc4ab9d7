"""From the word of `model.attention` to a back-end."""

import functools

import torch

from cram.config.choices import ATTENTION
from cram.errors import CramError
from cram.model.backends.backend import AttentionBackend

# Loaded when this module is imported, because `torch.compile` cannot trace an import by name.
BACKENDS: dict[str, AttentionBackend] = {name: choice.load() for name, choice in ATTENTION.items() if choice.target}


@functools.cache
def choose_backend(name: str, device: torch.device, dtype: torch.dtype) -> str:
    """The back-end that `model.attention` means for tensors of this device and dtype.

    Raises:
        CramError: if a back-end is demanded that cannot run there.
    """
    if name == "auto":
        return next(word for word, backend in BACKENDS.items() if backend.suits(device, dtype))
    reason = BACKENDS[name].refusal(device, dtype)
    if reason:
        raise CramError(f"model.attention={name} cannot run: {reason}; set model.attention=auto.")
    return name
