import json
from collections.abc import Iterator

import pytest
import torch

from cram import device
from cram.device import (
    cores,
    device_name,
    environment,
    is_out_of_memory,
    peak_flops,
    peak_memory,
    pick_device,
    pick_precision,
    set_threads,
)
from cram.errors import CramError

CPU = torch.device("cpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
def test_cuda_without_one_is_refused_and_auto_takes_the_cpu() -> None:
    with pytest.raises(CramError, match=r"device=cuda, .*no CUDA device.*device=cpu"):
        pick_device("cuda")
    assert pick_device("auto") == CPU


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_a_cuda_device_is_taken_unless_the_cpu_is_asked_for() -> None:
    assert [pick_device(name).type for name in ("cuda", "auto", "cpu")] == ["cuda", "cuda", "cpu"]


def test_the_cpu_can_always_be_asked_for() -> None:
    assert pick_device("cpu") == CPU


@pytest.mark.parametrize(
    ("name", "has_bf16", "precision"),
    [
        ("auto", True, torch.bfloat16),
        ("auto", False, torch.float32),
        ("bf16", False, torch.bfloat16),
        ("fp32", True, torch.float32),
    ],
)
def test_bf16_is_taken_where_the_device_has_it(
    monkeypatch: pytest.MonkeyPatch, name: str, has_bf16: bool, precision: torch.dtype
) -> None:
    monkeypatch.setattr(device, "_has_bf16", lambda _: has_bf16)
    assert pick_precision(name, CPU) == precision


@pytest.mark.parametrize(
    ("machine", "avx512_bf16", "amx", "precision"),
    [
        ("x86_64", False, False, torch.float32),  # AVX-512 alone, where oneDNN would emulate bf16
        ("x86_64", True, False, torch.bfloat16),
        ("AMD64", False, True, torch.bfloat16),
        ("aarch64", False, False, torch.bfloat16),  # its instructions are oneDNN's to know
    ],
)
def test_a_cpu_multiplies_bf16_only_where_it_has_the_instructions(
    monkeypatch: pytest.MonkeyPatch, machine: str, avx512_bf16: bool, amx: bool, precision: torch.dtype
) -> None:
    monkeypatch.setattr(device.platform, "machine", lambda: machine)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512_bf16)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: True)
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: True)
    assert pick_precision("auto", CPU) == precision


def test_running_out_of_memory_is_known_on_a_gpu_and_on_a_cpu() -> None:
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory."))
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**52, dtype=torch.uint8)  # four pebibytes
    assert is_out_of_memory(caught.value)


def test_other_errors_are_not_taken_for_it() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.ones(2, 3) @ torch.ones(2, 3)
    assert not is_out_of_memory(caught.value)


@pytest.mark.parametrize(
    ("name", "peak"),
    [
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("NVIDIA H100 PCIe", 756e12),
        ("NVIDIA H200", 989e12),
        ("NVIDIA A100-SXM4-40GB", 312e12),
        ("NVIDIA GeForce RTX 4090", 165.2e12),
        ("NVIDIA RTX A6000", 154.8e12),
        ("NVIDIA RTX 6000 Ada Generation", 364e12),
        ("NVIDIA GeForce RTX 2080 Ti", 53.8e12),
        ("Some Other GPU", None),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", None),
        ("NVIDIA GeForce RTX 4090 D", None),
        ("NVIDIA GeForce RTX 3080 Ti", None),
        ("NVIDIA GeForce RTX 4080 SUPER", None),
        ("NVIDIA H100 NVL", None),
    ],
)
def test_the_peak_is_that_of_the_device_or_unknown(
    monkeypatch: pytest.MonkeyPatch, name: str, peak: float | None
) -> None:
    monkeypatch.setattr(device, "device_name", lambda _: name)
    assert peak_flops(torch.device("cuda")) == peak
    assert peak_flops(CPU) is None


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("threads")
def test_threads_are_fixed_and_all_cores_by_default() -> None:
    assert set_threads(1) == torch.get_num_threads() == 1
    assert set_threads(None) == torch.get_num_threads() == cores() >= 1


def test_memory_is_counted_in_bytes() -> None:
    memory = peak_memory(CPU)
    assert memory["gpu"] is None
    assert memory["host"] is not None and 2**25 < memory["host"] < 2**42


def test_the_environment_is_json_and_names_the_machine() -> None:
    found = environment(CPU)
    assert json.loads(json.dumps(found)) == found
    assert found["packages"]["torch"] == torch.__version__
    assert found["device_name"] == device_name(CPU) != ""


def test_the_commit_is_unknown_without_git(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert environment(CPU)["commit"] is None
