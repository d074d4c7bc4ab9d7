"""Schedules: pure functions of progress, the spent share of the budget, in [0, 1].

Every learning-rate schedule is a multiplier in [0, 1] of the peak and lands at zero when the budget is spent.
"""

import math
from collections.abc import Callable

from cram.config.training import BatchConfig, ScheduleConfig

Schedule = Callable[[float], float]


def make_schedule(config: ScheduleConfig) -> Schedule:
    """The learning-rate multiplier over progress.

    `linear`, `cosine`: warm-up, then down. `triangle`: up to `peak`, then down. `trapezoid`: warm-up,
    constant to `decay_start`, then linear to zero. `budget-triangle2`: Cramming's, from 0.25 up to 1
    at three quarters, then down.

    Source: budget-triangle2 from arXiv:2212.14034 (its code, scheduler of the final recipe); changed:
    never below zero. Linear to zero: arXiv:2502.15938.
    """
    down: dict[str, Schedule] = {
        "linear": lambda progress: _fall(progress, config.warmup),
        "cosine": lambda progress: 0.5 - 0.5 * math.cos(math.pi * _fall(progress, config.warmup)),
        "trapezoid": lambda progress: _fall(progress, max(config.decay_start, config.warmup)),
        "triangle": lambda progress: _fall(progress, config.peak),
        "budget-triangle2": lambda progress: max(0.0, min(0.25 + progress, 4.0 * (1.0 - progress))),
    }
    rise = {"triangle": config.peak, "budget-triangle2": 0.0}.get(config.kind, config.warmup)
    fall = down[config.kind]
    return lambda progress: min(_rise(progress, rise), fall(progress))


def decay_begins(config: ScheduleConfig) -> float:
    """The progress up to which the learning rate has not begun to fall, as a share of the budget.

    Of `linear` and `cosine` the end of the warm-up, of `triangle` and `budget-triangle2` the peak.
    """
    return {
        "trapezoid": max(config.decay_start, config.warmup),
        "triangle": config.peak,
        "budget-triangle2": 0.75,
    }.get(config.kind, config.warmup)


def _rise(progress: float, end: float) -> float:
    """0 at the start, 1 from `end` on."""
    return min(1.0, progress / end) if end else 1.0


def _fall(progress: float, start: float) -> float:
    """1 up to `start`, 0 at the end of the budget."""
    return min(1.0, max(0.0, (1.0 - progress) / (1.0 - start)))


def linear(start: float, end: float) -> Schedule:
    """From `start` to `end` over the whole budget."""
    return ramp(start, end, 1.0)


def ramp(start: float, end: float, until: float) -> Schedule:
    """From `start` to `end`, reached at `until`, a share of the budget, and constant from there on."""
    return lambda progress: start + (end - start) * _rise(progress, until)


def batch_tokens(config: BatchConfig) -> Schedule:
    """Tokens of one update over progress: linear from `start_tokens` to `tokens` until `ramp`, then constant."""
    start = config.tokens if config.start_tokens is None else config.start_tokens
    return ramp(start, config.tokens, config.ramp)
