"""What the kernel benchmark measures: the ops, their shapes, and the bytes that each must move."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

Tensors = dict[str, Tensor]
DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}

HEADS, SEQ_LEN, SCALE = 12, 128, 0.125


@dataclass(frozen=True)
class KernelCase:
    """An op at a shape: rows of `width`. linear_cross_entropy has `width` classes, and inputs of width `hidden`."""

    op: str
    rows: int
    width: int
    dtype: str = "bf16"
    hidden: int = 0

    @property
    def name(self) -> str:
        """Return a name such as `layer_norm 32768x768 bf16`, with rows x hidden x classes where there is `hidden`."""
        middle = f"x{self.hidden}" if self.hidden else ""
        return f"{self.op} {self.rows}{middle}x{self.width} {self.dtype}"

    @property
    def tensor_bytes(self) -> int:
        """Return the bytes of one tensor of rows x width."""
        return self.rows * self.width * DTYPES[self.dtype].itemsize

    def shrink(self, elements: int) -> "KernelCase":
        """Return this case with at most `elements` elements, for float64. If rows are left out, an odd number stays."""
        if self.rows * self.width <= elements:
            return self
        step = {"rope": SEQ_LEN, "softmax+mask": HEADS * SEQ_LEN}.get(self.op, 1)
        count = max(1, elements // self.width // step)
        return replace(self, rows=step * (count - 1 + count % 2))


# --- the functions in eager torch; in float64 the others are compared with them


def layer_norm(x: Tensor, weight: Tensor) -> Tensor:
    """Layer-normalise the last dimension. torch's CUDA kernel needs the weight in the dtype of x."""
    return F.layer_norm(x, x.shape[-1:], weight.to(x.dtype))


