"""Fine-tuning all tasks: the files that are left, resuming after a kill, and the saved models in stock hands."""

import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from cram.errors import CramError
from cram.glue.__main__ import main
from cram.glue.data import load_task
from cram.glue.metrics import compute_metrics
from cram.glue.model_store import load_model
from cram.glue.printing import summary_lines
from cram.glue.submission import parse_predictions
from cram.glue.tasks import NINE, TASKS

ROOT = Path(__file__).resolve().parents[3]


def words(checkpoint: Path, data: Path, to: Path, *more: str) -> list[str]:
    """Words for the command on the small GLUE folder."""
    shared = ["check_counts=false", "epochs=2", "learning_rate=3e-3", "threads=1", "device=cpu"]
    return [f"run={checkpoint}", f"data={data}", f"to={to}", *shared, *more]


def read_results_file(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "glue.json").read_text())  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def results_of_all(checkpoint: Path, glue_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results of all nine scores with three seeds of some."""
    to = tmp_path_factory.mktemp("results") / "mine"
    assert main(words(checkpoint, glue_folder, to, "seeds=1", "untrained=true", "batch=4", "epochs=3")) == 0
    assert main(words(checkpoint, glue_folder, to, "seeds=3", "tasks=[sst2,mnli]", "batch=4", "epochs=3")) == 0
    return to


def test_glue_json_holds_everything(results_of_all: Path) -> None:
    content = read_results_file(results_of_all)
    results = content["results"]
    assert set(results["scores"]) == set(NINE)
    assert results["missing"] == []
    assert results["mean"] == pytest.approx(sum(results["scores"][name]["median"] for name in NINE) / 9)
    assert len(results["scores"]["sst2"]["seeds"]) == 3
    assert results["scores"]["sst2"]["median"] > 80.0
    assert len(results["scores"]["rte"]["seeds"]) == 1
    assert len(content["jobs"]) == 8 + 8 + 2 * 2
    assert results["majority"]["cola"] == results["majority"]["stsb"] == 0.0
    assert results["majority"]["rte"] == 50.0
    assert set(results["untrained"]) == {*NINE, "mean"}
    assert results["protocol"]["kept"] is False
    settings = ["batch=4", "epochs=3", "length=32", "learning_rate=3e-3", "seeds=1"]
    assert results["protocol"]["departures"][: len(settings)] == settings
    assert any("RTE/train.tsv: 64 rows" in text for text in results["protocol"]["departures"])
    assert [line["passed"] for line in results["rules"]] == [True, True, True]
    assert results["published"]["BERT-base"]["mean"] == 80.9
    assert results["submission"]["majority_class"] == ["wnli"]
    summary = "\n".join(summary_lines(results, []))
    assert "; not for handing in: CoLA has 10 rows, 1,063 are asked for, " in summary
    assert "MNLI-mm has 10 rows, 9,847 are asked for" in summary
    assert "crammed v2, A6000: mean 80.4" in summary
    assert (results_of_all / "glue" / "glue.png").is_file()


def test_the_median_seed_is_kept_and_its_predictions(results_of_all: Path, glue_folder: Path) -> None:
    results = read_results_file(results_of_all)["results"]
    folders = [path for path in (results_of_all / "glue").iterdir() if (path / "config.json").is_file()]
    assert sorted(str(folder.relative_to(results_of_all)) for folder in folders) == sorted(
        model["path"] for model in results["models"].values()
    )
    seeds = results["scores"]["sst2"]["seeds"]
    assert seeds[str(results["models"]["sst2"]["seed"])] == sorted(seeds.values())[1]
    with zipfile.ZipFile(results_of_all / "glue" / "submission.zip") as archive:
        assert len(archive.namelist()) == 11
        for name, rows in {"MNLI-mm.tsv": 10, "AX.tsv": 7, "STS-B.tsv": 10, "WNLI.tsv": 146}.items():
            assert len(parse_predictions(archive.read(name).decode())) == rows
    (dev,) = (results_of_all / "glue" / "predictions").glob(f"{folders[0].name}-*-dev-*.tsv")
    assert len(parse_predictions(dev.read_text())) == 24


@pytest.mark.parametrize("name", ["sst2", "mnli", "stsb"])
def test_stock_transformers_alone_repeat_the_dev_score(results_of_all: Path, glue_folder: Path, name: str) -> None:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline

    results, task = read_results_file(results_of_all)["results"], TASKS[name]
    folder = results_of_all / results["models"][name]["path"]
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    for subset, split in load_task(str(glue_folder), task, check_counts=False).dev.items():
        inputs = tokenizer(
            *map(list, zip(*split.texts, strict=True)), truncation=True, padding=True, return_tensors="pt"
        )
        with torch.no_grad():
            outputs = model(**inputs).logits.numpy()
        expected = results["scores"][subset]["seeds"][str(results["models"][name]["seed"])]
        assert compute_metrics(task, outputs, split.known_labels)[task.metrics[0]] == pytest.approx(expected, abs=1e-3)
    answer = pipeline("text-classification", str(folder), device="cpu")(
        {"text": "the warm film", "text_pair": "the film"}
    )
    assert answer["label"] in (task.labels or ("score",))


def test_a_kept_model_that_is_not_the_median_shows_its_own_score(results_of_all: Path) -> None:
    results = read_results_file(results_of_all)["results"]
    model, median = results["models"]["sst2"], results["scores"]["sst2"]["median"]
    assert model["score"] == median
    assert f"model       {model['path']} (seed {model['seed']})" in summary_lines(results, [])
    model["score"] = 12.34
    line = f"model       {model['path']} (seed {model['seed']}, accuracy 12.3, the median is {median:.1f})"
    assert line in summary_lines(results, [])


def test_predictions_are_the_saved_models_after_glue_json_is_removed(
    checkpoint: Path, glue_folder: Path, tmp_path: Path
) -> None:
    def predictions(to: Path) -> dict[str, str]:
        return {path.name: path.read_text() for path in (to / "glue" / "predictions").iterdir()}

    def stsb(to: Path, epochs: int) -> None:
        main([*words(checkpoint, glue_folder, to, "seeds=1", "tasks=stsb", "batch=4"), f"epochs={epochs}"])

    stsb(tmp_path / "again", 1)
    first = predictions(tmp_path / "again")
    (tmp_path / "again" / "glue.json").unlink()
    stsb(tmp_path / "again", 3)
    stsb(tmp_path / "fresh", 3)
    assert predictions(tmp_path / "again") == predictions(tmp_path / "fresh") != first
    (config_file,) = (tmp_path / "fresh" / "glue").glob("stsb-*/config.json")
    model = load_model(config_file.parent, torch.device("cpu"))
    assert sum(parameter.numel() for parameter in model.parameters())
    archives = [(tmp_path / name / "glue" / "submission.zip").read_bytes() for name in ("again", "fresh")]
    assert archives[0] == archives[1]
    config_file.write_bytes(config_file.read_bytes() + b" ")
    with pytest.raises(
        CramError, match=r"config.json: damaged or edited, .* Remove it, and its task has no predictions"
    ):
        stsb(tmp_path / "fresh", 3)


def test_a_folder_that_lacks_a_finished_task_is_named(checkpoint: Path, glue_folder: Path, tmp_path: Path) -> None:
    main(words(checkpoint, glue_folder, tmp_path / "out", "seeds=1", "tasks=rte"))
    data = tmp_path / "data"
    data.mkdir()
    (data / "CoLA").symlink_to(glue_folder / "CoLA")
    message = (
        r"rte has no folder RTE; .* \(rte: its results are in .*/out/glue\.json already; "
        r"give the folder that holds it too, or another to=\)"
    )
    with pytest.raises(CramError, match=message):
        main(words(checkpoint, data, tmp_path / "out", "tasks=cola"))


def test_more_tasks_are_added_and_no_job_runs_twice(
    checkpoint: Path, glue_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(words(checkpoint, glue_folder, tmp_path, "seeds=2", "tasks=rte"))
    first = read_results_file(tmp_path)["jobs"]
    (model,) = (tmp_path / "glue").glob("rte-*")
    before = (model / "model.safetensors").stat().st_mtime_ns
    main(words(checkpoint, glue_folder, tmp_path, "seeds=1", "tasks=[CoLA,wnli]"))
    content = read_results_file(tmp_path)
    assert content["jobs"][: len(first)] == first
    assert set(content["results"]["scores"]) == {"rte", "cola", "wnli"}
    assert content["results"]["mean"] is None
    assert (model / "model.safetensors").stat().st_mtime_ns == before
    assert "of the nine scores were not run" in capsys.readouterr().out
    with pytest.raises(CramError, match=r"holds results of other settings: epochs is 2 there, 1 here"):
        main([*words(checkpoint, glue_folder, tmp_path, "tasks=rte"), "epochs=1"])
    with pytest.raises(CramError, match="limit is None there, 8 here"):
        main(words(checkpoint, glue_folder, tmp_path, "tasks=rte", "limit=8"))


def test_a_sweep_picks_one_rate_for_all_tasks(
    checkpoint: Path, glue_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = words(checkpoint, glue_folder, tmp_path, "seeds=1", "tasks=[sst2,rte]", "limit=32")
    main([*command, "learning_rate=[1e-6,5e-3]", "epochs=6"])
    results = read_results_file(tmp_path)["results"]
    assert set(results["learning_rates"]) == {"1e-06", "0.005"}
    assert results["learning_rates"][repr(results["learning_rate"])] == max(results["learning_rates"].values())
    assert results["protocol"]["departures"][0] == "limit=32"
    assert [line["passed"] for line in results["rules"]] == [True, False, True]
    out = capsys.readouterr().out
    assert "NOT as published: limit=32" in out
    assert "not kept: at most 5 epochs (6 epochs)" in out
    assert "learning_rate=1e-6, 5e-3, the best on the dev sets" in out


def test_a_killed_command_resumes(checkpoint: Path, glue_folder: Path, tmp_path: Path) -> None:
    command = words(checkpoint, glue_folder, tmp_path, "seeds=3", "tasks=[cola,rte,stsb]", "batch=4")
    child = subprocess.Popen([sys.executable, "-m", "cram.glue", *command], cwd=ROOT, stdout=subprocess.DEVNULL)
    path, began = tmp_path / "glue.json", time.monotonic()
    while not path.exists() or len(read_results_file(tmp_path)["jobs"]) < 2:
        assert child.poll() is None and time.monotonic() - began < 120
        time.sleep(0.01)
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    before = read_results_file(tmp_path)["jobs"]
    assert 2 <= len(before) < 9
    finished = subprocess.run(
        [sys.executable, "-m", "cram.glue", *command], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert finished.returncode == 0, finished.stderr
    after = read_results_file(tmp_path)["jobs"]
    assert after[: len(before)] == before
    names = {tuple(entry["job"].values()) for entry in after}
    assert len(names) == len(after) == 9
    assert f"1 of {9 - len(before)}: " in finished.stdout
    assert not list((tmp_path / "glue").glob(".*.partial"))
    undisturbed = tmp_path / "undisturbed"
    main([*command, f"to={undisturbed}"])
    for resumed, expected in zip(after, read_results_file(undisturbed)["jobs"], strict=True):
        assert resumed["outcome"] | {"seconds": 0} == expected["outcome"] | {"seconds": 0}


def test_tasks_that_a_folder_lacks_are_left_out_unless_they_are_named(
    checkpoint: Path, glue_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "data"
    (data / "QNLI").mkdir(parents=True)
    (data / "RTE").symlink_to(glue_folder / "RTE")
    (data / "QNLI" / "dev.tsv").symlink_to(glue_folder / "QNLI" / "dev.tsv")
    main(words(checkpoint, data, tmp_path / "out", "seeds=1"))
    assert "left out    QNLI has no train.tsv (there: dev.tsv)" in capsys.readouterr().out
    with pytest.raises(CramError, match=r"QNLI has no train\.tsv \(there: dev\.tsv\); fine-tuning needs"):
        main(words(checkpoint, data, tmp_path / "other", "tasks=qnli"))
