"""The machine: which device, its precision, its peak, its memory. Hardware questions are asked here only."""

import platform
import re
import threading
from typing import Any

import torch

from cram.errors import CramError
from cram.machine.host import commit, cores, cpu_name, host_memory, package_versions, peak_host_memory
from cram.machine.peaks import peak_of

X86 = ("x86_64", "AMD64")
DEVICES = re.compile(r"auto|cpu|cuda(:\d+)?")


def pick_device(name: str) -> torch.device:
    """The device of `auto`, `cpu`, `cuda` or `cuda:N`; a numbered GPU becomes the current one of torch.

    Errors: CramError for any other name, and for a GPU that is not there.
    """
    if not DEVICES.fullmatch(name):
        apple = " Apple's GPU is not supported." if name == "mps" else ""
        raise CramError(f"device={name} is not a valid device.{apple} Use auto, cpu, cuda, or cuda:N for the GPU N.")
    if name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise CramError(f"device={name}, but torch finds no CUDA device here. Use device=cpu, or install a driver.")
    _, numbered, number = name.partition(":")
    if not numbered:
        return torch.device("cuda")
    count = torch.cuda.device_count()
    if int(number) >= count:
        last = f" to cuda:{count - 1}" if count > 1 else ""
        raise CramError(f"device={name}, but torch finds {count} CUDA device(s) here: use cuda:0{last}.")
    # Events, streams and pinned memory belong to the current GPU unless each says otherwise.
    torch.cuda.set_device(int(number))
    return torch.device(name)


def device_notes(name: str, device: torch.device) -> list[str]:
    """What a user should know of the device that was taken for `device=name`, a sentence or two each."""
    notes = []
    if device.type == "cpu" and name == "auto" and torch.backends.mps.is_available():
        notes.append("device=auto takes the CPU: Apple's GPU (mps) is not supported.")
    if device.type == "cuda" and torch.version.hip:
        notes.append(
            "This torch is built for ROCm, on which cram is not tested. "
            "If a kernel fails, set CRAM_KERNELS=reference, and compile.kind=eager."
        )
    count = torch.cuda.device_count() if device.type == "cuda" else 0
    if count > 1:
        used = torch.cuda.current_device() if device.index is None else device.index
        other = next(index for index in range(count) if index != used)
        notes.append(f"1 of {count} GPUs is used, cuda:{used}. Another run can use device=cuda:{other}.")
    return notes


def pick_precision(name: str, device: torch.device) -> torch.dtype:
    """The autocast dtype: of bf16 and fp16 what the device multiplies in hardware, else fp32 (no autocast)."""
    if name == "auto":
        name = "bf16" if _has_bf16(device) else "fp16" if _has_fp16(device) else "fp32"
    return {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}[name]


def _has_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if not (torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()):
        return False
    # On x86 oneDNN counts AVX-512 alone as support and emulates bf16, which is half as fast as fp32.
    instructions = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return instructions or platform.machine() not in X86


def _has_fp16(device: torch.device) -> bool:
    """Whether the tensor cores of a GPU multiply fp16; on a CPU bf16 or fp32 is faster."""
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= (7, 0)


def set_threads(threads: int | None) -> int:
    """Fix the number of CPU threads (all cores when None) and return it: it decides the order of sums.

    Errors: CramError for more than the system lets the process begin, which would end it in the middle of its work.
    """
    if threads and threads > cores():
        _check_threads(threads)
    torch.set_num_threads(threads or cores())
    return torch.get_num_threads()


def _check_threads(threads: int) -> None:
    done, begun = threading.Event(), []
    try:
        for _ in range(threads):
            thread = threading.Thread(target=done.wait, daemon=True)
            thread.start()
            begun.append(thread)
    except (RuntimeError, MemoryError):
        raise CramError(
            f"threads={threads}: the system lets this process begin {len(begun)} threads and no more. "
            f"Say threads={cores()} for one a core."
        ) from None
    finally:
        done.set()
        for thread in begun:
            thread.join()


def device_name(device: torch.device) -> str:
    """The maker's name of the device."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return cpu_name()


def peak_flops(device: torch.device) -> float | None:
    """Published FLOP/s of the device in half precision; None where it is unknown, a CPU's included."""
    return peak_of(device_name(device)) if device.type == "cuda" else None


def peak_memory(device: torch.device) -> dict[str, int | None]:
    """Largest memory used so far, in bytes: of the process (None on Windows), and of the GPU."""
    gpu = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None
    return {"host": peak_host_memory()["this process"], "gpu": gpu}


def total_memory(device: torch.device) -> int | None:
    """Bytes of memory of a GPU, or of the machine; None where the system does not tell."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    return host_memory()


def synchronize(device: torch.device) -> None:
    """Wait until the device has done what was asked of it: before time is read."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether torch ran out of memory; on a CPU it says so only in words."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def environment(device: torch.device) -> dict[str, Any]:
    """Versions and hardware, for environment.json."""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": package_versions(),
        "device": device.type,
        "device_name": device_name(device),
        "cores": cores(),
        "cuda": torch.version.cuda,
        "commit": commit(),
    }
