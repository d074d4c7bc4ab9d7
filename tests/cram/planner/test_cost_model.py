"""The cost model finds costs that are known, keeps what it is not told, and predicts what it was not shown."""

import json
import math
import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cram.config.recipe import read_config
from cram.errors import CramError
from cram.machine.peaks import PEAK_FLOPS
from cram.planner.cost_model import CostModel, assumed_cost, datasheet_cost, kept_cost
from cram.planner.ladder import shape_ladder
from cram.planner.shape import Shape
from cram.planner.throughput import TimedShape, spread_shapes
from cram.planner.workload import Workload

WORK = Workload(read_config(["recipe=bert_demo"]), 4096, "cpu", keeps_scores=True)
LADDER = shape_ladder("encoder", "cpu", 128)
ASSUMED = assumed_cost(WORK)
# Costs of a machine that is unlike the one that is assumed.
TRUE = CostModel(
    WORK,
    {
        "products": 9e-12,
        "logits": 2e-9,
        "activations": 6e-9,
        "orthogonalisation": 1.2e-11,
        "parameters": 6e-9,
        "layers": 1e-3,
        "update": 6e-3,
    },
    "made",
)


def timed(model: CostModel, shapes: list[Shape], noise: float = 0.0, seed: int = 0) -> list[TimedShape]:
    source = random.Random(seed)
    return [
        TimedShape(shape, model.predict(shape) * math.exp(source.gauss(0, noise)), WORK.share()) for shape in shapes
    ]


def largest_error(model: CostModel, shapes: list[Shape]) -> float:
    return max(abs(model.predict(shape) / TRUE.predict(shape) - 1) for shape in shapes)


def test_known_costs_are_found_again() -> None:
    shown = timed(TRUE, spread_shapes(LADDER, 40))
    model = ASSUMED.adapted(shown, "fitted", firmness=1e-12)
    assert model.costs == pytest.approx(TRUE.costs, rel=1e-3)
    assert model.error == pytest.approx(0.0, abs=1e-3)
    assert model.origin == "fitted"
    assert largest_error(replace(ASSUMED.adapted(shown, ""), timed={}), LADDER) < 0.1


def test_shapes_that_were_left_out_are_predicted_from_thirty_noisy_ones() -> None:
    shown = spread_shapes(LADDER, 30)
    model = ASSUMED.adapted(timed(TRUE, shown, noise=0.05), "fitted")
    left_out = [shape for shape in LADDER if shape not in shown]
    assert largest_error(model, left_out) < 0.2
    assert model.error == pytest.approx(0.06, abs=0.02)


def test_one_shape_scales_all_costs_alike() -> None:
    (shape,) = spread_shapes(LADDER, 1)
    model = TRUE.adapted(timed(TRUE.scaled(3.0), [shape]), "scaled")
    for name, cost in TRUE.costs.items():
        assert model.costs[name] == pytest.approx(3.0 * cost)
    assert model.error is TRUE.error


@given(st.integers(1, 12), st.floats(0.1, 10.0))
@settings(max_examples=25)
def test_a_machine_of_another_pace_alone_is_predicted_exactly(number: int, factor: float) -> None:
    model = TRUE.adapted(timed(TRUE.scaled(factor), spread_shapes(LADDER, number)), "scaled")
    assert model.predict(LADDER[-1]) == pytest.approx(factor * TRUE.predict(LADDER[-1]))


def test_a_few_shapes_of_another_machine_are_better_than_none() -> None:
    errors = []
    for number in (1, 4, 8, 16):
        model = ASSUMED.adapted(timed(TRUE, spread_shapes(LADDER, number)), "")
        errors.append(largest_error(replace(model, timed={}), LADDER))
    assert errors == sorted(errors, reverse=True)


def test_every_cost_stays_above_zero() -> None:
    free = TRUE.scaled(1.0)
    free.costs["products"] = 0.0
    model = ASSUMED.adapted(timed(free, LADDER), "")
    assert all(cost > 0 for cost in model.costs.values())
    assert model.costs["products"] < 0.3 * ASSUMED.costs["products"]


def test_a_timed_shape_has_its_own_seconds() -> None:
    shape, other = spread_shapes(LADDER, 2)
    model = TRUE.adapted([TimedShape(shape, 1.5, WORK.share()), TimedShape(other, 2.5, WORK.share())], "")
    assert model.predict(shape) == pytest.approx(1.5)
    ratio = replace(model, timed={}).predict(shape, 0.1) / replace(model, timed={}).predict(shape)
    assert model.predict(shape, 0.1) == pytest.approx(1.5 * ratio)
    assert ratio > 1.0  # more is predicted at the beginning


