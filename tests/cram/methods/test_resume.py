"""Runs with each method and optimizer that are stopped and resumed: the same bytes as without a stop."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cram.config.recipe import keep_last_words, read_config
from cram.fitting import Outcome, fit_config
from cram.training import start

STACKING = ["model.layers=4", "stacking.layers=1", "stacking.at=[0.3,0.6]"]
DROPPING = ["dropping.theta=0.5", "dropping.gamma=5"]
REFERENCE = ["rho.keep=0.5", "rho.reference_share=0.4"]
PRUNING = ["pruning.keep=0.5", "pruning.reference_share=0.3", "pruning.scoring_share=0.2"]
PHASES = ["model.kind=encoder", "objective.superposition=4", "objective.superposition_share=0.3"]
PHASES += ["objective.causal_share=0.5", "objective.short_rows=8", "objective.short_share=0.6"]
DIFFICULTY = ["objective.difficulty=1", "objective.difficulty_updates=1", "objective.mask_rate_spread=0.3"]
# The words of each run, and the numbers of the looks at the wish to stop at which it is stopped. There is a look behind
# each piece of work before the first update, and behind each update.
RUNS = {
    "stacking": (STACKING, [3, 4]),
    "stacking with the state kept": ([*STACKING, "stacking.keep_state=true"], [7]),
    "dropping": (DROPPING, [5]),
    "curriculum": (["curriculum.competence=sqrt", "curriculum.start=0.1"], [5]),
    "selective": (["selective.beta=1", "selective.history=40"], [5]),
    "rho": (REFERENCE, [2, 8]),
    "rho with two epochs": ([*REFERENCE, "data.epochs=2", "budget=60steps"], [40]),
    "pruning": (PRUNING, [2, 7]),
    "averaging": (["averaging.start=0.4"], [8]),
    "all that go together": ([*STACKING, *DROPPING, "averaging.start=0.7", "selective.beta=1"], [5, 3]),
    "adam": (["optimizer.kind=adam", "optimizer.decay_others=true"], [5]),
    "lion": (["optimizer.kind=lion"], [5]),
    "sophia": (["optimizer.kind=sophia", "optimizer.sophia.interval=3"], [5]),
    "electra": (["model.kind=electra", "objective.kind=replaced", "model.heads=1"], [5]),
    "phases of bags, short rows, and pieces by difficulty": ([*PHASES, *DIFFICULTY], [2, 8]),
    "bert with dropout": (["model.kind=bert", "model.dropout=0.1"], [5]),
}


class StopAt:
    """Stands for the signals of a process: a wish to stop at one of the looks."""

    def __init__(self, look: int | None) -> None:
        self.look, self.looks = look, 0

    def __enter__(self) -> "StopAt":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    @property
    def asked(self) -> bool:
        self.looks += 1
        return self.looks == self.look


@pytest.fixture(scope="module")
def train(
    tiny_run: Callable[[Path], list[str]], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[list[str], Path, list[int]], Outcome]:
    """Trains by words, stopped and resumed at some looks."""
    shards = tmp_path_factory.mktemp("shards")

    def fit(words: list[str], run: Path, stops: list[int]) -> Outcome:
        base = [
            *tiny_run(shards),
            f"run={run}",
            "model.size=given",
            "model.kind=crammed",
            "model.width=16",
            "model.mlp_width=16",
            "budget=12steps",
            "evaluation.tokens=256",
            "threads=1",
        ]
        with pytest.MonkeyPatch.context() as patch:
            for stop in [*stops, None]:
                patch.setattr(start, "StopSignals", lambda stop=stop: StopAt(stop))
                patch.setattr("cram.training.finish._export", lambda *_: [])
                outcome = fit_config(read_config(keep_last_words([*base, *words])))
                assert (outcome.receipt is None) == (stop is not None), "it was to be stopped here"
        return outcome

    return fit


@pytest.mark.parametrize("name", RUNS)
def test_a_run_that_is_stopped_ends_with_the_same_bytes(
    name: str, train: Callable[[list[str], Path, list[int]], Outcome], tmp_path: Path
) -> None:
    words, stops = RUNS[name]
    straight, resumed = train(words, tmp_path / "a", []), train(words, tmp_path / "b", stops)
    assert (straight.folder / "model.safetensors").read_bytes() == (resumed.folder / "model.safetensors").read_bytes()
    first, second = straight.receipt, resumed.receipt
    assert first and second
    for figure in ("positions", "rows_read", "repeated_rows", "executed", "method_figures", "predicted_tokens"):
        assert first[figure] == second[figure], figure
    rules: dict[str, Any] = {line["rule"]: line["passed"] for line in second["rules"]}
    assert rules["budget kept within half an update, and used"]
    assert rules["no pretrained weights"]


def test_reference_time_gives_the_same_bytes_after_a_stop(
    train: Callable[[list[str], Path, list[int]], Outcome], tmp_path: Path
) -> None:
    seconds = {
        "training": {"1": 0.1, "2": 0.2, "3": 0.3, "4": 0.4},
        "forward": {"1": 0.05, "2": 0.07, "4": 0.1},
        "optimizer": {f"adamw/{blocks}": 0.01 for blocks in (1, 2, 4)},
    }
    table = {"machine": "made up", "model": {"width": 16}, "seq_len": 32, "micro_rows": 4, "seconds": seconds}
    (tmp_path / "table.json").write_text(json.dumps(table))
    words = ["budget=rst:9s", f"rst.table={tmp_path / 'table.json'}", "optimizer.kind=adamw", "batch.micro_rows=null"]
    words += [*STACKING, *DROPPING, "selective.beta=1"]
    straight, resumed = train(words, tmp_path / "a", []), train(words, tmp_path / "b", [4, 6])
    assert (straight.folder / "model.safetensors").read_bytes() == (resumed.folder / "model.safetensors").read_bytes()
    assert straight.receipt and resumed.receipt
    assert straight.receipt["budget"] == resumed.receipt["budget"]
