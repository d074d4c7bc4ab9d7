"""The launch settings of every kernel, in one place: what one program takes at a time, and by how many warps.

`choose_settings` finds the rule of a kernel in RULES. A rule sees the shape of the call and the GPU's compute
capability. A file that the user has tuned goes before the rules: `_tuned.py`.
"""

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch

from cram_kernels._tuned import DTYPE_NAMES, Choice, find_tuned


@dataclass(frozen=True)
class LaunchSettings:
    """How much one program of a kernel handles at a time: `rows` rows and `block` elements of each, by `warps` warps.

    The kernel receives `rows` and `block` as its constants ROWS and BLOCK. `stages` is the number of tiles whose loads
    are under way together, in a kernel that goes through several.
    """

    rows: int
    block: int
    warps: int
    stages: int = 1


class Problem(NamedTuple):
    """What a rule sees: rows, their width in elements, bytes of an element, and the compute capability, as 90 for 9.0.

    The width is that of a row of the kernel: the classes of a loss, one half of a gated activation or of a rope head.
    """

    rows: int
    width: int
    itemsize: int
    capability: int


# --- the device


class Target(NamedTuple):
    """The GPU for which kernels are launched: compute capability, as 90 for 9.0, and number of multiprocessors."""

    capability: int
    multiprocessors: int


# Tensors of other devices than a GPU are launched in Triton's interpreter, or their launches are redirected.
_stand_in = Target(90, 4)


def find_target(device: torch.device) -> Target:
    """Return capability and multiprocessors of a GPU, and those of the stand-in for every other device."""
    return _read_target(device) if device.type == "cuda" else _stand_in


@functools.cache
def _read_target(device: torch.device) -> Target:
    properties = torch.cuda.get_device_properties(device)
    return Target(10 * properties.major + properties.minor, properties.multi_processor_count)


@contextmanager
def stand_in_for(target: Target) -> Iterator[None]:
    """Choose settings for this GPU within the block, where the tensors are on no GPU."""
    global _stand_in  # noqa: PLW0603 (the launchers ask for it deep inside the ops)
    before, _stand_in = _stand_in, target
    try:
        yield
    finally:
        _stand_in = before


# --- parts of rules


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


# --- the rule of each kernel

# The widest rows of softmax that are held whole in registers: 32 elements a thread, of one tensor in the forward pass
# and of two in the backward pass.
MOST_HELD_FORWARD, MOST_HELD_BACKWARD = 32_768, 16_384
# Capability of the first GPUs that copy to shared memory while they compute, and bytes of copies that a program may
# have on every one of them.
ASYNC_COPIES_FROM, MOST_STAGED_BYTES = 80, 100_000
MOST_LOSS_BLOCK = 4096  # elements of a row of logits at a time: 32 a thread of four warps
MOST_HELD_BYTES = 32 << 10  # of a row of logits that is held whole in the registers of 512 threads
# GPUs with a cache of 4 to 6 MB, which keeps the rows of all programs only if a multiprocessor has one of them.
SMALL_CACHE = {75, 86}


