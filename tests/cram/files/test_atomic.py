import errno
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cram.errors import CramError
from cram.files.atomic import read_json, sha256_bytes, sha256_file, to_json, write_atomic, write_json
from cram.run.metrics import Metrics, read_metrics

ROOT = Path(__file__).parents[3]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def break_call(monkeypatch: pytest.MonkeyPatch, call: str, error: BaseException) -> None:
    """Make a function of `os` fail."""

    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(os, call, fail)


def test_a_file_is_written_whole_with_its_folders_and_readable_by_all(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "file"
    write_atomic(path, b"first")
    write_atomic(path, b"second")
    assert path.read_bytes() == b"second"
    assert names(path.parent) == ["file"]
    assert path.stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("call", ["fsync", "replace"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, number: int
) -> None:
    write_atomic(tmp_path / "weights", b"old")
    with monkeypatch.context() as patch:
        break_call(patch, call, OSError(number, os.strerror(number)))
        for name in ("weights", "new"):
            with pytest.raises(CramError, match=rf"{name}: the disk is full \({os.strerror(number)}\)"):
                write_atomic(tmp_path / name, b"new")
    assert names(tmp_path) == ["weights"]
    assert (tmp_path / "weights").read_bytes() == b"old"


def test_what_a_crash_left_is_written_over(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys\nfrom pathlib import Path\nfrom cram.files.atomic import write_atomic\n"
        "os.fsync = lambda _: os.kill(os.getpid(), signal.SIGKILL)\nwrite_atomic(Path(sys.argv[1]), b'half')"
    )
    for _ in range(2):
        subprocess.run([sys.executable, "-c", code, str(tmp_path / "file")], cwd=ROOT, check=False)
        assert names(tmp_path) == [".file.partial"]
    write_atomic(tmp_path / "file", b"whole")
    assert names(tmp_path) == ["file"]


@pytest.mark.parametrize("error", [OSError(errno.EIO, "broken"), KeyboardInterrupt()])
def test_another_failure_passes_and_leaves_nothing_either(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    with monkeypatch.context() as patch:
        break_call(patch, "fsync", error)
        with pytest.raises(type(error)) as caught:
            write_atomic(tmp_path / "file", b"new")
    assert caught.value is error
    assert names(tmp_path) == []


def test_a_disk_without_space_for_a_folder_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch, pytest.raises(CramError, match="file: the disk is full"):
        break_call(patch, "mkdir", OSError(errno.ENOSPC, "No space left on device"))
        write_atomic(tmp_path / "new" / "file", b"new")


def test_a_file_that_the_system_does_not_let_grow_is_a_full_disk(tmp_path: Path) -> None:
    code = (
        "import resource, sys\nfrom pathlib import Path\nfrom cram.errors import CramError\n"
        "from cram.files.atomic import write_atomic\nresource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "try:\n    write_atomic(Path(sys.argv[1]), bytes(5000))\nexcept CramError as error:\n    print(error)\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "big")]
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, env=os.environ | {"PYTHONPATH": str(ROOT)}
    )
    assert done.stdout.startswith(f"{tmp_path / 'big'}: the disk is full")
    assert names(tmp_path) == []


def test_json_is_read_back(tmp_path: Path) -> None:
    value = {"a": [1, 0.1, None], "b": "é"}
    write_json(tmp_path / "x.json", value)
    assert read_json(tmp_path / "x.json") == value


NUMBERS = st.floats() | st.integers() | st.none() | st.text()
VALUES = st.recursive(NUMBERS, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=20)


@given(VALUES)
def test_all_that_is_written_is_json_with_null_for_what_is_not_finite(value: Any) -> None:
    def refuse(constant: str) -> None:
        raise ValueError(constant)

    assert json.loads(to_json(value), parse_constant=refuse) == json.loads(
        json.dumps(value), parse_constant=lambda constant: None
    )


def test_every_json_file_of_the_house_is_written_by_it() -> None:
    writing = re.compile(r"json\.dump\(|(write|save|metadata).*json\.dumps")
    lines = [line for path in (ROOT / "cram").rglob("*.py") for line in path.read_text().splitlines()]
    assert [line for line in lines if writing.search(line)] == []


@pytest.mark.parametrize(
    ("content", "message"), [(None, "no such file"), (b"{", "not a readable JSON"), (b'"\xff"', "not a readable JSON")]
)
def test_a_json_file_that_cannot_be_read_is_named(tmp_path: Path, content: bytes | None, message: str) -> None:
    if content is not None:
        (tmp_path / "x.json").write_bytes(content)
    with pytest.raises(CramError, match=rf"x\.json: .*{message}"):
        read_json(tmp_path / "x.json")


def test_a_file_and_its_bytes_have_one_digest(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"abc")
    assert sha256_file(tmp_path / "x") == sha256_bytes(b"abc")
    assert sha256_bytes(b"abc").startswith("ba7816bf")


def record(step: int, part: int = 1) -> dict[str, Any]:
    """A line of metrics; `part` tells the part of the run that wrote it."""
    return {"kind": "train", "step": step, "time": 1000.0 + step, "loss": 10.0 * part + step}


def board(run: Path) -> dict[str, list[tuple[int, float, float]]]:
    """(step, seconds, value) of every scalar in the TensorBoard files, by tag."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run / "tensorboard")).Reload()
    return {tag: [(e.step, e.wall_time, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def test_a_record_is_on_the_disk_at_once_and_on_the_board_after_close(tmp_path: Path) -> None:
    metrics = Metrics(tmp_path)
    metrics.write(record(1))
    metrics.write(
        {"kind": "held_out", "step": 1, "time": 5.0, "nats_per_token": 2.5, "note": "text stays off the board"}
    )
    assert [line["kind"] for line in read_metrics(tmp_path / "metrics.jsonl")] == ["train", "held_out"]
    assert metrics.lines == 2
    metrics.close()
    assert board(tmp_path) == {"train/loss": [(1, 1001.0, 11.0)], "held_out/nats_per_token": [(1, 5.0, 2.5)]}


def test_a_resumed_run_joins_without_gap_or_repeat(tmp_path: Path) -> None:
    first = Metrics(tmp_path)
    for step in range(1, 6):
        first.write(record(step))
        if step == 3:
            kept = first.state()
    first.close()
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "train", "st')  # a crash cut this line short
    second = Metrics(tmp_path, kept)
    assert second.lines == 3 and second.state() == kept
    for step in range(4, 7):
        second.write(record(step, part=2))
    second.close()
    expected = [record(step) for step in (1, 2, 3)] + [record(step, part=2) for step in (4, 5, 6)]
    assert read_metrics(tmp_path / "metrics.jsonl") == expected
    assert (tmp_path / "metrics.jsonl").read_text() == "".join(json.dumps(line) + "\n" for line in expected)
    assert board(tmp_path) == {"train/loss": [(line["step"], line["time"], line["loss"]) for line in expected]}


@pytest.mark.parametrize("edit", ["a figure", "a bit", "cut short", "a line less"])
def test_metrics_that_were_edited_are_not_gone_on_with(tmp_path: Path, edit: str) -> None:
    path = tmp_path / "metrics.jsonl"
    first = Metrics(tmp_path)
    for step in (1, 2, 3):
        first.write(record(step))
    kept = first.state()
    first.close()
    whole = path.read_bytes()
    path.write_bytes(
        {
            "a figure": whole.replace(b"12.0", b"11.0"),
            "a bit": b"\xfb" + whole[1:],
            "cut short": whole[:-5],
            "a line less": whole.partition(b"\n")[2],
        }[edit]
    )
    with pytest.raises(CramError, match=r"metrics.jsonl: damaged or edited, its first 3 lines are not .*\nPut"):
        Metrics(tmp_path, kept)
    path.write_bytes(whole + b"what came after the checkpoint")
    assert Metrics(tmp_path, kept).state() == kept
    assert path.read_bytes() == whole


def test_metrics_that_were_removed_are_gone_on_without_with_a_warning(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = Metrics(tmp_path)
    first.write(record(1))
    kept = first.state()
    first.close()
    first.path.unlink()
    second = Metrics(tmp_path, kept)
    second.write(record(2))
    second.close()
    assert read_metrics(second.path) == [record(2)]
    assert f"warning: {second.path} is gone, so the metrics begin again without its lines" in capsys.readouterr().out
    assert Metrics(tmp_path, second.state()).lines == 1


def test_figures_that_are_not_finite_are_null_and_left_off_the_board(tmp_path: Path) -> None:
    metrics = Metrics(tmp_path)
    metrics.write(record(1) | {"loss": float("nan"), "pace": float("inf")})
    metrics.write(record(2))
    metrics.close()
    first, _ = read_metrics(tmp_path / "metrics.jsonl")
    assert (first["loss"], first["pace"]) == (None, None)
    assert board(tmp_path) == {"train/loss": [(2, 1002.0, 12.0)]}


def test_a_torn_line_ends_the_metrics(tmp_path: Path) -> None:
    whole = json.dumps(record(1)) + "\n"
    for torn in (json.dumps(record(2))[:-1], "{", "\0\0\0"):
        (tmp_path / "metrics.jsonl").write_text(whole + torn)
        assert read_metrics(tmp_path / "metrics.jsonl") == [record(1)]


def test_a_run_that_starts_anew_keeps_nothing(tmp_path: Path) -> None:
    for _ in range(2):
        metrics = Metrics(tmp_path)
        metrics.write(record(1))
        metrics.close()
    assert read_metrics(tmp_path / "metrics.jsonl") == [record(1)]
    assert board(tmp_path) == {"train/loss": [(1, 1001.0, 11.0)]}


def test_a_disk_that_fills_up_under_the_metrics_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Full:
        def write(self, _: bytes) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

    metrics = Metrics(tmp_path)
    file, metrics._file = metrics._file, Full()  # type: ignore[assignment]
    with pytest.raises(CramError, match=r"metrics\.jsonl: the disk is full"):
        metrics.write(record(1))
    assert metrics.lines == 0
    metrics._file = file
    with monkeypatch.context() as patch, pytest.raises(CramError, match=r"metrics\.jsonl: the disk is full"):
        break_call(patch, "fsync", OSError(errno.ENOSPC, "No space left on device"))
        metrics.flush()
    metrics.close()


@pytest.mark.parametrize(
    "line",
    [b"\xff\xfe", b"{", b"", b"[1]", b"3", b"null", b"{}", b'{"kind": 3}', b'{"kind": "train", "loss": "low"}',
     b'{"kind": "train", "loss": [1]}', b'{"kind": "train", "loss": NaN}', b'{"kind": "train", "loss": 1e999}',
     b"[" * 99999],
)  # fmt: skip
def test_a_line_that_no_run_has_written_is_named(tmp_path: Path, line: bytes) -> None:
    whole = json.dumps(record(1)).encode()
    (tmp_path / "metrics.jsonl").write_bytes(b"\n".join([whole, line, whole, b""]))
    with pytest.raises(
        CramError, match=r"metrics\.jsonl: damaged or edited, line 2 is not a record of a run\."
    ) as caught:
        read_metrics(tmp_path / "metrics.jsonl")
    assert len(str(caught.value).splitlines()) == 1


def test_metrics_that_are_not_there_are_named(tmp_path: Path) -> None:
    with pytest.raises(CramError, match=r"metrics\.jsonl: cannot be read \(No such file"):
        read_metrics(tmp_path / "metrics.jsonl")
    (tmp_path / "metrics.jsonl").mkdir()
    with pytest.raises(CramError, match=r"metrics\.jsonl: not a regular file"):
        read_metrics(tmp_path / "metrics.jsonl")


def test_a_link_is_replaced_and_not_written_through(tmp_path: Path) -> None:
    (tmp_path / "theirs").write_text("theirs")
    for link, target in (("there", "theirs"), ("dangling", "nowhere"), (".other.partial", "theirs")):
        (tmp_path / link).symlink_to(tmp_path / target)
    for name in ("there", "dangling", "other"):
        write_atomic(tmp_path / name, b"ours")
        assert (tmp_path / name).read_bytes() == b"ours" and not (tmp_path / name).is_symlink()
    assert (tmp_path / "theirs").read_text() == "theirs"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dangling", "other", "theirs", "there"]
