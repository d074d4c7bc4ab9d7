"""Whole runs with Muon."""

import json
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


def test_rates_of_the_others_fall_where_they_are_told(tiny_run: Callable[[Path], list[str]], tmp_path: Path) -> None:
    rates = ["optimizer.muon.lr=0.02", "optimizer.lr=1e-3", "optimizer.embedding_lr=4e-3"]
    schedule = ["schedule.kind=linear", "schedule.warmup=0", "schedule.others_decay_start=0.25"]
    assert main([*tiny_run(tmp_path), "optimizer.kind=muon", "budget=10steps", *rates, *schedule]) == 0
    records = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    (half,) = [record["lr"] for record in records if "lr" in record and record["progress"] == 0.5]
    assert half["gains"] / half["matrices"] == pytest.approx(0.05 / 0.75, rel=0.1)
    assert half["embeddings"] == pytest.approx(4 * half["gains"])
    assert half["matrices"] == pytest.approx(0.01, rel=0.15)  # the rates are those of the middle of the update


def test_a_run_with_muon_learns(tiny_run: Callable[[Path], list[str]], tmp_path: Path) -> None:
    words = ["optimizer.kind=muon", "optimizer.lr=1e-2", "budget=200steps", "data.epochs=3"]
    assert main([*tiny_run(tmp_path), *words]) == 0
    held_out = read_json(tmp_path / "run" / "receipt.json")["held_out"]
    assert held_out["nats_per_token"] < held_out["unigram_nats_per_token"] - 1.0
