"""The proof for machines with several GPUs: what it refuses, and that it sees differences between runs."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from cram.errors import CramError
from proofs import two_gpus
from proofs.gpu_runs import Case, Place, Run, compare

CASE = Case("fp32", ())
COUNTS = dict.fromkeys(("predicted_tokens", "positions", "updates", "rows_read", "repeated_rows"), 7)


def make_run(folder: Path, losses: list[float | None], weight: float = 1.0, kind: str = "eager", **counts: int) -> Run:
    folder.mkdir()
    save_file(
        {"a": torch.zeros(2), "weight": torch.full((4,), weight), "z": torch.ones(2)}, folder / "model.safetensors"
    )
    compiled: dict[str, Any] = {"compile": {"kind": kind, "cuda_graphs": False, "failed": {}}}
    return Run(COUNTS | compiled | counts, [{"loss": loss} for loss in losses], folder)


def test_equal_runs_are_right(tmp_path: Path) -> None:
    one, other = (make_run(tmp_path / name, [2.0, 1.0]) for name in "ab")
    assert compare(CASE, one, other) == {"loss": 0.0, "weights": 0.0, "wrong": []}


@pytest.mark.parametrize(
    ("made", "found"),
    [
        ({"losses": [2.0, 1.001]}, "loss differs by 1.0e-03"),
        ({"losses": [2.0, 1.0], "weight": 1.01}, "weights differ by 1.0e-02"),
        ({"losses": [2.0, 1.0], "weight": math.nan}, "weights differ by inf"),
        ({"losses": [2.0, None]}, "loss differs by inf"),
        ({"losses": [2.0]}, "loss differs by inf"),
        ({"losses": [2.0, 1.0], "kind": "blocks"}, "compiled: blocks"),
        ({"losses": [2.0, 1.0], "predicted_tokens": 8}, "predicted_tokens: 8, not 7"),
    ],
)
def test_a_difference_is_found(made: dict[str, Any], found: str, tmp_path: Path) -> None:
    wrong = compare(CASE, make_run(tmp_path / "a", [2.0, 1.0]), make_run(tmp_path / "b", **made))["wrong"]
    assert any(fault.startswith(found) for fault in wrong), wrong


def test_a_machine_with_too_few_gpus_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(two_gpus, "count_gpus", lambda: 1)
    with pytest.raises(CramError, match=r"ranks=2: torch finds 1 GPU\(s\) here"):
        two_gpus.main([])


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_ranks_compute_the_same_rows_at_once(device: str, tmp_path: Path) -> None:
    for ranks in (1, 2):
        place = Place(tmp_path, device, 2, "text")
        words = place.words(place.small, ranks, tmp_path / "run")
        assert f"batch.micro_rows={16 // ranks}" in words
        assert f"device={device}" in words
