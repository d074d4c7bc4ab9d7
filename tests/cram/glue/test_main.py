"""The command: words, files, resuming after a kill, and the fine-tuned models in stock hands."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from cram.config.commands import GlueConfig
from cram.config.recipe import read_words
from cram.errors import CramError
from cram.glue.__main__ import check, main
from cram.glue.benchmark import describe, load_model, results_folder
from cram.glue.data import load_task
from cram.glue.metrics import score
from cram.glue.submission import from_table
from cram.glue.tasks import NINE, TASKS, find_tasks

ROOT = Path(__file__).resolve().parents[3]


def words(checkpoint: Path, data: Path, to: Path, *more: str) -> list[str]:
    shared = ["check_counts=false", "epochs=2", "learning_rate=3e-3", "threads=1", "device=cpu"]
    return [f"run={checkpoint}", f"data={data}", f"to={to}", *shared, *more]


def record(to: Path) -> dict[str, Any]:
    return json.loads((to / "glue.json").read_text())  # type: ignore[no-any-return]


def run(said: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "cram.glue", *said], cwd=ROOT, capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def done(checkpoint: Path, glue_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results of all nine scores with three seeds of some."""
    to = tmp_path_factory.mktemp("results") / "mine"
    assert main(words(checkpoint, glue_folder, to, "seeds=1", "untrained=true", "batch=4", "epochs=3")) == 0
    assert main(words(checkpoint, glue_folder, to, "seeds=3", "tasks=[sst2,mnli]", "batch=4", "epochs=3")) == 0
    return to


def test_glue_json_holds_everything(done: Path) -> None:
    found = record(done)
    results = found["results"]
    assert set(results["scores"]) == set(NINE)
    assert results["missing"] == []
    assert results["mean"] == pytest.approx(sum(results["scores"][name]["median"] for name in NINE) / 9)
    assert len(results["scores"]["sst2"]["seeds"]) == 3
    assert results["scores"]["sst2"]["median"] > 80.0
    assert len(results["scores"]["rte"]["seeds"]) == 1
    assert len(found["jobs"]) == 8 + 8 + 2 * 2
    assert results["majority"]["cola"] == results["majority"]["stsb"] == 0.0
    assert results["majority"]["rte"] == 50.0
    assert set(results["untrained"]) == {*NINE, "mean"}
    assert results["protocol"]["kept"] is False
    assert results["protocol"]["departures"][:5] == [
        "batch=4", "epochs=3", "length=32", "learning_rate=3e-3", "seeds=1",
    ]  # fmt: skip
    assert any("RTE/train.tsv: 64 rows" in text for text in results["protocol"]["departures"])
    assert [line["passed"] for line in results["rules"]] == [True, True, True]
    assert results["published"]["BERT-base"]["mean"] == 80.9
    assert results["submission"]["majority_class"] == ["wnli"]
    said = "\n".join(describe(results, []))
    assert "; not for handing in: CoLA has 10 rows, 1,063 are asked for, " in said
    assert "MNLI-mm has 10 rows, 9,847 are asked for" in said
    assert "crammed v2, A6000: mean 80.4" in said
    assert (done / "glue" / "glue.png").is_file()


def test_the_median_seed_is_kept_and_its_predictions(done: Path, glue_folder: Path) -> None:
    results = record(done)["results"]
    folders = [path for path in (done / "glue").iterdir() if (path / "config.json").is_file()]
    assert sorted(str(folder.relative_to(done)) for folder in folders) == sorted(
        model["path"] for model in results["models"].values()
    )
    seeds = results["scores"]["sst2"]["seeds"]
    assert seeds[str(results["models"]["sst2"]["seed"])] == sorted(seeds.values())[1]
    with zipfile.ZipFile(done / "glue" / "submission.zip") as archive:
        assert len(archive.namelist()) == 11
        for name, rows in {"MNLI-mm.tsv": 10, "AX.tsv": 7, "STS-B.tsv": 10, "WNLI.tsv": 146}.items():
            assert len(from_table(archive.read(name).decode())) == rows
    (dev,) = (done / "glue" / "predictions").glob(f"{folders[0].name}-*-dev-*.tsv")
    assert len(from_table(dev.read_text())) == 24


@pytest.mark.parametrize("name", ["sst2", "mnli", "stsb"])
def test_stock_transformers_alone_repeat_the_dev_score(done: Path, glue_folder: Path, name: str) -> None:
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline

    results, task = record(done)["results"], TASKS[name]
    folder = done / results["models"][name]["path"]
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    for part, rows in load_task(str(glue_folder), task, check_counts=False).dev.items():
        inputs = tokenizer(
            *map(list, zip(*rows.texts, strict=True)), truncation=True, padding=True, return_tensors="pt"
        )
        with torch.no_grad():
            outputs = model(**inputs).logits.numpy()
        wanted = results["scores"][part]["seeds"][str(results["models"][name]["seed"])]
        assert score(task, outputs, rows.known)[task.metrics[0]] == pytest.approx(wanted, abs=1e-3)
    answer = pipeline("text-classification", str(folder), device="cpu")(
        {"text": "the warm film", "text_pair": "the film"}
    )
    assert answer["label"] in (task.labels or ("score",))


