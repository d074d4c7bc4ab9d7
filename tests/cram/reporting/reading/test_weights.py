"""The tensors of a run's newest weights, from their headers."""

from pathlib import Path

import pytest

from cram.errors import CramError
from cram.reporting.reading.runs import read_run
from cram.reporting.reading.weights import read_weights
from tests.cram.reporting.written_runs import TENSORS, write_run


@pytest.mark.parametrize("finished", [True, False])
def test_the_tensors_of_a_run(tmp_path: Path, finished: bool) -> None:
    weights = read_weights(read_run(write_run(tmp_path / "a", finished=finished)))
    assert weights is not None
    assert {tensor.name: tensor.shape for tensor in weights.tensors} == TENSORS
    assert {tensor.dtype for tensor in weights.tensors} == {"F32"}
    assert weights.parameters == 1040
    assert weights.bytes == weights.path.stat().st_size


def test_a_run_without_weights(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "a", finished=False)
    (folder / "checkpoints" / "90" / "model.safetensors").unlink()
    assert read_weights(read_run(folder)) is None


def test_damaged_weights(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "a")
    (folder / "model.safetensors").write_bytes(b"damaged")
    with pytest.raises(CramError, match=r"model\.safetensors: not a readable safetensors file"):
        read_weights(read_run(folder))
