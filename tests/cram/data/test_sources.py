import json
import time
from pathlib import Path

import pytest

from cram.data import sources
from cram.data.sources import Document, Part, Source, open_source, spread
from cram.errors import CramError


class ListPart(Part):
    opened = 0

    def __init__(self, name: str, texts: list[str], size: int):
        super().__init__(name, size)
        self.texts = texts

    def documents(self):
        type(self).opened += 1
        try:
            for number, text in enumerate(self.texts):
                assert type(self).opened == 1, "one part at a time"
                yield Document(text, f"{self.name}:{number}")
        finally:
            type(self).opened -= 1


class ListSource(Source):
    def __init__(self, *parts: ListPart):
        self._parts: list[Part] = list(parts)

    @property
    def parts(self) -> list[Part]:
        return self._parts

    def fingerprint(self) -> str:
        return ""


def take(source: Source, limit: int | None) -> list[str]:
    taken: list[str] = []
    for document in spread(source, limit, lambda: sum(map(len, taken))):
        taken.append(document.text)
    return taken


def test_spread_takes_from_each_part_its_share() -> None:
    source = ListSource(
        ListPart("a", ["a"] * 1000, 100), ListPart("b", ["b"] * 1000, 300), ListPart("c", ["c"] * 1000, 600)
    )
    taken = take(source, 500)
    assert [taken.count(letter) for letter in "abc"] == [50, 150, 300]


def test_spread_carries_what_a_part_lacks_to_the_later_ones() -> None:
    source = ListSource(ListPart("a", ["a"] * 10, 500), ListPart("b", ["b"] * 1000, 500))
    taken = take(source, 200)
    assert [taken.count(letter) for letter in "ab"] == [10, 190]


def test_spread_reads_on_in_earlier_parts_where_the_last_ones_are_short() -> None:
    letters = ["a", "A", "ɑ"] * 300
    source = ListSource(ListPart("a", letters, 500), ListPart("b", ["b"] * 10, 500))
    taken = take(source, 200)
    assert len(taken) == 200
    assert [text for text in taken if text != "b"] == letters[:190], "in order, none twice"


def test_spread_without_a_limit_or_with_one_too_large_takes_all() -> None:
    parts = ListPart("a", ["a"] * 10, 0), ListPart("b", ["b"] * 10, 0)
    assert take(ListSource(*parts), None) == take(ListSource(*parts), 10**9) == ["a"] * 10 + ["b"] * 10


def test_files_are_read_in_the_order_of_their_names(tmp_path: Path) -> None:
    for name in ("b.txt", "a.txt", "sub/c.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    source = open_source(f"{tmp_path}/**/*.txt")
    assert [document.text for document in spread(source, None, int)] == ["a.txt", "b.txt", "sub/c.txt"]
    assert all(part.position == part.size > 0 for part in source.parts)


def test_fingerprint_is_of_names_and_contents_not_of_folders(tmp_path: Path) -> None:
    def fingerprint(folder: str, name: str, content: str) -> str:
        path = tmp_path / folder / name
        path.parent.mkdir(parents=True)
        path.write_text(content)
        return open_source(str(path)).fingerprint()

    base = fingerprint("1", "a.txt", "x")
    assert fingerprint("2", "a.txt", "x") == base
    assert fingerprint("3", "b.txt", "x") != base
    assert fingerprint("4", "a.txt", "y") != base
    (tmp_path / "1/deeper").mkdir()
    (tmp_path / "1/deeper/a.txt").write_text("other text, same name")
    assert open_source(f"{tmp_path}/1/**/a.txt").fingerprint() != base


def test_a_source_that_matches_nothing(tmp_path: Path) -> None:
    with pytest.raises(CramError, match=r"data.source='.*none.\*' matches no file"):
        open_source(f"{tmp_path}/none.*")


def test_an_unsupported_extension(tmp_path: Path) -> None:
    (tmp_path / "a.pdf").write_bytes(b"%PDF")
    with pytest.raises(CramError, match=r"a.pdf is of no supported format; supported: .txt, .jsonl,"):
        open_source(f"{tmp_path}/*")


def test_an_unreadable_record_is_named_by_path_and_line(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "good"}\n{"text"\n')
    with pytest.raises(CramError, match=rf"^{path}:2: broken JSON line"):
        list(open_source(str(path)).parts[0].documents())


@pytest.mark.parametrize("spec", ["hf:", "hf:a:b:c:d"])
def test_a_malformed_hub_name(spec: str) -> None:
    with pytest.raises(CramError, match=r"expected hf:NAME\[:CONFIG\[:SPLIT\]\]"):
        open_source(spec)


def test_the_hub_out_of_reach_answers_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError("Name or service not known")

    monkeypatch.setattr("socket.getaddrinfo", refuse)
    source = open_source("hf:some/dataset:config:train")
    began = time.monotonic()
    assert source.fingerprint() == source.fingerprint() != open_source("hf:some/other").fingerprint()
    with pytest.raises(CramError, match=r"^data.source='hf:some/dataset:config:train' cannot be loaded .*\n.*network"):
        list(source.parts[0].documents())
    assert time.monotonic() - began < 5 * sources.HUB_SECONDS


def test_a_local_folder_as_a_hub_data_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    folder = tmp_path / "corpus"
    folder.mkdir()
    (folder / "train.jsonl").write_text("".join(json.dumps({"body": f"text {i}"}) + "\n" for i in range(5)))
    source = open_source(f"hf:{folder}", text_field="body")
    assert [document.text for document in spread(source, None, int)] == [f"text {i}" for i in range(5)]
    before = source.fingerprint()
    (folder / "train.jsonl").write_text('{"body": "changed"}\n')
    assert source.fingerprint() != before
    with pytest.raises(CramError, match=r"hf:.* record 1: no field 'text'; fields found: body"):
        list(open_source(f"hf:{folder}").parts[0].documents())
    with pytest.raises(CramError, match=r"hf:.*:nowhere' cannot be loaded"):
        list(open_source(f"hf:{folder}::nowhere").parts[0].documents())