def layer_norm_residual(x: Tensor, residual: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Return the normalised sum, and the sum."""
    s = x + residual
    return layer_norm(s, weight), s


def softmax(x: Tensor) -> Tensor:
    """Return the softmax over the last dimension."""
    return torch.softmax(x, -1)


def masked_softmax(x: Tensor, mask: Tensor) -> Tensor:
    """Return the scaled softmax over the kept positions of the last dimension. Every row keeps a position."""
    return torch.softmax((x * SCALE).masked_fill(~mask, float("-inf")), -1)


def cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Return the mean over the rows."""
    return F.cross_entropy(logits, target)


def linear_cross_entropy(hidden: Tensor, weight: Tensor, target: Tensor) -> Tensor:
    """Return the loss of the unfused pair: all logits first, then the mean over the rows."""
    return F.cross_entropy(F.linear(hidden, weight), target)


def geglu(x: Tensor) -> Tensor:
    """Return gelu(first half) * second half, with the exact GELU."""
    first, second = x.chunk(2, -1)
    return F.gelu(first) * second


def swiglu(x: Tensor) -> Tensor:
    """Return silu(first half) * second half."""
    first, second = x.chunk(2, -1)
    return F.silu(first) * second


def rope(q: Tensor, k: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
    """Return q and k under the half-split rotation, in the dtype of q."""
    cos, sin = (part.unsqueeze(-2).to(q.dtype) for part in (cos, sin))

    def rotate(x: Tensor) -> Tensor:
        first, second = x.chunk(2, -1)
        return torch.cat((first * cos - second * sin, second * cos + first * sin), -1)

    return rotate(q), rotate(k)


# --- ops


@dataclass(frozen=True)
class KernelOp:
    """One op of the benchmark.

    Attributes:
        function: the op in eager torch.
        make: makes its inputs for a case on a device.
        leaves: the names of the inputs that get a gradient.
        traffic: how many tensors of rows x width are read and written, forward and backward. None for a matrix product:
            `count_flops` counts its operations instead, both directions together.
        directions: what is timed.
    """

    function: Callable[..., Tensor | tuple[Tensor, ...]]
    make: Callable[[KernelCase, torch.device], Tensors]
    leaves: tuple[str, ...]
    traffic: tuple[float, float] | None
    directions: tuple[str, ...] = ("forward", "backward", "both")

    def bytes(self, case: KernelCase, direction: str) -> int | None:
        """Return the bytes read and written, each tensor once, without weights and single numbers of a row."""
        if self.traffic is None:
            return None
        forward, backward = self.traffic
        return int(
            case.tensor_bytes * {"forward": forward, "backward": backward, "both": forward + backward}[direction]
        )


def _randn(case: KernelCase, device: torch.device, *shape: int) -> Tensor:
    return torch.randn(*(shape or (case.rows, case.width)), device=device, dtype=DTYPES[case.dtype])


def _norm_inputs(case: KernelCase, device: torch.device) -> Tensors:
    return {"x": _randn(case, device), "weight": 1 + torch.randn(case.width, device=device) / 4}


def _sum_inputs(case: KernelCase, device: torch.device) -> Tensors:
    return {"x": _randn(case, device), "residual": _randn(case, device), "weight": _norm_inputs(case, device)["weight"]}


def _attention_inputs(case: KernelCase, device: torch.device) -> Tensors:
    groups, keys = case.rows // (HEADS * SEQ_LEN), case.width
    mask = torch.rand(groups, 1, SEQ_LEN, keys, device=device) < 0.75
    mask[..., 0] = True
    return {"x": 4 * _randn(case, device, groups, HEADS, SEQ_LEN, keys), "mask": mask}


def _targets(case: KernelCase, device: torch.device) -> Tensors:
    return {"target": torch.randint(case.width, (case.rows,), device=device)}


def _head_inputs(case: KernelCase, device: torch.device) -> Tensors:
    weight = _randn(case, device, case.width, case.hidden) / case.hidden**0.5
    return {"hidden": _randn(case, device, case.rows, case.hidden), "weight": weight, **_targets(case, device)}


def _rope_inputs(case: KernelCase, device: torch.device) -> Tensors:
    shape = (case.rows // SEQ_LEN, SEQ_LEN, HEADS, case.width // HEADS)
    q, k = (_randn(case, device, *shape) for _ in range(2))
    angle = torch.rand(*shape[:2], shape[3] // 2, device=device) * 6.3
    return {"q": q, "k": k, "cos": angle.cos(), "sin": angle.sin()}


OPS = {
    "layer_norm": KernelOp(layer_norm, _norm_inputs, ("x", "weight"), (2, 3)),
    "layer_norm+residual": KernelOp(layer_norm_residual, _sum_inputs, ("x", "residual", "weight"), (4, 4)),
    "softmax": KernelOp(softmax, lambda c, d: {"x": 4 * _randn(c, d)}, ("x",), (2, 3)),
    # All heads share a mask, of one byte for each score.
    "softmax+mask": KernelOp(masked_softmax, _attention_inputs, ("x",), (2 + 1 / (2 * HEADS), 3)),
    "cross_entropy": KernelOp(
        cross_entropy, lambda c, d: {"logits": 2 * _randn(c, d), **_targets(c, d)}, ("logits",), (1, 2)
    ),
    "linear_cross_entropy": KernelOp(linear_cross_entropy, _head_inputs, ("hidden", "weight"), None, ("both",)),
    "geglu": KernelOp(geglu, lambda c, d: {"x": _randn(c, d, c.rows, 2 * c.width)}, ("x",), (3, 5)),
    "swiglu": KernelOp(swiglu, lambda c, d: {"x": _randn(c, d, c.rows, 2 * c.width)}, ("x",), (3, 5)),
    "rope": KernelOp(rope, _rope_inputs, ("q", "k"), (4, 4)),
}


def count_flops(case: KernelCase) -> int | None:
    """Return the operations of the three matrix products of linear_cross_entropy: forward and both gradients."""
    return 6 * case.rows * case.hidden * case.width if case.hidden else None


# --- the table

K = 1024
ATTENTION_ROWS = 64 * HEADS * SEQ_LEN
# The first case of each op is that of the quick table. Where the time is over, the last cases are left out.
QUICK = [
    KernelCase("layer_norm+residual", 32 * K, 768),
    KernelCase("layer_norm", 32 * K, 768),
    KernelCase("softmax", ATTENTION_ROWS, 128),
    KernelCase("softmax+mask", ATTENTION_ROWS, 128),
    KernelCase("cross_entropy", 8 * K, 32_768),
    KernelCase("linear_cross_entropy", 8 * K, 32_768, hidden=768),
    KernelCase("geglu", 32 * K, 3072),
    KernelCase("rope", 32 * K, 768),
]
FULL = [
    *QUICK,
    *(KernelCase("layer_norm+residual", rows * K, width) for rows, width in ((32, 1024), (8, 768), (128, 768))),
    KernelCase("layer_norm", 32 * K, 1024),
    KernelCase("softmax", 32 * K, 1024),
    KernelCase("softmax", 8 * K, 32_768),
    *(KernelCase("cross_entropy", 8 * K, width) for width in (50_257, 50_304, 50_368)),
    *(KernelCase("linear_cross_entropy", rows * K, 32_768, hidden=768) for rows in (32, 128)),
    KernelCase("linear_cross_entropy", 8 * K, 50_368, hidden=1024),
    KernelCase("layer_norm", 32 * K, 768, "fp32"),
    KernelCase("swiglu", 32 * K, 3072),
    KernelCase("geglu", 32 * K, 1536),
    *(KernelCase("cross_entropy", rows * K, 32_768) for rows in (2, 32)),
    *(KernelCase("layer_norm", 32 * K, width) for width in (256, 512, 2048, 4096)),
    *(KernelCase("layer_norm", rows * K, width) for rows in (8, 128) for width in (768, 1024)),
    *(KernelCase("layer_norm+residual", rows * K, 1024) for rows in (8, 128)),
    *(KernelCase("softmax", 32 * K, width) for width in (256, 512, 2048, 4096)),
    KernelCase("cross_entropy", 8 * K, 8192),
    KernelCase("cross_entropy", 32 * K, 50_368),
    KernelCase("geglu", 32 * K, 768),
    KernelCase("linear_cross_entropy", 32 * K, 50_368, hidden=1024),
]
SMALL = [  # for a CPU
    *(
        KernelCase(op, 256, n, "fp32")
        for op in ("layer_norm+residual", "layer_norm", "softmax")
        for n in (128, 768, 2048)
    ),
    KernelCase("softmax+mask", HEADS * SEQ_LEN, 128, "fp32"),
    KernelCase("cross_entropy", 64, 8192, "fp32"),
    KernelCase("cross_entropy", 64, 32_768, "fp32"),
    KernelCase("linear_cross_entropy", 128, 8192, "fp32", 192),
    KernelCase("geglu", 256, 768, "fp32"),
    KernelCase("swiglu", 256, 768, "fp32"),
    KernelCase("rope", 256, 768, "fp32"),
]
