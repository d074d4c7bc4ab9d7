"""The choice of a shape for a budget of time: the one with the least predicted loss on this device."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from cram.budget import Budget
from cram.errors import CramError
from cram.planner.shape import Shape

# Tokens for each parameter where no fit of our own covers the budget, by `objective.held_out`. The decoder's is that of
# IsoFLOP fits with Muon at 1e18 to 1e19 FLOP. A masked model learns from a share of its positions only, so that the
# ratio is divided by the mean of a mask rate that falls from 0.30 to 0.15.
TOKENS_PER_PARAMETER = {"causal": 10.5, "masked": 50.0}
# Updates of B = 16,384 (D / 75e6)^(2/3) tokens for D tokens in all: a line through the recipes of a minute to a day.
BATCH_AT, TOKENS_AT, BATCH_EXPONENT = 16_384, 75e6, 2 / 3
# Share of the data that a plan may need. A run that turns out quicker than planned then still has text for its budget.
DATA_SHARE = 0.97
UNIGRAM = 0.995  # share of the unigram baseline's nats from which on a model counts as not better


class LossPrediction(Protocol):
    """What a plan asks of a fitted law."""

    def predict(self, parameters: float, tokens: float, batch: float) -> float:
        """Predict the held-out loss as a share of the unigram baseline's."""
        ...

    def covers(self, parameters: float, tokens: float, batch: float) -> bool:
        """Whether the law was fitted around such a run."""
        ...


@dataclass(frozen=True)
class Size:
    """What a shape takes, whichever machine it is on.

    Attributes:
        parameters: all parameters.
        without_embedding: all but the embedding.
        memory: bytes that training needs at least.
    """

    parameters: int
    without_embedding: int
    memory: int


@dataclass(frozen=True)
class Candidate:
    """A shape and what the budget makes of it.

    Attributes:
        seconds: of one update.
        measured: whether the shape was timed here; otherwise the cost model gives its seconds.
        needed: tokens that the budget has time for.
        tokens: tokens that it is trained on: as many as needed, at most what the data has.
        relative_loss: predicted loss as a share of the unigram baseline's; None without a law that covers it.
    """

    shape: Shape
    size: Size
    seconds: float
    measured: bool
    needed: int
    tokens: int
    relative_loss: float | None

    @property
    def updates(self) -> int:
        """Number of updates."""
        return self.tokens // self.shape.batch_tokens

    @property
    def predicted(self) -> float:
        """The relative loss of a candidate that the law covers."""
        assert self.relative_loss is not None
        return self.relative_loss

    @property
    def tokens_per_second(self) -> float:
        """Pace of the training."""
        return self.shape.batch_tokens / self.seconds

    @property
    def tokens_per_parameter(self) -> float:
        """Tokens for each of all parameters."""
        return self.tokens / self.size.parameters


@dataclass(frozen=True)
class Plan:
    """A chosen shape among its candidates.

    Attributes:
        chosen: the candidate with the least predicted loss, or the one that the rule of tokens per parameter gives.
        candidates: all shapes that fit into memory.
        by_law: whether a fitted law predicts the loss of the chosen shape.
    """

    chosen: Candidate
    candidates: tuple[Candidate, ...]
    by_law: bool


