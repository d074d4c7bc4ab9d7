"""Timing side by side."""

import json
from pathlib import Path

import pytest
import torch

from bench import timing
from bench.timing import describe_machine, percentiles, time_alternating, write_results


def test_contenders_take_turns_in_a_rotating_order() -> None:
    calls: list[str] = []
    contenders = {name: (lambda n=name: calls.append(n)) for name in "abc"}
    seconds = time_alternating(contenders, rounds=3, device=torch.device("cpu"), warmup=1)
    assert {name: len(values) for name, values in seconds.items()} == {"a": 3, "b": 3, "c": 3}
    rounds = ["".join(calls[begin : begin + 3]) for begin in range(0, len(calls), 3)]
    assert rounds == ["cab", "abc", "bca", "cab"]


def test_spread() -> None:
    assert percentiles([5.0, 1.0, 2.0, 4.0, 3.0, 6.0]) == pytest.approx({"median": 3.5, "p20": 2.0, "p80": 5.0})


def test_results_say_where_they_were_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "describe_kernel_settings", lambda device: {"file": "settings.json"})
    path = write_results({"machine": describe_machine(torch.device("cpu"))}, tmp_path / "new", "step-cpu")
    loaded = json.loads(path.read_text())["machine"]
    assert loaded["versions"]["torch"] == torch.__version__
    assert loaded["kernel_settings"] == {"file": "settings.json"}
    assert loaded["threads"] >= 1
