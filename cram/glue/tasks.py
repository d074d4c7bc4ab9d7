"""The tasks of GLUE: their files, published row counts, metrics, and the names of their submission files.

Source: Wang et al. 2019, arXiv:1804.07461 (tasks, metrics). The row counts are those of the files as distributed since
2019: QNLI in its second version, QQP without the rows that lack fields. Which nine scores make the mean, and the
published metric of each, is the protocol of Cramming, arXiv:2212.14034.
"""

from dataclasses import dataclass
from functools import cached_property

from cram.config.recipe import suggest_nearest
from cram.errors import CramError


@dataclass(frozen=True)
class Subset:
    """The dev and test sets of a task that have a score and a submission file of their own. MNLI has two subsets.

    Attributes:
        name: of the score, as in `glue.json`.
        submission: name of the file in submission.zip, without `.tsv`.
        dev_rows, test_rows: published numbers of examples.
        dev, test: names of the files in a GLUE folder, without `.tsv`.
        hub_dev, hub_test: names of the splits on the Hugging Face Hub.
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

    Attributes:
        name: of the task, and of its configuration on the Hugging Face Hub.
        folder: its folder in the standard layout.
        columns, hub_columns: names of the columns that hold the one or two sentences, in the files and on the Hub.
        label_column: name of the column that holds the label.
        labels: meaning of each class, by class number; empty for a regression.
        label_texts: how the files write each class, by class number; empty for a regression.
        metrics: the published metric first, then those reported beside it.
        train_rows: published number of training examples.
        subsets: what is scored; one, or two for MNLI.
        majority: the most frequent class of the published training set, or its mean score.
    """

    name: str
    folder: str
    columns: tuple[str, ...]
    hub_columns: tuple[str, ...]
    label_column: str
    labels: tuple[str, ...]
    label_texts: tuple[str, ...]
    metrics: tuple[str, ...]
    train_rows: int
    subsets: tuple[Subset, ...]
    majority: float = 0

    @property
    def regression(self) -> bool:
        """Whether the task predicts a score instead of a class."""
        return not self.labels

    @cached_property
    def outputs(self) -> int:
        """How many numbers a model returns for an example."""
        return len(self.labels) or 1


PAIR = ("sentence1", "sentence2")
BINARY = ("0", "1")
ENTAILED = ("entailment", "not_entailment")
NLI = ("entailment", "neutral", "contradiction")

