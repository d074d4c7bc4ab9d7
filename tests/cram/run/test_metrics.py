"""The metrics of a run: lines of JSON and TensorBoard files."""

import errno
import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cram.errors import CramError
from cram.run.metrics import Metrics, read_metrics
from tests.cram.run.tensorboard_files import check_agreement, load_events, read_tensorboard


def record(step: int, part: int = 1) -> dict[str, Any]:
    """A record; `part` is the number of the process that wrote it."""
    return {"kind": "train", "step": step, "time": 1000.0 + step, "loss": 10.0 * part + step}


def test_a_record_is_in_both_files_at_once(tmp_path: Path) -> None:
    metrics = Metrics(tmp_path)
    metrics.write(record(1))
    metrics.write(
        {"kind": "held_out", "step": 1, "time": 5.0, "nats_per_token": 2.5, "note": "text is not in TensorBoard"}
    )
    assert [line["kind"] for line in read_metrics(tmp_path / "metrics.jsonl")] == ["train", "held_out"]
    assert metrics.lines == 2
    assert read_tensorboard(tmp_path) == {"train/loss": [(1, 1001.0, 11.0)], "held_out/nats_per_token": [(1, 5.0, 2.5)]}


def test_a_resumed_run_continues_without_gaps_and_repeats(tmp_path: Path) -> None:
    first = Metrics(tmp_path)
    for step in range(1, 6):
        first.write(record(step))
        if step == 3:
            state = first.state()
    first.close()
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "train", "st')  # a crash cut this line short
    second = Metrics(tmp_path, state)
    assert second.lines == 3 and second.state() == state
    for step in range(4, 7):
        second.write(record(step, part=2))
    second.close()
    expected = [record(step) for step in (1, 2, 3)] + [record(step, part=2) for step in (4, 5, 6)]
    assert read_metrics(tmp_path / "metrics.jsonl") == expected
    assert (tmp_path / "metrics.jsonl").read_text() == "".join(json.dumps(line) + "\n" for line in expected)
    assert read_tensorboard(tmp_path) == {
        "train/loss": [(line["step"], line["time"], line["loss"]) for line in expected]
    }


def test_both_files_agree_digit_by_digit_whatever_becomes_of_the_run(tmp_path: Path) -> None:
    def write(metrics: Metrics, steps: range) -> None:
        for step in steps:
            numbers = {"positions": 2**24 * 3 + step, "lr": {"matrices": 0.1 / 3, "gains": 1e-3 * step}, "text": "x"}
            metrics.write(record(step) | numbers | {"mfu": None})

    killed = Metrics(tmp_path)
    write(killed, range(1, 5))
    state = killed.state()
    write(killed, range(5, 9))
    check_agreement(tmp_path)  # a kill needs no more than this: nothing is closed
    resumed = Metrics(tmp_path, state)
    check_agreement(tmp_path)
    resumed.write({"kind": "fault", "event": "rollback", "step": 4, "time": 3.0, "to_step": 0, "lr_factor": 0.5})
    write(resumed, range(5, 7))  # steps go on after a rollback
    check_agreement(tmp_path)
    extended = Metrics(tmp_path, state)
    write(extended, range(5, 30))
    extended.close()
    check_agreement(tmp_path)
    scalars = read_tensorboard(tmp_path)
    assert set(scalars) == {"train/loss", "train/positions_millions", "train/lr/matrices", "train/lr/gains"}
    assert [step for step, _, _ in scalars["train/loss"]] == list(range(1, 30))
    assert scalars["train/positions_millions"][0][2] == pytest.approx(50.331649, rel=1e-7)
    assert [path.stat().st_size > 0 for path in sorted((tmp_path / "tensorboard").iterdir())] == [False, True]


def test_a_tensorboard_that_looks_on_forgets_what_is_made_again(tmp_path: Path) -> None:
    killed = Metrics(tmp_path)
    killed.write(record(1))
    state = killed.state()
    killed.write(record(2))
    events = load_events(tmp_path)
    resumed = Metrics(tmp_path, state)
    resumed.write(record(2, part=2))
    resumed.close()
    values = [(event.step, event.value) for event in events.Reload().Scalars("train/loss")]
    assert values == [(1, 11.0), (2, 22.0)]


