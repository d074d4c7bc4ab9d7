"""How Triton kernels are launched, tensors as rows, and a count of the launches."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cram_kernels._settings import LaunchSettings, Target, stand_in_for

launch_counts: Counter[str] = Counter()  # by the kernel's name; tests use it to prove that Triton ran
_handler: "Callable[[Launch], None] | None" = None  # what `redirect_launches` was given


@dataclass(frozen=True)
class Launch:
    """A launch: kernel, number of programs, runtime arguments in order, and compile-time constants by name."""

    kernel: Any
    programs: int
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
    if _handler is not None:
        _handler(Launch(kernel, programs, arguments, constants, settings))
    elif programs:
        launch_counts[kernel.__name__] += 1
        # Triton launches on the current GPU, which may be another one than that of the tensors.
        with torch.cuda.device_of(arguments[0]):
            kernel[(programs,)](*arguments, **constants, num_warps=settings.warps)


@contextmanager
def redirect_launches(handler: Callable[[Launch], None], target: Target | None = None) -> Iterator[None]:
    """Give each launch to `handler` within the block, instead of carrying it out.

    The launchers then accept tensors of every device, also of the meta device.

    Args:
        handler: called with each launch, in order.
        target: the GPU for which settings are chosen. None keeps the stand-in of `_settings`.
    """
    global _handler  # noqa: PLW0603 (`launch` is called deep inside the launchers)
    before, _handler = _handler, handler
    try:
        with nullcontext() if target is None else stand_in_for(target):
            yield
    finally:
        _handler = before


@contextmanager
def record_launches(target: Target | None = None) -> Iterator[list[Launch]]:
    """Record launches within the block instead of carrying them out.

    `bench.compile_kernels` compiles what is recorded, so that it compiles exactly what would be launched, with the same
    settings.
    """
    launches: list[Launch] = []
    with redirect_launches(launches.append, target):
        yield launches


def count_programs(rows: int, settings: LaunchSettings) -> int:
    """Return how many programs cover all rows once."""
    return -(-rows // settings.rows)


def as_rows(x: Tensor) -> Tensor:
    """Return x (..., width) as (rows, width) whose rows are contiguous: a view where the strides of x allow it."""
    rows = x.reshape(x.shape[:-1].numel(), x.shape[-1]) if x.ndim != 2 else x
    return rows if rows.stride(-1) == 1 or rows.shape[-1] == 1 else rows.contiguous()
