"""Where the time of one update goes, by the names that torch's profiler gives.

On a GPU the kernels are counted. Each piece of time belongs to one kind: time in which kernels overlap belongs to the
earlier one, and time without a kernel is a gap, in which the GPU waits for the host. On a CPU the operations are
counted, each without the operations that it calls, and the gap is Python.
"""

import pkgutil
import re
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import replace
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

Chain = tuple[str, ...]  # the name of a kernel or an operation, then the names of its callers, innermost first
Part = tuple[str, str, float]  # kind, name, seconds
Interval = tuple[Chain, float, float]  # with begin and end

# The name of a generated kernel contains those of its operations, so it must be recognised first.
_GENERATED = re.compile(r"triton_(poi|red|per|for)_|cpp_fused")
_ATTENTION = re.compile(r"flash|fmha|attention|sdpa|_attn")
_PRODUCT = re.compile(
    r"gemm|gemv|nvjet|cutlass|xmma|cublas|splitk|triton_tem|triton_mm"
    r"|^(aten|mkldnn)::_?(linear|matmul|mm|bmm|addmm|baddbmm|addbmm)|^mkldnn::_convolution"
)


def list_our_kernels() -> frozenset[str]:
    """Return the names of the Triton kernels in `cram_kernels`."""
    names: set[str] = set()
    for module in pkgutil.iter_modules(cram_kernels.__path__, "cram_kernels."):
        names |= {name for name in vars(import_module(module.name)) if name.endswith("_kernel")}
    return frozenset(names)


def classify(chain: Chain, ours: frozenset[str]) -> str:
    """Return the kind of a kernel or an operation: by its own name, else by the operations that called it."""
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


def remove_overlap(intervals: Iterable[Interval]) -> list[tuple[Chain, float]]:
    """Return the lengths of intervals, each without the time in which an earlier one still runs."""
    found, furthest = [], float("-inf")
    for chain, begin, end in sorted(intervals, key=lambda interval: interval[1]):
        alone = end - max(begin, furthest)
        if alone > 0.0:
            found.append((chain, alone))
            furthest = end
    return found


def summarise_parts(parts: Iterable[Part], seconds: float) -> dict[str, Any]:
    """Return the share of `seconds` in each of KINDS, and the names with the largest shares."""
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


class _MarkedOptimizer:
    """An optimizer whose step overlaps nothing in the profile, because the device is waited for before and after it."""

    def __init__(self, optimizer: Any, device: torch.device) -> None:
        self._optimizer, self._device = optimizer, device

    def __getattr__(self, name: str) -> Any:
        return getattr(self._optimizer, name)

    def step(self, *arguments: Any, **named: Any) -> None:
        synchronize(self._device)
        with record_function(OPTIMIZER):
            self._optimizer.step(*arguments, **named)
            synchronize(self._device)


def profile_update(session: Session, update: Callable[[Session], None]) -> dict[str, Any]:
    """Profile one update and summarise its parts. The profiler itself makes the gaps longer than they are."""
    parts, device = session.parts, session.parts.device
    activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * (device.type == "cuda")
    session.parts = replace(parts, optimizer=_MarkedOptimizer(parts.optimizer, device))
    try:
        with profile(activities=activities, acc_events=True) as profiled:
            synchronize(device)
            with record_function(UPDATE):
                update(session)
                synchronize(device)
    finally:
        session.parts = parts
    events = list(profiled.events())
    spans = {e.name: e.time_range for e in events if e.name in (UPDATE, OPTIMIZER) and e.device_type == DeviceType.CPU}
    parts = list_gpu_parts(events, spans[OPTIMIZER]) if device.type == "cuda" else list_cpu_parts(events)
    return summarise_parts(parts, (spans[UPDATE].end - spans[UPDATE].start) / 1e6)


def list_gpu_parts(events: Iterable[Any], optimizer: Any) -> list[Part]:
    """Return the parts of what ran on the GPU. `optimizer` is the span of the optimizer's kernels, in microseconds."""
    ours, intervals = list_our_kernels(), []
    for event in events:
        span = event.time_range
        # The profiler also lists annotations on the GPU, which are not kernels.
        if event.device_type == DeviceType.CPU or event.is_user_annotation or event.name in (UPDATE, OPTIMIZER):
            continue
        inside = optimizer.start <= span.start <= optimizer.end
        intervals.append(((event.name, OPTIMIZER) if inside else (event.name,), span.start, span.end))
    return [(classify(chain, ours), chain[0], length / 1e6) for chain, length in remove_overlap(intervals)]


def list_cpu_parts(events: Iterable[Any]) -> list[Part]:
    """Return the parts of what ran on the CPU: the time of each operation without the operations that it calls."""
    ours = list_our_kernels()
    operations = [e for e in events if e.name not in (UPDATE, OPTIMIZER)]
    return [(classify(_chain(e), ours), e.name, e.self_cpu_time_total / 1e6) for e in operations]


def _chain(event: Any) -> Chain:
    names = []
    while event is not None:
        names.append(event.name)
        event = event.cpu_parent
    return tuple(names)
