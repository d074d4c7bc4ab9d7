"""The command: its words, where its results go, and what it refuses."""

import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from cram.config.commands import GlueConfig
from cram.config.recipe import read_words
from cram.errors import CramError
from cram.glue.__main__ import main
from cram.glue.run import check_words, results_folder
from cram.glue.tasks import find_tasks

ROOT = Path(__file__).resolve().parents[3]


def words(checkpoint: Path, data: Path, to: Path) -> list[str]:
    """Words for the command on the small GLUE folder."""
    return [f"run={checkpoint}", f"data={data}", f"to={to}", "check_counts=false", "tasks=rte", "device=cpu"]


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ([], "run= is missing"),
        (["run=x", "tasks=[ret]"], r"tasks=ret is unknown\. Nearest: rte"),
        (["run=x", "seeds=0"], "seeds=0 is out of range: give a number at least 1"),
        (["run=x", "epochs=0"], "epochs=0 is out of range: give a number at least 1"),
        (["run=x", "length=4"], "length=4 is out of range: give a number at least 8"),
        (["run=x", "limit=0"], "limit=0 is out of range: give a number at least 1"),
        (["run=x", "dropout=1.0"], r"dropout=1\.0 is out of range: give a number at least 0, below 1"),
        (["run=x", "learning_rate=[4e-5,2]"], "learning_rate=2 is out of range: give a number above 0, below 1"),
        (["run=x", "optimizer=lion"], "optimizer=lion"),
        (["run=x", "layer_decay=0"], "layer_decay=0 is out of range: give a number above 0, at most 1"),
        (["run=x", "layer_decay=1.5"], r"layer_decay=1\.5 is out of range: give a number above 0, at most 1"),
        (["run=x", "frozen=true", "optimizer=muon"], "optimizer= has no effect with frozen=true"),
        (["run=x", "frozen=true", "layer_decay=0.9"], "layer_decay= has no effect with frozen=true"),
        (["run=x", "seed=3"], r"unknown key 'seed' .*Nearest: seeds"),
        (["run=/nowhere", "tasks=rte"], "run=/nowhere is not a checkpoint"),
    ],
)
def test_wrong_words_are_refused(command: list[str], message: str) -> None:
    with pytest.raises(CramError, match=message):
        main(command)


def test_the_commands_of_readme_and_docs_are_accepted() -> None:
    text = "\n".join(path.read_text() for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))))
    lines = [line for line in text.splitlines() if line.startswith("python -m cram.glue ")]
    assert len(lines) >= 4
    for line in lines:
        config = read_words(GlueConfig, shlex.split(line)[3:])
        check_words(config)
        find_tasks(config.tasks)


def test_where_results_go(checkpoint: Path, tmp_path: Path) -> None:
    assert results_folder(GlueConfig(run=str(checkpoint), to="there")) == Path("there")
    assert results_folder(GlueConfig(run=str(checkpoint))) == Path("runs/glue-encoder")
    assert results_folder(GlueConfig(run="hf:owner/name-base")) == Path("runs/glue-name-base")
    (tmp_path / "recipe.yaml").touch()
    assert results_folder(GlueConfig(run=str(tmp_path))) == tmp_path


def test_a_folder_in_use_and_one_that_is_a_file(checkpoint: Path, glue_folder: Path, tmp_path: Path) -> None:
    from cram.files.lock import wait_for_lock

    (tmp_path / "glue").mkdir()
    with wait_for_lock(tmp_path / "glue" / ".lock"), pytest.raises(CramError, match="another process is at work there"):
        main(words(checkpoint, glue_folder, tmp_path))
    (tmp_path / "file").write_text("mine")
    with pytest.raises(CramError, match=r"to=.*file is a file"):
        main(words(checkpoint, glue_folder, tmp_path / "file"))


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("/", "to=/ is a folder that always exists"),
        ("file/below", r"to=.*below: .*file is a file, so there can be no folder below it"),
        ("dangling", "to=.*dangling is a link"),
        ("mine", "to=.*mine/glue is a link"),
    ],
)
def test_a_place_that_cannot_hold_results_is_refused(
    checkpoint: Path, glue_folder: Path, tmp_path: Path, place: str, message: str
) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "dangling").symlink_to("nowhere")
    for name in ("mine", "theirs"):
        (tmp_path / name).mkdir()
    (tmp_path / "mine" / "glue").symlink_to(tmp_path / "theirs")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(CramError, match=message) as caught:
        main(words(checkpoint, glue_folder, tmp_path / place))
    assert len(str(caught.value).splitlines()) == 1
    assert sorted(tmp_path.rglob("*")) == before


def run_command(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "cram.glue", *command], cwd=ROOT, capture_output=True, text=True, check=False
    )


def test_wrong_words_end_with_status_2_and_no_traceback() -> None:
    refused = run_command("run=/nowhere")
    assert (refused.returncode, "Traceback" in refused.stderr) == (2, False)
    helped = run_command("--help")
    assert helped.returncode == 0
    assert "learning_rate" in helped.stdout
