"""Launching Triton kernels: the settings that launchers and the compile check both read, and a count of launches.

Where Triton is not installed its names are stand-ins, good enough for kernels to be defined, and nothing is launched.
"""

import functools
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

try:
    import triton
    import triton.language as tl

    HAS_TRITON = True
except ImportError:
    HAS_TRITON = False
    if not TYPE_CHECKING:
        from types import SimpleNamespace

        triton, tl = SimpleNamespace(jit=lambda function: function), SimpleNamespace(constexpr=object)

launches: Counter[str] = Counter()  # by the kernel's name; tests prove by it that Triton ran
_recorded: "list[Launch] | None" = None


@dataclass(frozen=True)
class Settings:
    """How a kernel is launched: `rows` rows and `block` elements of each at a time, `warps` warps a program."""

    rows: int
    block: int
    warps: int


def power_of_two(number: int) -> int:
    """The smallest power of two that is not below `number`; 1 for less than 1."""
    return 1 << max(0, number - 1).bit_length()


def whole_rows(width: int, elements: int, most_rows: int = 16, per_thread: int = 32) -> Settings:
    """Settings for a kernel that holds whole rows: several where they are short, about `elements` in all.

    32 elements a thread keep a row, its partner and a few results in registers; warps grow with longer rows.
    """
    block = power_of_two(width)
    rows = max(1, min(most_rows, elements // block))
    return Settings(rows, block, max(1, min(32, rows * block // (32 * per_thread))))


@dataclass(frozen=True)
class Launch:
    """A launch that was recorded: the kernel, its runtime arguments in order, and its compile-time constants."""

    kernel: Any
    arguments: tuple[Any, ...]
    constants: dict[str, Any]
    settings: Settings


def launch(kernel: Any, programs: int, *arguments: Any, settings: Settings, **constants: Any) -> None:
    """Run `programs` programs of a kernel; none of them is no launch."""
    if _recorded is not None:
        _recorded.append(Launch(kernel, arguments, constants, settings))
    elif programs:
        launches[kernel.__name__] += 1
        with torch.cuda.device_of(arguments[0]):  # Triton launches on the current GPU, wherever the tensors are
            kernel[(programs,)](*arguments, **constants, num_warps=settings.warps)


@contextmanager
def recording() -> Iterator[list[Launch]]:
    """Within the block launches are noted instead of carried out; the launchers then take tensors of the meta device.

    What is compiled ahead of time is so what would be launched, settings and all.
    """
    global _recorded  # noqa: PLW0603 (launchers are called far below)
    _recorded = []
    try:
        yield _recorded
    finally:
        _recorded = None


def programs_for(rows: int, settings: Settings) -> int:
    """Programs that cover all rows once."""
    return -(-rows // settings.rows)


@functools.cache
def multiprocessors(device: torch.device) -> int:
    """Multiprocessors of a GPU: how many programs run at a time; a few in the interpreter."""
    if device.type != "cuda":
        return 4
    return torch.cuda.get_device_properties(device).multi_processor_count


def as_rows(x: Tensor) -> Tensor:
    """x (..., width) as (rows, width) with neighbouring elements in a row: a view where its strides allow."""
    rows = x.reshape(x.shape[:-1].numel(), x.shape[-1]) if x.ndim != 2 else x
    return rows if rows.stride(-1) == 1 or rows.shape[-1] == 1 else rows.contiguous()


def row_stride(rows: Tensor) -> int:
    """Elements from one row to the next of what `as_rows` gave."""
    return rows.stride(0)


def empty(like: Tensor, shape: Sequence[int] = (0,), dtype: torch.dtype | None = None) -> Tensor:
    """A new tensor on the device of `like`; by default the empty one that stands for a result that is not wanted."""
    return torch.empty(shape, dtype=dtype or like.dtype, device=like.device)
