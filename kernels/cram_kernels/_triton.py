"""Triton, or stand-ins for its names where Triton is not installed.

With the stand-ins the kernels can be defined, but not launched: `_dispatch.use_triton` then chooses the reference.
"""

from types import SimpleNamespace
from typing import TYPE_CHECKING

__all__ = ["HAS_TRITON", "tl", "triton"]

try:
    import triton
    import triton.language as tl

    HAS_TRITON = True
except ImportError:
    HAS_TRITON = False
    if not TYPE_CHECKING:
        triton = SimpleNamespace(jit=lambda function: function)
        tl = SimpleNamespace(constexpr=object, tensor=object)
