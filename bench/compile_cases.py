"""Calls of every launcher at the project's shapes, on tensors of the meta device, so that nothing is computed."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from cram_kernels._cross_entropy_kernels import (
    LossTerms,
    launch_cross_entropy_backward,
    launch_cross_entropy_forward,
)
from cram_kernels._dispatch import MOST_WIDTH
from cram_kernels._layer_norm_kernels import launch_layer_norm_backward, launch_layer_norm_forward
from cram_kernels._linear_cross_entropy_kernels import launch_linear_cross_entropy
from cram_kernels._softmax_kernels import launch_softmax_backward, launch_softmax_forward
from cram_kernels.activations import launch_gated_backward, launch_gated_forward
from cram_kernels.rope import launch_rope

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
ROWS, TOKENS = 8192, 128
STATISTICS_ONLY = frozenset(
    {"_cross_entropy_forward_kernel"}
)  # kernels that store a few numbers of each row, and no rows


@dataclass(frozen=True)
class LauncherCall:
    """A call of a launcher.

    Attributes:
        shape: for the table.
        dtype: of the tensors.
        run: makes the call.
        main: whether tests compile this shape, as an example of its kind.
        aligned: whether every row begins at a multiple of 16 bytes.
    """

    shape: str
    dtype: str
    run: Callable[[], object]
    main: bool = False
    aligned: bool = True


def meta(*shape: int, dtype: str = "fp32") -> Tensor:
    """Return a tensor without memory."""
    return torch.empty(shape, dtype=DTYPES[dtype], device="meta")


def _layer_norm(dtype: str) -> Iterator[LauncherCall]:
    statistics = meta(ROWS)
    shapes = [
        (width, extra) for width in (192, 256, 384, 512, 768, 1024, 4096, MOST_WIDTH) for extra in ("", "+residual")
    ]
    for width, extra in [*shapes, (768, "+bias"), (768, "+residual +bias")]:
        x, weight = meta(ROWS, width, dtype=dtype), meta(width)
        residual, bias = x if "residual" in extra else None, weight if "bias" in extra else None
        shape, main = f"{ROWS}x{width} {extra}", width == 768
        yield LauncherCall(shape, dtype, partial(launch_layer_norm_forward, x, residual, weight, bias, 1e-5), main)
        backward = partial(
            launch_layer_norm_backward, x, residual, x, weight, statistics, statistics, (True, bias is not None)
        )
        yield LauncherCall(shape, dtype, backward, main)


def _softmax(dtype: str) -> Iterator[LauncherCall]:
    for width in (128, 512, 1024, 4096, 32_768, 65_536):
        x = meta(ROWS, width, dtype=dtype)
        yield LauncherCall(f"{ROWS}x{width}", dtype, partial(launch_softmax_forward, x, 1.0, None), main=width == 128)
        yield LauncherCall(f"{ROWS}x{width}", dtype, partial(launch_softmax_backward, x, x, 1.0), main=width == 128)
    for keys, queries in ((128, 128), (128, 1), (512, 128), (1024, 1), (32_768, 1)):
        x = meta(8, 12, 128, keys, dtype=dtype)
        mask = torch.empty(8, 1, queries, keys, dtype=torch.bool, device="meta")
        shape = f"8x12x128x{keys} +mask {queries}"
        yield LauncherCall(
            shape, dtype, partial(launch_softmax_forward, x, 0.125, mask), main=(keys, queries) == (128, 128)
        )


def _gated(dtype: str) -> Iterator[LauncherCall]:
    for silu, name in ((False, "geglu"), (True, "swiglu")):
        for half in (384, 768, 1024, 1536, 3072):
            x, grad, shape = meta(ROWS, 2 * half, dtype=dtype), meta(ROWS, half, dtype=dtype), f"{name} {ROWS}x2x{half}"
            yield LauncherCall(shape, dtype, partial(launch_gated_forward, x, silu), main=half == 1536)
            yield LauncherCall(shape, dtype, partial(launch_gated_backward, grad, x, silu), main=half == 1536)


def _rotary(dtype: str) -> Iterator[LauncherCall]:
    angles = meta(64, TOKENS, 32)
    for heads, key_heads in ((3, 3), (8, 8), (12, 12), (12, 4)):
        q, k = (meta(64, TOKENS, count, 64, dtype=dtype) for count in (heads, key_heads))
        for sign in (1, -1):
            shape = f"64x{TOKENS}x{heads}+{key_heads}x64 {sign:+}"
            yield LauncherCall(
                shape, dtype, partial(launch_rope, q, k, angles, angles, sign), main=heads == key_heads == 12
            )
        # A model passes parts of one projection.
        both = meta(64, TOKENS, 3, heads, 64, dtype=dtype)
        shape = f"64x{TOKENS}x3x{heads}x64 parts"
        yield LauncherCall(shape, dtype, partial(launch_rope, both[:, :, 0], both[:, :, 1], angles, angles, 1))


def _losses(dtype: str) -> Iterator[LauncherCall]:
    target, figures = torch.empty(ROWS, dtype=torch.int64, device="meta"), meta(ROWS)
    for classes in (8192, 32_768, 50_257, 50_304, 50_368):
        for terms, name in ((LossTerms(-100, 0.0, 0.0), ""), (LossTerms(-100, 0.1, 1e-4), "+smooth +z")):
            logits, shape = meta(ROWS, classes, dtype=dtype), f"{ROWS}x{classes} {name}"
            aligned, main = classes % 16 == 0, classes == 32_768 and not name
            yield LauncherCall(
                shape, dtype, partial(launch_cross_entropy_forward, logits, target, terms), main, aligned
            )
            backward = partial(launch_cross_entropy_backward, figures, logits, target, meta(2, ROWS), terms)
            yield LauncherCall(shape, dtype, backward, main, aligned)


def _in_place(dtype: str) -> Iterator[LauncherCall]:
    """Calls on a chunk, whose rows are padded to a multiple of 16 classes."""
    target = torch.empty(ROWS, dtype=torch.int64, device="meta")
    for classes in (1024, 4096, 8192, 32_768, 50_257, 50_368):
        logits = meta(ROWS, -(-classes // 16) * 16, dtype=dtype)[:, :classes]
        for terms, name in ((LossTerms(-100, 0.0, 0.0), ""), (LossTerms(-100, 0.1, 1e-4), "+smooth +z")):
            run = partial(launch_linear_cross_entropy, logits, target, terms)
            yield LauncherCall(f"{ROWS}x{classes} {name}", dtype, run, main=classes == 32_768 and not name)


CALLS: dict[str, Callable[[str], Iterator[LauncherCall]]] = {
    "layer_norm": _layer_norm,
    "softmax": _softmax,
    "cross_entropy": _losses,
    "linear_cross_entropy": _in_place,
    "gated": _gated,
    "rope": _rotary,
}
