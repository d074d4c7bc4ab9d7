"""The calls that are timed for each choice of launch settings, made from the cases of the kernel benchmark."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch

from bench.kernel_cases import OPS, KernelCase
from bench.kernel_check import check_provider, make_call, make_inputs
from bench.kernel_providers import Provider, build_provider
from bench.kernel_timing import Call, Timing, count_input_sets
from cram_kernels._launch import launch, record_launches
from cram_kernels._settings import LaunchSettings, choose_by
from cram_kernels._tuned import Choice

CHECKED_ELEMENTS = 1 << 22  # of a tensor in the check of a candidate, which holds several such tensors in float64
GATED = ("geglu", "swiglu")

# Takes a call, the number of its input sets, the device and the seconds of a measurement: `time_call`.
Timer = Callable[[Call, int, torch.device, float], Timing]


@dataclass
class CaseCalls:
    """The calls of one case of ours on a device, and what they choose settings for.

    Attributes:
        choices: for each direction, what settings are chosen for in it, and the settings of the rule.
    """

    case: KernelCase
    device: torch.device
    choices: dict[str, dict[Choice, LaunchSettings]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        provider = build_provider("ours", self.case, self.device)
        if provider is None:
            raise ValueError(f"ours has no {self.case.op}")
        self._provider: Provider = provider
        inputs = [make_inputs(self.case, provider, self.device)]
        for direction in self._directions():
            call = make_call(provider, inputs, direction)
            found: dict[Choice, LaunchSettings] = {}
            with choose_by(lambda choice, rule, found=found: found.setdefault(choice, rule)):
                call(0)
            self.choices[direction] = found

    def rules(self) -> dict[Choice, LaunchSettings]:
        """Return the choices of all directions, with the settings of the rule."""
        return {choice: rule for choices in self.choices.values() for choice, rule in choices.items()}

    def _directions(self) -> list[str]:
        """Return forward and backward, or both together where the forward pass makes the gradients."""
        directions = OPS[self.case.op].directions
        return [name for name in directions if name != "both"] or list(directions)

    def is_right(self) -> bool:
        """Return whether results and gradients agree with float64."""
        return bool(check_provider(self.case.shrink(CHECKED_ELEMENTS), self._provider, self.device)["passed"])

    def time(self, direction: str, timer: Timer, seconds: float) -> Timing:
        """Time a direction with the settings that are chosen now."""
        op = OPS[self.case.op]
        sets = count_input_sets(op.bytes(self.case, direction) or self.case.tensor_bytes, self.device)
        inputs = [make_inputs(self.case, self._provider, self.device) for _ in range(sets)]
        call = make_call(self._provider, inputs, direction)
        if op.traffic is None:  # the matrix products take longer than the kernel and vary more
            call, sets = only_launches(call), 1
        return timer(call, sets, self.device, seconds)


def only_launches(call: Call) -> Call:
    """Return a call that repeats the launches of another call, on the same tensors, without the rest of it."""
    with record_launches() as launches:
        call(0)

    def repeat(_: int) -> None:
        for each in launches:
            launch(each.kernel, each.programs, *each.arguments, settings=each.settings, **each.constants)

    return repeat


def list_companions(case: KernelCase, cases: list[KernelCase]) -> Iterator[KernelCase]:
    """Yield the first case of each other op that has the same width and dtype and may launch the same kernels."""
    seen = {case.op}
    for other in cases:
        alike = (other.width, other.dtype) == (case.width, case.dtype) and _family(other) == _family(case)
        if alike and other.op not in seen:
            seen.add(other.op)
            yield other


def _family(case: KernelCase) -> str:
    return "gated" if case.op in GATED else case.op.partition("+")[0]


def list_distinct(cases: list[KernelCase]) -> list[KernelCase]:
    """Return the first case of each op, width and dtype. An entry of a settings file holds for any number of rows."""
    first: dict[tuple[str, int, str], KernelCase] = {}
    for case in cases:
        first.setdefault((case.op, case.width, case.dtype), case)
    return list(first.values())
