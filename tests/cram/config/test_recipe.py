"""From words and recipe files to a config."""

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cram.config.commands import ExportConfig
from cram.config.config import Config
from cram.config.recipe import format_config, load_config, read_config, read_words, recipe_names
from cram.config.schema import build_config, get_value
from cram.errors import CramError


def test_words_replace_the_recipe_and_the_recipe_replaces_the_defaults(tmp_path: Path) -> None:
    recipe = tmp_path / "mine.yaml"
    recipe.write_text("budget: 5m\nmodel: {layers: 3, width: 64, heads: 4}\n")
    config = read_config([f"recipe={recipe}", "model.width=128", "data.source=texts/*.txt"])
    assert (config.budget, config.model.layers, config.model.width) == ("5m", 3, 128)
    assert config.data.source == "texts/*.txt"
    assert config.model.mlp_width == Config().model.mlp_width
    assert config.recipe == "mine"
    assert config.run == "runs/mine"


def test_a_formatted_config_loads_equal(tmp_path: Path) -> None:
    config = read_config(["recipe=bert_demo", "objective.final_mask_rate=null", "seed=3"])
    (tmp_path / "recipe.yaml").write_text(format_config(config))
    assert load_config(tmp_path / "recipe.yaml") == config


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["recipe=bert_demo", "budgte=3m"], r"unknown key 'budgte'.*Nearest: budget"),
        (["recipe=bert_demo", "model.widht=3"], r"unknown key 'model\.widht'.*Nearest: model\.width"),
        (["recipe=bert_demo", "lr=3"], r"unknown key 'lr'.*Nearest: optimizer\.lr"),
        (["recipe=bert_demo", "model=3"], r"'model'.* is a group of keys.*model\.layers"),
        (["recipe=bert_demo", "model.layers=three"], r"model\.layers=three cannot be read: give a whole number"),
        (["recipe=bert_demo", "model.layers=1.5"], r"model\.layers=1\.5 is not a whole number"),
        (["recipe=bert_demo", "schedule.kind=fast"], r"schedule\.kind=fast is not one of linear"),
        (["recipe=bert_demo", "seed"], r"'seed' is not of the form key=value"),
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
        ("budgte: 3m\n", r"unknown key 'budgte' \(in .*mine\.yaml, line 1\)"),
        ("model:\n  layers: three\n", r"model\.layers=three cannot be read: .*mine\.yaml, line 2\)"),
        ("model: 3\n", r"'model' \(in .*mine\.yaml, line 1\) is a group of keys"),
        ("model: {layers: {a: 1}}\n", r"model\.layers: a value is needed, found a mapping \(in .*mine\.yaml, line 1\)"),
        ("model: {layers: [1]}\n", r"model\.layers: the file gives a list, but the key takes int\. \(in"),
        ("model: {layers: }\n", r"model\.layers: a value is needed, found nothing"),
        ("seed: ${oc.env:HOME}\n", r"seed=\$\{oc\.env:HOME\} cannot be read"),
        ("seed: !!int 3\n", r"mine\.yaml: not a readable yaml file .*the tag .*int is not allowed"),
        ("seed: 1\nseed: 2\n", r"mine\.yaml: not a readable yaml file \(line 2: the key 'seed' is set twice\)"),
        ("1: 2\n", r"unknown key '1' \(in .*mine\.yaml, line 1\)"),
        ("null: 2\n", r"unknown key 'null' \(in .*mine\.yaml, line 1\)"),
        ("? [a, b]\n: 1\n", r"mine\.yaml: not a readable yaml file \(line 1: found unhashable key\)"),
        ("seed: 1:30\n", r"seed=1:30 cannot be read: give a whole number"),
        ("seed: ???\n", r"seed=\?\?\? cannot be read"),
        ("seed: 0o7\n", r"seed=0o7 cannot be read"),
        ("optimizer: {lr: .inf}\n", r"optimizer\.lr=\.inf cannot be read"),
        ("<<: {seed: .nan}\n", r"seed=\.nan cannot be read"),
        ("data: {dir: a}\ndata.dir: b\n", r"data\.dir is set twice \(in .*mine\.yaml, line 2\)"),
        ("- 1\n", r"mine\.yaml: must be a yaml mapping"),
        ("a: [1\n", r"mine\.yaml: not a readable yaml file \(line 2: "),
        ("seed: 1\n\tlr: 2\n", r"mine\.yaml: not a readable yaml file \(line 2: "),
        ('run: "\\x"\n', r"mine\.yaml: not a readable yaml file \(line 1: "),
        ("seed: \x01\n", r"mine\.yaml: not a readable yaml file \(unacceptable character #x0001: "),
    ],
)
def test_a_broken_recipe_file_is_refused_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    recipe = tmp_path / "mine.yaml"
    recipe.write_text(text)
    with pytest.raises(CramError, match=message):
        read_config([f"recipe={recipe}"])


