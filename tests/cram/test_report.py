"""The door of reports: where the page goes, and what is said about words and folders that do not do."""

import errno
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cram.command import run_door
from cram.config.commands import ReportConfig
from cram.config.config import Config
from cram.files.atomic import to_json
from cram.report import ABOUT, main
from cram.run.checksums import write_start_files

RECORD: dict[str, Any] = {"kind": "train", "step": 1, "time": 0.0, "loss": 5.0, "charged_seconds": 1.0}


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[[str], Path]:
    """Writes a run that has begun and has one line of metrics."""

    def make(name: str) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        write_start_files(folder, Config(), {}, b"{}", "data")
        (folder / "metrics.jsonl").write_text(to_json(RECORD) + "\n")
        return folder

    return make


@pytest.fixture
def door(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., object]:
    """Runs the door in `tmp_path` and returns its exit status."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("cram.command._handle", lambda _: {})

    def run(*words: str) -> object:
        monkeypatch.setattr(sys, "argv", ["door", *words])
        with pytest.raises(SystemExit) as left:
            run_door(main, ReportConfig, ABOUT, repeated=("run",))
        return left.value.code

    return run


def test_the_page_of_a_run_is_in_its_folder_and_its_size_is_told(
    door: Callable[..., object], make_run: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run("one")
    assert door("run=one") == 0
    page = run / "report.html"
    assert "<title>run one" in page.read_text()
    said = capsys.readouterr().out.split()
    assert (said[0], said[2:4], said[5]) == ("one/report.html:", ["kB", "in"], "s")
    assert not list(run.glob(".*.partial"))


def test_a_page_is_written_again_and_where_the_words_say(
    door: Callable[..., object], make_run: Callable[[str], Path], tmp_path: Path
) -> None:
    make_run("one")
    for _ in range(2):
        for path in ("here.html", "new/place/page.html"):
            assert door("run=one", f"to={path}") == 0
            assert (tmp_path / path).is_file()


def test_a_run_that_is_being_written_has_a_page(door: Callable[..., object], make_run: Callable[[str], Path]) -> None:
    run = make_run("one")
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "train", "st')
    assert door("run=one") == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "nothing to show: give run=DIR, table=DIR, data=DIR, glue=DIR or plan=FILE."),
        (["to=a.html"], "nothing to show"),
        (["run=one", "run=one"], "run=one and run=one are the same folder. Give it once."),
        (["run=one", "run=link"], "run=one and run=link are the same folder."),
        (["run=one", "to=a.html", "to=b.html"], "to= is given twice. Give it once."),
        (["run=one", "to=page.txt"], "to=page.txt does not end in .html. Give the name of a page, such as"),
        (["run=one", "to=.html"], "to=.html does not end in .html."),
        (["run=one", "to=other.html"], "to=other.html exists already and is not a page of cram.report."),
        (["run=one", "to=folder.html"], "to=folder.html exists already and is not a page of cram.report."),
        (["run=one", "to=link.html"], "to=link.html is a link. Give the file itself, or remove the link."),
        (["run=one", "to=other.html/a.html"], "to=other.html is a file. Choose another place"),
        (["run=nowhere"], "run=nowhere is not a run folder: there is no such folder. Runs beside it: link, one."),
        (["run=folder.html"], "run=folder.html is not a run folder: there is no recipe.yaml in it."),
        (["run=one", "runs=two"], "unknown key 'runs' (in your words). Nearest: run."),
        (["one"], "'one' is not of the form key=value."),
    ],
)
def test_words_that_do_not_do_are_refused_in_two_lines(
    door: Callable[..., object],
    make_run: Callable[[str], Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    message: str,
) -> None:
    make_run("one")
    (tmp_path / "link").symlink_to("one")
    (tmp_path / "other.html").write_text("<!doctype html><title>mine</title>")
    (tmp_path / "folder.html").mkdir()
    (tmp_path / "link.html").symlink_to("other.html")
    before = sorted(tmp_path.rglob("*"))
    assert door(*words) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith(f"cram: {message}")
    assert shown.err.count("\n") <= 2
    assert sorted(tmp_path.rglob("*")) == before


def test_damaged_metrics_are_named(
    door: Callable[..., object], make_run: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run("one")
    (run / "metrics.jsonl").write_text(f"{to_json(RECORD)}\nnothing\n{to_json(RECORD)}\n")
    assert door("run=one") == 2
    assert "metrics.jsonl: damaged or edited, line 2 is not a record of a run." in capsys.readouterr().err
    assert not (run / "report.html").exists()


@pytest.mark.parametrize(
    ("number", "message"),
    [
        (errno.ENOSPC, "one/report.html: the disk is full (No space left on device). Free some space"),
        (errno.EACCES, "to=one/report.html: cannot be written (Permission denied). Choose another to=."),
    ],
)
def test_a_page_for_which_there_is_no_room_leaves_the_one_before(
    door: Callable[..., object],
    make_run: Callable[[str], Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    number: int,
    message: str,
) -> None:
    run = make_run("one")
    assert door("run=one") == 0
    before = (run / "report.html").read_bytes()
    capsys.readouterr()

    def fail(_: int) -> None:
        raise OSError(number, {errno.ENOSPC: "No space left on device", errno.EACCES: "Permission denied"}[number])

    monkeypatch.setattr("cram.files.atomic.os.fsync", fail)
    assert door("run=one") == 2
    assert capsys.readouterr().err.startswith(f"cram: {message}")
    assert (run / "report.html").read_bytes() == before
    assert not list(run.glob(".*.partial"))