def test_tensorboard_shows_the_recipe(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text("seed: 3\nmodel:\n  kind: <b>\n  tied: true\n  heads: null\n")
    Metrics(tmp_path).close()
    events = load_events(tmp_path)
    (text,) = events.Tensors("recipe/text_summary")
    assert text.tensor_proto.string_val[0].decode().splitlines()[1:3] == ["    model:", "      kind: <b>"]
    from tensorboard.plugins.hparams.metadata import SESSION_START_INFO_TAG, parse_session_start_info_plugin_data

    metadata = events.SummaryMetadata(SESSION_START_INFO_TAG)
    keys = parse_session_start_info_plugin_data(metadata.plugin_data.content).hparams
    assert (keys["seed"].number_value, keys["model.kind"].string_value) == (3.0, "<b>")
    assert (keys["model.tied"].bool_value, keys["model.heads"].string_value) == (True, "None")


@pytest.mark.parametrize("edit", ["a number", "a bit", "cut short", "a line less"])
def test_edited_metrics_are_not_continued(tmp_path: Path, edit: str) -> None:
    path = tmp_path / "metrics.jsonl"
    first = Metrics(tmp_path)
    for step in (1, 2, 3):
        first.write(record(step))
    state = first.state()
    first.close()
    whole = path.read_bytes()
    path.write_bytes(
        {
            "a number": whole.replace(b"12.0", b"11.0"),
            "a bit": b"\xfb" + whole[1:],
            "cut short": whole[:-5],
            "a line less": whole.partition(b"\n")[2],
        }[edit]
    )
    with pytest.raises(CramError, match=r"metrics.jsonl: damaged or edited, its first 3 lines are not .*\nPut"):
        Metrics(tmp_path, state)
    path.write_bytes(whole + b"what came after the checkpoint")
    assert Metrics(tmp_path, state).state() == state
    assert path.read_bytes() == whole


def test_removed_metrics_are_begun_anew_with_a_warning(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = Metrics(tmp_path)
    first.write(record(1))
    state = first.state()
    first.close()
    first.path.unlink()
    second = Metrics(tmp_path, state)
    second.write(record(2))
    second.close()
    assert read_metrics(second.path) == [record(2)]
    assert f"warning: {second.path} is gone, so the metrics begin again without its lines" in capsys.readouterr().out
    assert Metrics(tmp_path, second.state()).lines == 1


def test_numbers_that_are_not_finite_are_null_and_not_in_tensorboard(tmp_path: Path) -> None:
    metrics = Metrics(tmp_path)
    metrics.write(record(1) | {"loss": float("nan"), "pace": float("inf")})
    metrics.write(record(2))
    metrics.close()
    first, _ = read_metrics(tmp_path / "metrics.jsonl")
    assert (first["loss"], first["pace"]) == (None, None)
    assert read_tensorboard(tmp_path) == {"train/loss": [(2, 1002.0, 12.0)]}


def test_an_incomplete_last_line_is_ignored(tmp_path: Path) -> None:
    whole = json.dumps(record(1)) + "\n"
    for incomplete in (json.dumps(record(2))[:-1], "{", "\0\0\0"):
        (tmp_path / "metrics.jsonl").write_text(whole + incomplete)
        assert read_metrics(tmp_path / "metrics.jsonl") == [record(1)]


def test_a_run_that_begins_again_keeps_nothing(tmp_path: Path) -> None:
    for _ in range(2):
        metrics = Metrics(tmp_path)
        metrics.write(record(1))
        metrics.close()
    assert read_metrics(tmp_path / "metrics.jsonl") == [record(1)]
    assert read_tensorboard(tmp_path) == {"train/loss": [(1, 1001.0, 11.0)]}


def test_a_disk_that_fills_up_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    metrics = Metrics(tmp_path)
    file, metrics._file = metrics._file, SimpleNamespace(write=fail)  # type: ignore[assignment]
    with pytest.raises(CramError, match=r"metrics\.jsonl: the disk is full"):
        metrics.write(record(1))
    assert metrics.lines == 0
    metrics._file = file
    with monkeypatch.context() as patch, pytest.raises(CramError, match=r"metrics\.jsonl: the disk is full"):
        patch.setattr(os, "fsync", fail)
        metrics.flush()
    metrics.close()


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"{",
        b"[1]",
        b"3",
        b"null",
        b"{}",
        b"\xff\xfe",
        b"[" * 99999,
        b'{"kind": 3}',
        b'{"kind": "train", "loss": "low"}',
        b'{"kind": "train", "loss": [1]}',
        b'{"kind": "train", "loss": NaN}',
        b'{"kind": "train", "loss": 1e999}',
    ],
)
def test_a_line_that_is_not_a_record_is_reported(tmp_path: Path, line: bytes) -> None:
    whole = json.dumps(record(1)).encode()
    (tmp_path / "metrics.jsonl").write_bytes(b"\n".join([whole, line, whole, b""]))
    with pytest.raises(
        CramError, match=r"metrics\.jsonl: damaged or edited, line 2 is not a record of a run\."
    ) as caught:
        read_metrics(tmp_path / "metrics.jsonl")
    assert len(str(caught.value).splitlines()) == 1


def test_missing_metrics_are_reported(tmp_path: Path) -> None:
    with pytest.raises(CramError, match=r"metrics\.jsonl: cannot be read \(No such file"):
        read_metrics(tmp_path / "metrics.jsonl")
    (tmp_path / "metrics.jsonl").mkdir()
    with pytest.raises(CramError, match=r"metrics\.jsonl: not a regular file"):
        read_metrics(tmp_path / "metrics.jsonl")
