"""Predictions as the files of GLUE write them, and submission.zip for gluebenchmark.com.

The archive has eleven files of `index<TAB>prediction`, and none may be missing. A file whose task was not run predicts
the most frequent class of the published training set.
"""

import io
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from cram.files.atomic import write_atomic
from cram.glue.metrics import Outputs
from cram.glue.splits import HIGHEST_SCORE
from cram.glue.tasks import DIAGNOSTIC, TASKS, Subset, Task

DATE = (1980, 1, 1, 0, 0, 0)  # of every entry, so that equal predictions give equal bytes


def prediction_texts(task: Task, outputs: Outputs) -> list[str]:
    """Predictions as the files write labels: a class, or a score from 0 to 5 with three decimals.

    Args:
        outputs: (examples, task.outputs).
    """
    if task.regression:
        return [f"{score:.3f}" for score in np.clip(np.nan_to_num(outputs[:, 0]), 0.0, HIGHEST_SCORE)]
    return [task.label_texts[index] for index in outputs.argmax(-1)]


def majority_texts(task: Task, subset: Subset) -> list[str]:
    """The most frequent class of the published training set, or its mean score, once for each published test row."""
    text = f"{task.majority:.3f}" if task.regression else task.label_texts[int(task.majority)]
    return [text] * subset.test_rows


def submission_subsets() -> list[tuple[Task, Subset]]:
    """The subsets of the eleven files, each with the task whose labels it holds."""
    pairs = [(task, subset) for task in TASKS.values() for subset in task.subsets]
    return [*pairs, (TASKS["mnli"], DIAGNOSTIC)]


def describe_wrong_counts(predictions: Mapping[str, list[str]]) -> list[str]:
    """Describe each subset that has fewer or more predictions than published test rows."""
    return [
        f"{subset.submission} has {len(predictions[subset.name]):,} rows, {subset.test_rows:,} are asked for"
        for _, subset in submission_subsets()
        if subset.name in predictions and len(predictions[subset.name]) != subset.test_rows
    ]


def format_predictions(predictions: list[str]) -> str:
    """The content of a file of predictions: a header, then a line with row number and prediction for each."""
    return "".join(f"{index}\t{text}\n" for index, text in [("index", "prediction"), *enumerate(predictions)])


def parse_predictions(content: str) -> list[str]:
    """The inverse of `format_predictions`."""
    return [line.partition("\t")[2] for line in content.splitlines()[1:]]


def write_submission(path: Path, predictions: Mapping[str, list[str]]) -> list[str]:
    """Write submission.zip.

    Args:
        predictions: by name of the subset, as the files write labels; absent where nothing was predicted.

    Returns:
        Names of the subsets that got the most frequent class.
    """
    archive_bytes, filled = io.BytesIO(), []
    with zipfile.ZipFile(archive_bytes, "w", zipfile.ZIP_DEFLATED) as archive:
        for task, subset in submission_subsets():
            if subset.name not in predictions:
                filled.append(subset.name)
            texts = predictions.get(subset.name) or majority_texts(task, subset)
            entry = zipfile.ZipInfo(f"{subset.submission}.tsv", DATE)
            archive.writestr(entry, format_predictions(texts), zipfile.ZIP_DEFLATED)
    write_atomic(path, archive_bytes.getvalue())
    return filled
