"""Numpy arrays in safetensors files, read through memory maps."""

import json
import os
from pathlib import Path

import numpy as np
import numpy.typing as npt

DTYPES = {"U8": np.uint8, "U16": np.uint16, "U32": np.uint32, "U64": np.uint64, "I32": np.int32, "I64": np.int64}


def map_arrays(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """The arrays of a file, as read-only views of its memory map, and its metadata.

    The map does not keep the file open, so that a process may have more of them than files.

    Errors: ValueError for a header that cannot be read or does not fit the file.
    """
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


def _array(data: npt.NDArray[np.uint8], dtype: str, shape: list[int], data_offsets: list[int]) -> np.ndarray:
    begin, end = data_offsets
    if not 0 <= begin <= end <= len(data) or min(shape, default=0) < 0:
        raise ValueError(f"shape {shape} from byte {begin} to {end} of {len(data)}")
    return data[begin:end].view(DTYPES[dtype]).reshape(shape)
