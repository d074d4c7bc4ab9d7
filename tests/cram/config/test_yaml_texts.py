"""Yaml files are read as mappings and lists of texts."""

from pathlib import Path

import pytest

from cram.config.yaml_texts import read_yaml
from cram.errors import CramError


def write(folder: Path, text: str) -> Path:
    path = folder / "file.yaml"
    path.write_text(text)
    return path


def test_every_scalar_is_the_text_in_the_file(tmp_path: Path) -> None:
    path = write(tmp_path, "a: no\nb: 1.10\nc: [007, 12:30]\nd: {e: 2026-11-27}\n1: ~\n")
    assert read_yaml(path) == {"a": "no", "b": "1.10", "c": ["007", "12:30"], "d": {"e": "2026-11-27"}, "1": "~"}


def test_keys_and_values_know_their_lines(tmp_path: Path) -> None:
    content = read_yaml(write(tmp_path, "a: 1\n\nb:\n  c: 2\n"))
    assert [(name, name.line) for name in content] == [("a", 1), ("b", 3)]  # type: ignore[attr-defined]
    assert content["b"]["c"].line == 4


@pytest.mark.parametrize(
    ("text", "is_null"), [("null", True), ("~", True), ("", True), ("'null'", False), ("0", False)]
)
def test_null_is_plain(tmp_path: Path, text: str, is_null: bool) -> None:
    assert read_yaml(write(tmp_path, f"a: {text}\n"))["a"].is_null == is_null


def test_merge_keys_work(tmp_path: Path) -> None:
    content = read_yaml(write(tmp_path, "base: &base {a: 1, b: 2}\nother:\n  <<: *base\n  b: 3\n"))
    assert content["other"] == {"a": "1", "b": "3"}


def test_tags_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CramError, match=r"file\.yaml: not a readable yaml file \(line 1: the tag .*is not allowed"):
        read_yaml(write(tmp_path, "a: !!python/object/apply:os.getcwd []\n"))
