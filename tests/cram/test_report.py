"""The door of reports: where the page goes, and what is said about words and folders that do not do."""

import errno
import os
import re
import sys
from collections.abc import Callable
from html import unescape
from pathlib import Path
from urllib.parse import unquote

import pytest

from cram.command import run_door
from cram.config.commands import ReportConfig
from cram.config.config import Config
from cram.config.recipe import format_config
from cram.files.atomic import to_json
from cram.files.lock import lock_descriptor
from cram.report import ABOUT, main
from tests.cram.reporting.written_runs import train_record, write_run


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., Path]:
    """Write a run into a folder of `tmp_path`."""
    return lambda name, **arguments: write_run(tmp_path / name, **arguments)


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    """Write a plan, whose page is the quickest."""
    config = Config(recipe="mine", run="runs/mine")
    config.plan.budget = "10m"
    (tmp_path / "plan.yaml").write_text(format_config(config))
    return tmp_path / "plan.yaml"


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
    door: Callable[..., object], make_run: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run("one")
    assert door("run=one") == 0
    page = run / "report.html"
    assert "<title>Run one" in page.read_text()
    said = capsys.readouterr().out.split()
    assert (said[0], said[2:4], said[5]) == ("one/report.html:", ["kB", "in"], "s")
    assert not list(run.glob(".*.partial"))


def test_a_page_is_written_again_and_where_the_words_say(
    door: Callable[..., object], plan: Path, tmp_path: Path
) -> None:
    assert door("plan=plan.yaml", "to=new/place/page.html") == 0
    assert door("plan=plan.yaml", "to=new/place/page.html") == 0
    assert (tmp_path / "new/place/page.html").is_file()


@pytest.mark.parametrize(
    ("words", "page", "title"),
    [
        (["run=one", "run=two"], "report.html", "2 runs compared</title>"),
        (["table=."], "report.html", "Table "),
        (["plan=plan.yaml"], "report.html", "Plan plan.yaml"),
        (["run=one", "plan=plan.yaml"], "report.html", "Run one, Plan plan.yaml"),
        (["run=one", "plan=plan.yaml", "to=deep/page.HTML"], "deep/page.HTML", "Run one, Plan plan.yaml"),
        (["run=two/"], "two/report.html", "Run two"),
    ],
)
def test_every_subject_has_a_page(
    door: Callable[..., object],
    make_run: Callable[..., Path],
    plan: Path,
    tmp_path: Path,
    words: list[str],
    page: str,
    title: str,
) -> None:
    make_run("one")
    make_run("two", finished=False)
    assert door(*words) == 0
    text = (tmp_path / page).read_text()
    assert f"<title>{title}" in text
    headings = [unescape(heading) for heading in re.findall(r"<h2[^>]*>(.*?)</h2>", text)]
    assert "Run: Result" in headings if "," in title else not any(": " in heading for heading in headings)
    assert "Plan: Plan" not in headings
    for link in re.findall(r' href="\./([^"#]*)"', text):
        assert (tmp_path / page).parent.joinpath(unquote(link)).exists(), link


