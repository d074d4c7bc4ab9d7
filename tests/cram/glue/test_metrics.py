"""Metrics against scikit-learn and scipy on any predictions, and the published means."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from sklearn import metrics

from cram.glue.metrics import compute_metrics, majority_outputs, mean_of_nine, nan_to_zero
from cram.glue.tasks import NINE, PUBLISHED, TASKS

CLASSIFIED = [task for task in TASKS.values() if not task.regression]
SKLEARN: dict[str, Any] = {
    "accuracy": metrics.accuracy_score,
    "f1": lambda labels, predictions: metrics.f1_score(labels, predictions, zero_division=0.0),
    "matthews": metrics.matthews_corrcoef,
}


def one_hot(classes: list[int], outputs: int) -> np.ndarray:
    return np.eye(outputs)[np.array(classes)]


@pytest.mark.filterwarnings("ignore:A single label")
@given(st.sampled_from(CLASSIFIED), st.integers(1, 40), st.booleans(), st.booleans(), st.randoms())
def test_classification_metrics_are_those_of_scikit_learn(
    task: Any, rows: int, one_prediction: bool, one_label: bool, source: Any
) -> None:
    predictions = [0 if one_prediction else source.randrange(task.outputs) for _ in range(rows)]
    labels = np.array([1 if one_label else source.randrange(task.outputs) for _ in range(rows)])
    values = compute_metrics(task, one_hot(predictions, task.outputs), labels)
    assert list(values) == list(task.metrics)
    for name, value in values.items():
        assert value == pytest.approx(100 * SKLEARN[name](labels, predictions))
        assert math.isfinite(value)


@given(st.lists(st.tuples(st.floats(-9, 9), st.floats(0, 5)), min_size=2, max_size=40))
def test_correlations_are_those_of_scipy(pairs: list[tuple[float, float]]) -> None:
    predictions, labels = np.array(pairs).T
    values = compute_metrics(TASKS["stsb"], predictions[:, None], labels)
    if np.ptp(predictions) < 1e-3 or np.ptp(labels) < 1e-3:
        return  # so near to a constant that both differ by rounding
    assert values["pearson"] == pytest.approx(100 * np.corrcoef(predictions, labels)[0, 1], abs=1e-6)
    ranks = [stats.rankdata(values) for values in (predictions, labels)]
    assert values["spearman"] == pytest.approx(100 * np.corrcoef(*ranks)[0, 1], abs=1e-6)


@pytest.mark.filterwarnings("error")
def test_degenerate_predictions() -> None:
    stsb, cola, mrpc = TASKS["stsb"], TASKS["cola"], TASKS["mrpc"]
    constant = compute_metrics(stsb, np.full((4, 1), 2.0), np.array([0.0, 1.0, 2.0, 5.0]))
    assert all(math.isnan(value) for value in constant.values())
    assert all(math.isnan(value) for value in compute_metrics(stsb, np.ones((1, 1)), np.ones(1)).values())
    assert compute_metrics(cola, one_hot([1, 1, 1], 2), np.array([0, 1, 1])) == {"matthews": 0.0}
    assert compute_metrics(mrpc, one_hot([0, 0], 2), np.array([0, 0])) == {"f1": 0.0, "accuracy": 100.0}
    broken = np.array([[0.0, 1.0], [math.nan, 0.0]])
    assert all(math.isnan(value) for value in compute_metrics(mrpc, broken, np.array([1, 0])).values())


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
    assert nan_to_zero(math.nan) == 0.0


def test_the_majority_class() -> None:
    outputs = majority_outputs(TASKS["mnli"], np.array([2, 1, 2, 0]), 3)
    assert outputs.argmax(-1).tolist() == [2, 2, 2]
    assert majority_outputs(TASKS["stsb"], np.array([1.0, 2.0]), 2).tolist() == [[1.5], [1.5]]
