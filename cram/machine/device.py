"""Devices: choice of the device and its precision, peak rate, memory. Only this module asks about accelerators."""

import os
import platform
import re
import threading
from typing import Any

import torch

from cram.errors import CramError
from cram.machine.allocator import keep_freed_memory
from cram.machine.host import commit, cores, cpu_name, host_memory, package_versions, peak_host_memory
from cram.machine.kernels import check_kernel_variables, describe_kernel_settings, name_kernels
from cram.machine.peaks import peak_of

X86 = ("x86_64", "AMD64")
PRECISIONS = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
DEVICES = re.compile(r"auto|cpu|cuda(:\d+)?")


def pick_device(name: str) -> torch.device:
    """Return the device for `auto`, `cpu`, `cuda` or `cuda:N`. A numbered GPU becomes torch's current device.

    For a CPU, freed memory stays in the process (`keep_freed_memory`).

    Raises:
        CramError: as in `find_device`.
    """
    device = find_device(name)
    if device.type == "cpu":
        keep_freed_memory()
    elif device.index is not None:
        # Events, streams and pinned memory are made on the current GPU unless a device is given for each of them.
        torch.cuda.set_device(device.index)
    return device


def count_gpus() -> int:
    """Return the number of CUDA devices that torch finds here."""
    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def find_device(name: str) -> torch.device:
    """Return the device for `auto`, `cpu`, `cuda` or `cuda:N`, without taking any memory on it.

    Raises:
        CramError: the name is not valid, torch does not find such a GPU, or what the environment says about the kernels
            is not valid for this device.
    """
    if not DEVICES.fullmatch(name):
        apple = " Apple's GPU is not supported." if name == "mps" else ""
        raise CramError(f"device={name} is not a valid device.{apple} Use auto, cpu, cuda, or cuda:N for the GPU N.")
    if name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
        device = torch.device("cpu")
    elif not torch.cuda.is_available():
        raise CramError(f"device={name}, but torch finds no CUDA device here. Use device=cpu, or install a driver.")
    else:
        device = torch.device("cuda", _gpu_number(name)) if ":" in name else torch.device("cuda")
    check_kernel_variables(device)
    return device


def _gpu_number(name: str) -> int:
    number, count = int(name.partition(":")[2]), torch.cuda.device_count()
    if number >= count:
        last = f" to cuda:{count - 1}" if count > 1 else ""
        raise CramError(f"device={name}, but torch finds {count} CUDA device(s) here: use cuda:0{last}.")
    return number


def device_notes(name: str, device: torch.device, processes: int = 1) -> list[str]:
    """Return notes for the user about the device that was chosen for `device=name`, each one or two sentences.

    Args:
        processes: of the run, each of which has a device of its own.
    """
    notes = []
    if device.type == "cpu" and name == "auto" and torch.backends.mps.is_available():
        notes.append("device=auto takes the CPU: Apple's GPU (mps) is not supported.")
    if name_kernels(device) == "reference" and "CRAM_KERNELS" not in os.environ and device.type == "cpu":
        notes.append(
            "The kernels take their slower reference: C++ kernels need Linux on x86-64 and a compiler (c++, or CXX)."
        )
    if device.type == "cuda" and torch.version.hip:
        notes.append(
            "This torch is built for ROCm, on which cram is not tested. "
            "If a kernel fails, set CRAM_KERNELS=reference, and compile.kind=eager."
        )
    count = torch.cuda.device_count() if device.type == "cuda" else 0
    if count > 1 and processes == 1:
        used = torch.cuda.current_device() if device.index is None else device.index
        other = next(index for index in range(count) if index != used)
        notes.append(f"1 of {count} GPUs is used, cuda:{used}. Another run can use device=cuda:{other}.")
    return notes


def pick_precision(name: str, device: torch.device) -> torch.dtype:
    """Return the autocast dtype for `precision=name`; fp32 means no autocast.

    `auto` is the first of bf16 and fp16 that the device multiplies in hardware, otherwise fp32.
    """
    if name == "auto":
        name = "bf16" if _has_bf16(device) else "fp16" if _has_fp16(device) else "fp32"
    return PRECISIONS[name]


def precision_name(dtype: torch.dtype) -> str:
    """Return the word of `precision` for a dtype: `bf16`, `fp16` or `fp32`."""
    return next(name for name, precision in PRECISIONS.items() if precision == dtype)


def _has_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if not (torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()):
        return False
    # On x86 oneDNN calls AVX-512 alone "support" and then emulates bf16, at half the speed of fp32.
    has_instructions = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return has_instructions or platform.machine() not in X86


def _has_fp16(device: torch.device) -> bool:
    """Whether the device is a GPU whose tensor cores multiply fp16. On a CPU, bf16 or fp32 is faster."""
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= (7, 0)


def set_threads(threads: int | None) -> int:
    """Set the number of CPU threads, None for one per core, and return it. It decides the order of sums.

    Raises:
        CramError: the system does not let this process start so many threads. Without this check torch would end the
            process in the middle of its work.
    """
    if threads and threads > cores():
        _check_threads(threads)
    torch.set_num_threads(threads or cores())
    return torch.get_num_threads()


def _check_threads(threads: int) -> None:
    end, started = threading.Event(), []
    try:
        for _ in range(threads):
            thread = threading.Thread(target=end.wait, daemon=True)
            thread.start()
            started.append(thread)
    except (RuntimeError, MemoryError):
        raise CramError(
            f"threads={threads}: the system lets this process start only {len(started)} threads. "
            f"Use threads={cores()} for one per core."
        ) from None
    finally:
        end.set()
        for thread in started:
            thread.join()


def device_name(device: torch.device) -> str:
    """Return the manufacturer's name of the device."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return cpu_name()


def peak_flops(device: torch.device) -> float | None:
    """Return the published FLOP/s of a GPU in half precision; None for unknown GPUs and for CPUs."""
    return peak_of(device_name(device)) if device.type == "cuda" else None


def peak_memory(device: torch.device) -> dict[str, int | None]:
    """Return the largest memory used so far, in bytes, by this process (`host`, None on Windows) and on the GPU."""
    return {"host": peak_host_memory()["this process"], "gpu": peak_gpu_memory(device)}


def peak_gpu_memory(device: torch.device) -> int | None:
    """Return the largest memory that torch's tensors took on a GPU in this process, in bytes; None for a CPU."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None


def total_memory(device: torch.device) -> int | None:
    """Return the bytes of memory of a GPU, or of the machine for a CPU; None if the system does not say."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    return host_memory()


def synchronize(device: torch.device) -> None:
    """Wait until the device has finished all work given to it. Call this before reading a clock."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def release_memory(device: torch.device) -> None:
    """Give memory of a GPU back that no tensor holds any more, so that what comes next finds it free."""
    if device.type == "cuda":
        torch.cuda.empty_cache()


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that torch ran out of memory. On a CPU only the error's text says so."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def environment(device: torch.device) -> dict[str, Any]:
    """Return versions and hardware, the content of environment.json."""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": package_versions(),
        "device": device.type,
        "device_name": device_name(device),
        "cores": cores(),
        "cuda": torch.version.cuda,
        "kernels": name_kernels(device),
        "kernel_settings": describe_kernel_settings(device),
        "commit": commit(),
    }


def is_readable(tensor: torch.Tensor) -> bool:
    """Whether the host can read the values of a tensor without waiting for a device."""
    return tensor.device.type == "cpu"
