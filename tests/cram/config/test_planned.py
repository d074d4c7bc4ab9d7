"""`model.size=auto`: which keys a plan may choose, and how its numbers get into a config."""

from pathlib import Path

import pytest

from cram.config.config import Config
from cram.config.plan import PLANNED_KEYS
from cram.config.planned import give_values, keep_plan
from cram.config.recipe import format_config, load_config, read_config
from cram.errors import CramError
from cram.planner.settings import planned_values
from cram.planner.shape import Shape

VALUES = planned_values(Shape(2, 64, 4, 128, 512), 1e6, 60.0, begins_causal=False)


def planned(words: list[str]) -> Config:
    return give_values(read_config(["recipe=bert_demo", *words]), VALUES)


def test_a_plan_sets_every_key_that_nobody_has_set() -> None:
    config = planned([])
    assert (config.model.size, config.model.layers, config.model.width, config.batch.tokens) == ("given", 2, 64, 512)


def test_a_plan_keeps_what_the_words_set() -> None:
    config = planned(["model.layers=5", "batch.tokens=4096"])
    assert (config.model.layers, config.batch.tokens, config.model.width) == (5, 4096, 64)
    assert config.plan.keep == ["batch.tokens", "model.layers"]


def test_a_plan_keeps_what_a_recipe_sets_that_asks_for_a_plan(tmp_path: Path) -> None:
    recipe = tmp_path / "mine.yaml"
    recipe.write_text("model: {size: auto, layers: 3}\n")
    assert read_config([f"recipe={recipe}"]).plan.keep == ["model.layers"]


def test_a_plan_replaces_the_shape_of_a_recipe_that_gives_one() -> None:
    config = read_config(["recipe=bert_24h", "model.size=auto", "model.width=512"])
    assert config.plan.keep == ["model.width"]
    assert give_values(config, VALUES | {"model.width": 64}).model.layers == 2


def test_a_config_that_is_to_be_planned_is_printed_without_the_planned_keys(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    config = read_config(["recipe=bert_demo", "model.layers=5"])
    path.write_text(format_config(config))
    text = path.read_text()
    assert "layers: 5" in text
    assert "width: 768" not in text
    assert load_config(path) == config


def test_a_resumed_run_keeps_its_plan() -> None:
    begun = planned(["model.layers=5"])
    assert keep_plan(read_config(["recipe=bert_demo", "model.layers=5"]), begun) == begun


def test_a_planned_config_is_data(tmp_path: Path) -> None:
    path = tmp_path / "plan.yaml"
    config = planned([])
    path.write_text(format_config(config))
    assert load_config(path) == config


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["plan.keep=[model.depth]"], "plan.keep: model.depth is not a key that is planned. These are: model.layers,"),
        (["model.size=huge"], "model.size=huge"),
        (["init=runs/other"], "init=.*other brings weights of a given shape, but model.size=auto plans the shape"),
        (["plan.probe_share=0.9"], "plan.probe_share=0.9"),
    ],
)
def test_words_that_no_plan_can_follow_are_refused(words: list[str], message: str) -> None:
    with pytest.raises(CramError, match=message):
        read_config(["recipe=bert_demo", *words])


def test_values_that_contradict_what_is_kept_are_refused() -> None:
    config = read_config(["recipe=bert_demo", "model.heads=3"])
    with pytest.raises(CramError, match=r"model\.width=64 is not a multiple of model.heads=3"):
        give_values(config, VALUES)


def test_every_planned_key_exists_and_has_a_value() -> None:
    assert set(PLANNED_KEYS) == set(VALUES)