def test_a_run_that_is_being_written_has_a_page(door: Callable[..., object], make_run: Callable[..., Path]) -> None:
    run = make_run("one")
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "train", "st')
    assert door("run=one") == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "nothing to show: give run=DIR, table=DIR, data=DIR, glue=DIR or plan=FILE."),
        (["to=a.html"], "nothing to show"),
        (["plan=mine.yaml", "price=2.5"], "price=2.5 is of the machine of a run. Give run=DIR too, or leave it out."),
        (["run=one", "price=0"], "price=0 is out of range: give a number above 0, or null."),
        (["run=one", "run=one"], "run=one and run=one are the same folder. Give it once."),
        (["run=one", "run=link"], "run=one and run=link are the same folder."),
        (["run=one", "to=a.html", "to=b.html"], "to= is given twice. Give it once."),
        (["run=one", "to=page.txt"], "to=page.txt does not end in .html. Give the name of a page, such as"),
        (["run=one", "to=.html"], "to=.html does not end in .html."),
        (["run=one", "to=other.html"], "to=other.html exists already and is not a page of cram.report."),
        (["run=one", "to=folder.html"], "to=folder.html exists already and is not a page of cram.report."),
        (["run=one", "to=link.html"], "to=link.html is a link. Give the file itself, or remove the link."),
        (["run=one", "to=other.html/a.html"], "to=other.html is a file. Choose another place"),
        (
            ["run=nowhere"],
            "run=nowhere is not a run folder: there is no such folder. Runs beside it: empty, link, one.",
        ),
        (["run=folder.html"], "run=folder.html is not a run folder: there is no recipe.yaml in it."),
        (["run=one", "runs=two"], "unknown key 'runs' (in your words). Nearest: run."),
        (["one"], "'one' is not of the form key=value."),
        (["run=one", "run=empty"], "run=empty shares no axis with the others: it has no records of training."),
        (["table=nowhere"], "table=nowhere: there is no such folder. Name the folder of a table of cram.ablate."),
        (["table=folder.html"], "table=folder.html is not the folder of a table: it has neither results.json nor"),
        (["data=folder.html"], "data=folder.html: not a shard folder"),
        (["glue=one"], "glue=one: no GLUE results, it has neither glue.json nor probe.json. Run cram.glue first."),
        (["plan=other.html"], "plan=other.html is not a plan: give the yaml file that cram.plan to= has written."),
        (["plan=one/recipe.yaml"], "plan=one/recipe.yaml is not a plan: it is a recipe without predictions"),
        (["run=one", "plan=none.yaml"], "plan=none.yaml: there is no such file."),
    ],
)
def test_words_that_do_not_do_are_refused_in_two_lines(
    door: Callable[..., object],
    make_run: Callable[..., Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    message: str,
) -> None:
    make_run("one")
    make_run("empty", records=[], finished=False)
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
    door: Callable[..., object], make_run: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run("one")
    line = to_json(train_record(1))
    (run / "metrics.jsonl").write_text(f"{line}\nnothing\n{line}\n")
    assert door("run=one") == 2
    assert "metrics.jsonl: damaged or edited, line 2 is not a record of a run." in capsys.readouterr().err
    assert not (run / "report.html").exists()


@pytest.mark.parametrize(
    ("number", "message"),
    [
        (errno.ENOSPC, "report.html: the disk is full (No space left on device). Free some space"),
        (errno.EACCES, "to=report.html: cannot be written (Permission denied). Choose another to=."),
    ],
)
def test_a_page_for_which_there_is_no_room_leaves_the_one_before(
    door: Callable[..., object],
    plan: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    number: int,
    message: str,
) -> None:
    page = tmp_path / "report.html"
    assert door("plan=plan.yaml") == 0
    before = page.read_bytes()
    capsys.readouterr()

    def fail(_: int) -> None:
        raise OSError(number, {errno.ENOSPC: "No space left on device", errno.EACCES: "Permission denied"}[number])

    monkeypatch.setattr("cram.files.atomic.os.fsync", fail)
    assert door("plan=plan.yaml") == 2
    assert capsys.readouterr().err.startswith(f"cram: {message}")
    assert page.read_bytes() == before
    assert not list(tmp_path.glob(".*.partial"))


def test_two_processes_do_not_write_a_page_at_once(
    door: Callable[..., object],
    plan: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("cram.reporting.make.PATIENCE_SECONDS", 0.05)
    other = os.open(tmp_path, os.O_RDONLY)
    assert lock_descriptor(other, tmp_path)
    assert door("plan=plan.yaml") == 2
    assert capsys.readouterr().err.startswith("cram: .: another process is writing a page there.")
    assert not (tmp_path / "report.html").exists()
    os.close(other)
    assert door("plan=plan.yaml") == 0
