"""Writes one shard, in this process or in another one that sees the folder."""

from collections.abc import Callable
from pathlib import Path
from secrets import token_hex
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from safetensors.numpy import save

from cram.files.atomic import sha256_bytes, write_atomic

Result = TypeVar("Result")

TEMPORARY = ".*shard-*"  # pattern of the temporary names


def write_shard(path: Path, tokens: npt.NDArray[np.integer], documents: npt.NDArray[np.uint16]) -> tuple[str, int, str]:
    """Write a shard under a temporary name, which the caller changes.

    The name differs from call to call: on a cluster, a process that was taken for dead may still be writing when
    another one does its work.

    Args:
        path: the final path.
        tokens: uint16 or int32 [rows, seq_len].
        documents: uint16 [rows, seq_len], the index of each token's document within its row. Stored as
            uint8 if all fit.

    Returns:
        The temporary name in the same folder, the bytes of the file, and its sha256.

    Raises:
        CramError: the disk is full.
    """
    document_dtype = np.uint8 if documents.max() < 1 << 8 else np.uint16
    data = save({"tokens": tokens, "documents": documents.astype(document_dtype, copy=False)})
    temporary = path.with_name(f".{path.name}.{token_hex(8)}")
    write_atomic(temporary, data)
    return temporary.name, len(data), sha256_bytes(data)


def call_here(function: Callable[..., Result], *arguments: Any) -> Result:
    """Call a function in this process."""
    return function(*arguments)


def remove_temporary_shards(folder: Path) -> None:
    """Remove what processes have left that died while they wrote."""
    for path in folder.glob(TEMPORARY):
        path.unlink(missing_ok=True)
