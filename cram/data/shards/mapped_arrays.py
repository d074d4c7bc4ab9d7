"""Numpy arrays in safetensors files, read through memory maps, some with a checksum of their own."""

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
Content = TypeVar("Content")

DTYPES = {"U8": np.uint8, "U16": np.uint16, "U32": np.uint32, "U64": np.uint64, "I32": np.int32, "I64": np.int64}


def map_arrays(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Map a safetensors file.

    The map does not keep the file open, so a process may map more files than it may have open.

    Returns:
        The arrays, as read-only views of the map, and the metadata.

    Raises:
        ValueError: the header cannot be read or does not fit the file.
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
    # Arrow's map, because those of numpy and Python each keep a file descriptor.
    from pyarrow import memory_map

    with memory_map(os.fsencode(path)) as file:
        return np.frombuffer(file.read_buffer(), np.uint8)


def write_sealed_arrays(path: Path, arrays: Arrays, metadata: Mapping[str, str] | None = None) -> None:
    """Write arrays and metadata together with their checksum; the file appears when it is complete."""
    checksum = {SEAL: _digest(arrays, metadata or {})}
    write_atomic(path, save(dict(arrays), metadata={**(metadata or {}), **checksum}))


def map_sealed_arrays(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Map a file of `write_sealed_arrays`.

    Returns:
        The arrays, as read-only views of the map, and the metadata without the checksum.

    Raises:
        CramError: the content does not fit the checksum.
    """
    try:
        arrays, metadata = map_arrays(path)
    except ValueError as error:
        raise CramError(f"{path}: damaged ({error}).") from None
    if metadata.pop(SEAL, None) != _digest(arrays, metadata):
        raise CramError(f"{path}: damaged or edited, its content is not what its own sha256 says.")
    return arrays, metadata


def read_if_intact(path: Path, read: Callable[[Path], Content]) -> Content | None:
    """Read a file that an earlier process may have left.

    Returns:
        What `read` returns; None if there is no such file, and also, after a warning, if it is damaged.
    """
    if not path.is_file():
        return None
    try:
        return read(path)
    except CramError as error:
        print(f"warning: {error} It is made again.", flush=True)
        return None


def _digest(arrays: Arrays, metadata: Mapping[str, str]) -> str:
    shapes = {name: [str(array.dtype), list(array.shape)] for name, array in arrays.items()}
    digest = hashlib.sha256(to_json([shapes, dict(metadata)], sort_keys=True).encode())
    for _, array in sorted(arrays.items()):
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def _array(data: npt.NDArray[np.uint8], dtype: str, shape: list[int], data_offsets: list[int]) -> np.ndarray:
    begin, end = data_offsets
    if not 0 <= begin <= end <= len(data) or min(shape, default=0) < 0:
        raise ValueError(f"shape {shape} from byte {begin} to {end} of {len(data)}")
    return data[begin:end].view(DTYPES[dtype]).reshape(shape)
