"""A run is stopped and goes on: with other words that do not name it, and with a longer budget."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from cram import train as door
from cram.build import assemble, check
from cram.config.config import Config
from cram.config.model import ModelConfig
from cram.config.objective import ObjectiveConfig
from cram.config.optimizer import OptimizerConfig
from cram.config.training import ScheduleConfig
from cram.errors import CramError
from cram.files.atomic import read_json
from cram.model.kinds import build_model
from cram.objectives.objective import Setting
from cram.objectives.phased import PhasedObjective
from cram.optim.schedule import decay_begins, make_schedule
from cram.run.checkpoint import Checkpoints
from cram.run.history import describe_changes
from cram.run.metrics import read_metrics
from cram.training.extension import stepped_back
from tests.cram.run.tensorboard_files import check_agreement
from tests.cram.training.short_runs import STEADY, stop_at, with_run


@pytest.fixture(scope="module")
def words(tiny_run: Callable[[Path], list[str]], tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return [*tiny_run(tmp_path_factory.mktemp("extension")), *STEADY]


@pytest.fixture(scope="module")
def straight(words: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 24 updates from the start."""
    folder = tmp_path_factory.mktemp("straight") / "run"
    assert door.main([*with_run(words, folder), "budget=24steps"]) == 0
    return folder


