"""The file of held-out rows: read back as it was written, or refused with the tensor that is wrong."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load, save

from cram.errors import CramError
from cram.evaluation.held_out import HeldOutSet
from cram.objectives.batch import IGNORED


def test_rows_are_read_back(rows: HeldOutSet, tmp_path: Path) -> None:
    (tmp_path / "rows").write_bytes(rows.to_bytes())
    back = HeldOutSet.from_file(tmp_path / "rows")
    assert back.to_bytes() == rows.to_bytes()
    assert back.predicted_bytes == rows.predicted_bytes
    assert torch.equal(back.documents, rows.documents)
    assert back.halves is not None and rows.halves is not None and torch.equal(back.halves, rows.halves)


def test_a_file_of_an_earlier_version_is_read(rows: HeldOutSet, tmp_path: Path) -> None:
    earlier = replace(rows, halves=None, row_bytes=None)
    (tmp_path / "rows").write_bytes(earlier.to_bytes())
    back = HeldOutSet.from_file(tmp_path / "rows")
    assert back.halves is None and back.to_bytes() == earlier.to_bytes() != rows.to_bytes()


@pytest.mark.parametrize(("name", "value"), [("halves", 2), ("row_bytes", 1_000_000), ("row_bytes", -1)])
def test_halves_that_do_not_add_up_are_refused(name: str, value: int, rows: HeldOutSet, tmp_path: Path) -> None:
    getattr(rows, name)[0] = value
    (tmp_path / "rows").write_bytes(rows.to_bytes())
    with pytest.raises(CramError, match=r"rows: the halves of the held-out rows do not add up to the whole\."):
        HeldOutSet.from_file(tmp_path / "rows")


def test_causal_rows_are_read_back_as_such(causal_rows: HeldOutSet, tmp_path: Path) -> None:
    (tmp_path / "rows").write_bytes(causal_rows.to_bytes())
    back = HeldOutSet.from_file(tmp_path / "rows")
    assert (back.objective, back.predicted_bytes) == ("causal", causal_rows.predicted_bytes)
    assert torch.equal(back.labels, causal_rows.labels)


def test_a_damaged_file_of_rows_is_named(rows: HeldOutSet, tmp_path: Path) -> None:
    content = rows.to_bytes()
    all_four = {name: torch.zeros(1, 1) for name in ("tokens", "inputs", "labels", "documents")}
    damaged = [
        b"",
        content[:-1],
        content[:20],
        b"\xff" + content[1:],
        save(all_four),
        save(all_four, metadata={"masked_bytes": "many"}),
    ]
    for damaged_content in damaged:
        (tmp_path / "rows").write_bytes(damaged_content)
        with pytest.raises(CramError, match="rows: not a readable file of held-out rows"):
            HeldOutSet.from_file(tmp_path / "rows")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"labels": None}, r"the tensor labels, \[\d+, \d+\] of int64, is missing"),
        ({"labels": torch.zeros(1, 2, dtype=torch.int64)}, r"the tensor labels is \[1, 2\] of int64, and \["),
        ({"inputs": torch.zeros(3)}, r"the tensor inputs is \[3\] of float32, and \["),
        ({"tokens": torch.zeros((), dtype=torch.int64)}, r"the tensor tokens is \[\] of int64, and \["),
        ({"halves": None}, r"the tensor halves, \[\d+\] of uint8, is missing"),
        ({"more": torch.zeros(1)}, r"the tensor more does not belong there"),
        ({"unknown_share": torch.tensor(2.0, dtype=torch.float64)}, r"2 of them unknown"),
        ({"labels": "none"}, r"or predict nothing"),
    ],
)
def test_tensors_of_wrong_names_shapes_and_dtypes_are_named(
    changed: Any, message: str, rows: HeldOutSet, tmp_path: Path
) -> None:
    tensors: Any = load(rows.to_bytes())
    if changed == {"labels": "none"}:
        changed = {"labels": torch.full_like(tensors["labels"], IGNORED)}
    tensors = {name: tensor for name, tensor in (tensors | changed).items() if tensor is not None}
    (tmp_path / "rows").write_bytes(save(tensors, metadata={"masked_bytes": "9"}))
    with pytest.raises(CramError, match=message) as caught:
        HeldOutSet.from_file(tmp_path / "rows")
    assert str(tmp_path / "rows") in str(caught.value) and len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("name", ["tokens", "inputs", "labels", "documents"])
@pytest.mark.parametrize("value", [-1, 64, 2**31 - 1])
def test_ids_outside_the_vocabulary_are_named(name: str, value: int, rows: HeldOutSet) -> None:
    rows.check_ids(64, Path("rows"))
    getattr(rows, name)[0, 1] = value
    with pytest.raises(CramError, match=rf"rows: the tensor {name} holds {value}, and numbers from 0 to (63|1) are"):
        rows.check_ids(64, Path("rows"))
