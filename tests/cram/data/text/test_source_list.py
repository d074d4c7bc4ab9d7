import json
from pathlib import Path

import pytest

from cram.data.text.source import Source
from cram.data.text.sources import open_source
from cram.errors import CramError


def texts(source: Source) -> list[str]:
    return [document.text for part in source.parts for document in part.documents()]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "books").mkdir()
    for number in range(2):
        (tmp_path / "books" / f"{number}.txt").write_text(f"book {number}")
    (tmp_path / "wiki.jsonl").write_text(json.dumps({"body": "wiki"}))
    (tmp_path / "old.txt").write_bytes("Größe\n\nzwei".encode("cp1252"))
    return tmp_path


def test_the_sources_follow_each_other_with_their_own_options(folder: Path) -> None:
    source = open_source(
        "[{path: wiki.jsonl, text_field: body}, books, {path: old.txt, encoding: cp1252, document: blank_line}]"
    )
    assert texts(source) == ["wiki", "book 0", "book 1", "Größe", "zwei"]
    assert [(one.name, list(one.parts)) for one in source.members] == [
        ("wiki.jsonl", [0]),
        ("books", [1, 2]),
        ("old.txt", [3]),
    ]
    assert len(source.groups) == 1 and source.groups[0].share == 1


def test_sources_without_a_weight_share_the_rest(folder: Path) -> None:
    source = open_source("[wiki.jsonl, {path: books, weight: 0.7}, old.txt]")
    assert [(one.name, one.share, list(one.parts)) for one in source.groups] == [
        ("books", 0.7, [1, 2]),
        ("wiki.jsonl, old.txt", pytest.approx(0.3), [0, 3]),
    ]
    thirds = open_source(
        f"[{', '.join(f'{{path: {name}, weight: 0.33}}' for name in ('books', 'wiki.jsonl', 'old.txt'))}]"
    )
    assert [one.share for one in thirds.groups] == pytest.approx([1 / 3] * 3)
    assert [one.bytes_per_token for one in thirds.balanced([1.0, 2.0, 3.0]).groups] == [1, 2, 3]
    assert [one.bytes_per_token for one in thirds.groups] == [None] * 3


def test_a_broken_source_is_named(folder: Path) -> None:
    with pytest.raises(CramError, match=r"^data.source='nothing/\*.txt' matches no file"):
        open_source("[books, nothing/*.txt]")


@pytest.mark.parametrize("second", ["books/1.txt", "linked", "boo*/*", "file://{}/linked"])
def test_a_file_in_two_sources_is_refused(folder: Path, second: str) -> None:
    (folder / "linked").symlink_to(folder / "books")
    with pytest.raises(CramError, match=r"books/[01].txt is in two sources of the list, 'books' and '.*'\nname it"):
        texts(open_source(f"[books, {second.format(folder)}]"))


def test_the_fingerprint_covers_weights_options_and_contents(folder: Path) -> None:
    lists = ["[books, old.txt]", "[old.txt, books]", "[{path: books, weight: 0.5}, old.txt]"]
    lists += ["[{path: books, document: line}, old.txt]", "[books]"]
    fingerprints = [open_source(one).fingerprint() for one in lists]
    assert len({*fingerprints, open_source("books").fingerprint()}) == 6
    assert open_source(f"[{folder}/books, {folder}/old.txt]").fingerprint() == fingerprints[0]
    (folder / "old.txt").write_text("new")
    assert open_source(lists[0]).fingerprint() != fingerprints[0]
