"""Whole runs with Muon."""

from collections.abc import Callable
from pathlib import Path

import pytest

from cram.errors import CramError
from cram.files.atomic import read_json
from cram.train import main


def test_values_out_of_range_are_refused_before_any_work(tiny_words: list[str], tmp_path: Path) -> None:
    with pytest.raises(
        CramError, match=r"optimizer\.muon\.momentum=2\.0 is out of range: give a number at least 0, below 1"
    ):
        main([*tiny_words, "optimizer.kind=muon", "optimizer.muon.momentum=2.0"])
    assert list(tmp_path.iterdir()) == []


def test_a_run_with_muon_learns(tiny_run: Callable[[Path], list[str]], tmp_path: Path) -> None:
    words = ["optimizer.kind=muon", "optimizer.lr=1e-2", "budget=200steps", "data.epochs=3"]
    assert main([*tiny_run(tmp_path), *words]) == 0
    held_out = read_json(tmp_path / "run" / "receipt.json")["held_out"]
    assert held_out["nats_per_token"] < held_out["unigram_nats_per_token"] - 1.0
