"""Which implementation computes an op, and how an op is registered with torch. Both are decided only here.

CPU tensors take the C++ kernels where these can be compiled, else the reference; CUDA tensors take the Triton kernels.
`CRAM_KERNELS=reference`, `cpu` or `triton` forces one of them. Triton takes CPU tensors only in its interpreter, under
`TRITON_INTERPRET=1`. On every device the reference also takes:

- fp64, and every other dtype than fp32, fp16 and bf16, because the kernels compute in fp32
- rows wider than MOST_WIDTH where a kernel must hold a whole row (layer_norm, and a head of rope)
- tensors of GPUs below compute capability 7.5, and of all GPUs where Triton is not installed, with one warning
"""

import functools
import os
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from cram_kernels import _cpu
from cram_kernels._triton import HAS_TRITON

SUPPORTED_DTYPES = (torch.float32, torch.float16, torch.bfloat16)
LEAST_CAPABILITY = (7, 5)
# The backward kernel keeps a row, its gradient, the weight and a sum in the registers of one program.
MOST_WIDTH = 8192

_library = torch.library.Library("cram", "DEF")
implementations: dict[str, Callable[..., Any]] = {}  # by the op's name; tests run them on tensors of the meta device


# --- which implementation


def use_triton(*tensors: Tensor | None, held_width: int = 0) -> bool:
    """Return whether the Triton kernels compute an op of these tensors.

    Args:
        *tensors: the floating inputs of the op, at least one of them not None.
        held_width: width of the rows that the kernel must hold whole; 0 where it need not.

    Raises:
        RuntimeError: where CRAM_KERNELS=triton forces Triton on tensors that it cannot take.
        ValueError: for another value of CRAM_KERNELS.
    """
    present = [tensor for tensor in tensors if tensor is not None]
    forced = forced_implementation()
    if forced == "reference" or held_width > MOST_WIDTH:
        return False
    if any(tensor.dtype not in SUPPORTED_DTYPES for tensor in present):
        return False
    device = present[0].device
    if device.type == "cpu" and forced != "triton":
        return False
    obstacle = _find_obstacle(device)
    if obstacle is None:
        return True
    if forced == "triton":
        raise RuntimeError(f"CRAM_KERNELS=triton: {obstacle}")
    _warn_once(obstacle)
    return False


def use_cpu_kernels(*tensors: Tensor | None) -> bool:
    """Return whether the C++ kernels compute an op of these tensors, the floating inputs of the op.

    They take tensors of a CPU in fp32 and bf16 with at least one value, unless CRAM_KERNELS forces another
    implementation.

    Raises:
        RuntimeError: where CRAM_KERNELS=cpu forces them and they cannot be compiled.
        ValueError: for another value of CRAM_KERNELS.
    """
    present = [tensor for tensor in tensors if tensor is not None]
    forced = forced_implementation()
    if forced not in ("", "cpu") or any(tensor.device.type != "cpu" or not tensor.numel() for tensor in present):
        return False
    if any(tensor.dtype not in _cpu.DTYPES for tensor in present):
        return False
    if forced == "cpu" and _cpu.load_library() is None:
        raise RuntimeError("CRAM_KERNELS=cpu: the kernels could not be compiled; they need Linux on x86-64 and c++")
    return _cpu.load_library() is not None


def forced_implementation() -> str:
    """Return the implementation that CRAM_KERNELS forces: `reference`, `cpu` or `triton`; an empty text if not set.

    Raises:
        ValueError: for another value.
    """
    forced = os.environ.get("CRAM_KERNELS", "")
    if forced not in ("", "reference", "cpu", "triton"):
        allowed = "reference, cpu or triton"
        raise ValueError(f"CRAM_KERNELS={forced} is not a valid value. Set it to {allowed}, or unset it.")
    return forced


@functools.cache
def _find_obstacle(device: torch.device) -> str | None:
    """Return why Triton cannot run on a device, or None where it can."""
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
def _warn_once(obstacle: str) -> None:
    warnings.warn(f"cram_kernels uses the slower reference implementations: {obstacle}", stacklevel=4)


# --- registration with torch


def register_op(schema: str, implementation: Callable[..., Any], fake: Callable[..., Any]) -> Any:
    """Register `torch.ops.cram.NAME` and return it.

    Args:
        schema: as `torch.library.define` takes it. Outputs are new tensors. An output `Tensor` may be None, as those of
            torch's own backward ops may be: `Tensor?` would say so, but vmap has no fallback for ops with it.
        implementation: computes the op on every device. It runs below autograd, with autocast switched off.
        fake: returns outputs of the right shape, dtype and device without computing them. Their strides are those of
            `new_empty`, whatever the strides of the inputs are. See `as_new`.
    """
    name = schema.partition("(")[0]
    implementations[name] = implementation

    @functools.wraps(implementation)
    def run_without_autocast(*arguments: Any) -> Any:
        device = next(a.device.type for a in arguments if isinstance(a, Tensor))
        if not torch.is_autocast_enabled(device):
            return implementation(*arguments)
        with torch.autocast(device, enabled=False):
            return implementation(*arguments)

    _library.define(schema, tags=[torch.Tag.needs_fixed_stride_order])
    _library.impl(name, run_without_autocast, "CompositeExplicitAutograd")
    torch.library.register_fake(f"cram::{name}", fake, lib=_library)
    return getattr(torch.ops.cram, name).default


def as_new(x: Tensor) -> Tensor:
    """Return a result with the strides that `new_empty` gives its shape, as the fakes of all ops have them.

    torch's functions may permute a result as their inputs are permuted, and differ between devices in this. They may
    also keep other strides where a dimension has the size 1 or 0.
    """
    strides = torch.empty(x.shape, device="meta").stride()
    return x if x.stride() == strides else x.new_empty(x.shape).copy_(x)


def register_autograd(op: Any, backward: Callable[..., Any], setup_context: Callable[..., None]) -> None:
    """Register the gradient of an op. `backward` calls an op of its own, so that it can be compiled too."""
    torch.library.register_autograd(op.name(), backward, setup_context=setup_context, lib=_library)


def refuse_double_backward(op: Any) -> None:
    """Make a backward op raise a RuntimeError that names the function when it is differentiated itself."""
    name = op.name().removeprefix("cram::").removesuffix("_backward").removesuffix("_rows")

    def refuse(*_: Any) -> None:
        raise RuntimeError(f"cram_kernels.{name} can be differentiated once, not twice")

    torch.library.register_autograd(op.name(), refuse, lib=_library)
