"""The outcome of each arm, from the receipts of its runs."""

from pathlib import Path
from typing import Any

import pytest

from cram.ablation.outcomes import choose_rates, summarize_arms
from cram.ablation.plan import ArmRun, plan_runs, plan_trials
from cram.ablation.table import AblationTable
from cram.config.config import Config
from cram.files.atomic import write_atomic, write_json
from cram.run.checksums import HELD_OUT, RECEIPT, WEIGHTS, register_results, write_start_files


def receipt(nats: float, cramming: float | None, tokens: int) -> dict[str, Any]:
    held_out: dict[str, Any] = {"nats_per_token": nats}
    if cramming is not None:
        held_out["cramming_rule"] = {"nats_per_token": cramming}
    return {
        "held_out": held_out,
        "tokens_per_second": 100.0,
        "positions": tokens,
        "rows_read": tokens // 10,
        "time": {"charged": {"updates": 9.0, "methods": 1.0}},
        "peak_memory_bytes": {"host": 3_000_000, "gpu": None},
        "faults": {"skipped": 1},
        "data": {"hash": "d"},
        "device": "cpu",
    }


def with_halves(figures: dict[str, Any], tuning: float, judging: float, by_rule: float | None) -> dict[str, Any]:
    """A receipt with the losses of both halves, and by Cramming's rule with that of the judging half."""
    halves = {"tuning": {"nats_per_token": tuning}, "judging": {"nats_per_token": judging, "bits_per_byte": 2.0}}
    held_out = figures["held_out"] | halves
    if by_rule is not None:
        held_out["cramming_rule"] = {"nats_per_token": 0.0, "judging": {"nats_per_token": by_rule}, "tuning": None}
    return figures | {"held_out": held_out}


def finish(run: ArmRun, receipt: dict[str, Any]) -> None:
    """Write the files of a finished run."""
    write_start_files(run.folder, run.config, {}, b"{}", data="of the test")
    for name in (WEIGHTS, HELD_OUT):
        write_atomic(run.folder / name, b"")
    write_json(run.folder / RECEIPT, receipt)
    register_results(run.folder)


def test_a_failed_run_does_not_count(table: AblationTable, tmp_path: Path) -> None:
    runs = plan_runs(table, tmp_path, [])
    for run in runs:
        failed = "the weights are not finite" if (run.arm, run.seed) == ("old", 0) else None
        finish(run, receipt(5.0, 4.0, 100) | {"failed": failed})
    seeds = {line["arm"]: line["seeds"] for line in summarize_arms(runs, table)}
    assert seeds == {"old": [1], "new": [0, 1], "half": [0, 1]}


def test_outcomes_have_figures_over_seeds_and_the_difference_to_the_baseline(
    table: AblationTable, tmp_path: Path
) -> None:
    runs = plan_runs(table, tmp_path, [])
    figures = {"old": (5.0, 4.0), "new": (4.0, 3.5), "half": (4.5, None)}
    for run in runs:
        if (run.arm, run.seed) != ("half", 1):  # still missing
            nats, cramming = figures[run.arm]
            finish(run, receipt(nats + 0.2 * run.seed, cramming, 1000))
    old, new, half = summarize_arms(runs, table)
    assert (old["arm"], old["seeds"], old["over_baseline"]) == ("old", [0, 1], 0.0)
    assert old["nats"] == {"mean": 5.1, "least": 5.0, "largest": 5.2, "all": [5.0, 5.2]}
    assert new["over_baseline"] == pytest.approx(-1.0)
    assert new["cramming_rule_nats"]["mean"] == 3.5
    assert (half["seeds"], half["budget"], half["cramming_rule_nats"]) == ([0], "300s", None)
    assert half["over_baseline"] == pytest.approx(-0.5)  # of the seed that both have


def test_a_folder_that_other_words_have_trained_does_not_count(table: AblationTable, tmp_path: Path) -> None:
    runs = plan_runs(table, tmp_path, [])
    others = plan_runs(table, tmp_path, ["data.source=other"])
    finish(others[0], receipt(9.0, 9.0, 10))
    finish(runs[1], receipt(4.0, 3.0, 10))
    assert [line["arm"] for line in summarize_arms(runs, table)] == ["new"]


def test_without_the_baseline_there_is_no_difference(table: AblationTable, tmp_path: Path) -> None:
    run = ArmRun("new", 0, (), Config(run=str(tmp_path / "new-seed0")))
    finish(run, receipt(4.0, 3.0, 10))
    (line,) = summarize_arms([run], table)
    assert line["over_baseline"] is None


def test_arms_are_compared_by_the_judging_half(table: AblationTable, tmp_path: Path) -> None:
    runs = plan_runs(table, tmp_path, [])
    judging = {"old": 5.0, "new": 6.0, "half": 5.0}  # by the whole and by the tuning half, `new` is better
    for run in runs:
        nats = 4.0 if run.arm == "new" else 5.0
        by_rule = 3.0 if run.arm == "new" else 4.0
        usual = receipt(nats + 0.1 * run.seed, by_rule, 1000)
        finish(run, with_halves(usual, nats, judging[run.arm] + 0.1 * run.seed, by_rule + 0.1 * run.seed))
    old, new, half = summarize_arms(runs, table)
    assert (new["judged_by"], new["compares"], half["compares"]) == ("judging", "worse", "not decided")
    assert new["over_baseline"] == pytest.approx(1.0)
    assert new["cramming_rule_compares"] == "better"
    assert (new["halves"]["tuning"]["nats"]["mean"], new["halves"]["judging"]["nats"]["mean"]) == (4.0, 6.05)
    assert new["halves"]["judging"]["bits"]["mean"] == 2.0
    assert old["halves"]["tuning"]["cramming_rule_nats"] is None


def test_arms_are_compared_by_the_whole_where_a_run_has_no_halves(table: AblationTable, tmp_path: Path) -> None:
    for run in (runs := plan_runs(table, tmp_path, [])):
        usual = receipt((4.0 if run.arm == "new" else 5.0) + 0.1 * run.seed, None, 1000)
        finish(run, usual if run.arm == "old" else with_halves(usual, 4.0, 9.0, None))
    _, new, _ = summarize_arms(runs, table)
    assert (new["judged_by"], new["compares"], new["cramming_rule_compares"]) == ("whole", "better", "")


@pytest.mark.parametrize(("halves", "best"), [(True, 2.0), (False, 0.5)])
def test_rates_are_chosen_by_the_tuning_half(halves: bool, best: float, table: AblationTable, tmp_path: Path) -> None:
    table.rate_key, table.rates = "optimizer.lr", [0.5, 1.0, 2.0]
    for trial in (trials := plan_trials(table, tmp_path, [])):
        assert trial.factor is not None
        usual = receipt(trial.factor, None, 100)
        finish(trial, with_halves(usual, 10 - trial.factor, trial.factor, None) if halves else usual)
    assert choose_rates(trials) == dict.fromkeys(("old", "new", "half"), best)
