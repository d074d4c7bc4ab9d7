"""A plan is read from its recipe and the file of candidates beside it; what is not a plan is refused."""

from dataclasses import replace
from pathlib import Path

import pytest

from cram.config.config import Config
from cram.config.recipe import format_config
from cram.errors import CramError
from cram.planner.plan_file import write_plan_file
from cram.reporting.reading.plans import read_plan
from tests.cram.planner.test_plan_file import written


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """A planned recipe, without the file of its candidates."""
    config = Config(recipe="bert_auto")
    path = tmp_path / "mine.yaml"
    path.write_text(format_config(replace(config, plan=replace(config.plan, budget="10s", tokens=9000, nats=4.5))))
    return path


def test_a_plan_is_read_with_its_candidates(recipe: Path) -> None:
    assert read_plan(recipe).written is None
    write_plan_file(recipe, written())
    plan = read_plan(recipe)
    assert (plan.name, plan.config.plan.tokens, plan.written) == ("mine", 9000, written())


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        CramError, match=r"plan=.*none\.yaml: there is no such file\. Make it with python -m cram\.plan"
    ):
        read_plan(tmp_path / "none.yaml")


def test_a_file_that_is_not_yaml_is_refused(recipe: Path) -> None:
    path = write_plan_file(recipe, written())
    with pytest.raises(CramError, match=r"plan=.*mine\.json is not a plan: give the yaml file that cram\.plan to= has"):
        read_plan(path)


def test_a_recipe_without_predictions_is_not_a_plan(recipe: Path) -> None:
    recipe.write_text("budget: 75s\n")
    with pytest.raises(CramError, match=r"(?s)not a plan: it is a recipe without predictions, plan\.budget is missing"):
        read_plan(recipe)


@pytest.mark.parametrize("content", ["layers: 3\n", "just words\n", "{\n"])
def test_a_file_that_is_not_a_recipe_is_refused(recipe: Path, content: str) -> None:
    recipe.write_text(content)
    with pytest.raises(CramError, match=r"plan=.*mine\.yaml is not a plan: "):
        read_plan(recipe)


def test_damaged_candidates_are_refused(recipe: Path) -> None:
    recipe.with_suffix(".json").write_text("{}")
    with pytest.raises(CramError, match=r"mine\.json: not the file of a plan of this version"):
        read_plan(recipe)
