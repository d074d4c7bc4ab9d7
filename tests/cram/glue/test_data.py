"""The quirks of each file, messages with file and line, the published files where they are available, and the Hub."""

import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest

from cram.errors import CramError
from cram.glue.data import find_runnable, load_task
from cram.glue.splits import Split
from cram.glue.submission import majority_texts, prediction_texts
from cram.glue.tasks import TASKS
from cram.glue.tsv_files import parse_file

PUBLISHED = Path(__file__).resolve().parents[4] / "shared" / "data" / "glue"


@pytest.fixture
def copy(glue_folder: Path, tmp_path: Path) -> Path:
    """A copy of the small GLUE folder, to break."""
    return Path(shutil.copytree(glue_folder, tmp_path / "glue"))


@pytest.mark.parametrize("name", list(TASKS))
def test_every_task_is_read(glue_folder: Path, name: str) -> None:
    task = TASKS[name]
    data = load_task(str(glue_folder), task, check_counts=False)
    assert len(data.train) == 64
    assert {len(split) for split in data.dev.values()} == {24}
    assert set(data.dev) == {subset.name for subset in task.subsets}
    assert set(data.test) - {"ax"} == set(data.dev)
    assert len(data.test.get("ax", [0] * 7)) == 7
    assert len(data.remarks) == 1 + 2 * len(task.subsets) + ("ax" in data.test)
    for split in (data.train, *data.dev.values(), *data.test.values()):
        assert {len(sentences) for sentences in split.texts} == {len(task.columns)}
        assert all(text.strip() for sentences in split.texts for text in sentences)
        assert not any(mark in text for sentences in split.texts for text in sentences for mark in "\r\ufeff\t")


def test_quirks_of_the_files(glue_folder: Path) -> None:
    def train(name: str) -> Split:
        return load_task(str(glue_folder), TASKS[name], check_counts=False).train

    assert all(texts[0].startswith('"the ') for texts in train("cola").texts)  # an open quote swallows no line
    assert train("cola").known_labels.tolist()[:3] == [0, 1, 0]
    assert all(texts[0].endswith(' ""') and texts[1].startswith('"the') for texts in train("mrpc").texts)
    assert train("mrpc").known_labels.tolist()[:2] == [0, 1]
    assert not any("broken" in text or "middle" in text for texts in train("qqp").texts for text in texts)
    assert all(texts[0].endswith(" ") for texts in train("sst2").texts)
    assert train("stsb").known_labels.tolist()[:3] == [0.0, 5.0, 2.5]
    assert train("mnli").known_labels.tolist()[:3] == [1, 0, 2]
    assert train("rte").known_labels.dtype == np.int64


def edit(path: Path, line: int, text: str) -> None:
    lines = path.read_text().split("\n")
    lines[line - 1] = text
    path.write_text("\n".join(lines))


@pytest.mark.parametrize(
    ("task", "file", "line", "text", "message"),
    [
        ("rte", "RTE/train", 5, "3\tone sentence", r"RTE/train\.tsv, line 5: 2 fields, 4 are expected"),
        ("rte", "RTE/dev", 2, "0\ta\tb\tc\tentailment", r"RTE/dev\.tsv, line 2: 5 fields, 4 are expected"),
        ("rte", "RTE/dev", 3, "1\ta\tb\tmaybe", r"dev\.tsv, line 3: label 'maybe' is not one of entailment, not_ent"),
        ("cola", "CoLA/dev", 7, "gj04\t2\t\tA b.", r"CoLA/dev\.tsv, line 7: label '2' is not one of 0, 1"),
        ("cola", "CoLA/train", 1, "index\tsentence", r"CoLA/train\.tsv, line 1: 2 fields, 4 are expected"),
        ("stsb", "STS-B/train", 9, "7\ta\tb\t5.1", r"train\.tsv, line 9: score '5\.1' is not a number from 0 to 5"),
        ("stsb", "STS-B/train", 9, "7\ta\tb\tmuch", "score 'much' is not a number"),
        (
            "sst2",
            "SST-2/dev",
            1,
            "text\tlabel",
            r"SST-2/dev\.tsv, line 1: no column 'sentence' in the header; found te",
        ),
        ("qnli", "QNLI/test", 1, "index\tquestion\tpassage", r"QNLI/test\.tsv, line 1: no column 'sentence'"),
        ("qqp", "QQP/test", 4, "2\tone", r"QQP/test\.tsv, line 4: 2 fields, 3 are expected"),
    ],
)
def test_a_broken_file_is_named_with_its_line(
    copy: Path, task: str, file: str, line: int, text: str, message: str
) -> None:
    edit(copy / f"{file}.tsv", line, text)
    with pytest.raises(CramError, match=message):
        load_task(str(copy), TASKS[task], check_counts=False)


