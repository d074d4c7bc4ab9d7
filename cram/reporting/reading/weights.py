"""The parameters of a run by tensor, read from the header of its newest weights alone, without torch."""

from dataclasses import dataclass
from math import prod
from pathlib import Path

from safetensors import SafetensorError, safe_open

from cram.errors import CramError
from cram.reporting.reading.runs import RunData
from cram.run.checksums import WEIGHTS, open_checkpoints


@dataclass(frozen=True)
class Weight:
    """A tensor of a model.

    Attributes:
        name: in the model, such as `blocks.0.mlp.up.weight`.
        shape: its size along each dimension.
        dtype: as safetensors names it, such as `F32`.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str

    @property
    def parameters(self) -> int:
        """How many numbers it holds."""
        return prod(self.shape)


@dataclass(frozen=True)
class Weights:
    """The tensors of a file of weights.

    Attributes:
        path: of the file.
        bytes: its size.
        tensors: in the order of the file.
    """

    path: Path
    bytes: int
    tensors: tuple[Weight, ...]

    @property
    def parameters(self) -> int:
        """How many numbers all tensors hold."""
        return sum(tensor.parameters for tensor in self.tensors)


def read_weights(run: RunData) -> Weights | None:
    """Read which tensors a run has: in the end its final ones, before that those of the newest checkpoint.

    Returns:
        The tensors; None for a run that has no weights yet.

    Raises:
        CramError: the file is not a readable safetensors file.
    """
    if run.receipt is not None:
        return _read_header(run.folder / WEIGHTS)
    checkpoints = open_checkpoints(run.folder)
    files = (checkpoints.folder / str(step) / WEIGHTS for step in checkpoints.steps())
    # A run at work may remove a checkpoint at any time.
    return next((weights for file in files if file.is_file() and (weights := _read_header(file))), None)


def _read_header(path: Path) -> Weights | None:
    """Read the header of a file of weights; None for a file that is not there."""
    try:
        with safe_open(path, framework="numpy") as file:
            parts = [(name, file.get_slice(name)) for name in file.offset_keys()]
            tensors = tuple(Weight(name, tuple(part.get_shape()), part.get_dtype()) for name, part in parts)
            return Weights(path, path.stat().st_size, tensors)
    except FileNotFoundError:
        return None
    except (OSError, SafetensorError) as error:
        raise CramError(f"{path}: not a readable safetensors file ({' '.join(str(error).split())}).") from None
