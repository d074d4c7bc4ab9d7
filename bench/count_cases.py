"""The calls whose launches are counted: the cases of the kernel benchmark, on tensors without memory."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from bench import kernel_cases
from bench.compile_cases import meta
from bench.kernel_cases import HEADS, SEQ_LEN, KernelCase
from cram_kernels._cross_entropy_kernels import (
    LossTerms,
    launch_cross_entropy_backward,
    launch_cross_entropy_forward,
)
from cram_kernels._layer_norm_kernels import launch_layer_norm_backward, launch_layer_norm_forward
from cram_kernels._linear_cross_entropy_kernels import launch_linear_cross_entropy
from cram_kernels._softmax_kernels import launch_softmax_backward, launch_softmax_forward
from cram_kernels.activations import launch_gated_backward, launch_gated_forward
from cram_kernels.rope import launch_rope

TERMS = LossTerms(-100, 0.0, 0.0)
CHUNK_ROWS = 4096  # of linear_cross_entropy; its matrix products are not counted
SCALE = 0.125
DIRECTIONS = ("forward", "backward")
NO_LAUNCH = frozenset({"detach", "alias", "_reshape_alias", "promote_types", "result_type"})


def list_cases(op: str, dtypes: list[str]) -> list[KernelCase]:
    """Return the benchmark's cases of an op. Chunks of linear_cross_entropy are all of one size."""
    cases = [case for case in kernel_cases.FULL if case.op == op and case.dtype in dtypes]
    if op != "linear_cross_entropy":
        return cases
    widths = dict.fromkeys([*(case.width for case in cases), 50_257, 50_304])
    return [KernelCase(op, CHUNK_ROWS, width, dtype) for dtype in dtypes for width in widths]


def least_bytes(case: KernelCase, direction: str) -> float:
    """Return the bytes that must be moved: each row once, and the angles of rope, without single numbers of a row."""
    if case.op == "linear_cross_entropy":
        return 2.0 * case.tensor_bytes
    angles = 4 * case.rows * case.width // HEADS if case.op == "rope" else 0
    return float(kernel_cases.OPS[case.op].bytes(case, direction) or 0) + angles


def calls_of_ours(case: KernelCase) -> dict[str, Callable[[], object]]:
    """Return the call of a launcher for each direction of a case."""
    return CALLS[case.op](case)


def _norm(case: KernelCase, with_residual: bool) -> dict[str, Callable[[], object]]:
    x, weight, numbers = _rows(case), meta(case.width), meta(case.rows)
    other = _rows(case) if with_residual else None
    return {
        "forward": partial(launch_layer_norm_forward, x, other, weight, None, 1e-5),
        "backward": partial(launch_layer_norm_backward, _rows(case), other, x, weight, numbers, numbers, (True, False)),
    }


def _rows(case: KernelCase, width: int = 0) -> Tensor:
    return meta(case.rows, width or case.width, dtype=case.dtype)


def _softmax(case: KernelCase, masked: bool) -> dict[str, Callable[[], object]]:
    x, mask = _rows(case), None
    if masked:
        x = x.view(-1, HEADS, SEQ_LEN, case.width)
        mask = torch.empty(len(x), 1, SEQ_LEN, case.width, dtype=torch.bool, device="meta")
    scale = SCALE if masked else 1.0
    return {
        "forward": partial(launch_softmax_forward, x, scale, mask),
        "backward": partial(launch_softmax_backward, x, torch.empty_like(x), scale),
    }


def _losses(case: KernelCase) -> dict[str, Callable[[], object]]:
    logits, target = _rows(case), _targets(case)
    return {
        "forward": partial(launch_cross_entropy_forward, logits, target, TERMS),
        "backward": partial(
            launch_cross_entropy_backward, meta(1).expand(case.rows), logits, target, meta(2, case.rows), TERMS
        ),
    }


def _targets(case: KernelCase) -> Tensor:
    return torch.empty(case.rows, dtype=torch.int64, device="meta")


def _in_place(case: KernelCase) -> dict[str, Callable[[], object]]:
    logits = _rows(case, -(-case.width // 16) * 16)[:, : case.width]
    return {"forward": partial(launch_linear_cross_entropy, logits, _targets(case), TERMS)}


def _gated(case: KernelCase, silu: bool) -> dict[str, Callable[[], object]]:
    x, grad = _rows(case, 2 * case.width), _rows(case)
    return {
        "forward": partial(launch_gated_forward, x, silu),
        "backward": partial(launch_gated_backward, grad, x, silu),
    }


def _rope(case: KernelCase) -> dict[str, Callable[[], object]]:
    shape = (case.rows // SEQ_LEN, SEQ_LEN, HEADS, case.width // HEADS)
    q, k = (meta(*shape, dtype=case.dtype) for _ in range(2))
    cos, sin = (meta(*shape[:2], shape[3] // 2) for _ in range(2))
    return {name: partial(launch_rope, q, k, cos, sin, sign) for name, sign in (("forward", 1), ("backward", -1))}


CALLS: dict[str, Callable[[KernelCase], dict[str, Callable[[], object]]]] = {
    "layer_norm": partial(_norm, with_residual=False),
    "layer_norm+residual": partial(_norm, with_residual=True),
    "softmax": partial(_softmax, masked=False),
    "softmax+mask": partial(_softmax, masked=True),
    "cross_entropy": _losses,
    "linear_cross_entropy": _in_place,
    "geglu": partial(_gated, silu=False),
    "swiglu": partial(_gated, silu=True),
    "rope": _rope,
}


# --- what torch does beside the kernels


@dataclass
class TorchOps(TorchDispatchMode):
    """Records torch's own computations: their names and the bytes of their tensors."""

    calls: list[tuple[str, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Prepare the mode."""
        super().__init__()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an op, and record it unless it only allocates or views."""
        result = func(*args, **(kwargs or {}))
        name = func.name().removeprefix("aten::").partition(".")[0]
        outputs = [value for value in (result if isinstance(result, tuple) else (result,)) if isinstance(value, Tensor)]
        inputs = [value for value in args if isinstance(value, Tensor)]
        if func.namespace == "aten" and not func.is_view and "empty" not in name and name not in NO_LAUNCH:
            self.calls.append((name, sum(tensor.numel() * tensor.element_size() for tensor in [*inputs, *outputs])))
        return result


@contextmanager
def record_torch() -> Iterator[TorchOps]:
    """Record torch's own computations within the block."""
    with ExitStack() as stack:
        yield stack.enter_context(TorchOps())
