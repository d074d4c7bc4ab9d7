"""Named tensors from files: whether they are those that are needed, told by the name of the first that is not."""

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from cram.errors import CramError


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file. Errors: CramError naming the file."""
    try:
        tensors: dict[str, Tensor] = load_file(path)
    except (OSError, SafetensorError, ValueError, KeyError) as error:
        raise CramError(f"{path}: not a readable safetensors file ({' '.join(str(error).split())}).") from None
    return tensors


def check_tensors(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor], where: str = "") -> None:
    """Compare names, shapes and dtypes; of the wanted tensors nothing else is looked at, so they may be of `meta`.

    Errors: CramError for the first tensor that is missing, too many, or of another shape or dtype. It begins with
    `where`.
    """
    for name in dict.fromkeys([*wanted, *found]):
        there, here = (_form(tensors[name]) if name in tensors else "" for tensors in (found, wanted))
        if not there:
            raise CramError(f"{where}the tensor {name}, {here}, is missing.")
        if not here:
            raise CramError(f"{where}the tensor {name} is not one that belongs there.")
        if there != here:
            raise CramError(f"{where}the tensor {name} is {there}, and {here} is needed.")


def rows_of(found: Mapping[str, Tensor], name: str, where: str = "") -> int:
    """Rows of a matrix that must be there. Errors: CramError where it is not, or is not a matrix with rows."""
    if name not in found:
        raise CramError(f"{where}the tensor {name} is missing.")
    if found[name].ndim != 2 or not len(found[name]):
        raise CramError(f"{where}the tensor {name} is {_form(found[name])}, and a matrix is needed.")
    return len(found[name])


def like(tensor: Tensor) -> Tensor:
    """A tensor of the same shape and dtype without values."""
    return torch.empty_like(tensor, device="meta")


def _form(tensor: Tensor) -> str:
    return f"{list(tensor.shape)} of {str(tensor.dtype).removeprefix('torch.')}"
