"""Which implementation computes an op, and how an op is registered: decided here and nowhere else.

CPU tensors take the reference, CUDA tensors the Triton kernels. `CRAM_KERNELS=reference` or `triton` forces one; Triton
takes CPU tensors only in its interpreter, `TRITON_INTERPRET=1`. The reference also takes, on any device:

- fp64 and everything that is not fp32, fp16 or bf16: the kernels compute in fp32
- rows wider than MOST_WIDTH where a kernel must hold a whole row (layer_norm; rope, a head of it)
- GPUs of a compute capability below 7.5, and all where Triton is not installed; that is warned of, once
"""

import functools
import os
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from cram_kernels._launch import HAS_TRITON

SERVED_DTYPES = (torch.float32, torch.float16, torch.bfloat16)
LEAST_CAPABILITY = (7, 5)
MOST_WIDTH = 8192  # of a row held whole: its gradient, the weight and a sum stay beside it in one program's registers

_library = torch.library.Library("cram", "DEF")


def use_triton(*tensors: Tensor | None, held_width: int = 0) -> bool:
    """Whether the Triton kernels compute an op of these tensors; `held_width` is that of a row held whole.

    Raises:
        RuntimeError: where CRAM_KERNELS forces Triton on what it cannot run.
        ValueError: where CRAM_KERNELS says something else.
    """
    given = [tensor for tensor in tensors if tensor is not None]
    forced = os.environ.get("CRAM_KERNELS", "")
    if forced not in ("", "reference", "triton"):
        raise ValueError(f"CRAM_KERNELS={forced}: say reference or triton, or leave it out")
    if forced == "reference" or held_width > MOST_WIDTH or any(t.dtype not in SERVED_DTYPES for t in given):
        return False
    device = given[0].device
    if device.type == "cpu" and forced != "triton":
        return False
    refusal = _refusal(device)
    if refusal is None:
        return True
    if forced == "triton":
        raise RuntimeError(f"CRAM_KERNELS=triton: {refusal}")
    _warn_once(refusal)
    return False


@functools.cache
def _refusal(device: torch.device) -> str | None:
    """Why Triton cannot run on a device, or None."""
    if not HAS_TRITON:
        return "Triton is not installed"
    if device.type == "cpu":
        interpreted = os.environ.get("TRITON_INTERPRET") == "1"
        return None if interpreted else "Triton takes CPU tensors only under TRITON_INTERPRET=1"
    if device.type != "cuda":
        return f"Triton does not run on {device.type}"
    major, minor = torch.cuda.get_device_capability(device)
    return None if (major, minor) >= LEAST_CAPABILITY else f"compute capability {major}.{minor} is below 7.5"


@functools.cache
def _warn_once(refusal: str) -> None:
    warnings.warn(f"cram_kernels: the slower reference implementations are used, {refusal}", stacklevel=4)


def define(schema: str, implementation: Callable[..., Any], fake: Callable[..., Any]) -> Any:
    """Register `torch.ops.cram.NAME` and return it.

    Args:
        schema: as `torch.library` takes it; inputs may be optional, outputs are new tensors.
        implementation: computes it on any device. It runs below autograd and with autocast off.
        fake: gives outputs of the right shape, dtype and device without computing.
    """
    name = schema.partition("(")[0]

    @functools.wraps(implementation)
    def run(*arguments: Any) -> Any:
        device = next(a.device.type for a in arguments if isinstance(a, Tensor))
        if not torch.is_autocast_enabled(device):
            return implementation(*arguments)
        with torch.autocast(device, enabled=False):
            return implementation(*arguments)

    _library.define(schema, tags=[torch.Tag.needs_fixed_stride_order])
    _library.impl(name, run, "CompositeExplicitAutograd")
    torch.library.register_fake(f"cram::{name}", fake, lib=_library)
    return getattr(torch.ops.cram, name).default


def differentiate(op: Any, backward: Callable[..., Any], setup_context: Callable[..., None]) -> None:
    """Register the gradient of an op, in terms of an op of its own."""
    torch.library.register_autograd(op.name(), backward, setup_context=setup_context, lib=_library)


def differentiate_never(op: Any) -> None:
    """Register that an op, itself a gradient, has none: asked for a second derivative, it says so."""
    name = op.name().removeprefix("cram::").removesuffix("_backward").removesuffix("_rows")

    def refuse(*_: Any) -> None:
        raise RuntimeError(f"cram_kernels.{name} can be differentiated once, not twice")

    torch.library.register_autograd(op.name(), refuse, lib=_library)
