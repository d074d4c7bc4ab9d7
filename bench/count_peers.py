"""The calls of Liger-Kernel and flash-attn that do what ours do, for the count beside ours. Both are optional.

Their Python code decides how its kernels are launched, so that the settings are theirs. Where an autotuner would
choose, the fastest by the model stands for its choice.
"""

import sys
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from bench.kernel_cases import DTYPES, HEADS, SEQ_LEN, KernelCase
from bench.peer_launches import fake

PeerCall = Callable[[], object]


def is_installed(peer: str) -> bool:
    """Return whether the package of a peer is there."""
    return find_spec(PACKAGES[peer]) is not None


def find_call(peer: str, case: KernelCase, direction: str) -> PeerCall | None:
    """Return the call of a peer for one direction of a case, or None where it has none; within `record_jit`."""
    return CALLS[peer].get(f"{case.op} {direction}", lambda _: None)(case)


def _rows(case: KernelCase, width: int = 0) -> Tensor:
    return fake(case.rows, width or case.width, dtype=DTYPES[case.dtype])


def _weight(case: KernelCase) -> Tensor:
    return fake(case.width)


# --- Liger-Kernel


def _liger_norm_forward(case: KernelCase) -> PeerCall:
    from liger_kernel.ops.layer_norm import layer_norm_forward

    return partial(layer_norm_forward, _rows(case), _weight(case), _weight(case), 1e-5)


def _liger_norm_backward(case: KernelCase) -> PeerCall:
    from liger_kernel.ops.layer_norm import layer_norm_backward

    numbers = fake(case.rows)
    weight = _weight(case)
    return partial(layer_norm_backward, _rows(case), _rows(case), weight, weight, numbers, numbers, True, False)


def _liger_softmax_forward(case: KernelCase) -> PeerCall:
    from liger_kernel.ops.softmax import _softmax_forward

    return partial(_softmax_forward, _rows(case))


def _liger_softmax_backward(case: KernelCase) -> PeerCall:
    from liger_kernel.ops.softmax import _softmax_backward
    from liger_kernel.ops.utils import calculate_settings

    return partial(_softmax_backward, _rows(case), _rows(case), *calculate_settings(case.width), False)


def _liger_loss(case: KernelCase) -> PeerCall:
    """Return the call that computes losses and gradients in place, as both of Liger's losses do."""
    from liger_kernel.ops.cross_entropy import cross_entropy_forward

    logits = _rows(case)
    if case.op.startswith("linear"):
        logits = _rows(case, -(-case.width // 16) * 16).narrow(1, 0, case.width)
    arguments = (logits.requires_grad_(True), _targets(case), None, -100, 0.0, 0.0, "mean", None, False)
    return partial(cross_entropy_forward, *arguments)


def _targets(case: KernelCase) -> Tensor:
    return fake(case.rows, dtype=torch.int64)


def _liger_gated(module: str, function: str, case: KernelCase) -> PeerCall:
    a, b = (_rows(case) for _ in range(2))
    call = getattr(__import__(f"liger_kernel.ops.{module}", fromlist=["_"]), function)
    return partial(call, a, b, *([_rows(case)] if "backward" in function else []))


def _liger_rope(function: str, case: KernelCase) -> PeerCall:
    from liger_kernel.ops import rope

    shape = (case.rows // SEQ_LEN, HEADS, SEQ_LEN, case.width // HEADS)
    q, k = (fake(shape[0], SEQ_LEN, HEADS, shape[3], dtype=DTYPES[case.dtype]).transpose(1, 2) for _ in range(2))
    cos, sin = (fake(shape[0], SEQ_LEN, shape[3], dtype=DTYPES[case.dtype]) for _ in range(2))
    return partial(getattr(rope, function), q, k, cos, sin)


# --- flash-attn


def _flash(module: str) -> ModuleType:
    """Import a Triton module of flash-attn, without its CUDA extension where that is missing."""
    if "flash_attn" not in sys.modules:
        spec = find_spec("flash_attn")
        package = ModuleType("flash_attn")
        package.__path__ = list(spec.submodule_search_locations or ()) if spec else []
        sys.modules["flash_attn"] = package
    return __import__(f"flash_attn.ops.triton.{module}", fromlist=["_"])


def _flash_norm_forward(case: KernelCase) -> PeerCall:
    residual = _rows(case) if "residual" in case.op else None
    total = None if residual is None else _rows(case)
    arguments = (_rows(case), _weight(case), None, 1e-5, _rows(case))
    return partial(
        _flash("layer_norm")._layer_norm_fwd_impl._init_fn, *arguments, residual=residual, residual_out=total
    )


def _flash_norm_backward(case: KernelCase) -> PeerCall:
    numbers = fake(case.rows)
    gradient = _rows(case) if "residual" in case.op else None
    arguments = (_rows(case), _rows(case), _weight(case), None, 1e-5, numbers, numbers)
    call = _flash("layer_norm")._layer_norm_bwd_impl._init_fn
    return partial(call, *arguments, dresidual=gradient, has_residual=gradient is not None)


def _flash_loss(direction: str, case: KernelCase) -> PeerCall:
    function = _flash("cross_entropy").CrossEntropyLoss
    context = _Context()
    forward = partial(function.forward, context, _rows(case), _targets(case))
    if direction == "forward":
        return forward

    def backward() -> Any:
        context.saved_tensors = (_rows(case), fake(case.rows), _targets(case))
        context.smoothing, context.logit_scale, context.lse_square_scale = 0.0, 1.0, 0.0
        context.ignore_index, context.total_classes, context.class_start_idx = -100, case.width, 0
        context.inplace_backward = False
        return function.backward(context, fake(1).expand(case.rows), None)

    return backward


class _Context:
    """Stands for what an autograd function keeps."""

    saved_tensors: tuple[Tensor, ...] = ()

    def save_for_backward(self, *tensors: Tensor) -> None:
        """Keep tensors."""
        self.saved_tensors = tensors

    def mark_non_differentiable(self, *_: Tensor) -> None:
        """Do nothing."""


PACKAGES = {"liger": "liger_kernel", "flash": "flash_attn"}
CALLS: dict[str, dict[str, Callable[[KernelCase], PeerCall]]] = {
    "liger": {
        "layer_norm forward": _liger_norm_forward,
        "layer_norm backward": _liger_norm_backward,
        "softmax forward": _liger_softmax_forward,
        "softmax backward": _liger_softmax_backward,
        "cross_entropy forward": _liger_loss,
        "linear_cross_entropy forward": _liger_loss,
        "geglu forward": partial(_liger_gated, "geglu", "geglu_forward"),
        "geglu backward": partial(_liger_gated, "geglu", "geglu_backward"),
        "swiglu forward": partial(_liger_gated, "swiglu", "swiglu_forward"),
        "swiglu backward": partial(_liger_gated, "swiglu", "swiglu_backward"),
        "rope forward": partial(_liger_rope, "rope_forward"),
        "rope backward": partial(_liger_rope, "rope_backward"),
    },
    "flash": {
        "layer_norm forward": _flash_norm_forward,
        "layer_norm backward": _flash_norm_backward,
        "layer_norm+residual forward": _flash_norm_forward,
        "layer_norm+residual backward": _flash_norm_backward,
        "cross_entropy forward": partial(_flash_loss, "forward"),
        "cross_entropy backward": partial(_flash_loss, "backward"),
    },
}