def test_every_command_reads_its_own_keys() -> None:
    assert read_words(ExportConfig, ["run=runs/a"]).run == "runs/a"
    with pytest.raises(CramError, match=r"unknown key 'rum'.*Nearest: run"):
        read_words(ExportConfig, ["rum=a"])


TEXTS = [
    "no",
    "007",
    "1.10",
    "1_000",
    "12:30:45",
    "2026-11-27",
    "a #1",
    "*.txt",
    "[a,b]",
    "{a}",
    "!x",
    "&x",
    "${x}",
    " a ",
]
TEXTS += ["${x}", " a ", "${oc.env:HOME}", "???", "'a'", "a: b", "- a", "@x", "%x", "a\\b", "ä\u2028b"]


@pytest.mark.parametrize("text", TEXTS)
def test_a_text_is_not_changed_by_reading_and_saving(tmp_path: Path, text: str) -> None:
    config = read_config(["recipe=bert_demo", f"data.text_field={text}", f"run={text}"])
    assert (config.data.text_field, config.run) == (text, text)
    (tmp_path / "recipe.yaml").write_text(format_config(config), encoding="utf-8")
    assert load_config(tmp_path / "recipe.yaml") == config


def test_null_is_a_text_in_quotes_and_for_keys_that_do_not_accept_null(tmp_path: Path) -> None:
    recipe = tmp_path / "mine.yaml"
    recipe.write_text("run: 'null'\nthreads: null\ndata: {text_field: null}\nspecial: {mask: }\n")
    config = load_config(recipe)
    assert (config.run, config.threads, config.data.text_field, config.special.mask) == ("null", None, "null", None)
    recipe.write_text(format_config(config))
    assert load_config(recipe) == config
    assert read_config(["recipe=bert_demo", "threads=null"]).threads is None


def test_plain_values_of_a_file_stay_texts(tmp_path: Path) -> None:
    recipe = tmp_path / "mine.yaml"
    recipe.write_text("run: 007\ndata: {text_field: no}\ntokenizer: 2024-11-27\nobjective: {final_mask_rate: ~}\n")
    config = load_config(recipe)
    assert (config.run, config.data.text_field, config.tokenizer) == ("007", "no", "2024-11-27")
    assert config.objective.final_mask_rate is None


PATHS = st.text(st.characters(exclude_characters="\0~", exclude_categories=["Cs"]), min_size=1, max_size=60)


@given(st.fixed_dictionaries({}, optional={"data.text_field": st.text(), "run": PATHS, "tokenizer": PATHS}))
def test_any_text_survives_being_saved(tmp_path_factory: pytest.TempPathFactory, texts: dict[str, str]) -> None:
    config = build_config(Config, texts)
    path = tmp_path_factory.mktemp("saved") / "recipe.yaml"
    path.write_text(format_config(config), encoding="utf-8", errors="surrogatepass", newline="")
    assert load_config(path) == config


def test_the_recipes_come_with_the_package() -> None:
    assert {"bert_demo", "bert_10m", "bert_1h", "bert_24h"} <= set(recipe_names())


@pytest.mark.parametrize("place", ["/tmp/other", "../other", "runs/../../other", "~/other", "~", "link", "link/below"])
@pytest.mark.parametrize(("key", "text"), [("run", "run: {}\n"), ("data.dir", "data: {{dir: {}}}\n")])
def test_a_recipe_file_may_not_choose_a_place_outside_the_working_folder(
    key: str, text: str, place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    Path("link").symlink_to(tmp_path)
    Path("mine.yaml").write_text(text.format(f"'{place}'"))
    path = re.escape(str(Path(place).expanduser()))
    name = re.escape(key)
    message = rf"^mine\.yaml, line 1: {name}: {path} is not inside the working folder.*\nTo use it .*{name}={path} on"
    with pytest.raises(CramError, match=message):
        read_config(["recipe=mine.yaml"])
    assert get_value(read_config(["recipe=mine.yaml", f"{key}={place}"]), key) == str(Path(place).expanduser())
    Path("mine.yaml").write_text(text.format("below/folder"))
    assert get_value(read_config(["recipe=mine.yaml"]), key) == "below/folder"


@pytest.mark.parametrize("name", ["..yaml", "...yaml"])
def test_a_recipe_file_without_a_name_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).write_text("seed: 1\n")
    with pytest.raises(CramError, match="the file needs a name"):
        read_config([f"recipe={name}"])


def test_a_character_that_no_path_can_hold_is_refused(tmp_path: Path) -> None:
    recipe = tmp_path / "mine.yaml"
    for text in ("\\0", "\\ud800"):
        recipe.write_text(f'run: "a{text}b"\n')
        with pytest.raises(CramError, match=r"run='a.*b' is not a valid path.* \(in .*mine\.yaml, line 1\)"):
            read_config([f"recipe={recipe}"])
