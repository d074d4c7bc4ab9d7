import os
from pathlib import Path

import pytest

from cram.data.text.document import Document
from cram.data.text.source import Source
from cram.data.text.sources import open_source
from cram.errors import CramError


def texts(source: Source) -> list[str]:
    return [document.text for part in source.parts for document in part.documents()]


def test_files_are_read_in_the_order_of_their_names(tmp_path: Path) -> None:
    for name in ("b.txt", "a.txt", "sub/c.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    source = open_source(f"{tmp_path}/**/*.txt")
    assert texts(source) == ["a.txt", "b.txt", "sub/c.txt"]
    for part in source.parts:
        (position,) = (position for _, position in part.read())
        assert position == part.size > 0


def test_the_fingerprint_depends_on_names_and_contents_but_not_on_folders(tmp_path: Path) -> None:
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


def test_a_file_name_that_is_not_utf8(tmp_path: Path) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.jsonl"))
    path.write_text('{"text": ""}\n{"text": "a text"}\n')
    source = open_source(f"{tmp_path}/*.jsonl")
    assert len(source.fingerprint()) == 64
    _, document = source.parts[0].documents()
    assert (document.text, Path(document.origin).name) == ("a text", "caf\\xe9.jsonl:2")


def test_a_source_that_matches_nothing(tmp_path: Path) -> None:
    with pytest.raises(CramError, match=r"data.source='.*none.\*' matches no file"):
        open_source(f"{tmp_path}/none.*")
    with pytest.raises(CramError, match=r"or pydocs\. A list ends in a bracket: write it as \[wiki\.jsonl, "):
        open_source("[a.jsonl, b.jsonl")


def test_an_unsupported_extension(tmp_path: Path) -> None:
    (tmp_path / "a.pdf").write_bytes(b"%PDF")
    with pytest.raises(CramError, match=r"a.pdf has no supported extension; supported: .txt, .text, .md, .jsonl,"):
        open_source(f"{tmp_path}/*")


def test_an_unreadable_record_is_named_by_path_and_line(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "good"}\n{"text"\n')
    with pytest.raises(CramError, match=rf"^{path}:2: broken JSON line"):
        list(open_source(str(path)).parts[0].documents())


def test_a_file_that_cannot_be_opened(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "good"}\n')
    (tmp_path / "b.jsonl").symlink_to(tmp_path / "gone.jsonl")
    (tmp_path / "c.jsonl").write_text('{"text": "good as well"}\n')
    pattern = f"{tmp_path}/*.jsonl"
    stop = open_source(pattern)
    message = rf"^{tmp_path}/b.jsonl: cannot be read \(No such file.*leave it out\nor set data.on_error=skip"
    with pytest.raises(CramError, match=message):
        texts(stop)
    with pytest.raises(CramError, match=message):
        stop.fingerprint()
    skip = open_source(pattern, on_error="skip")
    good, broken, good_as_well = (list(part.documents()) for part in skip.parts)
    assert [document.text for document in good + good_as_well] == ["good", "good as well"]
    where = f"{tmp_path}/b.jsonl"
    reason = "cannot be read (No such file or directory); make it readable or leave it out"
    assert broken == [Document("", where, f"{where}: {reason}")]
    fingerprint = skip.fingerprint()
    assert fingerprint == open_source(pattern, on_error="skip").fingerprint()
    (tmp_path / "gone.jsonl").write_text("")
    assert skip.fingerprint() != fingerprint, "the file is there again"


def test_pipes_and_devices_are_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.jsonl")
    (tmp_path / "b.jsonl").symlink_to("/dev/zero")
    for name in ("a", "b"):
        source = open_source(f"{tmp_path}/{name}.jsonl")
        for read in (lambda source=source: texts(source), source.fingerprint):
            with pytest.raises(CramError, match=rf"^{tmp_path}/{name}.jsonl: cannot be read \(it is a pipe, a device"):
                read()
    skip = open_source(f"{tmp_path}/*", on_error="skip")
    assert texts(skip) == ["", ""] and skip.fingerprint()


def test_broken_records_and_files_among_good_ones_are_skipped(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "one"}\n{"text"\n{"text": "two"}\n')
    (tmp_path / "b.jsonl.gz").write_bytes(b"no gzip")
    (tmp_path / "c.txt").write_text("three")
    source = open_source(f"{tmp_path}/*", on_error="skip")
    found = [document for part in source.parts for document in part.documents()]
    assert [document.text for document in found] == ["one", "", "two", "", "three"]
    assert [Path(document.origin).name for document in found if document.fault] == ["a.jsonl:2", "b.jsonl.gz"]
    for part in source.parts:
        assert all(0 < position <= part.size for _, position in part.read())
    with pytest.raises(CramError, match="no supported extension"):
        open_source(f"{__file__}", on_error="skip")
    with pytest.raises(CramError, match="matches no file"):
        open_source(f"{tmp_path}/none", on_error="skip")
