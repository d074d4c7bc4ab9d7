"""Metrics against scikit-learn and scipy on any predictions, and the published means."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from sklearn import metrics

from cram.glue.metrics import counted, majority_outputs, mean_of_nine, score
from cram.glue.tasks import NINE, PUBLISHED, TASKS

CLASSIFIED = [task for task in TASKS.values() if not task.regression]
SKLEARN: dict[str, Any] = {
    "accuracy": metrics.accuracy_score,
    "f1": lambda labels, said: metrics.f1_score(labels, said, zero_division=0.0),
    "matthews": metrics.matthews_corrcoef,
}


def one_hot(classes: list[int], outputs: int) -> np.ndarray:
    return np.eye(outputs)[np.array(classes)]


@pytest.mark.filterwarnings("ignore:A single label")
@given(st.sampled_from(CLASSIFIED), st.integers(1, 40), st.booleans(), st.booleans(), st.randoms())
def test_classification_is_scikit_learns(task: Any, rows: int, one_said: bool, one_true: bool, source: Any) -> None:
    said = [0 if one_said else source.randrange(task.outputs) for _ in range(rows)]
    labels = np.array([1 if one_true else source.randrange(task.outputs) for _ in range(rows)])
    found = score(task, one_hot(said, task.outputs), labels)
    assert list(found) == list(task.metrics)
    for name, value in found.items():
        assert value == pytest.approx(100 * SKLEARN[name](labels, said))
        assert math.isfinite(value)


@given(st.lists(st.tuples(st.floats(-9, 9), st.floats(0, 5)), min_size=2, max_size=40))
def test_correlations_are_scipys(pairs: list[tuple[float, float]]) -> None:
    said, labels = np.array(pairs).T
    found = score(TASKS["stsb"], said[:, None], labels)
    if np.ptp(said) < 1e-3 or np.ptp(labels) < 1e-3:
        return  # too near to a constant for two ways of rounding
    assert found["pearson"] == pytest.approx(100 * np.corrcoef(said, labels)[0, 1], abs=1e-6)
    ranks = [stats.rankdata(values) for values in (said, labels)]
    assert found["spearman"] == pytest.approx(100 * np.corrcoef(*ranks)[0, 1], abs=1e-6)


@pytest.mark.filterwarnings("error")
def test_degenerate_predictions() -> None:
    stsb, cola, mrpc = TASKS["stsb"], TASKS["cola"], TASKS["mrpc"]
    constant = score(stsb, np.full((4, 1), 2.0), np.array([0.0, 1.0, 2.0, 5.0]))
    assert all(math.isnan(value) for value in constant.values())
    assert all(math.isnan(value) for value in score(stsb, np.ones((1, 1)), np.ones(1)).values())
    assert score(cola, one_hot([1, 1, 1], 2), np.array([0, 1, 1])) == {"matthews": 0.0}
    assert score(mrpc, one_hot([0, 0], 2), np.array([0, 0])) == {"f1": 0.0, "accuracy": 100.0}
    broken = np.array([[0.0, 1.0], [math.nan, 0.0]])
    assert all(math.isnan(value) for value in score(mrpc, broken, np.array([1, 0])).values())


@pytest.mark.parametrize(("row", "mean"), [("crammed", 78.60), ("crammed v2, best of 5", 80.72)])
def test_means_of_the_published_rows(row: str, mean: float) -> None:
    assert mean_of_nine(PUBLISHED[row]) == pytest.approx(mean, abs=0.005)
    assert PUBLISHED[row]["mean"] == round(mean, 1)


def test_the_mean_counts_nan_as_zero_and_needs_all_nine() -> None:
    scores: dict[str, float | None] = dict.fromkeys(NINE, 90.0)
    assert mean_of_nine(scores | {"wnli": 3.0}) == pytest.approx(90.0)
    assert mean_of_nine(scores | {"stsb": math.nan}) == pytest.approx(80.0)
    assert mean_of_nine(scores | {"stsb": None}) == pytest.approx(80.0)
    del scores["mnli-mm"]
    assert mean_of_nine(scores) is None
    assert counted(math.nan) == 0.0


def test_the_majority_class() -> None:
    outputs = majority_outputs(TASKS["mnli"], np.array([2, 1, 2, 0]), 3)
    assert outputs.argmax(-1).tolist() == [2, 2, 2]
    assert majority_outputs(TASKS["stsb"], np.array([1.0, 2.0]), 2).tolist() == [[1.5], [1.5]]