def make_plan(
    shapes: Sequence[Shape],
    size_of: Callable[[Shape], Size],
    seconds_of: Callable[[Shape], tuple[float, bool]],
    budget: Budget,
    available: int | None,
    law: LossPrediction | None,
    ratio: float,
) -> Plan:
    """Choose among shapes for a budget.

    A budget in tokens or updates is the same for small and large models, so that the largest has the least predicted
    loss. The rule of tokens per parameter chooses then.

    Args:
        shapes: that fit into memory.
        size_of: parameters and memory of a shape.
        seconds_of: seconds of an update, and whether they were measured.
        budget: what training may spend.
        available: tokens that the data has, all epochs together; None if unknown.
        law: predicts the loss; None without one.
        ratio: tokens per parameter where no law covers the budget.

    Raises:
        CramError: where there is no shape, or the budget is too short for one update of any.
    """
    if not shapes:
        raise CramError(
            "no shape of the ladder fits into the memory of this device. Use a smaller vocabulary (wordpiece."
            "vocab_size), shorter rows (data.seq_len), or give the shape yourself with model.size=given."
        )
    smallest = min(shape.batch_tokens for shape in shapes)
    if available is not None and available < smallest:
        raise CramError(
            f"the corpus is too small for one batch: it has {available:,} tokens, batch.tokens asks for {smallest:,}.\n"
            "Give more text (data.source=), or lower batch.tokens."
        )
    candidates = tuple(
        _candidate(shape, size_of(shape), *seconds_of(shape), budget, available, law) for shape in shapes
    )
    possible = [candidate for candidate in candidates if candidate.updates >= 1]
    if not possible:
        quickest = min(candidates, key=lambda candidate: candidate.seconds)
        raise CramError(
            f"budget={budget.words()} is too small for one update: the quickest shape takes {quickest.seconds:.2g} s "
            f"here for one of {quickest.shape.batch_tokens} tokens. Use a larger budget."
        )
    by_rule = min(possible, key=lambda candidate: _distance_to_rule(candidate, ratio))
    covered = [candidate for candidate in possible if candidate.relative_loss is not None]
    covers_rule = by_rule.relative_loss is not None
    if budget.clock != "wall" or not (covers_rule or _mostly_covered(covered, possible)):
        return Plan(by_rule, candidates, by_law=covers_rule)
    safe = [candidate for candidate in covered if available is None or candidate.needed <= DATA_SHARE * available]
    return Plan(min(safe or covered, key=lambda candidate: candidate.predicted), candidates, by_law=True)


def seconds_past_unigram(plan_for: Callable[[float], Plan], seconds: float) -> float | None:
    """Find the budget with which the predicted loss gets past the unigram baseline.

    Args:
        plan_for: makes the plan of a budget in seconds.
        seconds: of the budget that does not suffice.

    Returns:
        Seconds, in steps of a quarter of the budget before; None if a thousand times the budget do not suffice, or no
        law covers so long a budget.
    """
    longer = seconds
    while longer < 1000 * seconds:
        longer *= 1.25
        plan = plan_for(longer)
        if not plan.by_law:
            return None
        if plan.chosen.predicted < UNIGRAM:
            return longer
    return None


def batch_by_rule(tokens: float) -> float:
    """Tokens of an update that suit so many tokens of training."""
    return float(BATCH_AT * (tokens / TOKENS_AT) ** BATCH_EXPONENT)


def _candidate(
    shape: Shape,
    size: Size,
    seconds_of_update: float,
    measured: bool,
    budget: Budget,
    available: int | None,
    law: LossPrediction | None,
) -> Candidate:
    cost = {"wall": seconds_of_update, "tokens": shape.batch_tokens, "steps": 1}[budget.clock]
    needed = int(budget.limit / cost) * shape.batch_tokens
    tokens = needed if available is None else min(needed, available)
    relative_loss = None
    if law and tokens and law.covers(size.without_embedding, tokens, shape.batch_tokens):
        relative_loss = law.predict(size.without_embedding, tokens, shape.batch_tokens)
    return Candidate(shape, size, seconds_of_update, measured, needed, tokens, relative_loss)


def _distance_to_rule(candidate: Candidate, ratio: float) -> float:
    """How far, in logarithms, a candidate is from the rules of tokens per parameter and of tokens per update."""
    of_size = math.log(candidate.tokens_per_parameter / ratio)
    of_batch = math.log(candidate.shape.batch_tokens / batch_by_rule(candidate.tokens))
    return abs(of_size) + abs(of_batch)


def _mostly_covered(covered: Sequence[Candidate], possible: Sequence[Candidate]) -> bool:
    """Whether the law covers at least a quarter of the candidates; else the least loss may be one at its border."""
    return 4 * len(covered) >= len(possible)
