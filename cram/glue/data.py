"""The rows of GLUE, from a folder in the standard layout or from the Hugging Face Hub, each parsed exactly.

The files are tab separated and unquoted: quotation marks are text, open ones too. Further quirks: CoLA's train and
dev file have no header, MRPC's begin with a byte-order mark and end their lines with CR LF, and QQP's train and dev
file hold rows that are broken over two lines; these are left out, and the published counts are without them.
"""

import hashlib
import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from cram.data.text.paths import open_file
from cram.errors import CramError
from cram.glue.tasks import DIAGNOSTIC, TASKS, Part, Task

COLA_FIELDS = 4  # source, label, the author's mark, sentence
DIAGNOSTIC_FILES = ("diagnostic/diagnostic.tsv", "AX/AX.tsv")
HIGHEST_SCORE = 5.0  # of STS-B


@dataclass(frozen=True)
class Rows:
    """Some rows of a task.

    texts: each row's one or two sentences. labels: int64 class numbers or float64 scores, None of a test set.
    """

    texts: list[tuple[str, ...]]
    labels: np.ndarray | None

    def __len__(self) -> int:
        return len(self.texts)

    @property
    def known(self) -> np.ndarray:
        """The labels of a training or dev set."""
        assert self.labels is not None
        return self.labels

    @cached_property
    def hash(self) -> str:
        """sha256 of the sentences and labels, in their order."""
        digest = hashlib.sha256()
        for texts in self.texts:
            digest.update("\t".join(texts).encode() + b"\n")
        digest.update(b"" if self.labels is None else self.labels.tobytes())
        return digest.hexdigest()

    def first(self, limit: int) -> "Rows":
        """At most `limit` rows, the first ones of an order that is always the same."""
        picked = np.random.default_rng(0).permutation(len(self))[:limit]
        return Rows([self.texts[index] for index in picked], None if self.labels is None else self.labels[picked])


@dataclass(frozen=True)
class TaskData:
    """A task's rows: its training set, and dev and test sets by the names of its parts (`ax` beside MNLI's).

    remarks: what of it is not as published; a test set may be absent.
    """

    task: Task
    train: Rows
    dev: dict[str, Rows]
    test: dict[str, Rows]
    remarks: list[str]

    @cached_property
    def hash(self) -> str:
        """sha256 of what a model is trained on and scored with."""
        parts = [self.train.hash, *(rows.hash for rows in self.dev.values())]
        return hashlib.sha256(" ".join(parts).encode()).hexdigest()


def load_task(data: str, task: Task, check_counts: bool = True) -> TaskData:
    """A task's rows from `data`: a folder in the standard layout, or `hf:NAME`.

    Errors: CramError for a missing folder, file or split; a wrong header, a short row or a label outside the set
    (file and line); a count that is not the published one, unless `check_counts` is off.
    """
    check = _Check(check_counts)
    if data.startswith("hf:"):
        return _from_hub(data, task, check)
    return _from_folder(Path(data), task, check)


def runnable(data: str, tasks: list[Task]) -> tuple[list[Task], list[str]]:
    """Those tasks that can be fine-tuned with what the folder holds, and for each other one what it lacks.

    Errors: CramError if there is no such folder, or it holds none of them.
    """
    if data.startswith("hf:"):
        return tasks, []
    folder = _existing(Path(data))
    lacking = {task.name: _lacking(folder, task) for task in tasks}
    found = [task for task in tasks if not lacking[task.name]]
    if not found:
        raise CramError(
            f"data={data}: no task can be fine-tuned: {'; '.join(text for text in lacking.values() if text)}."
        )
    return found, [text for text in lacking.values() if text]


def _existing(folder: Path) -> Path:
    if not folder.is_dir():
        raise CramError(
            f"data={folder}: there is no such folder. Give one in GLUE's layout, with folders "
            f"{', '.join(task.folder for task in TASKS.values())}, or hf:nyu-mll/glue."
        )
    return folder


def _lacking(folder: Path, task: Task) -> str:
    """What a task's folder lacks for fine-tuning, in words; nothing where it is all there."""
    if not (folder / task.folder).is_dir():
        return f"{task.name} has no folder {task.folder}"
    missing = [
        name for name in ("train", *(part.dev for part in task.parts)) if not _file(folder, task, name).is_file()
    ]
    there = ", ".join(sorted(path.name for path in (folder / task.folder).glob("*.tsv"))) or "nothing"
    return f"{task.folder} has no {missing[0]}.tsv (there: {there})" if missing else ""


def _file(folder: Path, task: Task, name: str) -> Path:
    return folder / task.folder / f"{name}.tsv"


class _Check:
    """Compares row counts with the published ones; with counts off, differences are remarks."""

    def __init__(self, strict: bool) -> None:
        self._strict = strict
        self.remarks: list[str] = []

    def __call__(self, where: str, rows: Rows, published: int) -> Rows:
        if len(rows) != published:
            said = f"{where}: {len(rows):,} rows, published are {published:,}"
            if self._strict or not len(rows):
                raise CramError(
                    f"{said}. Fetch the file again; for a subset on purpose say check_counts=false "
                    "(the results then say that they are not the protocol)."
                )
            self.remarks.append(said)
        return rows


