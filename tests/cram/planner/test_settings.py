"""What follows from a shape: learning rates, initial weights, intervals."""

import pytest

from cram.config.plan import PLANNED_KEYS
from cram.config.recipe import read_config
from cram.config.schema import get_value
from cram.planner.settings import adamw_lr, embedding_lr, initial_std, muon_lr, planned_values
from cram.planner.shape import Shape

SHAPE = Shape(layers=3, width=192, heads=12, mlp_width=384, batch_tokens=512)


def test_every_planned_key_gets_a_value() -> None:
    assert set(planned_values(SHAPE, 1e6, 60.0, begins_causal=False)) == set(PLANNED_KEYS)


@pytest.mark.parametrize("name", ["bert_10m", "bert_1h", "bert_24h"])
def test_the_rules_are_near_the_recipes_for_a_gpu(name: str) -> None:
    config = read_config([f"recipe={name}"])
    width = config.model.width
    assert get_value(config, "optimizer.lr") == pytest.approx(adamw_lr(width), rel=0.65)
    assert get_value(config, "optimizer.embedding_lr") == pytest.approx(embedding_lr(width), rel=0.25)
    assert get_value(config, "optimizer.muon.lr") == muon_lr(config.batch.tokens)


def test_initial_weights_shrink_with_the_root_of_the_width() -> None:
    assert (initial_std(192), initial_std(768)) == (0.0599, 0.03)
    assert initial_std(32) == initial_std(64) == 0.08


def test_small_updates_get_small_steps() -> None:
    assert [muon_lr(tokens) for tokens in (256, 512, 1024, 4096)] == [0.005, 0.01, 0.02, 0.02]


def test_short_trainings_begin_otherwise_than_long_ones() -> None:
    short, long = (
        planned_values(SHAPE, tokens, seconds, begins_causal=False)
        for tokens, seconds in ((1e6, 60.0), (1e9, 86_400.0))
    )
    assert (short["model.zero_init"], short["model.rope_theta"]) == (False, 100.0)
    assert (long["model.zero_init"], long["model.rope_theta"]) == (True, 10_000.0)
    assert planned_values(SHAPE, 1e6, 60.0, begins_causal=True)["model.zero_init"]


@pytest.mark.parametrize(
    ("seconds", "checkpoint", "evaluation"),
    [(30.0, "20s", 0.1), (None, "20s", 0.1), (600.0, "120s", 0.1), (86_400.0, "600s", 0.05)],
)
def test_intervals_follow_the_budget(seconds: float | None, checkpoint: str, evaluation: float) -> None:
    values = planned_values(SHAPE, 1e6, seconds, begins_causal=False)
    assert (values["checkpoint.interval"], values["evaluation.interval"]) == (checkpoint, evaluation)
