"""Launch settings from a file, in place of the rules: `CRAM_KERNELS_SETTINGS=FILE`.

`bench.tune_kernels` writes the file on a GPU. It holds for GPUs of the same compute capability, and its entries hold
for exactly their kernel, width and dtype. All other calls keep the settings of the rules. The file is read once in a
process.
"""

import functools
import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeGuard

import torch

VARIABLE = "CRAM_KERNELS_SETTINGS"
FORMAT = 1
# Every kernel that has launch settings, and in how many blocks at most it holds a row. None: it holds no rows, but goes
# through each in as many blocks as it takes. The blocks of layer_norm are unrolled, so that many take long to compile.
MOST_BLOCKS = {
    "layer_norm_forward": 32,
    "layer_norm_backward": 32,
    "softmax_forward": None,
    "softmax_backward": None,
    "cross_entropy_forward": None,
    "cross_entropy_backward": None,
    "linear_cross_entropy": None,
    "gated_forward": None,
    "gated_backward": None,
    "rope": 1,
}
DTYPE_NAMES = {torch.float32: "fp32", torch.float16: "fp16", torch.bfloat16: "bf16"}
MOST_WARPS, MOST_STAGES = 32, 8
MOST_ELEMENTS = 1 << 20  # of a tensor in Triton


class Choice(NamedTuple):
    """What settings are chosen for: a kernel, the width of its rows in elements, and their dtype: fp32, fp16, bf16."""

    kernel: str
    width: int
    dtype: str

    def __str__(self) -> str:
        return f"{self.kernel} {self.width} {self.dtype}"


class Tuned(NamedTuple):
    """The settings of an entry, in the order of `LaunchSettings`."""

    rows: int
    block: int
    warps: int
    stages: int


@dataclass(frozen=True)
class SettingsFile:
    """A settings file: its path and SHA-256, the GPU it was made on (capability as 90 for 9.0), and its entries."""

    path: str
    sha256: str
    device: str
    capability: int
    entries: dict[Choice, Tuned]


def find_tuned(choice: Choice, device: torch.device, capability: int) -> Tuned | None:
    """Return the settings that the file has for a choice; None without a file or an entry.

    Tensors on no GPU stand in for those of any GPU, so for them a file of another capability is passed over.

    Raises:
        ValueError: the file is not valid, or is that of a GPU of another compute capability.
    """
    path = os.environ.get(VARIABLE)
    if not path:
        return None
    file = read_settings_file(path)
    if file.capability != capability:
        if device.type != "cuda":
            return None
        raise ValueError(_other_gpu(file, torch.cuda.get_device_name(device), capability))
    return file.entries.get(choice)


def settings_file_in_use(device: torch.device) -> SettingsFile | None:
    """Return the file whose settings the kernels take on a device; None where the rules decide.

    Raises:
        ValueError: as `find_tuned`. A file that is not valid is refused on every device.
    """
    path = os.environ.get(VARIABLE)
    if not path:
        return None
    file = read_settings_file(path)
    if device.type != "cuda":
        return None
    major, minor = torch.cuda.get_device_capability(device)
    if file.capability != 10 * major + minor:
        raise ValueError(_other_gpu(file, torch.cuda.get_device_name(device), 10 * major + minor))
    return file


def _other_gpu(file: SettingsFile, name: str, capability: int) -> str:
    made, here = (f"{number // 10}.{number % 10}" for number in (file.capability, capability))
    return (
        f"{VARIABLE}={file.path}: made on {file.device} of compute capability {made}, and {name} has {here}. "
        "Unset it, or make a file for this GPU: python -m bench.tune_kernels"
    )


# --- reading and checking


@functools.cache
def read_settings_file(path: str) -> SettingsFile:
    """Read and check a settings file.

    Raises:
        ValueError: in one line, what is wrong with it.
    """
    place = Path(path)
    if not place.is_file():
        raise ValueError(f"{VARIABLE}={path}: there is no such file.")
    try:
        data = place.read_bytes()
        content = json.loads(data)
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{VARIABLE}={path}: not a readable JSON file ({error}).") from None
    try:
        capability, device, entries = _check_content(content)
    except ValueError as error:
        raise ValueError(f"{VARIABLE}={path}: {error}. Make it again: python -m bench.tune_kernels") from None
    return SettingsFile(path, hashlib.sha256(data).hexdigest(), device, capability, entries)


def _check_content(content: Any) -> tuple[int, str, dict[Choice, Tuned]]:
    """Return capability, device and entries of the content of a file.

    Raises:
        ValueError: what is wrong.
    """
    if not isinstance(content, dict) or "format" not in content:
        raise ValueError("not a file of launch settings, because it has no format")
    if content["format"] != FORMAT:
        raise ValueError(f"has format {content['format']!r}, and this version reads format {FORMAT}")
    capability, device, listed = (content.get(name) for name in ("capability", "device", "entries"))
    if not _is_whole(capability) or not isinstance(device, str) or not isinstance(listed, list):
        raise ValueError("capability must be a whole number, device a text, and entries a list")
    entries: dict[Choice, Tuned] = {}
    for number, entry in enumerate(listed, 1):
        choice, tuned = _check_entry(number, entry)
        if choice in entries:
            raise ValueError(f"{choice} has two entries")
        entries[choice] = tuned
    return capability, device, entries


def _check_entry(number: int, entry: Any) -> tuple[Choice, Tuned]:
    """Return an entry of the list, the first of which has the number 1.

    Raises:
        ValueError: what is wrong.
    """
    if not isinstance(entry, dict):
        raise ValueError(f"entry {number} is not an object")
    kernel, dtype = entry.get("kernel"), entry.get("dtype")
    if kernel not in list(MOST_BLOCKS):
        raise ValueError(f"entry {number}: kernel is {kernel!r}, not one of {', '.join(MOST_BLOCKS)}")
    if dtype not in DTYPE_NAMES.values():
        raise ValueError(f"entry {number}: dtype is {dtype!r}, not one of {', '.join(DTYPE_NAMES.values())}")
    for name in ("width", *Tuned._fields):
        if not _is_whole(entry.get(name)) or entry[name] < 1:
            raise ValueError(f"entry {number}: {name} is {entry.get(name)!r}, not a positive whole number")
    choice = Choice(str(kernel), entry["width"], str(dtype))
    tuned = Tuned(*(entry[name] for name in Tuned._fields))
    if reason := find_obstacle(choice, tuned):
        raise ValueError(f"{choice}: {reason}")
    return choice, tuned


def find_obstacle(choice: Choice, tuned: Tuned) -> str | None:
    """Return why a kernel cannot be launched with some settings, or None where it can."""
    for name in ("rows", "block", "warps"):
        value = getattr(tuned, name)
        if value & (value - 1):
            return f"{name} is {value}, not a power of two"
    if tuned.warps > MOST_WARPS or tuned.stages > MOST_STAGES:
        return f"{tuned.warps} warps and {tuned.stages} stages; at most {MOST_WARPS} and {MOST_STAGES} can be launched"
    if tuned.rows * tuned.block > MOST_ELEMENTS:
        return f"rows x block is {tuned.rows * tuned.block}, and Triton takes at most {MOST_ELEMENTS} elements"
    blocks, most = -(-choice.width // tuned.block), MOST_BLOCKS[choice.kernel]
    if most is not None and blocks > most:
        return (
            f"block is {tuned.block}, so that a row of {choice.width} has {blocks} blocks, and at most {most} are held"
        )
    return None


def _is_whole(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)