def test_a_kept_model_that_is_not_the_median_shows_its_own_score(done: Path) -> None:
    results = record(done)["results"]
    model, median = results["models"]["sst2"], results["scores"]["sst2"]["median"]
    assert model["score"] == median
    assert f"model       {model['path']} (seed {model['seed']})" in describe(results, [])
    model["score"] = 12.34
    said = f"model       {model['path']} (seed {model['seed']}, accuracy 12.3, the median is {median:.1f})"
    assert said in describe(results, [])


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
    (kept,) = (tmp_path / "fresh" / "glue").glob("stsb-*/config.json")
    model = load_model(kept.parent, torch.device("cpu"))
    assert sum(one.numel() for one in model.parameters())
    archives = [(tmp_path / name / "glue" / "submission.zip").read_bytes() for name in ("again", "fresh")]
    assert archives[0] == archives[1]
    kept.write_bytes(kept.read_bytes() + b" ")
    with pytest.raises(
        CramError, match=r"config.json: damaged or edited, .* Remove it, and its task has no predictions"
    ):
        stsb(tmp_path / "fresh", 3)


def test_a_folder_that_lacks_a_task_done_before_is_said_so(checkpoint: Path, glue_folder: Path, tmp_path: Path) -> None:
    main(words(checkpoint, glue_folder, tmp_path / "out", "seeds=1", "tasks=rte"))
    data = tmp_path / "data"
    data.mkdir()
    (data / "CoLA").symlink_to(glue_folder / "CoLA")
    said = (
        r"rte has no folder RTE; .* \(rte: its results are in .*/out/glue\.json already; "
        r"give the folder that holds it too, or another to=\)"
    )
    with pytest.raises(CramError, match=said):
        main(words(checkpoint, data, tmp_path / "out", "tasks=cola"))


