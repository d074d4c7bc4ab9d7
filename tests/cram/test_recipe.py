from pathlib import Path

import pytest

from cram.config import AblateConfig, Config, ExportConfig
from cram.errors import CramError
from cram.recipe import help_text, keys, load_config, read_config, read_words, recipe_names, save_config


def test_words_lie_over_the_recipe_and_the_recipe_over_the_defaults(tmp_path: Path) -> None:
    recipe = tmp_path / "mine.yaml"
    recipe.write_text("budget: 5m\nmodel: {layers: 3, width: 64}\n")
    config = read_config([f"recipe={recipe}", "model.width=128", "data.source=texts/*.txt"])
    assert (config.budget, config.model.layers, config.model.width) == ("5m", 3, 128)
    assert config.data.source == "texts/*.txt"
    assert config.model.mlp_width == Config().model.mlp_width
    assert config.recipe == "mine"
    assert config.run == "runs/mine"


def test_a_saved_config_loads_equal(tmp_path: Path) -> None:
    config = read_config(["recipe=bert_demo", "objective.final_mask_rate=null", "seed=3"])
    (tmp_path / "recipe.yaml").write_text(save_config(config))
    assert load_config(tmp_path / "recipe.yaml") == config


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["recipe=bert_demo", "budgte=3m"], r"unknown key 'budgte'.*Nearest: budget"),
        (["recipe=bert_demo", "model.widht=3"], r"unknown key 'model\.widht'.*Nearest: model\.width"),
        (["recipe=bert_demo", "lr=3"], r"unknown key 'lr'.*Nearest: optimizer\.lr"),
        (["recipe=bert_demo", "model=3"], r"'model'.* is a group of keys.*model\.layers"),
        (["recipe=bert_demo", "model.layers=three"], r"model\.layers: .*three.*Integer"),
        (["recipe=bert_demo", "model.layers=1.5"], r"model\.layers: .*1\.5"),
        (["recipe=bert_demo", "schedule.kind=fast"], r"schedule\.kind: .*fast.*linear"),
        (["recipe=bert_demo", "seed"], r"'seed' is not of the form key=value"),
        (["recipe=bert_demo", "data.source=[x"], r"data\.source=\[x.*cannot be read"),
        (["recipe=bert_dmo"], r"recipe=bert_dmo is unknown\. Nearest: bert_demo"),
        (["recipe=no/such.yaml"], r"recipe=no/such\.yaml: there is no such file"),
        (["seed=3"], r"recipe= is missing.*bert_demo"),
    ],
)
def test_bad_words_are_answered_in_one_or_two_lines(words: list[str], message: str) -> None:
    with pytest.raises(CramError, match=message) as caught:
        read_config(words)
    assert len(str(caught.value).splitlines()) <= 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("budgte: 3m\n", r"unknown key 'budgte' \(in .*mine\.yaml\)"),
        ("model:\n  layers: three\n", r"model\.layers: .*mine\.yaml"),
        ("- 1\n", r"mine\.yaml: must be a yaml mapping"),
        ("a: [1\n", r"mine\.yaml: not a readable yaml file"),
    ],
)
def test_bad_recipe_files_are_named(tmp_path: Path, text: str, message: str) -> None:
    recipe = tmp_path / "mine.yaml"
    recipe.write_text(text)
    with pytest.raises(CramError, match=message):
        read_config([f"recipe={recipe}"])


def test_other_doors_read_their_own_words() -> None:
    assert read_words(ExportConfig, ["run=runs/a"]).run == "runs/a"
    with pytest.raises(CramError, match=r"unknown key 'rum'.*Nearest: run"):
        read_words(ExportConfig, ["rum=a"])


def test_help_shows_every_key_with_its_default() -> None:
    text = help_text(Config)
    for name in keys(Config):
        assert f"  {name} " in text
    assert "linear | cosine" in text
    assert "share of the budget" in text


def test_help_shows_the_default_of_a_list() -> None:
    (line,) = [line for line in help_text(AblateConfig).splitlines() if line.startswith("  arms ")]
    assert line.split()[1:3] == ["list", "[]"]


def test_the_recipes_are_there() -> None:
    assert {"bert_demo", "bert_10m", "bert_1h", "bert_24h"} <= set(recipe_names())
