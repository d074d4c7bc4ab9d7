"""Schedules: pure functions of progress, the spent share of the budget, in [0, 1].

Every learning-rate schedule is a multiplier in [0, 1] of the peak and is zero when the budget is spent. An update reads
it, and momentum and weight decay, in its middle, so that neither the first nor the last update has a learning rate of
zero. A new one is a function from the keys `schedule.*` to a `Shape`, and one line in `SCHEDULES` of
`cram.config.choices`.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

from cram.config.choices import SCHEDULES
from cram.config.training import BatchConfig, ScheduleConfig

Schedule = Callable[[float], float]


@dataclass(frozen=True)
class Shape:
    """A rise from 0 to 1, then a fall to 0; the multiplier is the smaller of the two.

    Attributes:
        rise_ends: progress at which the rise reaches 1; 0 for no rise.
        fall_begins: progress up to which the fall is at 1. A longer budget can be continued from there.
        fall: the fall over progress.
        reads_end: whether an update reads its rates at its predicted end, and not in its middle.
    """

    rise_ends: float
    fall_begins: float
    fall: Schedule
    reads_end: bool = False


def make_schedule(config: ScheduleConfig) -> Schedule:
    """Make the learning-rate multiplier over progress."""
    shape = _shape(config)
    return lambda progress: min(_rise(progress, shape.rise_ends), shape.fall(progress))


def make_others_schedule(config: ScheduleConfig) -> Schedule | None:
    """Make the multiplier of embedding, gains and biases: as that of the matrices, but for a fall of their own.

    Returns:
        None without `schedule.others_decay_start`.

    Source: modded-nanogpt's optimizer track, result 24, where the matrices' rates fall from 0.2 of the run on and the
    others from 0.6 on.
    """
    begins = config.others_decay_start
    if begins is None:
        return None
    shape = _shape(config)
    return lambda progress: min(_rise(progress, shape.rise_ends), _fall(progress, begins))


def make_rate_progress(config: ScheduleConfig) -> Callable[[float, float], float]:
    """Make the function that says where an update reads its rates: learning rate, momentum and weight decay.

    Returns:
        A function of the progress at which an update begins and of its predicted end, which returns the progress in
        the middle of the two, or the end where the shape asks for it.
    """
    if _shape(config).reads_end:
        return lambda begin, end: end
    return lambda begin, end: 0.5 * (begin + end)


def decay_begins(config: ScheduleConfig) -> float:
    """Progress up to which no learning rate has begun to fall, as a share of the budget."""
    begins = _shape(config).fall_begins
    return begins if config.others_decay_start is None else min(begins, config.others_decay_start)


def linear_shape(config: ScheduleConfig) -> Shape:
    """Warm-up, then linear to zero. Source: arXiv:2502.15938."""
    return Shape(config.warmup, config.warmup, lambda progress: _fall(progress, config.warmup))


def cosine_shape(config: ScheduleConfig) -> Shape:
    """Warm-up, then half a cosine to zero."""
    return Shape(
        config.warmup,
        config.warmup,
        lambda progress: 0.5 - 0.5 * math.cos(math.pi * _fall(progress, config.warmup)),
    )


def triangle_shape(config: ScheduleConfig) -> Shape:
    """Linear up to `peak`, then linear to zero."""
    return Shape(config.peak, config.peak, lambda progress: _fall(progress, config.peak))


def trapezoid_shape(config: ScheduleConfig) -> Shape:
    """Warm-up, constant up to `decay_start`, then linear to zero."""
    begins = max(config.decay_start, config.warmup)
    return Shape(config.warmup, begins, lambda progress: _fall(progress, begins))


def budget_triangle2_shape(config: ScheduleConfig) -> Shape:
    """Cramming's: from 0.25 up to 1 at three quarters of the budget, then linear to zero.

    Source: arXiv:2212.14034, the scheduler of the final recipe in its code, which the last update therefore reads at
    its end; changed: never below zero.
    """
    return Shape(0.0, 0.75, lambda progress: max(0.0, min(0.25 + progress, 4.0 * (1.0 - progress))), reads_end=True)


def _shape(config: ScheduleConfig) -> Shape:
    shape: Shape = SCHEDULES[config.kind].load()(config)
    return shape


def _rise(progress: float, end: float) -> float:
    """0 at the start, 1 from `end` on."""
    return min(1.0, progress / end) if end else 1.0


def _fall(progress: float, start: float) -> float:
    """1 up to `start`, 0 at the end of the budget."""
    return min(1.0, max(0.0, (1.0 - progress) / (1.0 - start)))


def linear(start: float, end: float) -> Schedule:
    """A line from `start` to `end` over the whole budget."""
    return ramp(start, end, 1.0)


def ramp(start: float, end: float, until: float) -> Schedule:
    """A line from `start` to `end`, which is reached at `until`, a share of the budget; constant from there on."""
    return lambda progress: start + (end - start) * _rise(progress, until)


def batch_tokens(config: BatchConfig) -> Schedule:
    """Tokens of one update over progress: linear from `start_tokens` to `tokens` until `ramp`, then constant."""
    start = config.tokens if config.start_tokens is None else config.start_tokens
    return ramp(start, config.tokens, config.ramp)