def test_row_counts_are_the_published_ones(copy: Path) -> None:
    with pytest.raises(CramError, match=r"RTE/train\.tsv: 64 rows, published are 2,490\. .*check_counts=false"):
        load_task(str(copy), TASKS["rte"])
    (copy / "RTE" / "dev.tsv").write_text("index\tsentence1\tsentence2\tlabel\n")
    with pytest.raises(CramError, match="0 rows, published are 277"):
        load_task(str(copy), TASKS["rte"], check_counts=False)


def test_missing_folders_and_files(copy: Path, tmp_path: Path) -> None:
    with pytest.raises(
        CramError, match=r"there is no such folder\. Give one in GLUE's layout, with folders CoLA, SST-2"
    ):
        load_task(str(tmp_path / "none"), TASKS["cola"])
    (copy / "QNLI" / "train.tsv").unlink()
    with pytest.raises(CramError, match=r"QNLI has no train\.tsv \(there: dev\.tsv, test\.tsv\); fine-tuning needs"):
        load_task(str(copy), TASKS["qnli"])
    shutil.rmtree(copy / "RTE")
    runnable, lacking = find_runnable(str(copy), [TASKS["cola"], TASKS["qnli"], TASKS["rte"]])
    assert [task.name for task in runnable] == ["cola"]
    assert lacking == ["QNLI has no train.tsv (there: dev.tsv, test.tsv)", "rte has no folder RTE"]
    with pytest.raises(CramError, match="no task can be fine-tuned: rte has no folder RTE"):
        find_runnable(str(copy), [TASKS["rte"]])
    (copy / "CoLA" / "train.tsv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(CramError, match=r"CoLA/train\.tsv: cannot be read as UTF-8"):
        load_task(str(copy), TASKS["cola"])


def test_a_test_set_may_be_absent(copy: Path) -> None:
    (copy / "RTE" / "test.tsv").unlink()
    assert load_task(str(copy), TASKS["rte"], check_counts=False).test == {}


def test_a_limit_takes_the_same_examples_each_time(glue_folder: Path) -> None:
    train = load_task(str(glue_folder), TASKS["sst2"], check_counts=False).train
    assert train.first(10).texts == train.first(20).texts[:10]
    assert train.first(10).known_labels.tolist() == train.first(20).known_labels.tolist()[:10]
    assert train.first(10).texts != train.texts[:10]
    assert len(train.first(10_000)) == len(train)
    assert len({train.hash, train.first(10).hash, train.first(11).hash}) == 3


@pytest.mark.skipif(not PUBLISHED.is_dir(), reason="the published files are not available")
@pytest.mark.parametrize("name", ["cola", "sst2", "stsb", "rte", "wnli"])
def test_published_files_have_the_published_counts(name: str) -> None:
    task = TASKS[name]
    data = load_task(str(PUBLISHED), task)
    assert data.remarks == []
    counts = Counter(data.train.known_labels.tolist())
    if task.regression:
        assert data.train.known_labels.mean() == pytest.approx(task.majority, abs=1e-3)
    else:
        assert counts.most_common(1)[0][0] == task.majority
    for split in (data.train, *data.dev.values(), *data.test.values()):
        assert not any(text == "" or "\t" in text for sentences in split.texts for text in sentences)


@pytest.mark.skipif(not PUBLISHED.is_dir(), reason="the published files are not available")
def test_published_dev_and_test_sets_without_a_training_set() -> None:
    task = TASKS["qnli"]
    for split, labelled in (("dev", True), ("test", False)):
        assert len(parse_file(PUBLISHED / "QNLI" / f"{split}.tsv", task, labelled)) == 5_463
    with pytest.raises(CramError, match=r"QNLI has no train\.tsv"):
        load_task(str(PUBLISHED), task)


@pytest.fixture
def hub(tmp_path: Path) -> Path:
    """A data set in the form of the Hub, with two configurations and the diagnostic set."""
    folder, configs = tmp_path / "hub", []
    columns = {"rte": ("sentence1", "sentence2"), "mnli": ("premise", "hypothesis"), "ax": ("premise", "hypothesis")}
    splits = {
        "rte": ["train", "validation", "test"],
        "mnli": ["train", *(f"{s}_{k}" for s in ("validation", "test") for k in ("matched", "mismatched"))],
        "ax": ["test"],
    }
    for name, texts in columns.items():
        files = []
        for split in splits[name]:
            hidden = split.startswith("test")
            rows = {column: [f"{split} {column} {row}" for row in range(4)] for column in texts}
            table = datasets.Dataset.from_dict(rows | {"label": [-1] * 4 if hidden else [0, 1, 1, 0]})
            (folder / name).mkdir(parents=True, exist_ok=True)
            table.to_parquet(str(folder / name / f"{split}.parquet"))
            files.append({"split": split, "path": f"{name}/{split}.parquet"})
        configs.append({"config_name": name, "data_files": files})
    (folder / "README.md").write_text(f"---\nconfigs: {json.dumps(configs)}\n---\n")
    return folder


def test_tasks_are_read_from_the_hub(hub: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    rte = load_task(f"hf:{hub}", TASKS["rte"], check_counts=False)
    assert rte.train.texts[1] == ("train sentence1 1", "train sentence2 1")
    assert rte.dev["rte"].known_labels.tolist() == [0, 1, 1, 0]
    assert rte.test["rte"].labels is None
    mnli = load_task(f"hf:{hub}", TASKS["mnli"], check_counts=False)
    assert mnli.dev["mnli-mm"].texts[0][0] == "validation_mismatched premise 0"
    assert mnli.test["ax"].texts[3] == ("test premise 3", "test hypothesis 3")
    with pytest.raises(CramError, match="rte, train: 4 rows, published are 2,490"):
        load_task(f"hf:{hub}", TASKS["rte"])
    with pytest.raises(CramError, match=r"data=hf:.*: cola cannot be loaded \(ValueError"):
        load_task(f"hf:{hub}", TASKS["cola"])


def test_a_data_set_of_the_hub_that_does_not_fit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    texts: dict[str, list[Any]] = {column: ["a", "b"] for column in ("sentence1", "sentence2")}

    def load(**splits: dict[str, list[Any]]) -> None:
        splits_of_hub = {name: datasets.Dataset.from_dict(columns) for name, columns in splits.items()}
        monkeypatch.setattr(datasets, "load_dataset", lambda *_: datasets.DatasetDict(splits_of_hub))
        load_task("hf:mine", TASKS["rte"], check_counts=False)

    good = texts | {"label": [0, 1]}
    load(train=good, validation=good)
    with pytest.raises(CramError, match=r"data=hf:mine: rte has no split validation; found train, test\."):
        load(train=good, test=good)
    with pytest.raises(CramError, match=r"rte, train has no column 'sentence2'; found sentence1, label\."):
        load(train={name: good[name] for name in ("sentence1", "label")}, validation=good)
    with pytest.raises(CramError, match=r"rte, validation has no column 'label'; found sentence1, sentence2\."):
        load(train=good, validation=texts)
    for label in (-1, 2):
        with pytest.raises(CramError, match=rf"rte, train, row 1: label {label} is not from 0 to 1\."):
            load(train=texts | {"label": [0, label]}, validation=good)


def test_predictions_are_written_as_the_files_write_labels() -> None:
    assert prediction_texts(TASKS["rte"], np.array([[2.0, 1.0], [0.0, 1.0]])) == ["entailment", "not_entailment"]
    assert prediction_texts(TASKS["cola"], np.array([[2.0, 1.0], [0.0, 1.0]])) == ["0", "1"]
    scores = np.array([[-1.0], [2.34567], [7.0], [np.nan]])
    assert prediction_texts(TASKS["stsb"], scores) == ["0.000", "2.346", "5.000", "0.000"]
    assert majority_texts(TASKS["stsb"], TASKS["stsb"].subsets[0]) == ["2.701"] * 1_379
    assert set(majority_texts(TASKS["mnli"], TASKS["mnli"].subsets[1])) == {"contradiction"}
