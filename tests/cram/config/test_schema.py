"""Keys: how they are declared, how texts become values, and which texts are refused."""

import math
import re
from dataclasses import Field, dataclass
from pathlib import Path
from typing import Any, get_args, get_origin

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cram.ablation.table import AblationTable, Arm
from cram.budget import Budget
from cram.config.commands import AblateConfig, EvaluateConfig, ExportConfig, GlueConfig, ShardsConfig
from cram.config.config import Config
from cram.config.help import help_text
from cram.config.recipe import read_config, read_words
from cram.config.schema import (
    Range,
    build_config,
    collect_keys,
    get_default,
    get_type,
    get_value,
    group,
    key,
    parse_value,
)
from cram.errors import CramError

SCHEMAS = (Config, ShardsConfig, EvaluateConfig, ExportConfig, AblateConfig, GlueConfig, AblationTable, Arm)


def number_type(spec: Field[Any]) -> type | None:
    """Return int or float for a key of numbers or of a list of numbers, None for any other key."""
    value_type, _ = get_type(spec)
    value_type = get_args(value_type)[0] if get_origin(value_type) is list else value_type
    return value_type if value_type in (int, float) else None


NUMBERS = [
    pytest.param(name, spec, id=f"{schema.__name__}.{name}")
    for schema in SCHEMAS
    for name, spec in collect_keys(schema).items()
    if "range" in spec.metadata and number_type(spec)
]


@pytest.mark.parametrize(("name", "spec"), NUMBERS)
def test_every_number_has_a_range_and_is_refused_outside_of_it(name: str, spec: Field[Any]) -> None:
    allowed: Range = spec.metadata["range"]
    assert allowed.least is not None or allowed.above is not None, "every number has a lower bound"
    assert number_type(spec) is not int or allowed.most is not None, "a whole number of any size may never end"
    if (default := get_default(spec)) not in (None, []):
        assert all(allowed.contains(number) for number in (default if isinstance(default, list) else [default]))
    outside = [-1, -math.inf, math.inf, math.nan, *([allowed.most * 2, allowed.most + 1] if allowed.most else [])]
    outside += [bound for bound in (allowed.above, allowed.below) if bound is not None]
    for value in outside:
        assert not allowed.contains(value)
        with pytest.raises(
            CramError, match=rf"^{re.escape(name)}=.* (is out of range: give a number|cannot be read: )"
        ):
            parse_value(name, spec, str(value))
    for bound in (allowed.least, allowed.most):
        if bound is not None:
            value = parse_value(name, spec, str(bound))
            assert value in (bound, [bound])
            assert type(value[0] if isinstance(value, list) else value) is number_type(spec)


@pytest.mark.parametrize(
    "text", ["", " 1", "1 ", "one", "0x10", "1,5", "1__0", "1_", "${x}", "nan", "inf", "1e", "--1", "١"]
)
@pytest.mark.parametrize("name", ["model.layers", "optimizer.lr"])
def test_a_text_that_is_not_a_number_is_refused(name: str, text: str) -> None:
    with pytest.raises(CramError, match=rf"^{re.escape(f'{name}={text}')} cannot be read: give a"):
        parse_value(name, collect_keys(Config)[name], text)


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("batch.tokens", "131_072", 131_072),
        ("data.tokens", "2.5e9", 2_500_000_000),
        ("optimizer.lr", "1", 1.0),
        ("optimizer.lr", ".5", 0.5),
        ("optimizer.muon.nesterov", "false", False),
        ("schedule.kind", "cosine", "cosine"),
    ],
)
def test_values_are_read_by_the_type_of_the_key(name: str, text: str, value: Any) -> None:
    parsed = parse_value(name, collect_keys(Config)[name], text)
    assert (type(parsed), parsed) == (type(value), value)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("model.layers", "1.5", "model.layers=1.5 is not a whole number: give a whole number such as 12"),
        ("model.layers", "9" * 400, "is out of range: give a number at least 1"),
        ("model.layers", "9" * 40, "is out of range: give a number at least 1, at most 1000."),
        ("optimizer.clip", "-1", "optimizer.clip=-1 is out of range: give a number above 0, or null."),
        ("optimizer.muon.nesterov", "yes", "optimizer.muon.nesterov=yes is neither true nor false."),
        ("schedule.kind", "fast", "schedule.kind=fast is not one of linear, cosine, triangle, "),
    ],
)
def test_a_refusal_says_what_is_accepted(name: str, text: str, message: str) -> None:
    with pytest.raises(CramError, match=re.escape(message)):
        parse_value(name, collect_keys(Config)[name], text)


@given(st.text())
def test_a_text_is_not_changed(text: str) -> None:
    assert parse_value("data.text_field", collect_keys(Config)["data.text_field"], text) == text
    if text and not text.startswith("~") and "\0" not in text and len(text) < 60:
        assert parse_value("data.source", collect_keys(Config)["data.source"], text) == text


def test_a_leading_tilde_is_the_home_folder_in_paths_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    assert (
        parse_value("data.source", collect_keys(Config)["data.source"], "~/texts/*.txt") == "/home/somebody/texts/*.txt"
    )
    assert parse_value("run", collect_keys(Config)["run"], "~") == "/home/somebody"
    assert parse_value("run", collect_keys(Config)["run"], "~nobody/x") == "~nobody/x"
    assert parse_value("run", collect_keys(Config)["run"], "a/~/b") == "a/~/b"
    assert parse_value("data.text_field", collect_keys(Config)["data.text_field"], "~/x") == "~/x"


