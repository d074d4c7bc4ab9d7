"""The table of tasks, and finding them by name."""

import pytest

from cram.errors import CramError
from cram.glue.tasks import NINE, TASKS, find_tasks


def test_tasks_are_found_by_either_spelling() -> None:
    assert [task.name for task in find_tasks(["RTE", "SST-2", "cola"])] == ["cola", "sst2", "rte"]
    eight = find_tasks([])
    assert [subset.name for task in eight for subset in task.subsets if subset.name not in NINE] == []
    assert len(eight) == 8
    assert sum(len(task.subsets) for task in eight) == len(NINE)


def test_an_unknown_task_is_refused_with_the_nearest() -> None:
    with pytest.raises(CramError, match=r"tasks=coola is unknown\. Nearest: cola\. Tasks: cola, sst2"):
        find_tasks(["rte", "coola"])


def test_the_majority_of_mnli_is_the_published_one() -> None:
    published = {"entailment": 130_899, "neutral": 130_900, "contradiction": 130_903}
    mnli = TASKS["mnli"]
    assert sum(published.values()) == mnli.train_rows
    assert mnli.labels[int(mnli.majority)] == max(published, key=lambda label: published[label])


def test_the_entries_of_each_task_fit_together() -> None:
    for task in TASKS.values():
        assert len(task.labels) == len(task.label_texts)
        assert task.regression or 0 <= task.majority < len(task.labels)
        assert len(task.columns) == len(task.hub_columns)
