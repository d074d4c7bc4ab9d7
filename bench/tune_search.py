"""The search for launch settings: which candidates are tried, and what counts as better than the rule.

The search begins at the settings of the rule. It measures all its neighbours, moves to the fastest, and goes on from
there while that is faster. What it finds is then timed beside the rule in turns.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from bench.kernel_timing import Timing
from cram_kernels._settings import LaunchSettings, next_power_of_two
from cram_kernels._tuned import MOST_BLOCKS, Choice, Tuned, find_obstacle

MOST_MOVES = 4
NOTICEABLE = 0.99  # of the time: a neighbour that gains less is not taken
TURNS = 3
MOST_ROWS = 64
WARP = 32  # threads
MOST_PER_THREAD = 128  # elements that a thread holds; with more, registers spill

# Times a kernel with some settings. None where it cannot be launched with them, or computes something else.
Measure = Callable[[LaunchSettings], Timing | None]


@dataclass(frozen=True)
class Found:
    """What came of a search: the best settings, their seconds and those of the rule, and whether they are better."""

    settings: LaunchSettings
    seconds: float
    rule_seconds: float
    better: bool


def list_neighbours(choice: Choice, settings: LaunchSettings, rule: LaunchSettings) -> list[LaunchSettings]:
    """Return the neighbours of some settings that can be launched.

    They differ by a factor of two in rows, block or warps, or in rows and warps together, so that a warp keeps its
    work. Where the rule has several stages, they also differ by one stage.
    """
    candidates = []
    for names in (("rows",), ("block",), ("warps",), ("rows", "warps")):
        values = {name: getattr(settings, name) for name in names}
        candidates.append(replace(settings, **{name: 2 * value for name, value in values.items()}))
        if min(values.values()) > 1:
            candidates.append(replace(settings, **{name: value // 2 for name, value in values.items()}))
    if rule.stages > 1:  # without a pipelined loop, and where the GPU has no asynchronous copy, stages change nothing
        candidates += [replace(settings, stages=settings.stages + step) for step in (1, -1) if settings.stages + step]
    return [candidate for candidate in candidates if _is_sensible(choice, candidate)]


def _is_sensible(choice: Choice, settings: LaunchSettings) -> bool:
    holds_row = MOST_BLOCKS[choice.kernel] is not None
    held = settings.block * (-(-choice.width // settings.block) if holds_row else 1)
    threads = WARP * settings.warps
    return (
        settings.rows <= MOST_ROWS
        and settings.block <= next_power_of_two(choice.width)
        and threads <= settings.rows * settings.block
        and settings.rows * held <= threads * MOST_PER_THREAD
        and find_obstacle(choice, as_tuned(settings)) is None
    )


def as_tuned(settings: LaunchSettings) -> Tuned:
    """Return launch settings as an entry of a settings file has them."""
    return Tuned(settings.rows, settings.block, settings.warps, settings.stages)


def climb(choice: Choice, rule: LaunchSettings, measure: Measure) -> Iterator[LaunchSettings]:
    """Yield the settings at which the search is, from the rule to the best."""
    measured = {rule: measure(rule)}
    best, timing = rule, measured[rule]
    for _ in range(MOST_MOVES):
        if timing is None:
            return
        yield best
        for candidate in list_neighbours(choice, best, rule):
            if candidate not in measured:
                measured[candidate] = measure(candidate)
        seconds = {candidate: found.median for candidate, found in measured.items() if found is not None}
        fastest = min(seconds, key=lambda candidate: seconds[candidate])
        if seconds[fastest] > NOTICEABLE * timing.median:
            return
        best, timing = fastest, measured[fastest]
    yield best


def search(choice: Choice, rule: LaunchSettings, measure: Measure) -> Found | None:
    """Find the best settings of a kernel.

    They are better than the rule if their slowest 80th percentile of all turns is below the rule's fastest 20th. None
    if the rule's own settings cannot be measured.
    """
    places = list(climb(choice, rule, measure))
    if not places:
        return None
    best = places[-1]
    turns = [(measure(rule), measure(best)) for _ in range(TURNS if best != rule else 1)]
    rules, bests = ([timing for timing in column if timing is not None] for column in zip(*turns, strict=True))
    if not rules or not bests:
        return None
    rule_seconds, seconds = (sum(timing.median for timing in timings) / len(timings) for timings in (rules, bests))
    apart = max(timing.p80 for timing in bests) < min(timing.p20 for timing in rules)
    return Found(best, seconds, rule_seconds, best != rule and apart)
