import json
import threading
from collections.abc import Callable, Iterator

import pytest
import torch

from cram.errors import CramError
from cram.machine import device
from cram.machine.device import (
    cores,
    device_name,
    device_notes,
    environment,
    is_out_of_memory,
    peak_flops,
    peak_memory,
    pick_device,
    pick_precision,
    set_threads,
)

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


def test_a_gpu_is_taken_by_its_number_and_made_the_current_one(gpus: Callable[[int], list[int]]) -> None:
    current = gpus(2)
    assert pick_device("cuda:1") == torch.device("cuda", 1)
    assert current == [1]
    assert pick_device("cuda") == pick_device("auto") == torch.device("cuda")
    assert current == [1]


@pytest.mark.parametrize(
    ("name", "count", "message"),
    [
        ("cuda:2", 2, r"device=cuda:2, but torch finds 2 CUDA device\(s\) here: use cuda:0 to cuda:1\."),
        ("cuda:1", 1, r"device=cuda:1, .* 1 CUDA device\(s\) here: use cuda:0\."),
        ("cuda:0", 0, r"device=cuda:0, but torch finds no CUDA device here\. Use device=cpu"),
        ("mps", 0, r"device=mps is not a valid device\. Apple's GPU is not supported\. Use auto, cpu, cuda, or cuda:N"),
        ("gpu", 1, r"device=gpu is not a valid device\. Use auto"),
        ("cuda:", 1, "device=cuda: is not a valid device"),
        ("cuda:-1", 1, "device=cuda:-1 is not a valid device"),
        ("CUDA", 1, "device=CUDA is not a valid device"),
    ],
)
def test_a_device_that_is_not_there_is_refused(
    gpus: Callable[[int], list[int]], name: str, count: int, message: str
) -> None:
    gpus(count)
    with pytest.raises(CramError, match=message):
        pick_device(name)


def test_a_gpu_that_stays_idle_is_named(gpus: Callable[[int], list[int]]) -> None:
    gpus(2)
    said = "1 of 2 GPUs is used, cuda:0. Another run can use device=cuda:1."
    assert device_notes("auto", torch.device("cuda")) == [said]
    said = "1 of 2 GPUs is used, cuda:1. Another run can use device=cuda:0."
    assert device_notes("cuda:1", torch.device("cuda", 1)) == [said]
    assert device_notes("cpu", CPU) == []
    gpus(1)
    assert device_notes("cuda", torch.device("cuda")) == []


def test_what_is_not_supported_is_named(gpus: Callable[[int], list[int]], monkeypatch: pytest.MonkeyPatch) -> None:
    gpus(0)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert device_notes("auto", CPU) == ["device=auto takes the CPU: Apple's GPU (mps) is not supported."]
    assert device_notes("cpu", CPU) == []
    gpus(1)
    monkeypatch.setattr(torch.version, "hip", "7.1")
    (note,) = device_notes("auto", torch.device("cuda"))
    assert "ROCm" in note and "CRAM_KERNELS=reference" in note


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


@pytest.mark.parametrize(("name", "peak"), [("NVIDIA A100-SXM4-40GB", 312e12), ("Some Other GPU", None)])
def test_the_peak_is_that_of_the_gpu_and_of_no_cpu(
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


def test_more_threads_than_the_system_lets_begin_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    alive, start = threading.active_count(), threading.Thread.start

    def refuse(thread: threading.Thread) -> None:
        if threading.active_count() >= alive + 5:
            raise RuntimeError("can't start new thread")
        start(thread)

    before = torch.get_num_threads()
    monkeypatch.setattr(threading.Thread, "start", refuse)
    with pytest.raises(CramError, match=r"threads=1024: the system lets this process start only 5 threads\. Use"):
        set_threads(1024)
    assert (torch.get_num_threads(), threading.active_count()) == (before, alive)
    monkeypatch.undo()
    try:
        assert set_threads(1024) == 1024
    finally:
        set_threads(before)