@pytest.mark.parametrize("text", ["a\0b", "x" * 256, "é" * 128, "x/" * 3000, "\ud800"])
def test_a_path_that_no_file_system_takes_is_refused(text: str) -> None:
    with pytest.raises(CramError, match=r"^data\.source=.* is not a valid path"):
        parse_value("data.source", collect_keys(Config)["data.source"], text)


def test_bytes_that_are_not_utf8_can_name_a_file_and_nothing_else() -> None:
    word = b"\xff".decode("utf-8", "surrogateescape")  # as in `sys.argv`
    assert parse_value("data.source", collect_keys(Config)["data.source"], f"{word}/*.txt") == f"{word}/*.txt"
    for name in ("data.text_field", "special.mask", "card.license", "budget", "device"):
        with pytest.raises(CramError, match=rf"^{name}=\\udcff is not valid text: it has bytes that are not UTF-8\.$"):
            parse_value(name, collect_keys(Config)[name], word)
    for name in ("seed", "optimizer.lr", "model.kind", "dry_run"):
        with pytest.raises(CramError, match=rf"^{name}=\\udcff "):
            parse_value(name, collect_keys(Config)[name], word)


def test_an_unknown_home_folder_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(_: Path) -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "expanduser", unknown)
    with pytest.raises(CramError, match=r"^run='~/x' is not a valid path \(Could not determine home directory\.\)"):
        parse_value("run", collect_keys(Config)["run"], "~/x")


@pytest.mark.parametrize("name", ["data.source", "tokenizer", "run", "data.dir"])
def test_an_empty_path_is_refused(name: str) -> None:
    with pytest.raises(CramError, match=f"{name}= is empty: give a path, or leave the word out"):
        parse_value(name, collect_keys(Config)[name], "")


def test_lists_are_read_with_and_without_brackets() -> None:
    assert read_words(GlueConfig, ["tasks=[cola, rte]"]).tasks == ["cola", "rte"]
    assert read_words(GlueConfig, ["tasks=cola,rte"]).tasks == ["cola", "rte"]
    assert read_words(GlueConfig, ["tasks=[]"]).tasks == []
    assert read_words(GlueConfig, ["learning_rate=4e-5"]).learning_rate == [4e-5]
    with pytest.raises(CramError, match=r"tasks=\[cola has only one of its two brackets"):
        read_words(GlueConfig, ["tasks=[cola"])
    with pytest.raises(CramError, match=r"learning_rate=2 is out of range: give a number above 0, below 1"):
        read_words(GlueConfig, ["learning_rate=[4e-5,2]"])


def test_keys_of_paths_are_declared_as_such() -> None:
    paths = {name for schema in SCHEMAS for name, spec in collect_keys(schema).items() if spec.metadata.get("path")}
    assert {
        "run",
        "init",
        "to",
        "data.dir",
        "data.source",
        "tokenizer",
        "text",
        "recipe",
        "table",
        "dir",
        "verify",
    } <= paths


def test_a_range_is_printed_in_words() -> None:
    assert str(key(0.0, "", least=0, below=1).metadata["range"]) == "at least 0, below 1"
    assert str(key(1, "", above=0.5, most=10**12).metadata["range"]) == "above 0.5, at most 1e12"
    assert str(key(1, "", least=1, most=10**9).metadata["range"]) == "at least 1, at most 1e9"
    assert not key("", "").metadata["range"]


def test_the_value_of_a_dotted_key() -> None:
    assert get_value(Config(), "optimizer.muon.lr") == 0.02


@dataclass
class Inner:
    rows: int | None = key(None, "rows of an update", "rows", least=1, most=9)


@dataclass
class Outer:
    words: list[str] = key([], "some words")
    inner: Inner = group(Inner)


def test_a_schema_is_made_of_keys_and_groups() -> None:
    assert list(collect_keys(Outer)) == ["words", "inner.rows"]
    assert build_config(Outer, {"inner.rows": 3}) == Outer([], Inner(3))
    assert read_words(Outer, ["words=[a,b]", "inner.rows=null"]) == Outer(["a", "b"], Inner(None))
    words = " ".join(help_text(Outer).splitlines()[-1].split())
    assert words == "inner.rows int or null null rows of an update [rows; at least 1, at most 9]"


def test_a_list_of_one_config_is_not_shared_with_the_next() -> None:
    Outer().words.append("a")
    assert Outer().words == []


def test_the_budget_of_a_config_is_parsed() -> None:
    assert Config(budget="90s").parse_budget() == Budget("wall", 90.0)
    with pytest.raises(CramError, match=r"^budget=soon is not a valid budget\."):
        Config(budget="soon").parse_budget()


@pytest.mark.parametrize("text", ["1e-400", "-1e-400", "1.0000000000000000000001", "1e-99999999999999999999999"])
def test_a_number_that_a_float_would_round_to_a_whole_one_is_not_whole(text: str) -> None:
    with pytest.raises(CramError, match=rf"^seed={re.escape(text)} is not a whole number: give a whole number such as"):
        read_config(["recipe=bert_demo", f"seed={text}"])


def test_whole_numbers_are_read_exactly_however_they_are_written() -> None:
    numbers = {
        "9007199254740993.0": 9007199254740993,
        "9_007_199_254_740_993": 9007199254740993,
        "1e18": 10**18,
        "0e-5": 0,
    }
    for text, number in numbers.items():
        assert read_config(["recipe=bert_demo", f"seed={text}"]).seed == number
