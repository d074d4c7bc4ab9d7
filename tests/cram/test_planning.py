"""`model.size=auto` in a run, and the plan of a recipe: what is measured, chosen, kept and written."""

from collections.abc import Callable
from pathlib import Path

import pytest

from cram.config.commands import PlannerConfig
from cram.config.config import Config
from cram.config.plan import PLANNED_KEYS
from cram.config.recipe import load_config, read_config
from cram.config.schema import get_value
from cram.errors import CramError
from cram.files.atomic import read_json
from cram.plan import main as plan
from cram.planner.loss_law import LossLaw
from cram.planner.plan_file import read_plan_file
from cram.planner.shape import Shape
from cram.planning import plan_notes
from cram.train import main as train

SHAPE_KEYS = ("model.layers", "model.width", "model.heads", "model.mlp_width", "batch.tokens", "batch.micro_rows")


@pytest.fixture
def auto_words(tiny_run: Callable[[Path], list[str]], tmp_path: Path) -> list[str]:
    """The words of a tiny run whose shape is planned."""
    return [word for word in tiny_run(tmp_path) if word.partition("=")[0] not in SHAPE_KEYS]


@pytest.fixture
def quick_measure(monkeypatch: pytest.MonkeyPatch) -> list[Shape]:
    """Shapes cost what this says, without being timed. The list holds those that were asked for."""
    asked: list[Shape] = []

    def measure(shape: Shape) -> float:
        asked.append(shape)
        return 1e-9 * shape.batch_tokens * (1e4 + shape.layers * shape.width**2)

    monkeypatch.setattr("cram.planning.make_measure", lambda config, shards, ranks=1: measure)
    return asked


def test_a_run_plans_its_shape_and_compares_the_plan_with_what_came(auto_words: list[str], tmp_path: Path) -> None:
    assert train([*auto_words, "budget=3s"]) == 0
    receipt, config = read_json(tmp_path / "run" / "receipt.json"), load_config(tmp_path / "run" / "recipe.yaml")
    assert config.model.size == "given"
    assert receipt["plan"]["budget"] == "3s"
    assert receipt["plan"]["updates"]["came"] == receipt["updates"]
    assert receipt["plan"]["tokens"]["predicted"] == config.plan.tokens
    assert receipt["plan"]["nats"]["came"] == receipt["held_out"]["nats_per_token"]
    assert receipt["plan"]["update_seconds"]["came"] > 0
    assert receipt["time"]["charged"]["probe"] > 0


