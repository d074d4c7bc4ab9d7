"""The tasks of GLUE: what their files hold, how many rows were published, how they are scored and handed in.

Source: Wang et al. 2019, arXiv:1804.07461 (tasks, metrics); the row counts are those of the data as handed out since
2019 (QNLI in its second version, QQP without the rows that lack fields); which nine scores make the mean, and which
metric each has, is the protocol of Cramming, arXiv:2212.14034.
"""

from dataclasses import dataclass
from functools import cached_property

from cram.config.recipe import nearest
from cram.errors import CramError


@dataclass(frozen=True)
class Part:
    """What is scored by itself and handed in as a file of its own: a task's dev and test set; MNLI has two.

    name: of the score. submission: name of the file in submission.zip. dev, test: names of the files without `.tsv`.
    hub_dev, hub_test: names of the splits on the Hub.
    """

    name: str
    submission: str
    dev_rows: int
    test_rows: int
    dev: str = "dev"
    test: str = "test"
    hub_dev: str = "validation"
    hub_test: str = "test"


@dataclass(frozen=True)
class Task:
    """A task of GLUE.

    name: of the task, and of its configuration on the Hub. folder: in the standard layout.
    columns, hub_columns: where the one or two sentences are. label_column: where the label is.
    labels: what the classes mean, by class number; none for a regression. written: how files spell them.
    metrics: the published one first, those reported beside it after. majority: the most frequent class of the
    published training rows, or their mean score.
    """

    name: str
    folder: str
    columns: tuple[str, ...]
    hub_columns: tuple[str, ...]
    label_column: str
    labels: tuple[str, ...]
    written: tuple[str, ...]
    metrics: tuple[str, ...]
    train_rows: int
    parts: tuple[Part, ...]
    majority: float = 0

    @property
    def regression(self) -> bool:
        """Whether a score is predicted, not a class."""
        return not self.labels

    @cached_property
    def outputs(self) -> int:
        """Numbers that a model gives for a row."""
        return len(self.labels) or 1


ENTAILED = ("entailment", "not_entailment")
BINARY = ("0", "1")
PAIR = ("sentence1", "sentence2")

TASKS = {
    task.name: task
    for task in (
        Task("cola", "CoLA", ("sentence",), ("sentence",), "label", ("unacceptable", "acceptable"), BINARY,
             ("matthews",), 8_551, (Part("cola", "CoLA", 1_043, 1_063),), majority=1),
        Task("sst2", "SST-2", ("sentence",), ("sentence",), "label", ("negative", "positive"), BINARY,
             ("accuracy",), 67_349, (Part("sst2", "SST-2", 872, 1_821),), majority=1),
        Task("mrpc", "MRPC", ("#1 String", "#2 String"), PAIR, "Quality", ("not_equivalent", "equivalent"), BINARY,
             ("f1", "accuracy"), 3_668, (Part("mrpc", "MRPC", 408, 1_725),), majority=1),
        Task("stsb", "STS-B", PAIR, PAIR, "score", (), (),
             ("pearson", "spearman"), 5_749, (Part("stsb", "STS-B", 1_500, 1_379),), majority=2.701),
        Task("qqp", "QQP", ("question1", "question2"), ("question1", "question2"), "is_duplicate",
             ("not_duplicate", "duplicate"), BINARY,
             ("f1", "accuracy"), 363_846, (Part("qqp", "QQP", 40_430, 390_965),)),
        Task("mnli", "MNLI", PAIR, ("premise", "hypothesis"), "gold_label",
             ("entailment", "neutral", "contradiction"), ("entailment", "neutral", "contradiction"),
             ("accuracy",), 392_702,
             (Part("mnli-m", "MNLI-m", 9_815, 9_796, "dev_matched", "test_matched",
                   "validation_matched", "test_matched"),
              Part("mnli-mm", "MNLI-mm", 9_832, 9_847, "dev_mismatched", "test_mismatched",
                   "validation_mismatched", "test_mismatched")), majority=2),
        Task("qnli", "QNLI", ("question", "sentence"), ("question", "sentence"), "label", ENTAILED, ENTAILED,
             ("accuracy",), 104_743, (Part("qnli", "QNLI", 5_463, 5_463),)),
        Task("rte", "RTE", PAIR, PAIR, "label", ENTAILED, ENTAILED,
             ("accuracy",), 2_490, (Part("rte", "RTE", 277, 3_000),)),
        Task("wnli", "WNLI", PAIR, PAIR, "label", ("not_entailment", "entailment"), BINARY,
             ("accuracy",), 635, (Part("wnli", "WNLI", 71, 146),)),
    )
}  # fmt: skip

# The diagnostic set: rows like MNLI's without a dev set or labels, for the model of MNLI.
DIAGNOSTIC = Part("ax", "AX", 0, 1_104)

# The nine scores of the mean, in the order of the published tables: MNLI twice, WNLI not at all.
NINE = ("mnli-m", "mnli-mm", "sst2", "stsb", "rte", "qnli", "qqp", "mrpc", "cola")

# Dev scores of published rows, and their means as printed: BERT-base and crammed on an A6000 for a day
# (arXiv:2212.14034, first version), the mean of its second version, and the card of the released crammed BERT.
PUBLISHED: dict[str, dict[str, float]] = {
    "BERT-base": dict(zip((*NINE, "mean"), (83.2, 83.4, 91.9, 86.7, 59.2, 90.6, 87.7, 89.3, 56.5, 80.9), strict=True)),
    "crammed": dict(zip((*NINE, "mean"), (83.9, 84.1, 92.2, 84.6, 53.8, 89.5, 87.3, 87.5, 44.5, 78.6), strict=True)),
    "crammed v2": {"mean": 80.4},
    "crammed v2, best of 5": dict(
        zip((*NINE, "mean"), (84.1, 84.6, 92.0, 87.4, 58.5, 90.2, 87.5, 88.9, 53.3, 80.7), strict=True)
    ),
}


def find_tasks(names: list[str]) -> list[Task]:
    """The tasks of these names, `cola` or `CoLA`, in the order of `TASKS`; without names the eight of the mean.

    Errors: CramError for an unknown one.
    """
    if not names:
        return [task for task in TASKS.values() if task.name != "wnli"]
    plain = [name.lower().replace("-", "").replace("_", "") for name in names]
    for name, said in zip(plain, names, strict=True):
        if name not in TASKS:
            raise CramError(f"tasks={said} is unknown.{nearest(name, list(TASKS))} Tasks: {', '.join(TASKS)}.")
    return [task for task in TASKS.values() if task.name in plain]
