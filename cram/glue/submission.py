"""submission.zip as gluebenchmark.com takes it: eleven files of `index<TAB>prediction`, none missing.

What was not run gets the most frequent class of the published training rows.
"""

import io
import zipfile
from collections.abc import Mapping
from pathlib import Path

from cram.files.atomic import write_atomic
from cram.glue.data import spell_majority
from cram.glue.tasks import DIAGNOSTIC, TASKS, Part, Task

DATE = (1980, 1, 1, 0, 0, 0)  # of every entry, so that equal predictions give equal bytes


def submission_parts() -> list[tuple[Task, Part]]:
    """The eleven files, with the task whose labels they hold."""
    parts = [(task, part) for task in TASKS.values() for part in task.parts]
    return [*parts, (TASKS["mnli"], DIAGNOSTIC)]


def wrong_counts(predictions: Mapping[str, list[str]]) -> list[str]:
    """For each part whose predictions are not as many as its published test rows: what it has, in words."""
    return [
        f"{part.submission} has {len(predictions[part.name]):,} rows, {part.test_rows:,} are asked for"
        for _, part in submission_parts()
        if part.name in predictions and len(predictions[part.name]) != part.test_rows
    ]


def as_table(predictions: list[str]) -> str:
    """Predictions as the text of a file: a header, then row number and prediction."""
    return "".join(f"{index}\t{said}\n" for index, said in [("index", "prediction"), *enumerate(predictions)])


def from_table(text: str) -> list[str]:
    """The predictions of such a text."""
    return [line.partition("\t")[2] for line in text.splitlines()[1:]]


def write_submission(path: Path, predictions: Mapping[str, list[str]]) -> list[str]:
    """Write submission.zip and return the names of the parts that have the majority class.

    Args:
        predictions: by name of the part, as the files spell labels; absent where nothing was predicted.
    """
    packed, filled = io.BytesIO(), []
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for task, part in submission_parts():
            if part.name not in predictions:
                filled.append(part.name)
            said = predictions.get(part.name) or spell_majority(task, part)
            archive.writestr(zipfile.ZipInfo(f"{part.submission}.tsv", DATE), as_table(said), zipfile.ZIP_DEFLATED)
    write_atomic(path, packed.getvalue())
    return filled
