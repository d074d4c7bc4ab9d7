"""What the environment says about the kernels is checked before any work, and named."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from cram.errors import CramError
from cram.machine.device import device_notes, environment, pick_device
from cram.machine.kernels import describe_kernel_settings, name_kernels
from cram_kernels import _tuned

FILE = {"format": 1, "device": "an H100", "capability": 90, "entries": []}


@pytest.fixture(autouse=True)
def clear_cache() -> Iterator[None]:
    """Forget the files that were read."""
    _tuned.read_settings_file.cache_clear()
    yield
    _tuned.read_settings_file.cache_clear()


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A settings file, which the variable names."""
    path = tmp_path / "settings.json"
    path.write_text(json.dumps(FILE))
    monkeypatch.setenv("CRAM_KERNELS_SETTINGS", str(path))
    return path


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> torch.device:
    """An H100, as far as its name and capability are asked for."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _=None: "NVIDIA H100")
    return torch.device("cuda")


def test_another_value_of_cram_kernels_is_refused_before_any_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CRAM_KERNELS", "fast")
    with pytest.raises(
        CramError, match=r"^CRAM_KERNELS=fast is not a valid value\. Set it to reference, cpu or triton"
    ):
        pick_device("cpu")


def test_kernels_that_cannot_be_compiled_are_refused_before_any_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cram_kernels._cpu.load_library", lambda: None)
    pick_device("cpu")
    monkeypatch.setenv("CRAM_KERNELS", "cpu")
    with pytest.raises(CramError, match=r"^CRAM_KERNELS=cpu: the kernels could not be compiled"):
        pick_device("cpu")


def test_a_file_that_is_not_valid_is_refused_on_every_device(settings: Path) -> None:
    settings.write_text(json.dumps(FILE | {"format": 7}))
    with pytest.raises(CramError, match=r"settings\.json: has format 7, and this version reads format 1\."):
        pick_device("cpu")


def test_a_file_of_another_gpu_is_refused(settings: Path, gpu: torch.device) -> None:
    settings.write_text(json.dumps(FILE | {"capability": 80, "device": "an A100"}))
    with pytest.raises(CramError, match=r"made on an A100 of compute capability 8\.0, and NVIDIA H100 has 9\.0"):
        pick_device("cuda")


def test_the_file_is_named_with_its_checksum(settings: Path, gpu: torch.device) -> None:
    digest = hashlib.sha256(settings.read_bytes()).hexdigest()
    named = {"file": str(settings), "sha256": digest, "entries": 0}
    assert describe_kernel_settings(gpu) == named
    assert environment(gpu)["kernel_settings"] == named


def test_no_file_is_named_where_none_is_used(
    settings: Path, monkeypatch: pytest.MonkeyPatch, gpu: torch.device
) -> None:
    assert environment(torch.device("cpu"))["kernel_settings"] is None
    monkeypatch.delenv("CRAM_KERNELS_SETTINGS")
    assert environment(gpu)["kernel_settings"] is None


@pytest.mark.parametrize(("library", "name"), [(object(), "cpu"), (None, "reference")])
def test_the_implementation_of_a_cpu_depends_on_a_compiler(
    monkeypatch: pytest.MonkeyPatch, library: object, name: str
) -> None:
    monkeypatch.delenv("CRAM_KERNELS", raising=False)
    monkeypatch.setattr("cram_kernels._cpu.load_library", lambda: library)
    assert name_kernels(torch.device("cpu")) == environment(torch.device("cpu"))["kernels"] == name
    slower = "The kernels take their slower reference: C++ kernels need Linux on x86-64 and a compiler (c++, or CXX)."
    assert device_notes("cpu", torch.device("cpu")) == ([] if library else [slower])


def test_a_forced_implementation_is_named_without_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CRAM_KERNELS", "reference")
    assert name_kernels(torch.device("cpu")) == "reference"
    assert device_notes("cpu", torch.device("cpu")) == []
