"""Speed-ups and windows of made learning curves with known answers, and the report on a folder of runs."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from cram.errors import CramError
from cram.planner.repeated_data import EpochRun, find_speedups, find_windows, select_epoch_runs
from cram.planner.repeated_data_report import read_repeated_data, report_repeated_data
from cram.planner.runs import Evaluation, read_runs
from tests.cram.planner.made_runs import make_run, write_run

TOKENS = [1e5 * 2 ** (step / 2) for step in range(9)]  # 100 thousand to 1.6 million


def curve(exponent: float, scale: float = 1e5, floor_at: float = math.inf) -> tuple[Evaluation, ...]:
    """A power law of the tokens; beyond `floor_at` tokens the loss rises as it fell."""
    points = []
    for tokens in TOKENS:
        seen = tokens if tokens <= floor_at else floor_at**2 / tokens
        points.append(Evaluation(tokens, 6.0 * (seen / scale) ** -exponent))
    return tuple(points)


def epoch_run(
    points: tuple[Evaluation, ...], size: int = 300_000, epochs: float = 0.5, dropout: float = 0.0
) -> EpochRun:
    run = replace(make_run(epochs=epochs, tokens=TOKENS[-1]), curve=points, nats=points[-1].nats)
    return EpochRun(run, size, dropout, seed=0)


def test_the_speedup_is_the_ratio_of_tokens_to_the_same_loss() -> None:
    # After t tokens it is where the run of one epoch is after t^0.55, counted in units of 100 thousand.
    several = epoch_run(curve(0.055), epochs=10.0)
    (speedup,) = find_speedups([epoch_run(curve(0.1)), several])
    assert speedup.tokens_to_best == TOKENS[-1]
    assert speedup.tokens_of_single == pytest.approx(1e5 * 16**0.55, rel=1e-6)
    assert speedup.factor == pytest.approx(16**0.45, rel=1e-6)
    assert speedup.interval == pytest.approx((16 / 2**2.5, 16 / 2**2))
    assert (speedup.dropout, speedup.nats) == (False, several.run.curve[-1].nats)


def test_the_best_loss_counts_and_the_better_arm() -> None:
    overfitted = epoch_run(curve(0.05, floor_at=4e5), epochs=10.0)
    with_dropout = epoch_run(curve(0.06), epochs=10.0, dropout=0.1)
    (alone,) = find_speedups([epoch_run(curve(0.1)), overfitted])
    assert alone.tokens_to_best == pytest.approx(4e5)
    (better,) = find_speedups([epoch_run(curve(0.1)), overfitted, with_dropout])
    assert better.dropout
    assert better.factor == pytest.approx(16 / 16**0.6, rel=1e-6)


def test_one_epoch_that_never_gets_there_has_no_speedup() -> None:
    (speedup,) = find_speedups([epoch_run(curve(0.05)), epoch_run(curve(0.1), epochs=5.0)])
    assert (speedup.factor, speedup.interval, speedup.tokens_of_single) == (None, None, None)


def test_only_runs_of_one_size_and_seed_are_compared() -> None:
    runs = [epoch_run(curve(0.1)), epoch_run(curve(0.05), size=7, epochs=10.0)]
    assert find_speedups([*runs, replace(epoch_run(curve(0.05), epochs=10.0), seed=1)]) == []


def test_each_size_has_the_window_in_which_it_is_the_best() -> None:
    small, large = epoch_run(curve(0.05, 1e5), size=100), epoch_run(curve(0.2, 2.5e5), size=900)
    never = epoch_run(curve(0.01, 2e5), size=400)
    first, second = find_windows([large, never, small, epoch_run(curve(0.9), epochs=10.0)])
    crossing = (2.5**0.2) ** (1 / 0.15) * 1e5  # where (t / 1e5)^-0.05 = (t / 2.5e5)^-0.2
    assert (first.all_parameters, first.first, second.last) == (100, TOKENS[0], TOKENS[-1])
    assert second.all_parameters == 900
    assert first.last < crossing < second.first


def test_the_report_on_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, exponent, epochs in (("S", 0.1, 0.5), ("M10", 0.055, 10.0), ("M5", 0.2, 5.0)):
        run = replace(make_run(epochs=epochs, tokens=TOKENS[-1]), curve=curve(exponent))
        write_run(tmp_path / name, replace(run, nats=run.curve[-1].nats))
    report_repeated_data(tmp_path, select_epoch_runs(read_runs(tmp_path)))
    said = capsys.readouterr().out
    assert "10 epochs: best" in said
    assert "3.48 (2.83 to 4.00; published 1.9 to 3.3)." in said
    assert "one epoch does not reach it in its tokens." in said
    assert "a power law of exponent 0.100" in said
    figures = json.loads((tmp_path / "one_epoch.json").read_text())
    assert len(figures["speedups"]) == 2
    assert (tmp_path / "one_epoch.png").read_bytes().startswith(b"\x89PNG")
    found = read_repeated_data(tmp_path / "one_epoch.json")
    assert all(line in said for line in found.describe())
    assert [(run.arm, len(run.run.curve)) for run in found.runs] == [("M10", 9), ("M5", 9), ("S", 9)]
    (tmp_path / "one_epoch.json").write_text(json.dumps(figures | {"runs": [{"run": {}}]}))
    with pytest.raises(CramError, match=r"one_epoch\.json: damaged, or written by another version"):
        read_repeated_data(tmp_path / "one_epoch.json")


def test_runs_that_were_not_evaluated_often_are_left_out(tmp_path: Path) -> None:
    for name, epochs, points in (("S", 0.5, 9), ("M", 5.0, 9), ("rare", 5.0, 2)):
        write_run(tmp_path / name, replace(make_run(epochs=epochs), curve=curve(0.1)[:points]))
    runs = read_runs(tmp_path)
    assert sorted(run.run.name for run in select_epoch_runs(runs)) == ["M", "S"]
    assert select_epoch_runs([run for run in runs if run.name != "M"]) == []
