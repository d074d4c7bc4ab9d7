"""The report on the loss by the length of the context."""

from dataclasses import replace
from pathlib import Path

import pytest

from cram.planner.context_report import report_context
from cram.planner.runs import RunKind, read_runs
from tests.cram.planner.made_runs import KIND, make_run, write_run


def parts(first: float) -> list[dict[str, float]]:
    return [
        {"least": 1, "most": 1, "nats_per_token": first, "predicted_tokens": 9},
        {"least": 2, "most": 3, "nats_per_token": first - 0.5, "predicted_tokens": 18},
    ]


def test_the_longest_runs_of_each_kind_that_repeat_nothing_are_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lstm = RunKind(KIND.text, KIND.vocab_size, KIND.objective, "lstm")
    for name, run, first in (
        ("long", make_run(parameters=2e5), 6.0),
        ("small", make_run(parameters=1e5), 6.25),
        ("short", make_run(tokens=1e5), 7.0),
        ("repeated", make_run(epochs=5.0, tokens=5e6), 7.0),
        ("lstm", replace(make_run(tokens=5e5), kind=lstm), 5.75),
    ):
        write_run(tmp_path / "table" / name, run, by_position=parts(first))
    report_context(tmp_path, read_runs(tmp_path))
    said = capsys.readouterr().out.splitlines()
    assert said == [
        "small, decoder of 100,000 parameters, 1,000,000 tokens; nats by tokens of context: 1 6.250, 2-3 5.750",
        "long, decoder of 200,000 parameters, 1,000,000 tokens; nats by tokens of context: 1 6.000, 2-3 5.500",
        "lstm, lstm of 100,000 parameters, 500,000 tokens; nats by tokens of context: 1 5.750, 2-3 5.250",
        f"{tmp_path}: context.png",
    ]
    assert (tmp_path / "context.png").read_bytes().startswith(b"\x89PNG")


def test_runs_without_a_loss_by_position_are_passed_over(tmp_path: Path) -> None:
    write_run(tmp_path / "masked", make_run())
    report_context(tmp_path, read_runs(tmp_path))
    assert not (tmp_path / "context.png").exists()
