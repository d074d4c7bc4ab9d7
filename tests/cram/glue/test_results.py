"""Medians, the mean of nine, and the choice of a learning rate."""

import statistics
from collections.abc import Callable
from pathlib import Path

import pytest

from cram.glue.results import best_learning_rate, collect_scores, mean_of_each_seed, mean_of_medians
from cram.glue.results_file import Job, ResultsFile
from cram.glue.tasks import NINE, find_tasks

EIGHT = find_tasks([])
NewFile = Callable[..., ResultsFile]


def test_medians_and_the_mean_of_nine(
    filled_file: NewFile, score_of: Callable[[str, str, int, float], float], tmp_path: Path
) -> None:
    figures = collect_scores(filled_file(tmp_path), EIGHT, 4e-5)
    assert set(figures) == set(NINE)
    rte = figures["rte"]
    base = score_of("rte", "accuracy", 0, 4e-5)
    assert (rte["median"], rte["least"], rte["largest"]) == (base, base - 2, base + 5)
    assert rte["mean"] == pytest.approx(base + 1)
    assert figures["mrpc"]["metric"] == "f1"
    assert figures["mrpc"]["beside"] == {"accuracy": figures["mrpc"]["median"] + 0.5}
    assert mean_of_medians(figures) == pytest.approx(statistics.fmean(each["median"] for each in figures.values()))
    by_seed = mean_of_each_seed(figures)
    assert by_seed[1] - by_seed[0] == pytest.approx(5.0)
    assert mean_of_medians({name: each for name, each in figures.items() if name != "cola"}) is None


def test_a_nan_of_a_seed_counts_as_zero(filled_file: NewFile, tmp_path: Path) -> None:
    file = filled_file(tmp_path)
    for seed in (0, 1):
        file.outcomes[Job("stsb", 4e-5, seed)]["scores"]["stsb"]["pearson"] = None
    stsb = collect_scores(file, EIGHT, 4e-5)["stsb"]
    assert (stsb["median"], stsb["not_finite"]) == (0.0, 2)


def test_the_best_rate_is_one_for_all_tasks_over_the_scores_that_all_rates_have(
    filled_file: NewFile, tmp_path: Path
) -> None:
    file = filled_file(tmp_path, (1e-5, 3e-5))
    assert best_learning_rate(file, EIGHT, [1e-5, 3e-5]) == 3e-5
    for seed in range(3):
        del file.outcomes[Job("mnli", 3e-5, seed)]
        file.outcomes[Job("mnli", 1e-5, seed)]["scores"]["mnli-m"]["accuracy"] = 100.0
    assert best_learning_rate(file, EIGHT, [1e-5, 3e-5]) == 3e-5
