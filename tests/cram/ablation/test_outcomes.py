"""The outcome of each arm, from the receipts of its runs."""

from pathlib import Path
from typing import Any

import pytest

from cram.ablation.outcomes import summarize_arms
from cram.ablation.plan import ArmRun, plan_runs
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
