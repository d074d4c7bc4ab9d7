"""Reading named tensors from files, and checks that name the first tensor that does not fit."""

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from cram.errors import CramError


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read all tensors of a safetensors file into CPU memory.

    Raises:
        CramError: the file is missing or not a readable safetensors file.
    """
    try:
        tensors: dict[str, Tensor] = load_file(path)
    except (OSError, SafetensorError, ValueError, KeyError) as error:
        raise CramError(f"{path}: not a readable safetensors file ({' '.join(str(error).split())}).") from None
    return tensors


def check_tensors(tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor], prefix: str = "") -> None:
    """Compare the names, shapes and dtypes of tensors with the expected ones.

    Args:
        tensors: to be checked.
        expected: tensors of the right names, shapes and dtypes. Their values are not read, so they may be on `meta`.
        prefix: the beginning of the error message.

    Raises:
        CramError: a tensor is missing, unknown, or has another shape or dtype. The message names the first one.
    """
    for name in dict.fromkeys([*expected, *tensors]):
        if name not in tensors:
            raise CramError(f"{prefix}the tensor {name}, {_describe(expected[name])}, is missing.")
        if name not in expected:
            raise CramError(f"{prefix}the tensor {name} does not belong there.")
        if (form := _describe(tensors[name])) != (expected_form := _describe(expected[name])):
            raise CramError(f"{prefix}the tensor {name} is {form}, and {expected_form} is needed.")


def count_rows(tensors: Mapping[str, Tensor], name: str, prefix: str = "") -> int:
    """Return the number of rows of a matrix that must be among `tensors`.

    Raises:
        CramError: the tensor is missing, is not a matrix, or has no rows. The message begins with `prefix`.
    """
    if name not in tensors:
        raise CramError(f"{prefix}the tensor {name} is missing.")
    if tensors[name].ndim != 2 or not len(tensors[name]):
        raise CramError(f"{prefix}the tensor {name} is {_describe(tensors[name])}, and a matrix is needed.")
    return len(tensors[name])


def to_meta(tensor: Tensor) -> Tensor:
    """Return a tensor of the same shape and dtype on the `meta` device, which has no values."""
    return torch.empty_like(tensor, device="meta")


def _describe(tensor: Tensor) -> str:
    """Shape and dtype: `[2, 3] of float32`."""
    return f"{list(tensor.shape)} of {str(tensor.dtype).removeprefix('torch.')}"
