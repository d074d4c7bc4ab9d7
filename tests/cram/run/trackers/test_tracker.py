"""The names of the numbers, and what a tracker is told of a run."""

from pathlib import Path

import pytest

from cram.run.trackers.tracker import TrackedRun, name_numbers


def test_every_number_has_one_flat_name() -> None:
    record = {
        "kind": "train",
        "step": 3,
        "time": 5.0,
        "loss": 2.5,
        "lr": {"matrices": 0.02, "gains": 0.001},
        "mfu": None,
        "positions": 50_331_649,
        "tokens_per_second": {"1": 10.0, "2": 19},
        "event": "spike",
        "done": True,
        "mean": float("nan"),
    }
    assert name_numbers(record) == {
        "train/loss": 2.5,
        "train/lr/matrices": 0.02,
        "train/lr/gains": 0.001,
        "train/positions_millions": pytest.approx(50.331649, rel=1e-15),
        "train/tokens_per_second/1": 10.0,
        "train/tokens_per_second/2": 19,
    }


def test_runs_of_a_table_are_a_group_and_keys_have_their_full_names(tmp_path: Path) -> None:
    folder = tmp_path / "table-60s" / "adamw-seed0"
    folder.mkdir(parents=True)
    run = TrackedRun(folder, "1234")
    assert (run.name, run.group, run.recipe) == ("adamw-seed0", "table-60s", {})
    (folder / "recipe.yaml").write_text("seed: 3\noptimizer:\n  muon:\n    lr: 0.02\n")
    assert run.recipe == {"seed": 3, "optimizer.muon.lr": 0.02}