def _from_folder(folder: Path, task: Task, check: _Check) -> TaskData:
    if lacking := _lacking(_existing(folder), task):
        raise CramError(f"data={folder}: {lacking}; fine-tuning needs a training and a dev set.")

    def read(name: str, published: int, labelled: bool = True) -> Rows:
        path = _file(folder, task, name)
        return check(str(path), parse(path, task, labelled), published)

    train = read("train", task.train_rows)
    dev = {part.name: read(part.dev, part.dev_rows) for part in task.parts}
    there = [part for part in task.parts if _file(folder, task, part.test).is_file()]
    test = {part.name: read(part.test, part.test_rows, labelled=False) for part in there}
    if task.name == "mnli":
        for path in (folder / name for name in DIAGNOSTIC_FILES):
            if path.is_file():
                test[DIAGNOSTIC.name] = check(str(path), parse(path, task, labelled=False), DIAGNOSTIC.test_rows)
                break
    return TaskData(task, train, dev, test, check.remarks)


def parse(path: Path, task: Task, labelled: bool) -> Rows:
    """The rows of one file. Errors: CramError naming file and line."""
    try:
        with open_file(path) as file:
            lines = file.read().decode("utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise CramError(f"{path}: cannot be read as UTF-8 text ({error}).") from None
    lines = [line.removesuffix("\r") for line in lines]
    bare = task.name == "cola" and labelled
    header = ["", task.label_column, "", *task.columns] if bare else lines[0].split("\t")
    wanted = (*task.columns, *((task.label_column,) if labelled else ()))
    for column in wanted:
        if column not in header:
            raise CramError(f"{path}, line 1: no column '{column}' in the header; found {', '.join(header)[:120]}.")
    where = [header.index(column) for column in wanted]
    texts: list[tuple[str, ...]] = []
    labels: list[float] = []
    for number, line in enumerate(lines[0 if bare else 1 :], 1 if bare else 2):
        fields = line.split("\t")
        if line == "" or (len(fields) != len(header) and task.name == "qqp" and labelled):
            continue
        if len(fields) != len(header):
            raise CramError(f"{path}, line {number}: {len(fields)} fields, {len(header)} are expected.")
        texts.append(tuple(fields[index] for index in where[: len(task.columns)]))
        if labelled:
            labels.append(_label(task, fields[where[-1]], f"{path}, line {number}"))
    return Rows(texts, _array(task, labels) if labelled else None)


def _array(task: Task, labels: list[float]) -> np.ndarray:
    return np.array(labels, dtype=np.float64 if task.regression else np.int64)


def _label(task: Task, text: str, where: str) -> float:
    if not task.regression:
        if text not in task.written:
            raise CramError(f"{where}: label '{text[:40]}' is none of {', '.join(task.written)}.")
        return task.written.index(text)
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0.0 <= value <= HIGHEST_SCORE:
        raise CramError(f"{where}: score '{text[:40]}' is no number from 0 to 5.")
    return value


def _from_hub(data: str, task: Task, check: _Check) -> TaskData:
    loaded = _load_hub(data, task.name)

    def read(split: str, published: int, labelled: bool = True, splits: Any = loaded) -> Rows:
        return check(f"{data}, {task.name}, {split}", _hub_rows(data, task, splits, split, labelled), published)

    train = read("train", task.train_rows)
    dev = {part.name: read(part.hub_dev, part.dev_rows) for part in task.parts}
    test = {p.name: read(p.hub_test, p.test_rows, labelled=False) for p in task.parts if p.hub_test in loaded}
    if task.name == "mnli":
        splits = _load_hub(data, DIAGNOSTIC.name)
        test[DIAGNOSTIC.name] = read("test", DIAGNOSTIC.test_rows, labelled=False, splits=splits)
    return TaskData(task, train, dev, test, check.remarks)


def _load_hub(data: str, name: str) -> Any:
    import datasets

    try:
        return datasets.load_dataset(data.removeprefix("hf:"), name)
    except Exception as error:  # each loader raises what the library beneath it does
        line = " ".join(str(error).split())[:200]
        raise CramError(f"data={data}: {name} cannot be loaded ({type(error).__name__}: {line}).") from error


def _hub_rows(data: str, task: Task, splits: Any, split: str, labelled: bool) -> Rows:
    where = f"data={data}: {task.name}"
    if split not in splits:
        raise CramError(f"{where} has no split {split}; found {', '.join(splits)}.")
    table = splits[split]
    for column in (*task.hub_columns, *(("label",) if labelled else ())):
        if column not in table.column_names:
            raise CramError(f"{where}, {split} has no column '{column}'; found {', '.join(table.column_names)}.")
    texts = list(zip(*(table[column][:] for column in task.hub_columns), strict=True))
    if not labelled:
        return Rows(texts, None)
    labels = _array(task, table["label"][:])
    top = HIGHEST_SCORE if task.regression else task.outputs - 1
    if len(labels) and not (labels.min() >= 0 and labels.max() <= top):
        worst = int(np.argmax((labels < 0) | (labels > top)))
        raise CramError(f"{where}, {split}, row {worst}: label {labels[worst]:g} is not from 0 to {top:g}.")
    return Rows(texts, labels)


def spell(task: Task, outputs: np.ndarray) -> list[str]:
    """Predictions as the files spell labels: class words, or scores from 0 to 5 with three decimals."""
    if task.regression:
        return [f"{value:.3f}" for value in np.clip(np.nan_to_num(outputs[:, 0]), 0.0, HIGHEST_SCORE)]
    return [task.written[index] for index in outputs.argmax(-1)]


def spell_majority(task: Task, part: Part) -> list[str]:
    """The prediction of who always says the published majority, for each published test row."""
    word = f"{task.majority:.3f}" if task.regression else task.written[int(task.majority)]
    return [word] * part.test_rows
