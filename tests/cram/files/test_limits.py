import errno
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import SafetensorError
from safetensors.numpy import save_file
from tokenizers import Tokenizer
from tokenizers.models import WordPiece

from cram.errors import CramError
from cram.files.limits import lift_open_files_limit, raise_if_out_of_memory, raise_if_too_many, report_disk_errors

ROOT = Path(__file__).parents[3]
CODE = """
import resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard}))
from cram.files.limits import lift_open_files_limit
lift_open_files_limit()
print(*resource.getrlimit(resource.RLIMIT_NOFILE))
"""


@pytest.mark.parametrize(("soft", "hard", "after"), [(64, 128, 128), (100, 100, 100)])
def test_the_limit_of_open_files_becomes_the_most_that_is_allowed(soft: int, hard: int, after: int) -> None:
    code = CODE.format(soft=soft, hard=hard)
    said = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert said.split() == [str(after), str(hard)]


@pytest.mark.parametrize("error", [OSError, ValueError])
def test_a_system_that_refuses_is_no_obstacle(monkeypatch: pytest.MonkeyPatch, error: type[Exception]) -> None:
    import resource

    asked = []

    def refuse(_: int, limits: tuple[int, int]) -> None:
        asked.append(limits)
        raise error

    monkeypatch.setattr(resource, "getrlimit", lambda _: (256, resource.RLIM_INFINITY))
    monkeypatch.setattr(resource, "setrlimit", refuse)
    lift_open_files_limit()
    assert asked == [(65536, resource.RLIM_INFINITY)]


@pytest.mark.parametrize(("file", "where"), [("a.txt", " (a.txt)"), (None, "")])
def test_too_many_open_files_are_told_with_the_remedy(file: str | None, where: str) -> None:
    message = f"too many files are open{where}. Allow more and run the same command again: ulimit -n 65536"
    with pytest.raises(CramError, match=rf"\A{re.escape(message)}\Z"):
        raise_if_too_many(OSError(errno.EMFILE, "Too many open files", file))
    raise_if_too_many(OSError(errno.EIO, "Input/output error", file))


def test_memory_that_is_used_up_is_told() -> None:
    def torch_asks_too_much() -> None:
        torch.empty(2**58, dtype=torch.uint8)

    def python_asks_too_much() -> None:
        bytearray(2**62)

    def a_gpu_has_no_more() -> None:
        raise torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate 2.00 GiB.")

    for ask, what in (
        (torch_asks_too_much, r"\(.*can't allocate memory: you tried to allocate 288230376151711744 bytes.*\)"),
        (python_asks_too_much, ""),
        (a_gpu_has_no_more, r"\(CUDA out of memory\. Tried to allocate 2\.00 GiB\.\)"),
    ):
        with pytest.raises((RuntimeError, MemoryError)) as found:
            ask()
        with pytest.raises(CramError, match=rf"\Aout of memory ?{what}\.\nChoose smaller values for the large sizes"):
            raise_if_out_of_memory(found.value)
    raise_if_out_of_memory(RuntimeError("shapes differ"))


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOMEM, "Cannot allocate memory"),
        ImportError("libarrow.so: failed to map segment from shared object"),
    ],
)
def test_memory_that_the_system_refuses_is_told_alike(error: Exception) -> None:
    with pytest.raises(CramError, match=r"^out of memory \(.*\)\.\nChoose smaller values for the large sizes"):
        raise_if_out_of_memory(error)
    raise_if_out_of_memory(OSError(errno.EIO, "broken"))
    raise_if_out_of_memory(ImportError("No module named 'x'"))


@pytest.mark.parametrize(
    ("number", "message"),
    [
        (errno.ENOSPC, r"^shards: the disk is full"),
        (errno.EMFILE, r"^too many files are open\. Allow more and run the same command again: ulimit -n"),
        (errno.ENOMEM, r"^out of memory"),
        (errno.EROFS, r"^data\.dir=shards: cannot be written \(read-only\)\. Choose another data\.dir=\.$"),
    ],
)
def test_what_a_disk_says_is_told(number: int, message: str) -> None:
    with pytest.raises(CramError, match=message), report_disk_errors(Path("shards"), "data.dir"):
        raise OSError(number, "read-only")


def save_tensors(path: Path) -> None:
    save_file({"a": np.zeros(3)}, path)


def save_tokenizer(path: Path) -> None:
    Tokenizer(WordPiece()).save(str(path))


@pytest.mark.parametrize("write", [save_tensors, save_tokenizer])
def test_libraries_in_rust_speak_of_the_disk_in_words(tmp_path: Path, write: Callable[[Path], None]) -> None:
    message = r"to=.*out: cannot be written \(No such file or directory\)"
    with pytest.raises(CramError, match=message), report_disk_errors(tmp_path / "out", "to"):
        write(tmp_path / "nowhere" / "file")
    with pytest.raises(CramError, match="out: the disk is full"), report_disk_errors(tmp_path / "out", "to"):
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")
    with pytest.raises(SafetensorError, match="of a header"), report_disk_errors(tmp_path / "out", "to"):
        raise SafetensorError("of a header")
