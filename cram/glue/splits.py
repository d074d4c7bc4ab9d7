"""A task's examples in memory, and the comparison of their number with the published one."""

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from cram.errors import CramError
from cram.glue.tasks import Task

Labels = npt.NDArray[np.int64] | npt.NDArray[np.float64]

HIGHEST_SCORE = 5.0  # of STS-B


@dataclass(frozen=True)
class Split:
    """Some examples of a task.

    Attributes:
        texts: the one or two sentences of each example.
        labels: (examples,) int64 class numbers or float64 scores; None for a test set.
    """

    texts: list[tuple[str, ...]]
    labels: Labels | None

    def __len__(self) -> int:
        return len(self.texts)

    @property
    def known_labels(self) -> Labels:
        """The labels of a training or dev set; a test set has none and must not be asked."""
        assert self.labels is not None
        return self.labels

    @cached_property
    def hash(self) -> str:
        """Sha256 of the sentences and labels in their order."""
        digest = hashlib.sha256()
        for sentences in self.texts:
            digest.update("\t".join(sentences).encode() + b"\n")
        digest.update(b"" if self.labels is None else self.labels.tobytes())
        return digest.hexdigest()

    def first(self, limit: int) -> "Split":
        """At most `limit` examples: the first ones of a shuffle that is always the same."""
        indices = np.random.default_rng(0).permutation(len(self))[:limit]
        return Split([self.texts[index] for index in indices], None if self.labels is None else self.labels[indices])


@dataclass(frozen=True)
class TaskData:
    """All examples of a task.

    Attributes:
        train: the training set.
        dev: dev sets by name of the subset.
        test: test sets by name of the subset, and `ax` for MNLI. Only those that exist.
        remarks: how the examples differ from the published ones.
    """

    task: Task
    train: Split
    dev: dict[str, Split]
    test: dict[str, Split]
    remarks: list[str]

    @cached_property
    def hash(self) -> str:
        """Sha256 of the training and dev sets, which decide the scores."""
        hashes = [self.train.hash, *(split.hash for split in self.dev.values())]
        return hashlib.sha256(" ".join(hashes).encode()).hexdigest()


class CountCheck:
    """Compares the number of examples with the published one.

    Args:
        strict: whether a difference is an error; otherwise it becomes a remark. An empty split is always an error.
    """

    def __init__(self, strict: bool) -> None:
        self._strict = strict
        self.remarks: list[str] = []

    def __call__(self, where: str, split: Split, published: int) -> Split:
        """Return the split.

        Raises:
            CramError: for a count that differs, naming the place, both counts, and what to do.
        """
        if len(split) != published:
            difference = f"{where}: {len(split):,} rows, published are {published:,}"
            if self._strict or not len(split):
                raise CramError(
                    f"{difference}. Fetch the file again. For a subset on purpose use check_counts=false "
                    "(the results then say that they are not the protocol)."
                )
            self.remarks.append(difference)
        return split


def label_array(task: Task, labels: Any) -> Labels:
    """Labels as an array: int64 class numbers, or float64 scores for a regression."""
    return np.array(labels, np.float64) if task.regression else np.array(labels, np.int64)
