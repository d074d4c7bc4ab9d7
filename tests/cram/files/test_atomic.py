"""Files are written completely or not at all; JSON holds no NaN."""

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

ROOT = Path(__file__).parents[3]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def break_call(monkeypatch: pytest.MonkeyPatch, call: str, error: BaseException) -> None:
    """Make a function of `os` fail."""

    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(os, call, fail)


def test_a_file_is_written_with_its_folders_and_is_readable_by_all(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "file"
    write_atomic(path, b"first")
    write_atomic(path, b"second")
    assert path.read_bytes() == b"second"
    assert names(path.parent) == ["file"]
    assert path.stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("call", ["fsync", "replace"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_after_a_full_disk_only_the_old_file_is_left(
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


def test_the_remains_of_a_crash_are_overwritten(tmp_path: Path) -> None:
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
def test_another_error_is_raised_and_leaves_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    with monkeypatch.context() as patch:
        break_call(patch, "fsync", error)
        with pytest.raises(type(error)) as caught:
            write_atomic(tmp_path / "file", b"new")
    assert caught.value is error
    assert names(tmp_path) == []


def test_a_disk_without_space_for_a_folder_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch, pytest.raises(CramError, match="file: the disk is full"):
        break_call(patch, "mkdir", OSError(errno.ENOSPC, "No space left on device"))
        write_atomic(tmp_path / "new" / "file", b"new")


def test_a_limit_of_file_sizes_is_reported_as_a_full_disk(tmp_path: Path) -> None:
    code = (
        "import resource, sys\nfrom pathlib import Path\nfrom cram.errors import CramError\n"
        "from cram.files.atomic import write_atomic\nresource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "try:\n    write_atomic(Path(sys.argv[1]), bytes(5000))\nexcept CramError as error:\n    print(error)\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "big")]
    answer = subprocess.run(
        command, capture_output=True, text=True, check=True, env=os.environ | {"PYTHONPATH": str(ROOT)}
    )
    assert answer.stdout.startswith(f"{tmp_path / 'big'}: the disk is full")
    assert names(tmp_path) == []


def test_json_is_read_back(tmp_path: Path) -> None:
    value = {"a": [1, 0.1, None], "b": "é"}
    write_json(tmp_path / "x.json", value)
    assert read_json(tmp_path / "x.json") == value


NUMBERS = st.floats() | st.integers() | st.none() | st.text()
VALUES = st.recursive(NUMBERS, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=20)


@given(VALUES)
def test_numbers_that_are_not_finite_are_written_as_null(value: Any) -> None:
    def refuse(constant: str) -> None:
        raise ValueError(constant)

    assert json.loads(to_json(value), parse_constant=refuse) == json.loads(
        json.dumps(value), parse_constant=lambda constant: None
    )


def test_all_json_of_the_project_is_written_by_to_json() -> None:
    writing = re.compile(r"json\.dump\(|(write|save|metadata).*json\.dumps")
    lines = [line for path in (ROOT / "cram").rglob("*.py") for line in path.read_text().splitlines()]
    assert [line for line in lines if writing.search(line)] == []


@pytest.mark.parametrize(
    ("content", "message"), [(None, "no such file"), (b"{", "not a readable JSON"), (b'"\xff"', "not a readable JSON")]
)
def test_a_json_file_that_cannot_be_read_is_reported(tmp_path: Path, content: bytes | None, message: str) -> None:
    if content is not None:
        (tmp_path / "x.json").write_bytes(content)
    with pytest.raises(CramError, match=rf"x\.json: .*{message}"):
        read_json(tmp_path / "x.json")


def test_the_hash_of_a_file_is_that_of_its_bytes(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"abc")
    assert sha256_file(tmp_path / "x") == sha256_bytes(b"abc")
    assert sha256_bytes(b"abc").startswith("ba7816bf")


def test_a_link_is_replaced_and_not_followed(tmp_path: Path) -> None:
    (tmp_path / "target").write_text("old")
    for link, target in (("link", "target"), ("dangling", "nowhere"), (".other.partial", "target")):
        (tmp_path / link).symlink_to(tmp_path / target)
    for name in ("link", "dangling", "other"):
        write_atomic(tmp_path / name, b"new")
        assert (tmp_path / name).read_bytes() == b"new" and not (tmp_path / name).is_symlink()
    assert (tmp_path / "target").read_text() == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dangling", "link", "other", "target"]