def test_more_tasks_join_what_is_there_and_nothing_runs_twice(
    checkpoint: Path, glue_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(words(checkpoint, glue_folder, tmp_path, "seeds=2", "tasks=rte"))
    first = record(tmp_path)["jobs"]
    (model,) = (tmp_path / "glue").glob("rte-*")
    before = (model / "model.safetensors").stat().st_mtime_ns
    main(words(checkpoint, glue_folder, tmp_path, "seeds=1", "tasks=[CoLA,wnli]"))
    found = record(tmp_path)
    assert found["jobs"][: len(first)] == first
    assert set(found["results"]["scores"]) == {"rte", "cola", "wnli"}
    assert found["results"]["mean"] is None
    assert (model / "model.safetensors").stat().st_mtime_ns == before
    assert "of the nine scores were not run" in capsys.readouterr().out
    with pytest.raises(CramError, match=r"holds results of other settings: epochs is 2 there, 1 here"):
        main([*words(checkpoint, glue_folder, tmp_path, "tasks=rte"), "epochs=1"])
    with pytest.raises(CramError, match="limit is None there, 8 here"):
        main(words(checkpoint, glue_folder, tmp_path, "tasks=rte", "limit=8"))


def test_a_sweep_picks_one_rate_for_all_tasks(
    checkpoint: Path, glue_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = words(checkpoint, glue_folder, tmp_path, "seeds=1", "tasks=[sst2,rte]", "limit=32")
    main([*said, "learning_rate=[1e-6,5e-3]", "epochs=6"])
    results = record(tmp_path)["results"]
    assert set(results["learning_rates"]) == {"1e-06", "0.005"}
    assert results["learning_rates"][repr(results["learning_rate"])] == max(results["learning_rates"].values())
    assert results["protocol"]["departures"][0] == "limit=32"
    assert [line["passed"] for line in results["rules"]] == [True, False, True]
    out = capsys.readouterr().out
    assert "NOT as published: limit=32" in out
    assert "not kept: at most 5 epochs (6 epochs)" in out
    assert "learning_rate=1e-6, 5e-3, the best on the dev sets" in out


def test_a_killed_command_goes_on(checkpoint: Path, glue_folder: Path, tmp_path: Path) -> None:
    said = words(checkpoint, glue_folder, tmp_path, "seeds=3", "tasks=[cola,rte,stsb]", "batch=4")
    child = subprocess.Popen([sys.executable, "-m", "cram.glue", *said], cwd=ROOT, stdout=subprocess.DEVNULL)
    path, waited = tmp_path / "glue.json", time.monotonic()
    while not path.exists() or len(record(tmp_path)["jobs"]) < 2:
        assert child.poll() is None and time.monotonic() - waited < 120
        time.sleep(0.01)
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    before = record(tmp_path)["jobs"]
    assert 2 <= len(before) < 9
    finished = run(said)
    assert finished.returncode == 0, finished.stderr
    after = record(tmp_path)["jobs"]
    assert after[: len(before)] == before
    names = {tuple(entry["job"].values()) for entry in after}
    assert len(names) == len(after) == 9
    assert f"1 of {9 - len(before)}: " in finished.stdout
    assert not list((tmp_path / "glue").glob(".*.partial"))
    undisturbed = tmp_path / "undisturbed"
    main([*said, f"to={undisturbed}"])
    for one, other in zip(after, record(undisturbed)["jobs"], strict=True):
        assert one["outcome"] | {"seconds": 0} == other["outcome"] | {"seconds": 0}


def test_tasks_that_a_folder_lacks_are_left_out_only_where_none_was_named(
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


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ([], "run= is missing"),
        (["run=x", "tasks=[ret]"], r"tasks=ret is unknown\. Nearest: rte"),
        (["run=x", "seeds=0"], "seeds=0 is out of range: give a number at least 1"),
        (["run=x", "epochs=0"], "epochs=0 is out of range: give a number at least 1"),
        (["run=x", "length=4"], "length=4 is out of range: give a number at least 8"),
        (["run=x", "limit=0"], "limit=0 is out of range: give a number at least 1"),
        (["run=x", "dropout=1.0"], r"dropout=1\.0 is out of range: give a number at least 0, below 1"),
        (["run=x", "learning_rate=[4e-5,2]"], "learning_rate=2 is out of range: give a number above 0, below 1"),
        (["run=x", "seed=3"], r"unknown key 'seed' .*Nearest: seeds"),
        (["run=/nowhere", "tasks=rte"], "run=/nowhere is no checkpoint"),
    ],
)
def test_words_that_cannot_be(said: list[str], message: str) -> None:
    with pytest.raises(CramError, match=message):
        main(said)


def test_the_commands_of_the_readme_are_understood() -> None:
    lines = [line for line in (ROOT / "README.md").read_text().splitlines() if line.startswith("python -m cram.glue ")]
    assert len(lines) >= 4
    for line in lines:
        said = read_words(GlueConfig, shlex.split(line)[3:])
        check(said)
        find_tasks(said.tasks)


def test_where_results_go(checkpoint: Path, tmp_path: Path) -> None:
    assert results_folder(GlueConfig(run=str(checkpoint), to="there")) == Path("there")
    assert results_folder(GlueConfig(run=str(checkpoint))) == Path("runs/glue-encoder")
    assert results_folder(GlueConfig(run="hf:owner/name-base")) == Path("runs/glue-name-base")
    (tmp_path / "recipe.yaml").touch()
    assert results_folder(GlueConfig(run=str(tmp_path))) == tmp_path


def test_a_folder_in_use_and_one_that_is_a_file(checkpoint: Path, glue_folder: Path, tmp_path: Path) -> None:
    from cram.files.lock import wait_for_lock

    (tmp_path / "glue").mkdir()
    with wait_for_lock(tmp_path / "glue" / ".lock"), pytest.raises(CramError, match="another process is at work there"):
        main(words(checkpoint, glue_folder, tmp_path, "tasks=rte"))
    (tmp_path / "file").write_text("mine")
    with pytest.raises(CramError, match=r"to=.*file is a file"):
        main(words(checkpoint, glue_folder, tmp_path / "file", "tasks=rte"))


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("/", "to=/ is a folder that always exists"),
        ("file/below", r"to=.*below: .*file is a file, so there can be no folder below it"),
        ("dangling", "to=.*dangling is a link"),
        ("mine", "to=.*mine/glue is a link"),
    ],
)
def test_a_place_that_cannot_hold_results_is_refused(
    checkpoint: Path, glue_folder: Path, tmp_path: Path, place: str, message: str
) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "dangling").symlink_to("nowhere")
    for name in ("mine", "theirs"):
        (tmp_path / name).mkdir()
    (tmp_path / "mine" / "glue").symlink_to(tmp_path / "theirs")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(CramError, match=message) as caught:
        main(words(checkpoint, glue_folder, tmp_path / place, "tasks=rte"))
    assert len(str(caught.value).splitlines()) == 1
    assert sorted(tmp_path.rglob("*")) == before


def test_the_door_says_what_is_wrong_without_a_traceback() -> None:
    answer = run(["run=/nowhere"])
    assert (answer.returncode, "Traceback" in answer.stderr) == (2, False)
    answer = run(["--help"])
    assert answer.returncode == 0
    assert "learning_rate" in answer.stdout
