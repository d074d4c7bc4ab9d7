"""Triton, or stand-ins for its names where Triton is not installed.

With the stand-ins the kernels can be defined, but not launched: `_dispatch.use_triton` then chooses the reference.
"""

from types import SimpleNamespace
from typing import TYPE_CHECKING

__all__ = ["HAS_TRITON", "exp", "tl", "triton"]

try:
    import triton
    import triton.language as tl

    HAS_TRITON = True
except ImportError:
    HAS_TRITON = False
    if not TYPE_CHECKING:
        triton = SimpleNamespace(jit=lambda function: function)
        tl = SimpleNamespace(constexpr=object, tensor=object)


@triton.jit
def exp(x: tl.tensor) -> tl.tensor:
    """Compute the exponential, as 0 where it is below 2^-126: to keep such numbers costs tl.exp three instructions."""
    return tl.exp2(x * 1.4426950408889634)
