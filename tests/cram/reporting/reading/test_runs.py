"""Run folders as a report reads them: finished or not, being written, damaged, of earlier versions; without torch."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from cram.errors import CramError
from cram.files.sealed import write_sealed
from cram.reporting.reading import runs as reading
from cram.reporting.reading.runs import read_run
from cram.run.checksums import unregister_results
from tests.cram.reporting.written_runs import train_record, usual_receipt, write_run


def test_a_finished_run(tmp_path: Path) -> None:
    run = read_run(write_run(tmp_path / "a"))
    assert (run.name, run.status, run.state) == ("a", "finished", None)
    assert run.config.budget == "100s"
    assert run.environment["device_name"] == "A Processor"
    assert run.figure("held_out", "nats_per_token") == 4.5
    assert run.figure("held_out", "nats_per_token", "further") is run.figure("nothing") is None
    assert len(run.of_kind("train")) == 10
    assert run.last("held_out")["step"] == 100
    assert run.last("phase") == {}


def test_a_failed_run(tmp_path: Path) -> None:
    run = read_run(write_run(tmp_path / "a", receipt=usual_receipt() | {"failed": "the weights are not finite"}))
    assert run.status == "failed"


def test_a_run_that_is_not_finished_has_the_state_of_its_newest_checkpoint(tmp_path: Path) -> None:
    run = read_run(write_run(tmp_path / "a", finished=False))
    assert (run.status, run.receipt) == ("unfinished", None)
    assert run.state is not None
    assert run.state["clock"]["updates"] == 90
    assert run.told("micro_rows") == 32
    assert run.figure("micro_rows") is None


@pytest.mark.parametrize(("age", "status"), [(2.0, "running"), (3600.0, "unfinished")])
def test_a_fresh_heartbeat_tells_that_a_run_goes_on(tmp_path: Path, age: float, status: str) -> None:
    folder = write_run(tmp_path / "a", finished=False)
    write_sealed(folder / "heartbeat.json", {"time": time.time() - age, "charged": 1.0})
    assert read_run(folder).status == status


def test_a_finished_run_is_not_called_running(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "a")
    write_sealed(folder / "heartbeat.json", {"time": time.time(), "charged": 1.0})
    assert read_run(folder).status == "finished"


def test_a_line_that_is_being_written_is_left_out(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "a", finished=False)
    whole = read_run(folder).records
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "train", "step": 11')
    assert read_run(folder).records == whole


def test_a_run_that_has_only_begun(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "a", records=[], finished=False)
    (folder / "metrics.jsonl").unlink()
    assert read_run(folder).records == []


def test_a_receipt_that_is_being_written_again_does_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_run(tmp_path / "a")

    def rewritten(path: Path) -> None:
        unregister_results(path)
        raise CramError("receipt.json: its content is not what its sha256 says.")

    monkeypatch.setattr(reading, "read_receipt", rewritten)
    assert read_run(folder).status == "unfinished"


def test_a_folder_that_is_not_a_run(tmp_path: Path) -> None:
    with pytest.raises(CramError, match=r"is not a run folder: there is no recipe\.yaml in it"):
        read_run(tmp_path)
    with pytest.raises(CramError, match="is not a run folder: there is no such folder"):
        read_run(tmp_path / "nothing")


def test_damaged_files(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "a")
    with (folder / "receipt.json").open("a") as file:
        file.write(" ")
    with pytest.raises(CramError, match=r"receipt\.json: damaged or edited"):
        read_run(folder)


@pytest.mark.parametrize("damage", ["not json\n", '{"step": 3}\n'])
def test_damaged_metrics(tmp_path: Path, damage: str) -> None:
    folder = write_run(tmp_path / "a")
    lines = (folder / "metrics.jsonl").read_text()
    (folder / "metrics.jsonl").write_text(damage + lines)
    with pytest.raises(CramError, match=r"metrics\.jsonl: damaged or edited, line 1 is not a record"):
        read_run(folder)


@pytest.mark.parametrize("name", ["step", "charged_seconds", "time"])
@pytest.mark.parametrize("value", [None, -1, 1e300, True])
def test_a_record_without_a_place(tmp_path: Path, name: str, value: float | None) -> None:
    folder = write_run(tmp_path / "a", records=[train_record(10), train_record(20) | {name: value}])
    with pytest.raises(CramError, match=f"damaged or edited, the {name} of a record is missing or impossible. Put"):
        read_run(folder)


def test_reading_imports_no_torch() -> None:
    program = "import sys; import cram.reporting.reading.runs; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