_COLA = Task(
    name="cola",
    folder="CoLA",
    columns=("sentence",),
    hub_columns=("sentence",),
    label_column="label",
    labels=("unacceptable", "acceptable"),
    label_texts=BINARY,
    metrics=("matthews",),
    train_rows=8_551,
    subsets=(Subset("cola", "CoLA", 1_043, 1_063),),
    majority=1,
)
_SST2 = Task(
    name="sst2",
    folder="SST-2",
    columns=("sentence",),
    hub_columns=("sentence",),
    label_column="label",
    labels=("negative", "positive"),
    label_texts=BINARY,
    metrics=("accuracy",),
    train_rows=67_349,
    subsets=(Subset("sst2", "SST-2", 872, 1_821),),
    majority=1,
)
_MRPC = Task(
    name="mrpc",
    folder="MRPC",
    columns=("#1 String", "#2 String"),
    hub_columns=PAIR,
    label_column="Quality",
    labels=("not_equivalent", "equivalent"),
    label_texts=BINARY,
    metrics=("f1", "accuracy"),
    train_rows=3_668,
    subsets=(Subset("mrpc", "MRPC", 408, 1_725),),
    majority=1,
)
_STSB = Task(
    name="stsb",
    folder="STS-B",
    columns=PAIR,
    hub_columns=PAIR,
    label_column="score",
    labels=(),
    label_texts=(),
    metrics=("pearson", "spearman"),
    train_rows=5_749,
    subsets=(Subset("stsb", "STS-B", 1_500, 1_379),),
    majority=2.701,
)
_QQP = Task(
    name="qqp",
    folder="QQP",
    columns=("question1", "question2"),
    hub_columns=("question1", "question2"),
    label_column="is_duplicate",
    labels=("not_duplicate", "duplicate"),
    label_texts=BINARY,
    metrics=("f1", "accuracy"),
    train_rows=363_846,
    subsets=(Subset("qqp", "QQP", 40_430, 390_965),),
)
_MNLI_MATCHED = Subset(
    name="mnli-m",
    submission="MNLI-m",
    dev_rows=9_815,
    test_rows=9_796,
    dev="dev_matched",
    test="test_matched",
    hub_dev="validation_matched",
    hub_test="test_matched",
)
_MNLI_MISMATCHED = Subset(
    name="mnli-mm",
    submission="MNLI-mm",
    dev_rows=9_832,
    test_rows=9_847,
    dev="dev_mismatched",
    test="test_mismatched",
    hub_dev="validation_mismatched",
    hub_test="test_mismatched",
)
_MNLI = Task(
    name="mnli",
    folder="MNLI",
    columns=PAIR,
    hub_columns=("premise", "hypothesis"),
    label_column="gold_label",
    labels=NLI,
    label_texts=NLI,
    metrics=("accuracy",),
    train_rows=392_702,
    subsets=(_MNLI_MATCHED, _MNLI_MISMATCHED),
    majority=2,
)
_QNLI = Task(
    name="qnli",
    folder="QNLI",
    columns=("question", "sentence"),
    hub_columns=("question", "sentence"),
    label_column="label",
    labels=ENTAILED,
    label_texts=ENTAILED,
    metrics=("accuracy",),
    train_rows=104_743,
    subsets=(Subset("qnli", "QNLI", 5_463, 5_463),),
)
_RTE = Task(
    name="rte",
    folder="RTE",
    columns=PAIR,
    hub_columns=PAIR,
    label_column="label",
    labels=ENTAILED,
    label_texts=ENTAILED,
    metrics=("accuracy",),
    train_rows=2_490,
    subsets=(Subset("rte", "RTE", 277, 3_000),),
)
_WNLI = Task(
    name="wnli",
    folder="WNLI",
    columns=PAIR,
    hub_columns=PAIR,
    label_column="label",
    labels=("not_entailment", "entailment"),
    label_texts=BINARY,
    metrics=("accuracy",),
    train_rows=635,
    subsets=(Subset("wnli", "WNLI", 71, 146),),
)

TASKS = {task.name: task for task in (_COLA, _SST2, _MRPC, _STSB, _QQP, _MNLI, _QNLI, _RTE, _WNLI)}

# The diagnostic set: examples like MNLI's, without labels and without a dev set. MNLI's model predicts it.
DIAGNOSTIC = Subset("ax", "AX", 0, 1_104)

# The nine scores of the mean, in the order of the published tables: MNLI twice, WNLI not at all.
NINE = ("mnli-m", "mnli-mm", "sst2", "stsb", "rte", "qnli", "qqp", "mrpc", "cola")


def _published(*figures: float) -> dict[str, float]:
    """The nine scores and the mean of a published row, in the order of `NINE`."""
    return dict(zip((*NINE, "mean"), figures, strict=True))


# Published dev scores, in percent, with the means as printed: BERT-base and crammed on an A6000 for a day
# (arXiv:2212.14034, first version), the mean of its second version, and the card of the released crammed BERT.
PUBLISHED: dict[str, dict[str, float]] = {
    "BERT-base": _published(83.2, 83.4, 91.9, 86.7, 59.2, 90.6, 87.7, 89.3, 56.5, 80.9),
    "crammed": _published(83.9, 84.1, 92.2, 84.6, 53.8, 89.5, 87.3, 87.5, 44.5, 78.6),
    "crammed v2": {"mean": 80.4},
    "crammed v2, best of 5": _published(84.1, 84.6, 92.0, 87.4, 58.5, 90.2, 87.5, 88.9, 53.3, 80.7),
}


def find_tasks(names: list[str]) -> list[Task]:
    """Look up tasks by name; `cola` and `CoLA` are both accepted.

    Returns:
        The tasks in the order of `TASKS`. Without names, the eight tasks of the mean: all but WNLI.

    Raises:
        CramError: for an unknown name.
    """
    if not names:
        return [task for task in TASKS.values() if task.name != "wnli"]
    normalized = [name.lower().replace("-", "").replace("_", "") for name in names]
    for name, word in zip(normalized, names, strict=True):
        if name not in TASKS:
            raise CramError(f"tasks={word} is unknown.{suggest_nearest(name, list(TASKS))} Tasks: {', '.join(TASKS)}.")
    return [task for task in TASKS.values() if task.name in normalized]
