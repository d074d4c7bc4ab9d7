"""A run by several ranks is the run of one rank, up to the order of sums, and goes on with any number of ranks."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from cram.files.atomic import read_json
from cram.machine.processes import start_child
from cram.run.metrics import read_metrics
from tests.cram.training.ranked_runs import CONFIGURATIONS, STEP_ROWS, STOP, UPDATES

COUNTS = ("step", "positions", "progress", "flops")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, tiny_run: Callable[[Path], list[str]]) -> Path:
    """The folder of all runs: SIZE/NAME, `stopped` and `resumed-SIZE`."""
    folder = tmp_path_factory.mktemp("runs")
    (folder / "words.json").write_text(json.dumps(tiny_run(folder)))
    with (folder / "log").open("w") as log:
        child = start_child([sys.executable, "-m", "tests.cram.training.ranked_runs", str(folder)], log)
        try:
            child.wait()
        finally:
            child.kill()
    assert child.returncode == 0, (folder / "log").read_text()
    return folder


def records(run: Path, kind: str) -> list[dict[str, Any]]:
    return [record for record in read_metrics(run / "metrics.jsonl") if record["kind"] == kind]


def check_equal(one: Path, other: Path) -> None:
    """Compare two runs update by update, and their ends."""
    for a, b in zip(records(one, "train"), records(other, "train"), strict=True):
        assert {name: a.get(name) for name in COUNTS} == {name: b.get(name) for name in COUNTS}
        assert b["loss"] == pytest.approx(a["loss"], rel=1e-5)
        assert b["gradient_norm"] == pytest.approx(a["gradient_norm"], rel=1e-4)
    evaluations = [[record["nats_per_token"] for record in records(run, "held_out")] for run in (one, other)]
    assert evaluations[0]
    assert evaluations[1] == pytest.approx(evaluations[0], rel=1e-5)
    before, after = load_file(one / "end"), load_file(other / "end")
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        assert float((tensor - after[name]).norm()) <= 1e-4 * float(tensor.norm()), name


@pytest.mark.parametrize(
    ("name", "size"),
    [(name, size) for name, run in CONFIGURATIONS.items() for size in run.sizes if size > 1],
)
def test_several_ranks_do_the_run_of_one(name: str, size: int, runs: Path) -> None:
    check_equal(runs / "1" / name, runs / str(size) / name)


def test_out_of_memory_on_one_rank_halves_the_micro_batch_of_all(runs: Path) -> None:
    run = runs / "2" / "short_of_memory"
    assert read_json(run / "state.json") == {"out_of_memory": 1, "micro": STEP_ROWS // 4}
    check_equal(runs / "1" / "short_of_memory", run)


@pytest.mark.parametrize("size", [1, 3])
def test_a_run_goes_on_with_another_number_of_ranks(size: int, runs: Path) -> None:
    run = runs / f"resumed-{size}"
    assert [record["step"] for record in records(run, "resume")] == [STOP]
    assert read_json(run / "state.json")["micro"] == STEP_ROWS // size
    assert len(records(run, "train")) == UPDATES
    check_equal(runs / "1" / "encoder_muon", run)
