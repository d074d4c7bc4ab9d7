"""The machine: which device, its precision, its peak, its memory. Hardware questions are asked here only."""

import platform
from typing import Any

import torch

from cram.errors import CramError
from cram.host import commit, cores, cpu_name, package_versions, peak_host_memory

# Dense half-precision matrix products with fp32 accumulation, FLOP/s, from the makers' datasheets;
# matched in this order as a part of the device's name.
PEAK_FLOPS = {
    "H200": 989e12,
    "H100 PCIe": 756e12,
    "H100": 989e12,
    "A100": 312e12,
    "L40S": 362e12,
    "RTX 6000 Ada": 364e12,
    "A6000": 154.8e12,
    "A5000": 111e12,
    "A4000": 76.7e12,
    "RTX 5090": 209.5e12,
    "RTX 4090": 165.2e12,
    "RTX 4080": 97.5e12,
    "RTX 3090": 71e12,
    "RTX 3080": 59.5e12,
    "V100": 125e12,
    "RTX 2080 Ti": 53.8e12,
}
X86 = ("x86_64", "AMD64")
# Words that make another device of a name above, with another peak.
VARIANTS = frozenset({"Ti", "SUPER", "Super", "D", "NVL", "Laptop", "Max-Q", "Mobile"})


def pick_device(name: str) -> torch.device:
    """The device of `auto`, `cpu` or `cuda`. Errors: CramError for `cuda` without one."""
    if name == "cuda" and not torch.cuda.is_available():
        raise CramError("device=cuda, but torch finds no CUDA device here. Use device=cpu, or install a driver.")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


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
    """Fix the number of CPU threads (all cores when None) and return it: it decides the order of sums."""
    torch.set_num_threads(threads or cores())
    return torch.get_num_threads()


def device_name(device: torch.device) -> str:
    """The maker's name of the device."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return cpu_name()


def peak_flops(device: torch.device) -> float | None:
    """Datasheet FLOP/s of the device in half precision; None where it is unknown, a CPU's included."""
    if device.type != "cuda":
        return None
    name = device_name(device)
    part = next((part for part in PEAK_FLOPS if part in name), None)
    if part is None or VARIANTS.intersection(name.replace(part, "").split()):
        return None
    return PEAK_FLOPS[part]


def peak_memory(device: torch.device) -> dict[str, int | None]:
    """Largest memory used so far, in bytes: of the process (None on Windows), and of the GPU."""
    gpu = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None
    return {"host": peak_host_memory()["this process"], "gpu": gpu}


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
