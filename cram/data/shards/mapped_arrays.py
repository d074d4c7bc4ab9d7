"""Numpy arrays in safetensors files, read through memory maps."""

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from safetensors.numpy import save

from cram.errors import CramError
from cram.files.atomic import check_regular, to_json, write_atomic
from cram.files.sealed import SEAL

Arrays = Mapping[str, np.ndarray]
Kept = TypeVar("Kept")

DTYPES = {"U8": np.uint8, "U16": np.uint16, "U32": np.uint32, "U64": np.uint64, "I32": np.int32, "I64": np.int64}


def map_arrays(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """The arrays of a file, as read-only views of its memory map, and its metadata.

    The map does not keep the file open, so that a process may have more of them than files.

    Errors: ValueError for a header that cannot be read or does not fit the file.
    """
    check_regular(path)
    data = _map(path)
    start = 8 + int.from_bytes(data[:8].tobytes(), "little")
    try:
        header = json.loads(data[8:start].tobytes())
        metadata = dict(header.pop("__metadata__", {}))
        return {name: _array(data[start:], **entry) for name, entry in header.items()}, metadata
    except (AttributeError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"damaged header: {error!r}") from error


def _map(path: Path) -> npt.NDArray[np.uint8]:
    # Arrow's, because numpy's and Python's maps each keep a file descriptor.
    from pyarrow import memory_map

    with memory_map(os.fsencode(path)) as file:
        return np.frombuffer(file.read_buffer(), np.uint8)


def write_sealed_arrays(path: Path, arrays: Arrays, metadata: Mapping[str, str] | None = None) -> None:
    """Write arrays and metadata with their own checksum, whole or not at all."""
    own = {SEAL: _digest(arrays, metadata or {})}
    write_atomic(path, save(dict(arrays), metadata={**(metadata or {}), **own}))


def map_sealed_arrays(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """What `write_sealed_arrays` wrote, mapped, without the checksum. Errors: CramError where it does not hold."""
    try:
        arrays, metadata = map_arrays(path)
    except ValueError as error:
        raise CramError(f"{path}: damaged ({error}).") from None
    if metadata.pop(SEAL, None) != _digest(arrays, metadata):
        raise CramError(f"{path}: damaged or edited, its content is not what its own sha256 says.")
    return arrays, metadata


def read_kept(path: Path, read: Callable[[Path], Kept]) -> Kept | None:
    """What an earlier process has left in a file; None where there is none, and with a warning of a damaged one."""
    if not path.is_file():
        return None
    try:
        return read(path)
    except CramError as error:
        print(f"warning: {error} It is made again.", flush=True)
        return None


def _digest(arrays: Arrays, metadata: Mapping[str, str]) -> str:
    shapes = {name: [str(array.dtype), list(array.shape)] for name, array in arrays.items()}
    found = hashlib.sha256(to_json([shapes, dict(metadata)], sort_keys=True).encode())
    for _, array in sorted(arrays.items()):
        found.update(np.ascontiguousarray(array).data)
    return found.hexdigest()


def _array(data: npt.NDArray[np.uint8], dtype: str, shape: list[int], data_offsets: list[int]) -> np.ndarray:
    begin, end = data_offsets
    if not 0 <= begin <= end <= len(data) or min(shape, default=0) < 0:
        raise ValueError(f"shape {shape} from byte {begin} to {end} of {len(data)}")
    return data[begin:end].view(DTYPES[dtype]).reshape(shape)