def test_a_shape_that_did_not_fit_has_no_throughput() -> None:
    shape, other = spread_shapes(LADDER, 2)
    model = TRUE.adapted([TimedShape(shape, math.inf, 0.3), *timed(TRUE, [other])], "")
    assert model.tokens_per_second(shape) == 0.0
    assert model.predict(other) == pytest.approx(TRUE.predict(other))
    assert TRUE.adapted([TimedShape(shape, math.inf, 0.3)], "").costs == TRUE.costs


def test_tokens_a_second_are_an_average_over_time() -> None:
    """A causal phase makes all logits, the second phase none worth mentioning: the mean is that of both speeds."""
    words = ["objective.causal_share=0.25", "objective.mask_rate=1e-9", "objective.final_mask_rate=null"]
    work = replace(WORK, config=read_config(["recipe=bert_demo", *words]))
    model, shape = CostModel(work, {"logits": 1e-9, "update": 0.01}, ""), Shape(2, 64, 2, 128, 2048)
    causal, masked = 2048 / (0.01 + 2048 * 4096e-9), 2048 / 0.01
    assert model.tokens_per_second(shape) == pytest.approx(0.25 * causal + 0.75 * masked)


def test_tokens_a_second_follow_the_mask_rate() -> None:
    """Where time goes into logits alone, the mean is the integral of 1 / rate from 0.5 down to 0.1."""
    words = ["objective.mask_rate=0.5", "objective.final_mask_rate=0.1"]
    work = replace(WORK, config=read_config(["recipe=bert_demo", *words]))
    expected = math.log(0.5 / 0.1) / (0.5 - 0.1) / 4096e-9
    assert CostModel(work, {"logits": 1e-9}, "").tokens_per_second(LADDER[0]) == pytest.approx(expected, rel=0.005)


def test_json_holds_costs_and_error() -> None:
    model = ASSUMED.adapted(timed(TRUE, spread_shapes(LADDER, 20), noise=0.05), "fitted")
    saved = json.loads(json.dumps(model.to_json()))
    assert saved["costs"] == pytest.approx(model.costs, rel=5e-3)
    assert saved["error"] == pytest.approx(model.error, abs=5e-4)


def test_a_card_from_its_datasheet() -> None:
    """16 layers of 768 on an A6000 at half its peak rate: 124 thousand tokens a second in the published estimate."""
    config = read_config(["recipe=crammed_bert", "objective.mask_rate=0.25"])
    work = Workload(config, 32768, "cuda")
    model = datasheet_cost(work, "RTX A6000", 0.5)
    shape = Shape(16, 768, 12, 1536, 2**20)
    assert model.tokens_per_second(shape) == pytest.approx(124_000, rel=0.02)
    assert model.origin == "datasheet: RTX A6000, 154.8 TFLOP/s at an assumed utilisation of 50%"


def test_an_unknown_card_is_refused_with_those_that_are_known() -> None:
    with pytest.raises(CramError) as error:
        datasheet_cost(WORK, "RTX 6090", 0.5)
    assert str(error.value) == f"card=RTX 6090 is unknown. Known cards: {', '.join(PEAK_FLOPS)}."


@pytest.mark.parametrize("device_type", ["cpu", "cuda"])
def test_a_device_without_a_kept_model_gets_an_assumed_one(device_type: str) -> None:
    work = replace(WORK, device_type=device_type)
    model = kept_cost(work, "fp16")
    assert model.origin == "assumed"
    assert set(model.costs) == set(work.counts(LADDER[0], 0.3))


@pytest.mark.parametrize("recipe", ["bert_demo", "gpt_demo"])
def test_the_kept_models(recipe: str) -> None:
    work = replace(WORK, config=read_config([f"recipe={recipe}"]))
    bf16, fp32 = (kept_cost(work, precision) for precision in ("bf16", "fp32"))
    demo = Shape(layers=3, width=192, heads=12, mlp_width=384, batch_tokens=2048)
    for model in (bf16, fp32):
        assert model.costs.keys() == work.counts(demo, 0.3).keys()
        assert all(cost > 0 for cost in model.costs.values())
        assert model.error is not None and model.error < 0.15
        assert model.origin.startswith("kept: ")
    assert 8_000 < bf16.tokens_per_second(demo) < 40_000
    assert 0.2 < fp32.tokens_per_second(demo) / bf16.tokens_per_second(demo) < 0.8
