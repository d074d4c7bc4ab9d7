"""Departures from the published protocol, and Cramming's rules."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest

from cram.config.commands import GlueConfig
from cram.glue.finetune import PROTOCOLS, Hyperparameters
from cram.glue.pretrained import open_pretrained
from cram.glue.protocol import check_rules, compare_with_protocol
from cram.glue.results import collect_scores
from cram.glue.results_file import Job, ResultsFile
from cram.glue.tasks import find_tasks

EIGHT = find_tasks([])
NewFile = Callable[..., ResultsFile]


def test_departures_from_the_protocol(checkpoint: Path, filled_file: NewFile, tmp_path: Path) -> None:
    pretrained = open_pretrained(str(checkpoint), 128, "first")
    figures = collect_scores(filled_file(tmp_path), EIGHT, 4e-5)
    config = GlueConfig(limit=100, pooling="mean", dropout=0.0)
    report = compare_with_protocol(
        config, Hyperparameters(4e-5, 8, 3, "muon", 0.9), pretrained, figures, ["a file is short"]
    )
    assert report.departures == [
        "limit=100",
        "batch=8",
        "epochs=3",
        "optimizer=muon",
        "layer_decay=0.9",
        "length=32",
        "dropout=0.0",
        "pooling=mean",
        "seeds=3",
        "a file is short",
    ]
    assert "head of the stock class" in report.differences[0]
    assert "a single sentence is fed alone" in report.differences[3]
    for subset in figures.values():
        subset["seeds"] = dict.fromkeys(range(5), 1.0)
    as_published = replace(pretrained, longest=128)

    def departures(name: Literal["cramming", "bert"], *rates: float) -> list[str]:
        config = GlueConfig(pooling="first", protocol=name, learning_rate=list(rates))
        return compare_with_protocol(config, PROTOCOLS[name], as_published, figures, []).departures

    assert departures("cramming") == departures("cramming", 4e-5, 4e-5) == departures("bert", 2e-5) == []
    assert departures("cramming", 1e-3) == ["learning_rate=1e-3"]
    assert departures("cramming", 3e-5, 4e-5) == ["learning_rate=3e-5, 4e-5, the best on the dev sets"]
    assert departures("bert", 4.25e-5) == ["learning_rate=4.25e-5"]


def test_rules_are_computed_from_the_jobs(filled_file: NewFile, tmp_path: Path) -> None:
    lines = check_rules(filled_file(tmp_path), 4e-5)
    assert [line["passed"] for line in lines] == [True, True, True]
    assert lines[0]["found"].startswith("24 fine-tunings, 8 training sets for 8 tasks, from weights wwww")


@pytest.mark.parametrize(
    ("seeds", "changed", "passed", "found"),
    [
        ([0], {"train": "more rows of rte"}, [False, True, True], "or another task's, for rte"),
        ([0, 1, 2], {"train": "rows of mnli"}, [False, True, True], "or another task's, for mnli, rte"),
        ([0], {"began_with": "another"}, [False, True, True], "from weights another, weights wwww"),
        ([0, 1, 2], {"epochs": 6}, [True, False, False], "6 epochs"),
        (
            [0],
            {"batch": 32},
            [True, True, False],
            "learning rate 4e-5, batch 16, 5 epochs; learning rate 4e-5, batch 32",
        ),
        ([0, 1, 2], {"learning_rate": 3e-5}, [True, True, False], "learning rate 3e-5, batch 16, 5 epochs; learning"),
        ([0], {"epochs": 4}, [True, True, False], "batch 16, 4 epochs; learning rate 4e-5, batch 16, 5 epochs"),
    ],
)
def test_each_rule_can_be_broken(
    filled_file: NewFile, tmp_path: Path, seeds: list[int], changed: dict[str, Any], passed: list[bool], found: str
) -> None:
    file = filled_file(tmp_path)
    for seed in seeds:
        file.outcomes[Job("rte", 4e-5, seed)] |= changed
    lines = check_rules(file, 4e-5)
    assert [line["passed"] for line in lines] == passed
    assert found in next(line["found"] for line in lines if not line["passed"])