def _chunked_row_settings(problem: Problem, per_thread: int, warps: int) -> LaunchSettings:
    """Choose settings for a kernel that holds whole rows as chunks, each of which a warp loads by 16 bytes a thread.

    A row belongs to one warp up to 1024 elements, and beyond to as many as hold `per_thread` elements a thread. Short
    rows are handled several at a time, 1 KB a warp, so that enough bytes are under way.

    Args:
        problem: the shape.
        per_thread: most elements of a row that a thread holds where the row has several warps.
        warps: least warps of a program; they take a row each.
    """
    loaded = 32 * 16 // problem.itemsize
    row_warps = 1 if problem.width <= 1024 else next_power_of_two(-(-problem.width // (32 * per_thread)))
    warps = max(warps, row_warps)
    whole_row = next_power_of_two(problem.width)
    rows = max(1, min(8, 1024 // (whole_row * problem.itemsize)))
    return LaunchSettings(rows * warps // row_warps, min(loaded * row_warps, whole_row), warps)


def _layer_norm_forward(problem: Problem) -> LaunchSettings:
    """Choose one warp, which needs no barrier: 32 programs of a multiprocessor have 32 KB of x under way, or more."""
    return _chunked_row_settings(problem, per_thread=32, warps=1)


def _layer_norm_backward(problem: Problem) -> LaunchSettings:
    """Choose eight warps, which add up their sums for weight and bias before they store them.

    Two tiles are copied to shared memory while a third is computed, as far as the memory allows it.
    """
    settings = _chunked_row_settings(problem, per_thread=16, warps=8)
    if problem.capability < ASYNC_COPIES_FROM:
        return settings
    tile_bytes = 3 * settings.rows * problem.width * problem.itemsize  # rows, their gradient, and that of the sum
    return replace(settings, stages=min(3, 1 + MOST_STAGED_BYTES // tile_bytes))


def _softmax_forward(problem: Problem) -> LaunchSettings:
    """Choose four rows of 1024. Wide rows get all warps: few rows are then under way, and they stay in the cache."""
    held = problem.width <= MOST_HELD_FORWARD
    return whole_row_settings(problem.width, elements=4096) if held else LaunchSettings(1, 8192, 32)


def _softmax_backward(problem: Problem) -> LaunchSettings:
    """Choose half as many elements as forward, a program and a thread: shares and gradient are held together."""
    held = problem.width <= MOST_HELD_BACKWARD
    return whole_row_settings(problem.width, 2048, per_thread=16) if held else LaunchSettings(1, 8192, 32)


def _cross_entropy_forward(problem: Problem) -> LaunchSettings:
    """Choose four rows of 1024, or a part of one row, and 64 elements a thread: sums over warps then cost the least."""
    return whole_row_settings(min(problem.width, MOST_LOSS_BLOCK), elements=4096, per_thread=64)


def _cross_entropy_backward(problem: Problem) -> LaunchSettings:
    """Choose the forward pass's with twice the warps, because a thread needs more registers for each element."""
    return whole_row_settings(min(problem.width, MOST_LOSS_BLOCK), elements=4096, per_thread=16)


def _linear_cross_entropy(problem: Problem) -> LaunchSettings:
    """Choose four rows of 1024. Wider rows than can be held are read twice, the second time from the cache.

    With 8 warps four programs share a multiprocessor, and some load while others compute. All of them together have
    35 MB of rows of 64 KB under way on an H100, whose cache holds 50 MB. Wider rows get 16 warps and fewer programs.
    """
    if problem.width * problem.itemsize > MOST_HELD_BYTES:
        if problem.capability in SMALL_CACHE:
            return LaunchSettings(1, 16_384, 32)
        return LaunchSettings(1, 8192, 8 if problem.width * problem.itemsize <= 2 * MOST_HELD_BYTES else 16)
    settings = whole_row_settings(problem.width, elements=4096)
    return LaunchSettings(settings.rows, settings.block, min(16, settings.warps))


def _gated(problem: Problem) -> LaunchSettings:
    """Choose up to 16 rows of 256 columns: 16-byte loads of half precision in a warp, and 16 elements a thread."""
    block = min(256, next_power_of_two(problem.width))
    return LaunchSettings(16, block, max(1, 16 * block // 512))


def _rope(problem: Problem) -> LaunchSettings:
    """Choose up to 32 tokens a program, and 8 elements a thread of each half."""
    block = next_power_of_two(problem.width)
    rows = min(next_power_of_two(problem.rows), 32, max(1, 1024 // block))
    return LaunchSettings(rows, block, max(1, min(32, rows * block // 256)))


RULES: dict[str, Callable[[Problem], LaunchSettings]] = {
    "layer_norm_forward": _layer_norm_forward,
    "layer_norm_backward": _layer_norm_backward,
    "softmax_forward": _softmax_forward,
    "softmax_backward": _softmax_backward,
    "cross_entropy_forward": _cross_entropy_forward,
    "cross_entropy_backward": _cross_entropy_backward,
    "linear_cross_entropy": _linear_cross_entropy,
    "gated_forward": _gated,
    "gated_backward": _gated,
    "rope": _rope,
}


# --- the choice

Chooser = Callable[[Choice, LaunchSettings], LaunchSettings]
_chooser: Chooser | None = None  # what `choose_by` was given


@contextmanager
def choose_by(chooser: Chooser) -> Iterator[None]:
    """Let a function choose within the block, which gets the settings of the rule. The user's file is not asked."""
    global _chooser  # noqa: PLW0603 (the launchers choose deep inside the ops)
    before, _chooser = _chooser, chooser
    try:
        yield
    finally:
        _chooser = before


def choose_settings(kernel: str, rows: int, width: int, dtype: torch.dtype, device: torch.device) -> LaunchSettings:
    """Choose the launch settings of a kernel.

    Args:
        kernel: its name in RULES.
        rows: rows of the call.
        width: elements of a row, as in `Problem`.
        dtype: of the rows.
        device: of the tensors.

    Raises:
        ValueError: for a file in CRAM_KERNELS_SETTINGS that is not valid, or is that of another GPU.
    """
    capability, choice = find_target(device).capability, Choice(kernel, width, DTYPE_NAMES.get(dtype, str(dtype)))
    rule = RULES[kernel](Problem(rows, width, dtype.itemsize, capability))
    if _chooser is not None:
        return _chooser(choice, rule)
    tuned = find_tuned(choice, device, capability)
    return rule if tuned is None else LaunchSettings(*tuned)
