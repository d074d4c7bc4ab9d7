"""GLUE from a data set on the Hugging Face Hub, or from a local folder in the Hub's form."""

from typing import Any

import numpy as np

from cram.errors import CramError
from cram.glue.splits import HIGHEST_SCORE, CountCheck, Split, TaskData, label_array
from cram.glue.tasks import DIAGNOSTIC, Task


def read_hub(data: str, task: Task, check: CountCheck) -> TaskData:
    """Read the examples of a task.

    Args:
        data: `hf:NAME`.

    Raises:
        CramError: for a data set that cannot be loaded, a missing split or column, or a label out of range; for a
            count that `check` refuses.
    """
    task_splits = _load(data, task.name)

    def read(name: str, published: int, labelled: bool = True, splits: Any = task_splits) -> Split:
        split = _convert(data, task, splits, name, labelled)
        return check(f"{data}, {task.name}, {name}", split, published)

    train = read("train", task.train_rows)
    dev = {subset.name: read(subset.hub_dev, subset.dev_rows) for subset in task.subsets}
    tested = [subset for subset in task.subsets if subset.hub_test in task_splits]
    test = {subset.name: read(subset.hub_test, subset.test_rows, labelled=False) for subset in tested}
    if task.name == "mnli":
        diagnostic = _load(data, DIAGNOSTIC.name)
        test[DIAGNOSTIC.name] = read("test", DIAGNOSTIC.test_rows, labelled=False, splits=diagnostic)
    return TaskData(task, train, dev, test, check.remarks)


def _load(data: str, name: str) -> Any:
    import datasets

    try:
        return datasets.load_dataset(data.removeprefix("hf:"), name)
    except Exception as error:  # every loader raises the exceptions of the library below it
        line = " ".join(str(error).split())[:200]
        raise CramError(f"data={data}: {name} cannot be loaded ({type(error).__name__}: {line}).") from error


def _convert(data: str, task: Task, splits: Any, name: str, labelled: bool) -> Split:
    where = f"data={data}: {task.name}"
    if name not in splits:
        raise CramError(f"{where} has no split {name}; found {', '.join(splits)}.")
    table = splits[name]
    for column in (*task.hub_columns, *(("label",) if labelled else ())):
        if column not in table.column_names:
            raise CramError(f"{where}, {name} has no column '{column}'; found {', '.join(table.column_names)}.")
    texts = list(zip(*(table[column][:] for column in task.hub_columns), strict=True))
    if not labelled:
        return Split(texts, None)
    labels = label_array(task, table["label"][:])
    highest = HIGHEST_SCORE if task.regression else task.outputs - 1
    outside = np.flatnonzero(~((labels >= 0) & (labels <= highest)))  # NaN is outside as well
    if len(outside):
        row = int(outside[0])
        raise CramError(f"{where}, {name}, row {row}: label {labels[row]:g} is not from 0 to {highest:g}.")
    return Split(texts, labels)