def test_a_plan_in_updates_repeats_and_is_kept(
    auto_words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train([*auto_words, "budget=4steps"]) == 0
    first = load_config(tmp_path / "run" / "recipe.yaml")
    assert train([*auto_words, "budget=8steps"]) == 0  # goes on with the plan that it has begun with
    assert "extended from 4steps to 8steps" in capsys.readouterr().out
    extended = load_config(tmp_path / "run" / "recipe.yaml")
    assert all(get_value(first, name) == get_value(extended, name) for name in PLANNED_KEYS)
    other = [word for word in auto_words if not word.startswith("run=")]
    assert train([*other, f"run={tmp_path / 'other'}", "budget=4steps"]) == 0
    weights = [(tmp_path / name / "checkpoints").glob("4/model.safetensors") for name in ("run", "other")]
    (mine,), (theirs,) = weights
    assert mine.read_bytes() == theirs.read_bytes()


def test_what_is_set_is_kept(auto_words: list[str], tmp_path: Path) -> None:
    assert train([*auto_words, "budget=2steps", "model.layers=3", "batch.tokens=128"]) == 0
    config = load_config(tmp_path / "run" / "recipe.yaml")
    assert (config.model.layers, config.batch.tokens) == (3, 128)


def test_a_plan_is_a_recipe_that_runs_without_a_probe(
    auto_words: list[str], tmp_path: Path, quick_measure: list[Shape], capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = tmp_path / "mine.yaml"
    words = [word for word in auto_words if not word.startswith("run=")]
    assert plan([*words, "budget=20s", f"to={recipe}", "shapes=5", "data.epochs=1000"]) == 0
    assert len(set(quick_measure)) == 5
    shown = capsys.readouterr().out
    assert "tokens/param" in shown and f"written: {recipe}" in shown
    assert (tmp_path / "mine.png").stat().st_size > 10_000
    written = read_plan_file(tmp_path / "mine.json")
    assert written.budget == "20s" and written.unigram and written.available
    assert sum(candidate.measured for candidate in written.plan.candidates) == 5
    planned = load_config(recipe)
    assert planned.model.size == "given" and planned.plan.budget == "20s"
    quick_measure.clear()
    assert train([f"recipe={recipe}", f"run={tmp_path / 'run'}", f"data.dir={tmp_path / 'shards'}", "budget=2s"]) == 0
    assert "the plan was made for budget=20s, and this is budget=2s." in capsys.readouterr().out
    assert len(quick_measure) == 1  # after training, to tell whether the machine has changed


def test_a_plan_is_not_written_to_a_file_that_is_not_a_recipe(auto_words: list[str]) -> None:
    with pytest.raises(CramError, match=r"to=plan\.json: a plan is written as a recipe\. Give it a name that ends in"):
        plan([*auto_words, "budget=20s", "to=plan.json"])


def test_a_plan_of_another_device_is_accepted_with_a_line(auto_words: list[str]) -> None:
    config: Config = read_config(
        [*auto_words, "budget=20s", "model.size=given", "plan.device=RTX 4090", "plan.budget=20s"]
    )
    (note,) = plan_notes(config)
    assert note.startswith("the plan was made for RTX 4090, and this is ")


def test_a_card_is_planned_by_its_datasheet(capsys: pytest.CaptureFixture[str]) -> None:
    assert plan(["recipe=bert_auto", "budget=24h", "card=RTX 4090"]) == 0
    shown = capsys.readouterr().out
    assert "datasheet: RTX 4090, 165.2 TFLOP/s at an assumed utilisation of 40%" in shown
    assert "chosen by the rule of tokens per parameter" in shown


def test_a_run_that_stays_at_the_unigram_baseline_says_so(
    auto_words: list[str],
    quick_measure: list[Shape],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("cram.planning.find_law", lambda config: Slow())
    assert plan([*auto_words, "budget=2s", "data.epochs=100000"]) == 0
    shown = capsys.readouterr().out
    assert "not expected to get past the unigram baseline on this machine; about budget=" in shown


class Slow(LossLaw):
    """A law that needs a hundred thousand tokens before anything is learned."""

    def __init__(self) -> None:
        pass

    def predict(self, parameters: float, tokens: float, batch: float) -> float:
        return min(1.0, 1e7 / tokens)

    def covers(self, parameters: float, tokens: float, batch: float) -> bool:
        return True


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["budget=20s", "model.width=33"], "model.width=33 is an unknown shape for model.kind=encoder"),
        (["budget=0.00001s"], "is too small for one update"),
        (["budget=100steps"], "budget=100steps: a plan needs a budget of time, such as 75s, 10m or 24h."),
        (["budget=10m"], "tokens and the plan needs .*: give more text, allow data.epochs="),
        (["budget=20s", "card=RTX 1"], "card=RTX 1 is unknown. Known cards: "),
        (["budget=20s", "seconds=0"], "seconds=0"),
        (["budget=20s", "shapes=0"], "shapes=0"),
        (["budget=20s", "mfu=2"], "mfu=2"),
    ],
)
def test_words_without_a_plan_are_refused(
    auto_words: list[str], quick_measure: list[Shape], words: list[str], message: str
) -> None:
    with pytest.raises(CramError, match=message):
        plan([*auto_words, *words])


def test_the_keys_of_the_command_are_not_those_of_a_recipe() -> None:
    assert PlannerConfig().to is None
