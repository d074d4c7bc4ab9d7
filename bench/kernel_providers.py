"""The providers of the kernel benchmark: ours, torch, and the peers that are installed.

Packages of peers are imported only here, and only when a provider of theirs is built.
"""

import functools
import importlib
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import torch
from torch.nn import functional as F

import cram_kernels as ck
from bench.kernel_cases import OPS, SCALE, KernelCase, Tensors

# The package that each provider needs.
PACKAGES = {
    "ours": "cram_kernels",
    "eager": "torch",
    "compile": "torch",
    "liger": "liger_kernel",
    "quack": "quack",
    "cce": "cut_cross_entropy",
    "cce_kahan_full_c": "cut_cross_entropy",
    "torch_chunked": "torch",
}
DISTRIBUTIONS = ("torch", "triton", "liger-kernel", "quack-kernels", "cut-cross-entropy")
EPS = 1e-5


def _same(tensors: Tensors) -> Tensors:
    return tensors


@dataclass(frozen=True)
class Provider:
    """One implementation of an op.

    Attributes:
        function: takes the op's tensors in their order. It may overwrite them, because each provider has its own.
        forward_only: whether it has no backward pass.
        adapt: turns the op's tensors into the layout that `function` needs. This is not timed.
        restore: turns them back.
        leaves: the names of the adapted tensors that get a gradient; None where they are those of the op.
    """

    function: Callable[..., Any]
    forward_only: bool = False
    adapt: Callable[[Tensors], Tensors] = _same
    restore: Callable[[Tensors], Tensors] = _same
    leaves: tuple[str, ...] | None = None


def is_installed(name: str) -> bool:
    """Return whether the package of a provider is installed."""
    return find_spec(PACKAGES[name]) is not None


def build_provider(name: str, case: KernelCase, device: torch.device) -> Provider | None:
    """Build the provider of a case. Returns None where it does not have the op or does not run on the device.

    Raises:
        Exception: whatever the package of a peer raises.
    """
    if name in ("ours", "eager", "torch_chunked"):
        return {"ours": _ours, "eager": _eager, "torch_chunked": _torch_chunked}[name](case)
    if device.type != "cuda":
        return None
    return {"compile": _compile, "liger": _liger, "quack": _quack}.get(name, lambda c: _cce(name, c))(case)


OURS: dict[str, Callable[..., Any]] = {
    "layer_norm": lambda x, weight: ck.layer_norm(x, weight, eps=EPS),
    "layer_norm+residual": lambda x, residual, weight: ck.layer_norm(x, weight, eps=EPS, residual=residual),
    "softmax": ck.softmax,
    "softmax+mask": lambda x, mask: ck.softmax(x, scale=SCALE, mask=mask),
    "cross_entropy": ck.cross_entropy,
    "linear_cross_entropy": ck.linear_cross_entropy,
    "geglu": ck.geglu,
    "swiglu": ck.swiglu,
    "rope": ck.rope,
}


def _ours(case: KernelCase) -> Provider:
    return Provider(OURS[case.op])


def _eager(case: KernelCase) -> Provider:
    return Provider(OPS[case.op].function)


def _wide_cross_entropy(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Return the loss as one writes it for the compiler, which does not store the fp32 logits."""
    return F.cross_entropy(logits.float(), target)


def _compile(case: KernelCase) -> Provider:
    """Compile the eager function for this shape alone.

    The mode tunes reductions. Ops with matrix products use the default mode, because the search for the fastest product
    takes a minute for each shape.
    """
    differentiation: Any = importlib.import_module("torch._functorch.config")
    compilation: Any = importlib.import_module("torch._dynamo.config")
    differentiation.donated_buffer = (
        False  # the same backward pass is timed many times, so it must not reuse its inputs' memory
    )
    compilation.automatic_dynamic_shapes = False
    torch._dynamo.reset()
    function = _wide_cross_entropy if case.op == "cross_entropy" else OPS[case.op].function
    mode = "default" if case.hidden else "max-autotune-no-cudagraphs"
    return Provider(torch.compile(function, dynamic=False, fullgraph=True, mode=mode))


def _torch_chunked(case: KernelCase) -> Provider | None:
    """Use torch's own linear_cross_entropy with its default chunks. torch 2.11 does not have it."""
    if case.op != "linear_cross_entropy" or not hasattr(torch.nn, "LinearCrossEntropyOptions"):
        return None
    options = torch.nn.LinearCrossEntropyOptions()
    return Provider(lambda hidden, weight, target: F.linear_cross_entropy(hidden, weight, target, options=options))


def _liger(case: KernelCase) -> Provider | None:
    liger = importlib.import_module("liger_kernel.transformers.functional")
    if case.op == "layer_norm":  # it needs a bias, which is made once
        bias = functools.cache(lambda place: torch.zeros(case.width, device=place))
        return Provider(lambda x, weight: liger.liger_layer_norm(x, weight, bias(x.device), EPS))
    if case.op in ("geglu", "swiglu"):  # it takes two tensors, and its GELU is the tanh approximation
        function = getattr(liger, f"liger_{case.op}")
        return Provider(function, adapt=_split, restore=_join, leaves=("first", "second"))
    if case.op == "rope":  # it takes heads before tokens, and cos and sin twice as wide
        return Provider(
            lambda q, k, cos, sin: _heads_last(liger.liger_rope(q.transpose(1, 2), k.transpose(1, 2), cos, sin)),
            adapt=_double_angles,
            restore=_halve_angles,
        )
    if case.op in ("softmax", "cross_entropy", "linear_cross_entropy"):
        fused = "fused_" if case.hidden else ""
        return Provider(getattr(liger, f"liger_{fused}{case.op}"))
    return None


def _split(tensors: Tensors) -> Tensors:
    first, second = tensors["x"].chunk(2, -1)
    return {"first": first.contiguous(), "second": second.contiguous()}


def _join(tensors: Tensors) -> Tensors:
    return {"x": torch.cat((tensors["first"], tensors["second"]), -1)}


def _double_angles(tensors: Tensors) -> Tensors:
    return tensors | {name: torch.cat((tensors[name], tensors[name]), -1) for name in ("cos", "sin")}


def _halve_angles(tensors: Tensors) -> Tensors:
    return tensors | {name: tensors[name].chunk(2, -1)[0] for name in ("cos", "sin")}


def _heads_last(pair: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    return tuple(part.transpose(1, 2) for part in pair[:2])


def _quack(case: KernelCase) -> Provider | None:
    if case.op == "layer_norm":  # it does not have a backward pass
        norm = importlib.import_module("quack.rmsnorm").layernorm_fwd
        return Provider(lambda x, weight: norm(x, weight, eps=EPS), forward_only=True)
    if case.op == "softmax":
        return Provider(importlib.import_module("quack.softmax").softmax)
    if case.op == "cross_entropy":
        loss = importlib.import_module("quack.cross_entropy").cross_entropy
        return Provider(lambda logits, target: loss(logits, target, reduction="mean"))
    return None


def _cce(implementation: str, case: KernelCase) -> Provider | None:
    if case.op != "linear_cross_entropy":
        return None
    loss = importlib.import_module("cut_cross_entropy").linear_cross_entropy
    return Provider(lambda hidden, weight, target: loss(hidden, weight, target, impl=implementation))