@pytest.fixture(scope="module")
def short(words: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with 12 updates."""
    folder = tmp_path_factory.mktemp("short") / "run"
    assert door.main([*with_run(words, folder), "budget=12steps"]) == 0
    return folder


@pytest.fixture
def finished(short: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(short, tmp_path / "run"))


def weights(run: Path) -> bytes:
    return (run / "model.safetensors").read_bytes()


def budget_line(receipt: dict[str, Any]) -> str:
    return str(next(line["found"] for line in receipt["rules"] if line["rule"].startswith("budget kept")))


def test_a_finished_run_goes_on_from_before_its_decay_to_the_weights_of_the_longer_run(
    finished: Path, straight: Path, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    first = weights(finished)
    assert Checkpoints(finished).steps() == [12, 6]
    assert door.main([*with_run(words, finished), "budget=24steps"]) == 0
    said = capsys.readouterr().out
    assert "extended from 12steps to 24steps at update 6 (6 later updates, " in said
    assert "progress was 50.0% of the old budget and is 25.0% of the new one" in said
    assert weights(finished) == weights(straight)
    receipt = read_json(finished / "receipt.json")
    (extension,) = receipt["extensions"]
    assert (extension["old_limit"], extension["limit"], extension["update"]) == (12.0, 24.0, 6)
    assert extension["discarded_updates"] == 6
    assert receipt["time"]["not_charged"]["discarded"] == pytest.approx(extension["discarded_seconds"], abs=1e-3)
    assert extension["discarded_seconds"] > 0.0
    assert receipt["time"]["charged"]["crash"] == 0.0
    assert "extended from 12steps to 24steps at update 6" in budget_line(receipt)
    assert receipt["updates"] == 24 and receipt["budget"]["progress"] == 1.0
    steps = [record["step"] for record in read_metrics(finished / "metrics.jsonl") if record["kind"] == "train"]
    assert steps == [5, 10, 15, 20, 24]
    check_agreement(finished)
    kept = finished / "budget-12steps"
    assert weights(kept) == first
    assert read_json(kept / "receipt.json")["updates"] == 12
    assert door.main([*with_run(words, kept), "budget=12steps"]) == 0
    assert "is finished; nothing to do" in capsys.readouterr().out


def test_an_unfinished_run_before_its_decay_simply_goes_on(
    words: list[str],
    straight: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    own = with_run(words, tmp_path / "run")
    with monkeypatch.context() as patch:
        stop_at(patch, 4)
        assert door.main([*own, "budget=12steps"]) == 130
    assert door.main([*own, "budget=24steps"]) == 0
    said = capsys.readouterr().out
    assert "extended from 12steps to 24steps at update 4\n" in said
    assert "thrown away" not in said
    assert weights(tmp_path / "run") == weights(straight)
    assert not list((tmp_path / "run").glob("budget-*"))


@pytest.mark.parametrize("killed", ["set_aside", "save"])
def test_an_extension_that_is_killed_is_taken_up_by_the_same_command(
    killed: str, finished: Path, straight: Path, words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    own = [*with_run(words, finished), "budget=24steps"]

    def kill(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    moved: list[Path] = []
    rename = Path.rename

    def rename_two(path: Path, to: Path) -> Path:
        if len(moved) == 2:
            raise KeyboardInterrupt
        moved.append(path)
        return rename(path, to)

    first = weights(finished)
    with monkeypatch.context() as patch:
        if killed == "set_aside":
            patch.setattr(Path, "rename", rename_two)
        else:
            patch.setattr(Checkpoints, "save", kill)
        with pytest.raises(KeyboardInterrupt):
            door.main(own)
    assert door.main(own) == 0
    assert weights(finished) == weights(straight)
    assert weights(finished / "budget-12steps") == first
    assert len(read_json(finished / "receipt.json")["extensions"]) == 1


@pytest.mark.parametrize(
    ("budget", "message"),
    [
        (
            "6steps",
            r"budget=6steps is shorter than the 12steps that run=.* has\.\nGive budget=12steps, a longer budget",
        ),
        ("10s", r"budget=10s is measured otherwise than the 12steps that run=.* has"),
    ],
)
def test_a_shorter_budget_and_another_clock_are_refused(
    budget: str, message: str, finished: Path, words: list[str]
) -> None:
    before = weights(finished)
    with pytest.raises(CramError, match=message):
        door.main([*with_run(words, finished), f"budget={budget}"])
    assert weights(finished) == before


def test_a_run_whose_learning_rate_has_fallen_is_refused_with_what_to_do(finished: Path, words: list[str]) -> None:
    shutil.rmtree(finished / "checkpoints" / "6")
    what = r"falls from 50% of the budget on, and no checkpoint from before that point is left: it cannot be extended\."
    with pytest.raises(CramError, match=rf"{what}\nStart another run .* init=.*run, or give budget=12steps\."):
        door.main([*with_run(words, finished), "budget=24steps"])


def test_a_run_whose_learning_rate_falls_from_the_start_is_refused(words: list[str], tmp_path: Path) -> None:
    own = [*with_run(words, tmp_path / "run"), "schedule.kind=linear"]
    assert door.main([*own, "budget=2steps"]) == 0
    with pytest.raises(CramError, match=r"falls from 0% of the budget on, and nothing was trained before that"):
        door.main([*own, "budget=4steps"])


def test_words_that_do_not_name_a_run_may_change_at_a_resume(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    own = [*with_run(words, tmp_path / "run"), "budget=12steps"]
    with monkeypatch.context() as patch:
        stop_at(patch, 3)
        assert door.main(own) == 130
    others = ["log_interval=1", "threads=2", "checkpoint.interval=1s", "data.processes=1", "device=auto"]
    others += ["evaluation.interval=0.5", "card.license=mit", f"data.dir={tmp_path / 'elsewhere'}"]
    said = {word.partition("=")[0] for word in others}
    assert door.main([*(word for word in own if word.partition("=")[0] not in said), *others]) == 0
    out = capsys.readouterr().out
    assert "threads 1 until update 3, then 2: a repeated run would no longer give the same bytes" in out
    receipt = read_json(tmp_path / "run" / "receipt.json")
    assert [(one["update"], one["threads"]) for one in receipt["processes"]] == [(0, 1), (3, 2)]
    assert receipt["bytes_repeat"] is False
    assert receipt["threads"] == 2


def test_threads_that_nobody_names_stay_those_of_the_checkpoint(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = [word for word in with_run(words, tmp_path / "run") if not word.startswith("threads=")]
    with monkeypatch.context() as patch:
        stop_at(patch, 3)
        assert door.main([*own, "budget=6steps", "threads=1"]) == 130
    assert door.main([*own, "budget=6steps"]) == 0
    receipt = read_json(tmp_path / "run" / "receipt.json")
    assert [one["threads"] for one in receipt["processes"]] == [1, 1]
    assert receipt["thread_choices"] == []  # a budget in steps keeps one number
    assert receipt["bytes_repeat"] is True


KINDS = [
    ScheduleConfig("linear", warmup=0.1),
    ScheduleConfig("cosine", warmup=0.1),
    ScheduleConfig("triangle", peak=0.4),
    ScheduleConfig("trapezoid", warmup=0.1, decay_start=0.6),
    ScheduleConfig("trapezoid", warmup=0.5, decay_start=0.2),
    ScheduleConfig("budget-triangle2"),
]


@pytest.mark.parametrize("config", KINDS, ids=lambda config: f"{config.kind}-{config.warmup}")
def test_a_learning_rate_falls_from_where_its_decay_is_said_to_begin(config: ScheduleConfig) -> None:
    schedule, begins = make_schedule(config), decay_begins(config)
    values = [schedule(i / 1000) for i in range(1001)]
    rising = [i for i in range(1, 1001) if values[i] >= values[i - 1]]
    assert max(rising) / 1000 == pytest.approx(begins, abs=2e-3)
    assert schedule(begins) == pytest.approx(1.0)


def test_what_steps_back_with_progress_is_named() -> None:
    config = Config(
        objective=ObjectiveConfig(mask_rate=0.5, final_mask_rate=0.1, causal_share=0.2),
        optimizer=OptimizerConfig(kind="muon", final_decay=0.0),
        schedule=ScheduleConfig("trapezoid", warmup=0.2, decay_start=0.5),
    )
    config.optimizer.muon.momentum_start = 0.85
    config.averaging.start = 0.3
    check(config)
    objective = PhasedObjective(config.objective, Setting([0, 1, 2, 3, 4], 0, 4, 64, 128))
    model = build_model(ModelConfig(layers=1, width=8, heads=2, mlp_width=8), 64, 0, torch.device("cpu"))
    parts = assemble(config, model, objective, None, None, torch.float32)  # type: ignore[arg-type]
    assert stepped_back(parts, 0.4, 0.1) == {
        "learning rate": "100.0% of its peak -> 50.0% of its peak",
        "weight decay": "60.0% -> 90.0%",
        "objective": "40.0% masked -> causal",
        "averaging": "begun -> not begun",
    }
    assert stepped_back(parts, 0.4, 0.4) == {}


def test_bytes_repeat_where_every_process_had_the_same() -> None:
    one = {"threads": 1, "device": "a", "precision": "float32", "compile": "auto", "attention": "auto", "torch": "2"}
    processes = [{**one, "update": 0}, {**one, "update": 3}, {**one, "update": 9, "device": "b", "torch": "3"}]
    assert describe_changes(processes[:2]) == []
    assert describe_changes(processes) == ["device a until update 9, then b", "torch 2 until update 9, then 3"]
    assert json.loads(json.dumps(processes)) == processes
