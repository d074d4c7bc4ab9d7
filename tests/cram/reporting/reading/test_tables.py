"""Tables of arms are read from results.json, from their runs, or from the fits of cram.plan, whatever is there."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cram.errors import CramError
from cram.files.atomic import write_json
from cram.reporting.reading.tables import read_table
from tests.cram.reporting.written_runs import usual_receipt, write_run


def over_seeds(*values: float) -> dict[str, Any]:
    """Figures over seeds, as results.json has them."""
    return {"mean": sum(values) / len(values), "least": min(values), "largest": max(values), "all": list(values)}


def outcome(arm: str, *nats: float, **changes: Any) -> dict[str, Any]:
    """An arm of results.json."""
    usual = {
        "arm": arm,
        "column": "",
        "words": [f"optimizer.kind={arm}"],
        "budget": "100s",
        "seeds": list(range(len(nats))),
        "nats": over_seeds(*nats),
        "cramming_rule_nats": over_seeds(*(value + 0.5 for value in nats)),
        "tokens_per_second": over_seeds(4442.5),
        "tokens": over_seeds(409_600),
        "rows_read": over_seeds(3200),
        "seconds": {"updates": 90.0, "waiting": 2.0},
        "peak_memory_bytes": 1_440_968_704,
        "published": "",
        "expected": "",
        "faults": 0,
        "data": ["1c068f06"],
        "device": ["A Processor"],
        "rate": None,
        "over_baseline": 0.0,
        "compares": "",
        "agrees": "",
    }
    return usual | changes


def planned(folder: str, arm: str, seed: int = 0, rate: float | None = None, **changes: Any) -> dict[str, Any]:
    """A run of results.json."""
    return {"folder": folder, "arm": arm, "column": "", "budget": "100s", "seed": seed, "rate": rate} | changes


def write_arm_run(folder: Path, nats: float, finished: bool = True) -> None:
    receipt = usual_receipt()
    receipt["held_out"]["nats_per_token"] = nats
    write_run(folder, receipt=receipt, finished=finished)


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """A table of two arms with two seeds each and two rates tried; the last run is still missing."""
    folder = tmp_path / "mine-100s"
    for name, nats in (("muon-seed0", 4.0), ("muon-seed1", 4.1), ("adamw-seed0", 4.5), ("muon-rate2", 4.7)):
        write_arm_run(folder / name, nats)
    runs = [planned(f"{arm}-seed{seed}", arm, seed) for seed in (0, 1) for arm in ("muon", "adamw")]
    trials = [planned("muon-rate2", "muon", rate=2.0), planned("muon-rate4", "muon", rate=4.0)]
    changes = {"over_baseline": 0.45, "compares": "not decided", "expected": "worse", "agrees": "no"}
    arms = [outcome("muon", 4.0, 4.1, rate=2.0), outcome("adamw", 4.5, published="Muon is better", **changes)]
    write_json(
        folder / "results.json", {"about": "two kinds", "baseline": "muon", "arms": arms, "runs": [*trials, *runs]}
    )
    return folder


def test_a_table_has_arms_and_runs(table: Path) -> None:
    found = read_table(table)
    assert (found.name, found.about, found.baseline) == ("mine-100s", "two kinds", "muon")
    muon, adamw = found.arms
    assert (muon.arm, muon.nats, muon.rate, muon.mean) == ("muon", {0: 4.0, 1: 4.1}, 2.0, pytest.approx(4.05))
    assert (adamw.over_baseline, adamw.compares, adamw.expected, adamw.agrees) == (0.45, "not decided", "worse", "no")
    assert muon.figures["tokens"] == 409_600 and muon.figures["cramming_rule_nats"] == pytest.approx(4.55)
    assert [(run.folder, run.rate, run.nats) for run in found.runs] == [
        ("muon-rate2", 2.0, 4.7),
        ("muon-rate4", 4.0, None),
        ("muon-seed0", None, 4.0),
        ("adamw-seed0", None, 4.5),
        ("muon-seed1", None, 4.1),
        ("adamw-seed1", None, None),
    ]
    assert found.runs[-1].data is None and found.fits == [] and found.repeated_data is None


def test_results_without_the_folders_of_the_runs_are_enough(table: Path) -> None:
    for run in list(table.glob("*/")):
        shutil.rmtree(run)
    found = read_table(table)
    assert len(found.arms) == 2 and all(run.data is None for run in found.runs)


def test_results_of_earlier_versions_list_no_runs(table: Path) -> None:
    content = json.loads((table / "results.json").read_text())
    del content["runs"]
    write_json(table / "results.json", content)
    write_arm_run(table / "adamw-0.5-seed1", 5.0)
    found = {run.folder: (run.arm, run.seed, run.rate) for run in read_table(table).runs}
    assert found["muon-rate2"] == ("muon", 0, 2.0)
    assert found["adamw-0.5-seed1"][0] == "adamw"


def test_a_table_without_results_is_what_its_runs_are(table: Path) -> None:
    (table / "results.json").unlink()
    write_arm_run(table / "open-seed0", 0.0, finished=False)
    (table / "begun-seed0").mkdir()  # has no recipe yet
    found = read_table(table)
    assert [(arm.arm, list(arm.nats.values())) for arm in found.arms] == [("adamw", [4.5]), ("muon", [4.0, 4.1])]
    assert {run.folder: run.nats for run in found.runs}["open-seed0"] is None
    assert found.arms[0].figures["peak_memory_bytes"] == 1_440_968_704
    assert found.arms[0].compares == ""


def test_a_folder_that_is_not_a_table_is_refused(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file.txt").write_text("words")
    with pytest.raises(
        CramError, match=r"(?s)table=.*other is not the folder of a table: it has neither results\.json"
    ):
        read_table(tmp_path / "other")
    for name in ("none", "other/file.txt"):
        with pytest.raises(CramError, match=r"there is no such folder\. Name the folder of a table of cram\.ablate"):
            read_table(tmp_path / name)


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content.pop("about"),
        lambda content: content.update(arms=3),
        lambda content: content["arms"][0].pop("seconds"),
        lambda content: content["arms"][0]["nats"].update(all=["low", "high"]),
        lambda content: content["arms"][0].update(seeds=[0]),
        lambda content: content["arms"][0].update(over_baseline=True),
        lambda content: content["arms"][0].update(over_baseline=10**400),
        lambda content: content["runs"][0].update(seed=None),
        lambda content: content["runs"].append(3),
    ],
)
def test_damaged_results_are_refused(table: Path, damage: Callable[[dict[str, Any]], None]) -> None:
    content = json.loads((table / "results.json").read_text())
    damage(content)
    write_json(table / "results.json", content)
    with pytest.raises(CramError, match=r"results\.json: damaged, or not the results of a table\. Make it again: the"):
        read_table(table)


@pytest.mark.parametrize("content", ["[]", '{"arms": ', "3"])
def test_results_that_are_other_json_are_refused(table: Path, content: str) -> None:
    (table / "results.json").write_text(content)
    with pytest.raises(CramError, match=r"results\.json: (damaged|not a readable)"):
        read_table(table)
