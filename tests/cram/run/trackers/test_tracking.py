"""What a tracker gets over kills, resumes and extensions, and what its failures do, told by a tracker of our own."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from cram import train as door
from cram.config import choices
from cram.config.choices import Choice
from cram.errors import CramError
from cram.files.atomic import read_json
from cram.run.metrics import Metrics, read_metrics
from cram.run.trackers import tracking
from cram.run.trackers.tracker import Record, TrackedRun

FAKE = "pytest"  # a package that is here, for the name of the tracker is that of its package
CALLS: list[tuple[str, Any]] = []


class FakeTracker:
    """Remembers what it was told; `told` is the last step that it claims to have."""

    told: int | None = None
    fails_at: str = ""

    def begin(self, run: TrackedRun) -> int | None:
        self._call("begin", run.id)
        return self.told

    def write(self, record: Record) -> None:
        self._call("write", record["step"])

    def end(self, summary: Mapping[str, Any]) -> None:
        self._call("end", dict(summary))

    def _call(self, name: str, what: Any) -> None:
        if name == self.fails_at:
            raise OSError("no network\nat all")
        CALLS.append((name, what))


@pytest.fixture(autouse=True)
def fake_tracker(monkeypatch: pytest.MonkeyPatch) -> None:
    CALLS.clear()
    monkeypatch.setitem(choices.TRACKERS, FAKE, Choice(f"{__name__}:FakeTracker", "for tests"))


def record(step: int) -> dict[str, Any]:
    return {"kind": "train", "step": step, "time": 1000.0 + step, "loss": 1.0}


def write(metrics: Metrics, steps: range) -> None:
    for step in steps:
        metrics.write(record(step))
        metrics.track(record(step))


def test_a_resumed_run_continues_in_the_tracker_and_sends_nothing_twice(tmp_path: Path) -> None:
    first = Metrics(tmp_path, track=FAKE)
    write(first, range(1, 4))
    state = first.state()
    write(first, range(4, 7))
    for last in (5, 8):  # killed twice; the second process comes less far than the first
        write(Metrics(tmp_path, state, track=FAKE), range(4, last))
    name = read_json(tmp_path / "tracker.json")["id"]
    assert [
        ("begin", name),
        *(("write", step) for step in range(1, 7)),
        ("begin", name),
        ("begin", name),
        ("write", 7),
    ] == CALLS


def test_what_the_tracker_says_that_it_has_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = Metrics(tmp_path, track=FAKE)
    write(first, range(1, 6))
    state = first.state()
    write(first, range(6, 8))
    monkeypatch.setattr(FakeTracker, "told", 3)  # it has lost four in the kill, two of them before the checkpoint
    CALLS.clear()
    write(Metrics(tmp_path, state, track=FAKE), range(6, 8))
    assert CALLS[1:] == [("write", step) for step in (4, 5, 6, 7)]


def test_other_updates_in_place_of_those_that_were_sent_are_another_run_of_the_tracker(tmp_path: Path) -> None:
    first = Metrics(tmp_path, track=FAKE)
    write(first, range(1, 4))
    state = first.state()
    write(first, range(4, 7))
    extended = Metrics(tmp_path, state, track=FAKE, restart=True)
    write(extended, range(4, 5))
    (_, old), (_, new) = (call for call in CALLS if call[0] == "begin")
    assert old != new
    assert CALLS[CALLS.index(("begin", new)) + 1 :] == [("write", step) for step in (1, 2, 3, 4)]


def test_a_tracker_that_is_asked_for_later_gets_everything(tmp_path: Path) -> None:
    first = Metrics(tmp_path)
    write(first, range(1, 4))
    second = Metrics(tmp_path, first.state(), track=FAKE)
    write(second, range(4, 5))
    assert CALLS[1:] == [("write", step) for step in (1, 2, 3, 4)]


@pytest.mark.parametrize("point", ["begin", "write", "end"])
def test_a_tracker_that_fails_costs_one_warning_and_no_run(
    point: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(FakeTracker, "fails_at", point)
    metrics = Metrics(tmp_path, track=FAKE)
    write(metrics, range(1, 4))
    metrics.close()
    metrics.end_tracking({"receipt/updates": 3})
    said = capsys.readouterr().out
    assert said == (
        f"warning: track={FAKE}: no network at all\n"
        "The run goes on without the tracker; its metrics.jsonl and TensorBoard files have everything.\n"
    )
    assert [line["step"] for line in read_metrics(metrics.path)] == [1, 2, 3]
    assert [what for name, what in CALLS if name == "write"] == ([1, 2, 3] if point == "end" else [])
    assert (tmp_path / "tracker.json").exists() == (point != "begin"), "else a later process would leave records out"


def test_a_run_sends_its_records_and_then_the_figures_of_the_receipt(tiny_words: list[str], tmp_path: Path) -> None:
    assert door.main([*tiny_words, "budget=3steps", f"track={FAKE}", "report.page=false"]) == 0
    receipt, (name, summary) = read_json(tmp_path / "run" / "receipt.json"), CALLS[-1]
    assert name == "end"
    assert summary["receipt/held_out/nats_per_token"] == receipt["held_out"]["nats_per_token"]
    assert (summary["receipt/updates"], summary["receipt/rules_kept"]) == (3, True)
    assert "receipt/mfu" not in summary, "unknown on a CPU"
    records = read_metrics(tmp_path / "run" / "metrics.jsonl")
    assert [what for call, what in CALLS if call == "write"] == [line["step"] for line in records]


def test_a_missing_package_is_refused_before_any_work(
    tiny_words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracking.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(CramError) as caught:
        door.main([*tiny_words, "budget=3steps", "track=wandb"])
    assert str(caught.value) == (
        "track=wandb needs the package wandb. Install it with pip install -e '.[track]', or leave track= out."
    )
    assert not (tmp_path / "run").exists() and not (tmp_path / "shards").exists()


def test_an_unknown_tracker_is_refused(tiny_words: list[str]) -> None:
    with pytest.raises(CramError, match=r"track=mlflow"):
        door.main([*tiny_words, "track=mlflow"])
