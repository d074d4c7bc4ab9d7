"""How Triton kernels are launched: launch settings, tensors as rows, and a count of the launches."""

import functools
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

launch_counts: Counter[str] = Counter()  # by the kernel's name; tests use it to prove that Triton ran
_recorded_launches: "list[Launch] | None" = None  # a list within `record_launches`


@dataclass(frozen=True)
class LaunchSettings:
    """How much one program of a kernel handles at a time: `rows` rows and `block` elements of each, by `warps` warps.

    The kernel receives `rows` and `block` as its constants ROWS and BLOCK.
    """

    rows: int
    block: int
    warps: int


def next_power_of_two(number: int) -> int:
    """Return the smallest power of two that is not below `number`, at least 1."""
    return 1 << max(0, number - 1).bit_length()


def whole_row_settings(width: int, elements: int, most_rows: int = 16, per_thread: int = 32) -> LaunchSettings:
    """Choose settings for a kernel that holds whole rows in registers.

    Short rows are handled several at a time, about `elements` elements in all. With 32 elements a thread, a row, a
    second tensor of its size and a few results stay in registers. Longer rows therefore get more warps.
    """
    block = next_power_of_two(width)
    rows = max(1, min(most_rows, elements // block))
    return LaunchSettings(rows, block, max(1, min(32, rows * block // (32 * per_thread))))


@dataclass(frozen=True)
class Launch:
    """A recorded launch: the kernel, its runtime arguments in order, and its compile-time constants by name."""

    kernel: Any
    arguments: tuple[Any, ...]
    constants: dict[str, Any]
    settings: LaunchSettings


def launch(kernel: Any, programs: int, *arguments: Any, settings: LaunchSettings, **constants: Any) -> None:
    """Run `programs` programs of a kernel. Zero programs are not launched.

    Args:
        kernel: a function under `triton.jit`.
        programs: size of the launch grid, which has one dimension.
        *arguments: runtime arguments in the kernel's order. Triton needs a tensor for each pointer, also for one that
            the constants tell the kernel not to use. Any tensor of the right dtype may stand there.
        settings: gives the constants ROWS and BLOCK, and the number of warps.
        **constants: the kernel's other compile-time constants.
    """
    constants |= {"ROWS": settings.rows, "BLOCK": settings.block}
    if _recorded_launches is not None:
        _recorded_launches.append(Launch(kernel, arguments, constants, settings))
    elif programs:
        launch_counts[kernel.__name__] += 1
        # Triton launches on the current GPU, which may be another one than that of the tensors.
        with torch.cuda.device_of(arguments[0]):
            kernel[(programs,)](*arguments, **constants, num_warps=settings.warps)


@contextmanager
def record_launches() -> Iterator[list[Launch]]:
    """Record launches within the block instead of carrying them out.

    The launchers then accept tensors of the meta device. `bench.compile_kernels` compiles what is recorded, so that it
    compiles exactly what would be launched, with the same settings.
    """
    global _recorded_launches  # noqa: PLW0603 (`launch` is called deep inside the launchers)
    _recorded_launches = []
    try:
        yield _recorded_launches
    finally:
        _recorded_launches = None


def count_programs(rows: int, settings: LaunchSettings) -> int:
    """Return how many programs cover all rows once."""
    return -(-rows // settings.rows)


@functools.cache
def count_multiprocessors(device: torch.device) -> int:
    """Return the number of multiprocessors of a GPU, and a small number for the interpreter."""
    if device.type != "cuda":
        return 4
    return torch.cuda.get_device_properties(device).multi_processor_count


def as_rows(x: Tensor) -> Tensor:
    """Return x (..., width) as (rows, width) whose rows are contiguous: a view where the strides of x allow it."""
    rows = x.reshape(x.shape[:-1].numel(), x.shape[-1]) if x.ndim != 2 else x
    return rows if rows.stride(-1) == 1 or rows.shape[-1] == 1 else rows.contiguous()
