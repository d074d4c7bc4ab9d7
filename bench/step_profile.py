"""Where the time of one update goes, by the names that torch's profiler gives.

On a GPU the kernels count: one kind for each piece of time, what overlaps an earlier kernel not twice, and what no
kernel fills is a gap, in which the GPU waits for the host. On a CPU the operations count, each without those it calls,
and the gap is Python.
"""

import pkgutil
import re
from collections import defaultdict
from collections.abc import Callable, Iterable
from importlib import import_module
from typing import Any

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile, record_function

import cram_kernels
from cram.machine.device import synchronize
from cram.training.session import Session

KINDS = ("matrix products", "attention", "our kernels", "copies and elementwise", "optimizer", "gaps")
MOST_NAMES = 12
UPDATE, OPTIMIZER = "one update", "optimizer step"

Chain = tuple[str, ...]  # the name of a kernel or an operation, and of what it is a part, innermost first
Part = tuple[str, str, float]  # kind, name, seconds
Interval = tuple[Chain, float, float]  # with begin and end

# Code that is generated names every operation in it, so it is asked for first.
_GENERATED = re.compile(r"triton_(poi|red|per|for)_|cpp_fused")
_ATTENTION = re.compile(r"flash|fmha|attention|sdpa|_attn")
_PRODUCT = re.compile(
    r"gemm|gemv|nvjet|cutlass|xmma|cublas|splitk|triton_tem|triton_mm"
    r"|^(aten|mkldnn)::_?(linear|matmul|mm|bmm|addmm|baddbmm|addbmm)|^mkldnn::_convolution"
)


def own_kernels() -> frozenset[str]:
    """Names of the Triton kernels in `cram_kernels`."""
    names: set[str] = set()
    for module in pkgutil.iter_modules(cram_kernels.__path__, "cram_kernels."):
        names |= {name for name in vars(import_module(module.name)) if name.endswith("_kernel")}
    return frozenset(names)


def kind_of(chain: Chain, ours: frozenset[str]) -> str:
    """The kind of a kernel or an operation: by its own name where that says enough, else by what it is a part of."""
    name = chain[0].lower()
    own = tuple(kernel.lower() for kernel in ours)
    rules: tuple[tuple[str, object], ...] = (
        ("optimizer", OPTIMIZER in chain),
        ("our kernels", name.startswith((*own, "cram::"))),
        ("copies and elementwise", _GENERATED.search(name)),
        ("attention", _ATTENTION.search(name)),
        ("matrix products", _PRODUCT.search(name)),
        ("our kernels", any(part.startswith("cram::") for part in chain)),
        ("attention", any(part.startswith("aten::") and _ATTENTION.search(part) for part in chain)),
    )
    return next((kind for kind, holds in rules if holds), "copies and elementwise")


def without_overlap(intervals: Iterable[Interval]) -> list[tuple[Chain, float]]:
    """Lengths of intervals, each counted only where no earlier one still runs."""
    found, furthest = [], float("-inf")
    for chain, begin, end in sorted(intervals, key=lambda interval: interval[1]):
        alone = end - max(begin, furthest)
        if alone > 0.0:
            found.append((chain, alone))
            furthest = end
    return found


def shares(parts: Iterable[Part], seconds: float) -> dict[str, Any]:
    """Share of `seconds` in each of KINDS, and the names that take most of it."""
    kinds, names = dict.fromkeys(KINDS, 0.0), defaultdict[tuple[str, str], float](float)
    for kind, name, length in parts:
        kinds[kind] += length / seconds
        names[kind, name] += length / seconds
    kinds["gaps"] = max(0.0, 1.0 - sum(kinds.values()))
    largest = sorted(names.items(), key=lambda item: -item[1])[:MOST_NAMES]
    return {
        "seconds": seconds,
        "shares": kinds,
        "largest": [{"kind": kind, "name": name, "share": share} for (kind, name), share in largest],
    }


class _Marked:
    """An optimizer whose step stands alone in the profile: the device is waited for before and after it."""

    def __init__(self, optimizer: Any, device: torch.device) -> None:
        self._optimizer, self._device = optimizer, device

    def step(self, *arguments: Any, **named: Any) -> None:
        synchronize(self._device)
        with record_function(OPTIMIZER):
            self._optimizer.step(*arguments, **named)
            synchronize(self._device)


def profile_update(session: Session, update: Callable[[Session], None]) -> dict[str, Any]:
    """`shares` of one update; the profiler itself makes the gaps longer than they are."""
    optimizer, device = session.parts.optimizer, session.parts.device
    activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * (device.type == "cuda")
    session.parts.optimizer = _Marked(optimizer, device)  # type: ignore[assignment]
    try:
        with profile(activities=activities, acc_events=True) as profiled:
            synchronize(device)
            with record_function(UPDATE):
                update(session)
                synchronize(device)
    finally:
        session.parts.optimizer = optimizer
    events = list(profiled.events())
    spans = {e.name: e.time_range for e in events if e.name in (UPDATE, OPTIMIZER) and e.device_type == DeviceType.CPU}
    parts = on_gpu(events, spans[OPTIMIZER]) if device.type == "cuda" else on_cpu(events)
    return shares(parts, (spans[UPDATE].end - spans[UPDATE].start) / 1e6)


def on_gpu(events: Iterable[Any], optimizer: Any) -> list[Part]:
    """Parts of what ran on the GPU, kernels that begin in the span `optimizer` (microseconds) being the optimizer's."""
    ours, intervals = own_kernels(), []
    for event in events:
        span = event.time_range
        # An annotation has a shadow on the GPU that is no kernel.
        if event.device_type == DeviceType.CPU or event.is_user_annotation or event.name in (UPDATE, OPTIMIZER):
            continue
        inside = optimizer.start <= span.start <= optimizer.end
        intervals.append(((event.name, OPTIMIZER) if inside else (event.name,), span.start, span.end))
    return [(kind_of(chain, ours), chain[0], length / 1e6) for chain, length in without_overlap(intervals)]


def on_cpu(events: Iterable[Any]) -> list[Part]:
    """Parts of what the operations took themselves; the marks around them are not operations."""
    ours = own_kernels()
    operations = [e for e in events if e.name not in (UPDATE, OPTIMIZER)]
    return [(kind_of(_chain(e), ours), e.name, e.self_cpu_time_total / 1e6) for e in operations]


def _chain(event: Any) -> Chain:
    names = []
    while event is not None:
        names.append(event.name)
        event = event.cpu_parent
    return tuple(names)
