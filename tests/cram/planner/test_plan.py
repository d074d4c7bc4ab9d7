"""The choice of a shape: least predicted loss on this machine, within one pass over the data."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cram.budget import Budget
from cram.errors import CramError
from cram.planner.plan import Plan, Size, batch_by_rule, make_plan, seconds_past_unigram
from cram.planner.shape import Shape

SHAPES = tuple(
    Shape(layers, width, width // 32, 2 * width, batch)
    for layers, width in ((1, 64), (2, 128), (4, 256), (8, 512))
    for batch in (512, 2048)
)


class PowerLaw:
    """A law with known constants: more parameters and tokens are better; it covers what `most_tokens` allows."""

    def __init__(self, most_tokens: float = math.inf, start: float = 0.0) -> None:
        self.most_tokens, self.start = most_tokens, start

    def predict(self, parameters: float, tokens: float, batch: float) -> float:
        return min(1.0, self.start + 0.3 * (1e6 / parameters) ** 0.1 + 0.3 * (1e6 / tokens) ** 0.3 + batch * 1e-6)

    def covers(self, parameters: float, tokens: float, batch: float) -> bool:
        return tokens <= self.most_tokens


def size_of(shape: Shape) -> Size:
    body = shape.layers * 10 * shape.width**2
    return Size(parameters=body + 4096 * shape.width, without_embedding=body, memory=16 * body)


def quick(speed: float):  # noqa: ANN201 (a closure)
    return lambda shape: (size_of(shape).without_embedding * shape.batch_tokens / speed, False)


def plan(seconds: float, speed: float = 1e10, available: int | None = None, law: PowerLaw | None = None) -> Plan:
    return make_plan(SHAPES, size_of, quick(speed), Budget("wall", seconds), available, law or PowerLaw(), 50.0)


def test_the_least_predicted_loss_is_chosen() -> None:
    chosen = plan(60).chosen
    assert all(chosen.predicted <= candidate.predicted for candidate in plan(60).candidates)


def test_a_slower_machine_gets_a_smaller_model() -> None:
    assert plan(60, speed=1e11).chosen.size.parameters > plan(60, speed=1e9).chosen.size.parameters


def test_a_longer_budget_gets_no_smaller_model() -> None:
    sizes = [plan(seconds).chosen.size.parameters for seconds in (10, 100, 1000, 10_000)]
    assert sizes == sorted(sizes)
    assert sizes[0] < sizes[-1]


def test_no_plan_takes_more_tokens_than_one_pass_has() -> None:
    limited = plan(10_000, available=200_000)
    assert all(candidate.tokens <= 200_000 for candidate in limited.candidates)
    # With the tokens fixed, a larger model costs nothing but time.
    assert limited.chosen.size.parameters > plan(20, available=200_000).chosen.size.parameters


def test_a_plan_leaves_some_of_the_data_if_a_shape_allows_it() -> None:
    needed = plan(60).chosen.needed
    assert plan(60, available=round(1.2 * needed)).chosen.needed == needed
    assert plan(60, available=round(1.01 * needed)).chosen.needed <= 0.97 * 1.01 * needed


@given(st.floats(1, 1e5), st.floats(1e8, 1e13))
def test_tokens_updates_and_pace_belong_together(seconds: float, speed: float) -> None:
    try:
        made = plan(seconds, speed)
    except CramError:
        assert seconds < min(quick(speed)(shape)[0] for shape in SHAPES)
        return
    for candidate in made.candidates:
        assert candidate.tokens == candidate.updates * candidate.shape.batch_tokens
        assert candidate.updates * candidate.seconds <= seconds * (1 + 1e-9)
        assert (candidate.updates + 1) * candidate.seconds >= seconds * (1 - 1e-9)


def test_without_a_law_that_covers_the_budget_the_rule_of_tokens_per_parameter_chooses() -> None:
    made = plan(600, law=PowerLaw(most_tokens=0))
    assert not made.by_law
    distance = abs(math.log(made.chosen.tokens_per_parameter / 50))
    assert distance <= min(abs(math.log(candidate.tokens_per_parameter / 50)) for candidate in made.candidates) + 1.5
    assert made.chosen.relative_loss is None


def test_a_budget_in_tokens_is_planned_without_the_machine() -> None:
    budget = Budget("tokens", 1e6)
    slow, fast = (make_plan(SHAPES, size_of, quick(speed), budget, None, PowerLaw(), 50.0) for speed in (1e8, 1e12))
    assert slow.chosen.shape == fast.chosen.shape
    assert slow.chosen.tokens == 1e6 // slow.chosen.shape.batch_tokens * slow.chosen.shape.batch_tokens


def test_a_budget_in_updates_gives_each_candidate_so_many() -> None:
    made = make_plan(SHAPES, size_of, quick(1e9), Budget("steps", 300), None, None, 50.0)
    assert {candidate.updates for candidate in made.candidates} == {300}


def test_a_budget_too_small_for_one_update_is_refused() -> None:
    with pytest.raises(
        CramError, match=r"budget=0.001s is too small for one update: the quickest shape takes .* s here"
    ):
        plan(0.001, speed=1e9)


def test_a_corpus_without_one_batch_is_refused() -> None:
    with pytest.raises(
        CramError, match=r"the corpus is too small for one batch: it has 500 tokens, batch\.tokens asks"
    ):
        plan(60, available=500)


def test_no_shape_that_fits_is_refused() -> None:
    with pytest.raises(CramError, match="no shape of the ladder fits into the memory"):
        make_plan((), size_of, quick(1e9), Budget("wall", 10), None, None, 50.0)


def test_the_budget_that_gets_past_the_unigram_baseline_is_the_first_that_does() -> None:
    law = PowerLaw(start=0.35)
    seconds = seconds_past_unigram(lambda longer: plan(longer, law=law), 1.0)
    assert plan(1.0, law=law).chosen.predicted == 1.0
    assert seconds is not None
    assert plan(seconds, law=law).chosen.predicted < 0.995 <= plan(seconds / 1.25, law=law).chosen.predicted


def test_the_rule_for_updates_passes_through_the_recipes() -> None:
    assert batch_by_rule(75e6) == 16_384
    assert 65_536 < batch_by_rule(1.3e9) < 131_072
    assert 262_144 < batch_by_rule(9e9) < 524_288
