"""The metrics of GLUE in percent, by scikit-learn and scipy, and the mean of the nine scores."""

import math
import statistics
import warnings
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from cram.glue.splits import Labels
from cram.glue.tasks import NINE, Task

Outputs = npt.NDArray[np.float32] | npt.NDArray[np.float64]


def compute_metrics(task: Task, outputs: Outputs, labels: Labels) -> dict[str, float]:
    """Compute the metrics of a task in percent, the published one first.

    A metric is NaN where an output is not finite, and a correlation is NaN where one side is constant. A Matthews
    coefficient or an F1 of 0 / 0 is 0, as in the published evaluation code.

    Args:
        outputs: (examples, classes), or (examples, 1) for a regression.
        labels: (examples,) int64 class numbers, or float64 scores.
    """
    if not np.isfinite(outputs).all():
        return dict.fromkeys(task.metrics, math.nan)
    predictions = outputs[:, 0] if task.regression else outputs.argmax(-1)
    return {name: 100.0 * _metric(name, predictions, labels) for name in task.metrics}


def _metric(name: str, predictions: npt.NDArray[np.generic], labels: Labels) -> float:
    from scipy import stats
    from sklearn import metrics

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about constant input or a single class: the value shows it
        if name == "accuracy":
            return float(metrics.accuracy_score(labels, predictions))
        if name == "f1":
            return float(metrics.f1_score(labels, predictions, zero_division=0.0))
        if name == "matthews":
            return float(metrics.matthews_corrcoef(labels, predictions))
        if len(labels) < 2:
            return math.nan
        correlation = {"pearson": stats.pearsonr, "spearman": stats.spearmanr}[name]
        return float(correlation(np.asarray(predictions, np.float64), np.asarray(labels, np.float64)).statistic)


def majority_outputs(task: Task, labels: Labels, examples: int) -> npt.NDArray[np.float64]:
    """Outputs of a baseline that always predicts the most frequent training label, or the mean training score.

    Args:
        labels: of the training set.
        examples: for how many examples.

    Returns:
        (examples, task.outputs).
    """
    if task.regression:
        return np.full((examples, 1), labels.mean())
    counts = np.bincount(labels, minlength=task.outputs)
    return np.tile((counts == counts.max()).astype(np.float64), (examples, 1))


def nan_to_zero(score: float | None) -> float:
    """A score as it counts in means and medians: NaN as 0, and None as well, which is how JSON holds a NaN."""
    return 0.0 if score is None or math.isnan(score) else score


def mean_of_nine(scores: Mapping[str, float | None]) -> float | None:
    """The mean of the nine published scores, in which each of MNLI's two counts once; NaN counts as 0.

    Returns:
        None unless all nine are there.

    Source: arXiv:2212.14034; changed: there a NaN is left out of the mean.
    """
    if not all(name in scores for name in NINE):
        return None
    return statistics.fmean(nan_to_zero(scores[name]) for name in NINE)
