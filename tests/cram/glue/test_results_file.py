"""The list of jobs, and the file of their outcomes."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from cram.errors import CramError
from cram.files.atomic import write_json
from cram.files.sealed import read_sealed, write_sealed
from cram.glue.results_file import Job, ResultsFile, median_seed, plan_jobs

SETTINGS = {"checkpoint": "abc", "batch": 16}


def outcome(value: float, **more: Any) -> dict[str, Any]:
    shared = {"data": "d", "train": "t", "began_with": "w", "learning_rate": 4e-5, "batch": 16, "epochs": 5}
    return {"scores": {"rte": {"accuracy": value}}, **shared, **more}


def test_a_plan_is_every_task_rate_and_seed_once() -> None:
    jobs = plan_jobs(["cola", "rte"], [1e-5, 4e-5], 3)
    assert len(jobs) == len({job.name for job in jobs}) == 12
    assert jobs[0].name == "cola-1e-05-seed0"
    assert Job("rte", 4e-5, 2, untrained=True).name == "untrained-rte-4e-05-seed2"
    assert len({job.name for job in plan_jobs(["rte"], [4e-5, 4.0000001e-5], 1)}) == 2


def test_a_results_file_is_read_back_and_lists_the_missing_jobs(tmp_path: Path) -> None:
    path = tmp_path / "glue.json"
    file, jobs = ResultsFile(path, SETTINGS), plan_jobs(["rte"], [4e-5], 3)
    file.add(jobs[1], outcome(math.nan))
    file.add(jobs[0], outcome(50.0))
    again = ResultsFile(path, SETTINGS)
    assert again.outcomes == file.outcomes
    assert again.missing(jobs) == [jobs[2]]
    assert list(again.outcomes_by_seed("rte", 4e-5)) == [0, 1]
    assert again.outcomes_by_seed("rte", 4e-5, untrained=True) == {}
    content = json.loads(path.read_text(), parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert content["jobs"][0]["outcome"]["scores"]["rte"]["accuracy"] is None
    assert content["results"] is None


def test_other_settings_other_examples_and_other_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "glue.json"
    ResultsFile(path, SETTINGS).add(Job("rte", 4e-5, 0), outcome(1.0))
    with pytest.raises(
        CramError, match=r"holds results of other settings: batch is 16 there, 32 here\.\nChoose another"
    ):
        ResultsFile(path, SETTINGS | {"batch": 32})
    with pytest.raises(CramError, match=r"optimizer is adamw there, muon here; layer_decay is 1\.0 there, 0\.9 here"):
        ResultsFile(path, SETTINGS | {"optimizer": "muon", "layer_decay": 0.9})
    # Files of earlier versions do not hold these settings.
    file = ResultsFile(path, SETTINGS | {"optimizer": "adamw", "layer_decay": 1.0})
    file.check_data("rte", "d")
    file.check_data("cola", "anything")
    with pytest.raises(CramError, match="holds results of rte on other rows than these"):
        file.check_data("rte", "e")
    content = read_sealed(path)
    del content["jobs"][0]["outcome"]["train"]
    write_json(path, content)
    with pytest.raises(CramError, match=r"glue.json: damaged or edited, .*own sha256 says. Move it away, or choose"):
        ResultsFile(path, SETTINGS)
    write_sealed(path, content)
    with pytest.raises(CramError, match=r"or one of another version\. Move it away, or choose another to="):
        ResultsFile(path, SETTINGS)
    write_sealed(path, {"mine": 1})
    with pytest.raises(CramError, match="not a file of GLUE results"):
        ResultsFile(path, SETTINGS)
    path.write_text('{"jobs": [')
    with pytest.raises(CramError, match="not a readable JSON file"):
        ResultsFile(path, SETTINGS)


def test_the_median_seed() -> None:
    outcomes = {seed: outcome(value) for seed, value in enumerate([50.0, 70.0, 61.0, 0.0, 65.0])}
    assert median_seed(outcomes, outcomes) == 2
    assert median_seed(outcomes, [0, 1, 3]) == 1
    two = {seed: outcomes[seed] for seed in (0, 1)}
    assert median_seed(two, two) == 0
    outcomes[1] = outcome(None)  # type: ignore[arg-type]  # a NaN counts as 0
    assert median_seed(outcomes, outcomes) == 0
