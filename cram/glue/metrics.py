"""The metrics of GLUE, in percent, by scikit-learn and scipy, and the mean of the nine scores."""

import math
import statistics
import warnings
from collections.abc import Mapping

import numpy as np

from cram.glue.tasks import NINE, Task


def score(task: Task, outputs: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """The metrics of a task, the published one first, in percent.

    Outputs that are not finite, and correlations with a constant, give NaN; a Matthews coefficient or an F1 that is
    0 / 0 is 0, as the published harnesses have it.

    Args:
        outputs: float (rows, classes), or (rows, 1) for a regression.
        labels: int64 (rows,) class numbers, or float (rows,) scores.
    """
    if not np.isfinite(outputs).all():
        return dict.fromkeys(task.metrics, math.nan)
    said = outputs[:, 0] if task.regression else outputs.argmax(-1)
    return {name: 100.0 * _metric(name, said, labels) for name in task.metrics}


def _metric(name: str, said: np.ndarray, labels: np.ndarray) -> float:
    from scipy import stats
    from sklearn import metrics

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of constant input and a single class: the value says it
        if name == "accuracy":
            return float(metrics.accuracy_score(labels, said))
        if name == "f1":
            return float(metrics.f1_score(labels, said, zero_division=0.0))
        if name == "matthews":
            return float(metrics.matthews_corrcoef(labels, said))
        if len(labels) < 2:
            return math.nan
        correlation = {"pearson": stats.pearsonr, "spearman": stats.spearmanr}[name]
        return float(correlation(np.asarray(said, np.float64), np.asarray(labels, np.float64)).statistic)


def majority_outputs(task: Task, labels: np.ndarray, rows: int) -> np.ndarray:
    """Outputs (rows, task.outputs) of who always says the most frequent label of training, or their mean score."""
    if task.regression:
        return np.full((rows, 1), labels.mean())
    counts = np.bincount(labels, minlength=task.outputs)
    return np.tile((counts == counts.max()).astype(np.float64), (rows, 1))


def counted(value: float | None) -> float:
    """A score as it counts: NaN, or one that is missing for that reason, as 0."""
    return 0.0 if value is None or math.isnan(value) else value


def mean_of_nine(scores: Mapping[str, float | None]) -> float | None:
    """The mean of the nine published scores, MNLI's two each counting once; None unless all nine are there.

    A score of NaN counts as 0. Source: arXiv:2212.14034; changed: there a NaN is left out of the mean.
    """
    if not all(name in scores for name in NINE):
        return None
    return statistics.fmean(counted(scores[name]) for name in NINE)
