from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cram.config.recipe import format_config, load_config, read_config
from cram.config.sources import SourceEntry, format_sources, is_list, normalize_sources, parse_sources
from cram.errors import CramError

PATHS = st.text(st.characters(blacklist_characters="\0", blacklist_categories=["Cs"]), min_size=1, max_size=20).filter(
    lambda text: not text.startswith("~")
)
ENTRIES = st.builds(SourceEntry, PATHS, st.none() | st.floats(0.01, 0.1), st.none() | PATHS)


@given(st.lists(ENTRIES, min_size=1, max_size=4).filter(lambda some: any(one.weight is None for one in some)))
def test_a_list_reads_as_it_was_written(entries: list[SourceEntry]) -> None:
    text = format_sources(entries)
    assert is_list(text) and parse_sources(text) == entries
    assert normalize_sources(text) == text


@pytest.mark.parametrize(
    ("text", "paths"),
    [
        ("wiki.jsonl", ["wiki.jsonl"]),
        ("[wiki.jsonl,books/]", ["wiki.jsonl", "books/"]),
        ("[ *.txt , s3://b/k?[ab]*.txt, hf:a:b ]", ["*.txt", "s3://b/k?[ab]*.txt", "hf:a:b"]),
        ("""["a, b", 'it''s', it's.txt]""", ["a, b", "it's", "it's.txt"]),
        ("[ab]*.txt", ["[ab]*.txt"]),
        ("[ab]/x[12]", ["[ab]/x[12]"]),
        ("{path: a}", ["a"]),
        ("[{'path': 'a', \"weight\": 0.5}, {path: s3://b/c}]", ["a", "s3://b/c"]),
    ],
)
def test_lists_on_the_command_line(text: str, paths: list[str]) -> None:
    assert [one.path for one in parse_sources(text)] == paths


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", r"names no source: write it as \["),
        ("[a,,b]", "an entry of the list is empty"),
        ("[a, [b]]", "entry 2: expected a source or a mapping with its path, found a list"),
        ("[{weight: 0.5}]", "entry 1: path is missing"),
        ("[{path: a, heavy: 0.5}]", "entry 1: unknown field 'heavy'. Fields: path, weight, text_field"),
        ("[{path: a, path: b}]", "'path' is given twice"),
        ("[{path}]", "'path' has no value"),
        ("[{path: [a, b]}]", "entry 1: path needs a plain value, and has several"),
        ("[{path: a, document: page}]", "entry 1: document=page is not one of file, blank_line, line"),
        *(
            (f"[{{path: a, weight: {weight}}}, b]", f"entry 1: weight={weight} is not a share of the tokens: give a")
            for weight in ("0", "-0.5", "nan", "inf", "1.5", "much", "null")
        ),
        ("[{path: a, weight: 0.6}, {path: b, weight: 0.6}]", "the weights of all sources sum to 1.2 instead of 1"),
        ("[{path: a, weight: 0.3}, {path: b, weight: 0.6}]", "the weights of all sources sum to 0.9 instead of 1"),
        (
            "[{path: a, weight: 0.6}, {path: b, weight: 0.4}, c]",
            "sum to 1, which leaves nothing for the sources",
        ),
        ('["a"b]', "is not a text in quotation marks"),
    ],
)
def test_lists_that_are_refused(text: str, message: str) -> None:
    with pytest.raises(CramError, match=f"^data.source.*{message}"):
        parse_sources(text)


def test_a_list_in_a_recipe(tmp_path: Path) -> None:
    recipe = tmp_path / "mix.yaml"
    recipe.write_text("data:\n  source:\n  - {path: ~/wiki, weight: 0.7, text_field: body}\n  - '*.txt'\n")
    config = read_config([f"recipe={recipe}"])
    entries = [SourceEntry(str(Path.home() / "wiki"), 0.7, "body"), SourceEntry("*.txt")]
    assert parse_sources(config.data.source) == entries
    saved = tmp_path / "recipe.yaml"
    saved.write_text(format_config(config))
    assert load_config(saved).data.source == config.data.source
    recipe.write_text("data:\n  source: {path: a, encoding: cp1252}\n")
    assert parse_sources(read_config([f"recipe={recipe}"]).data.source) == [SourceEntry("a", encoding="cp1252")]
    assert read_config([f"recipe={recipe}", "data.source=[a,b]"]).data.source == "[a, b]"
    recipe.write_text("data:\n  source:\n  - {path: a, weight: 2}\n")
    with pytest.raises(CramError, match=r"weight=2 is not a share of the tokens.*\(in .*mix.yaml, line 2\)"):
        read_config([f"recipe={recipe}"])
