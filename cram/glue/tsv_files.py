"""GLUE from a folder in the standard layout: `CoLA/train.tsv`, `CoLA/dev.tsv`, ...

The files are tab separated and unquoted, so quotation marks are text, also those that are never closed. Further quirks:

- the training and dev files of CoLA have no header;
- the files of MRPC begin with a byte-order mark, and their lines end with CR LF;
- the training and dev files of QQP hold some rows that are broken over two lines. They are left out: the published
  counts are without them.
"""

import math
from pathlib import Path

from cram.data.text.paths import open_file
from cram.errors import CramError
from cram.glue.splits import HIGHEST_SCORE, CountCheck, Split, TaskData, label_array
from cram.glue.tasks import DIAGNOSTIC, TASKS, Task

DIAGNOSTIC_FILES = ("diagnostic/diagnostic.tsv", "AX/AX.tsv")


def read_folder(folder: Path, task: Task, check: CountCheck) -> TaskData:
    """Read the examples of a task.

    Raises:
        CramError: for a missing folder or file, a wrong header, a short row, or a label outside the set, naming file
            and line; for a count that `check` refuses.
    """
    check_data_folder(folder)
    if lacking := describe_lacking(folder, task):
        raise CramError(f"data={folder}: {lacking}; fine-tuning needs a training and a dev set.")

    def read(name: str, published: int, labelled: bool = True) -> Split:
        path = _task_file(folder, task, name)
        return check(str(path), parse_file(path, task, labelled), published)

    train = read("train", task.train_rows)
    dev = {subset.name: read(subset.dev, subset.dev_rows) for subset in task.subsets}
    tested = [subset for subset in task.subsets if _task_file(folder, task, subset.test).is_file()]
    test = {subset.name: read(subset.test, subset.test_rows, labelled=False) for subset in tested}
    if task.name == "mnli":
        for path in (folder / name for name in DIAGNOSTIC_FILES):
            if path.is_file():
                split = parse_file(path, task, labelled=False)
                test[DIAGNOSTIC.name] = check(str(path), split, DIAGNOSTIC.test_rows)
                break
    return TaskData(task, train, dev, test, check.remarks)


def check_data_folder(folder: Path) -> None:
    """Check that the folder exists.

    Raises:
        CramError: saying which layout is expected.
    """
    if not folder.is_dir():
        raise CramError(
            f"data={folder}: there is no such folder. Give one in GLUE's layout, with folders "
            f"{', '.join(task.folder for task in TASKS.values())}, or hf:nyu-mll/glue."
        )


def describe_lacking(folder: Path, task: Task) -> str:
    """What the folder lacks for fine-tuning on a task, in words; empty if it lacks nothing."""
    if not (folder / task.folder).is_dir():
        return f"{task.name} has no folder {task.folder}"
    names = ("train", *(subset.dev for subset in task.subsets))
    missing = [name for name in names if not _task_file(folder, task, name).is_file()]
    if not missing:
        return ""
    present = ", ".join(sorted(path.name for path in (folder / task.folder).glob("*.tsv"))) or "nothing"
    return f"{task.folder} has no {missing[0]}.tsv (there: {present})"


def _task_file(folder: Path, task: Task, name: str) -> Path:
    return folder / task.folder / f"{name}.tsv"


def parse_file(path: Path, task: Task, labelled: bool) -> Split:
    """Parse one file of a task.

    Args:
        labelled: whether the file has labels; those of test files are not read.

    Raises:
        CramError: naming file and line.
    """
    lines = _read_lines(path)
    without_header = task.name == "cola" and labelled
    # Columns of CoLA: source, label, the author's mark, sentence.
    header = ["", task.label_column, "", *task.columns] if without_header else lines[0].split("\t")
    needed = (*task.columns, *((task.label_column,) if labelled else ()))
    for column in needed:
        if column not in header:
            raise CramError(f"{path}, line 1: no column '{column}' in the header; found {', '.join(header)[:120]}.")
    places = [header.index(column) for column in needed]
    texts: list[tuple[str, ...]] = []
    labels: list[float] = []
    first = 0 if without_header else 1
    for number, line in enumerate(lines[first:], first + 1):
        fields = line.split("\t")
        broken = len(fields) != len(header)
        if line == "" or (broken and task.name == "qqp" and labelled):
            continue
        if broken:
            raise CramError(f"{path}, line {number}: {len(fields)} fields, {len(header)} are expected.")
        texts.append(tuple(fields[place] for place in places[: len(task.columns)]))
        if labelled:
            labels.append(_parse_label(task, fields[places[-1]], f"{path}, line {number}"))
    return Split(texts, label_array(task, labels) if labelled else None)


def _read_lines(path: Path) -> list[str]:
    try:
        with open_file(path) as file:
            lines = file.read().decode("utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise CramError(f"{path}: cannot be read as UTF-8 text ({error}).") from None
    return [line.removesuffix("\r") for line in lines]


def _parse_label(task: Task, text: str, where: str) -> float:
    if not task.regression:
        if text not in task.label_texts:
            raise CramError(f"{where}: label '{text[:40]}' is not one of {', '.join(task.label_texts)}.")
        return task.label_texts.index(text)
    try:
        score = float(text)
    except ValueError:
        score = math.nan
    if not 0.0 <= score <= HIGHEST_SCORE:
        raise CramError(f"{where}: score '{text[:40]}' is not a number from 0 to 5.")
    return score
