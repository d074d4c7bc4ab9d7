"""The command that trains tables of arms, on runs of a few updates."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from cram.ablate import main
from cram.config.config import Config
from cram.config.recipe import keep_last_words
from cram.errors import CramError
from cram.files.atomic import read_json
from cram.files.lock import take_lock
from cram.run.checksums import write_start_files

ARMS = """
about: two learning rates
budget: 4steps
seeds: 2
baseline: low
arms:
  low: {words: [optimizer.lr=1e-3]}
  high: {words: [optimizer.lr=2e-3]}
  half: {words: [optimizer.lr=2e-3], budget_share: 0.5}
"""


@pytest.fixture
def words(tiny_run: Callable[[Path], list[str]], tmp_path: Path) -> list[str]:
    """The words of a small table of tiny runs."""
    (tmp_path / "mine.yaml").write_text(ARMS)
    shared = [word for word in tiny_run(tmp_path) if not word.startswith("run=")]
    return [f"table={tmp_path / 'mine.yaml'}", f"dir={tmp_path / 'tables'}", *shared]


def test_a_table_is_trained_printed_and_resumed(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "tables" / "mine-4steps"
    without_device = [word for word in words if not word.startswith("device=")]
    assert main([*without_device, "seeds=1", "devices=[cpu,cpu]"]) == 0
    out = capsys.readouterr().out
    assert "[3/3] half, seed 0, 2steps, cpu: " in out and "over baseline" in out
    assert "device: cpu" in (folder / "half-seed0" / "recipe.yaml").read_text()
    first = read_json(folder / "results.json")
    assert [(arm["arm"], arm["seeds"]) for arm in first["arms"]] == [("low", [0]), ("high", [0]), ("half", [0])]
    assert [(run["folder"], run["arm"], run["budget"], run["seed"], run["rate"]) for run in first["runs"]] == [
        ("low-seed0", "low", "4steps", 0, None),
        ("high-seed0", "high", "4steps", 0, None),
        ("half-seed0", "half", "2steps", 0, None),
    ]
    times = {path: path.stat().st_mtime_ns for path in folder.glob("*/receipt.json")}
    assert main(words) == 0
    out = capsys.readouterr().out
    assert "[1/6]" not in out and "[4/6] low, seed 1" in out
    assert all(path.stat().st_mtime_ns == when for path, when in times.items())
    table = (folder / "table.md").read_text().splitlines()
    assert table[2].startswith("| low | 4steps |") and table[2].endswith("| 2 |")
    assert table[-3:] == [
        "- `low`: optimizer.lr=1e-3",
        "- `high`: optimizer.lr=2e-3",
        "- `half`: optimizer.lr=2e-3",
    ]
    assert "high: optimizer.lr=2e-3" in out.splitlines()
    assert [read_json(folder / f"{arm}-seed1" / "receipt.json")["updates"] for arm in ("low", "half")] == [4, 2]


def test_a_failed_arm_is_named_and_the_others_are_printed(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "tables" / "mine-4steps" / "high-seed0"
    write_start_files(run, Config(budget="4steps"), {}, b"{}", data="of the test")
    (run / ".lock").touch()
    with pytest.raises(
        CramError, match=r"(?s)arm high: run=.* belongs to another recipe.*The folder of a table is dir="
    ):
        main([*words, "seeds=1"])
    assert not (run.parent / "low-seed0" / "receipt.json").exists()
    (run / "recipe.yaml").unlink()
    (run / "metrics.jsonl").mkdir()  # cannot be written
    assert main([*words, "seeds=1"]) == 1
    out = capsys.readouterr().out
    assert "failed: high with seed 0:" in out and "train.log" in out
    results = read_json(run.parent / "results.json")
    assert [arm["arm"] for arm in results["arms"]] == ["low", "half"]


@pytest.mark.parametrize("name", ["SIGINT", "SIGKILL"])
def test_a_table_that_ends_keeps_the_state_of_its_run(words: list[str], tmp_path: Path, name: str) -> None:
    # Updates of some hundred milliseconds: a second signal meanwhile would end the run at once.
    slow = ["batch.tokens=16384", "budget=100000steps", "data.epochs=1000", "log_interval=1"]
    command = [sys.executable, "-m", "cram.ablate", *keep_last_words([*words, "seeds=1", "arms=[high]", *slow])]
    child = subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"}, start_new_session=True
    )
    run = tmp_path / "tables" / "mine-100000steps" / "high-seed0"
    metrics = run / "metrics.jsonl"
    while child.poll() is None and not (metrics.exists() and metrics.read_text().count("\n") > 2):
        time.sleep(0.1)
    if name == "SIGINT":  # Ctrl-C reaches the whole group
        os.killpg(child.pid, signal.SIGINT)
    else:
        child.send_signal(signal.Signals[name])
    out, _ = child.communicate(timeout=60)
    if name == "SIGKILL":  # the run notices it and ends by itself; it prints the message after it gave back its lock
        log, saved = run / "train.log", "the state is saved. The same command resumes."
        deadline = time.monotonic() + 60
        while saved not in log.read_text() and time.monotonic() < deadline:
            time.sleep(0.1)
        assert saved in log.read_text()
        assert take_lock(run / ".lock") is not None
    else:
        assert child.returncode == 130, out
        assert "The same command goes on" in out
    assert max(int(path.name) for path in (run / "checkpoints").iterdir()) > 0
    results = read_json(run.parent / "results.json")  # what a report shows of a table that is still at work
    assert results["arms"] == [] and [planned["arm"] for planned in results["runs"]] == ["low", "high", "half"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], r"table= is missing\. Use table=NAME with one of: "),
        (["table=recipe", "seeds=0"], "seeds=0 is out of range: give a number at least 1, at most 1000"),
        (["table=recipe", "seed=3"], r"seed=3: each run of a table has its own\. Use seeds=N for more seeds"),
        (["table=recipe", "run=mine"], r"run=mine: each run of a table has its own"),
        (["table=recipe", "jobs=2", "devices=[cpu]"], r"jobs=2: devices= trains as many runs .* Leave one of the two"),
        (
            ["table=recipe", "device=cpu", "devices=[cpu]"],
            r"device=cpu: devices= gives each run its device\.",
        ),
        (["table=recipe", "devices=[]"], r"devices=\[\] names no device\."),
        (
            ["table=recipe", "devices=[cpu,cpu]", "threads=2"],
            r"devices=\[cpu,cpu\]: arm .* has threads=2, .*Add thr",
        ),
        (["table=recipe", "budget=soon"], "budget=soon is not a valid budget"),
        (["table=recipe", "model.heads=5"], r"arm .*: model\.width=\d+ is not a multiple of model\.heads=5"),
    ],
)
def test_wrong_words_are_refused_before_any_training(words: list[str], message: str) -> None:
    with pytest.raises(CramError, match=message):
        main(words)


def test_a_log_that_is_a_link_is_not_written_through(words: list[str], tmp_path: Path) -> None:
    folder = tmp_path / "tables" / "mine-4steps" / "low-seed0"
    folder.mkdir(parents=True)
    (folder / ".lock").touch()
    (folder / "train.log").symlink_to(tmp_path / "theirs")
    with pytest.raises(CramError, match=r"low-seed0/train\.log is a link, and is not written through\. Remove it\."):
        main([*words, "seeds=1"])
    assert not (tmp_path / "theirs").exists()
