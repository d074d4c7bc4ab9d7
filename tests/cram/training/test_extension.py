"""A run is stopped and goes on: with other words that do not name it, and with a longer budget."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from cram import train as door
from cram.build import assemble, check
from cram.config.commands import GlueConfig
from cram.config.config import Config
from cram.config.model import ModelConfig
from cram.config.recipe import read_config
from cram.config.training import ObjectiveConfig, OptimizerConfig, ScheduleConfig
from cram.errors import CramError
from cram.evaluate import main as evaluate
from cram.export import main as export
from cram.files.atomic import read_json
from cram.glue.run import export_checkpoint
from cram.hub.initial import read_initial
from cram.model.kinds import build_model
from cram.objectives.objective import Setting
from cram.objectives.phased import PhasedObjective
from cram.optim.schedule import decay_begins, make_schedule
from cram.run.checkpoint import Checkpoints
from cram.run.history import describe_changes
from cram.run.metrics import read_metrics
from cram.training.extension import stepped_back

# Nothing of these depends on the budget before the learning rate falls, from half of it on.
STEADY = ["schedule.warmup=0", "schedule.decay_start=0.5", "objective.mask_rate=0.3", "objective.final_mask_rate=null"]
STEADY += ["optimizer.muon.momentum_start=null", "data.epochs=3", "model.kind=crammed"]


def stop_at(monkeypatch: pytest.MonkeyPatch, updates: int) -> None:
    """Interrupt the next training after some updates."""

    class Stop:
        def __init__(self) -> None:
            self.left = updates

        def __enter__(self) -> "Stop":
            return self

        def __exit__(self, *_: object) -> None:
            pass

        @property
        def asked(self) -> bool:
            self.left -= 1
            return self.left <= 0

    monkeypatch.setattr("cram.training.start.StopSignals", Stop)


def with_run(words: list[str], folder: Path) -> list[str]:
    return [*(word for word in words if not word.startswith("run=")), f"run={folder}"]


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

    def kill(*_: object) -> None:
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


def test_a_checkpoint_of_an_unfinished_run_is_evaluated_and_exported(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    with monkeypatch.context() as patch:
        stop_at(patch, 4)
        assert door.main([*with_run(words, run), "model.kind=encoder", "budget=12steps"]) == 130
    assert evaluate([f"run={run}", "checkpoint=newest"]) == 0
    said = capsys.readouterr().out
    assert f"{run} at update 4 on the held-out documents: " in said
    assert export([f"run={run}", "checkpoint=4"]) == 0
    assert export([f"run={run}", "checkpoint=newest"]) == 0  # the same folder, left as it is
    folder = run / "export-4"
    account = read_json(folder / "unfinished.json")
    assert (account["unfinished"], account["checkpoint"], account["rules"]) == (True, 4, [])
    assert account["budget"] == {"clock": "steps", "limit": 12.0, "spent": 4, "progress": 4 / 12}
    assert f"{account['held_out']['nats_per_token']:.4f} nats per token" in said
    card = (folder / "README.md").read_text()
    for part in ("**Not the end of a run:**", "at update 4, 33.3% of the budget", "judged when a run is finished"):
        assert part in card
    for path in folder.iterdir():
        assert str(tmp_path).encode() not in path.read_bytes(), path.name
    with pytest.raises(CramError, match=r"checkpoint=7: there is none in .*Use newest or one of these: 0, 4\."):
        export([f"run={run}", "checkpoint=7"])
    with pytest.raises(CramError, match=r"there is no receipt\.json"):
        evaluate([f"run={run}"])
    shards = Path(read_json(run / "environment.json")["shards"])
    shards.rename(shards.with_name("gone"))
    with pytest.raises(CramError, match=r"checkpoint=4: held-out rows are made from the run's shards, and .* is not"):
        evaluate([f"run={run}", "checkpoint=4"])


def test_glue_takes_a_checkpoint_as_an_exported_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    said = GlueConfig(run=str(tmp_path), checkpoint="newest")
    with pytest.raises(CramError, match=r"checkpoint=newest: run=.* is not a run folder, and only these"):
        export_checkpoint(said)
    (tmp_path / "recipe.yaml").touch()
    monkeypatch.setattr("cram.hub.export.export_run", lambda run, checkpoint: run / "export-4")
    exported = export_checkpoint(said)
    assert (exported.run, exported.to) == (str(tmp_path / "export-4"), str(tmp_path / "glue-4"))


def with_init(words: list[str], tmp_path: Path, *more: str) -> list[str]:
    return [*with_run(words, tmp_path / "new"), "model.kind=encoder", "budget=2steps", *more]


def test_a_run_begins_with_the_weights_of_a_run_and_of_its_export(words: list[str], tmp_path: Path) -> None:
    first = tmp_path / "first"
    assert door.main([*with_run(words, first), "model.kind=encoder", "budget=2steps"]) == 0
    state = load_file(first / "model.safetensors")
    for source in (first, first / "export"):
        config = read_config(with_init(words, tmp_path, f"init={source}", f"tokenizer={source}/tokenizer.json"))
        read = read_initial(config)
        assert read.keys() == state.keys()
        assert all(torch.equal(read[name], state[name]) for name in state)
    theirs = [f"init={first}/export", f"tokenizer={first}/export/tokenizer.json", "schedule.kind=linear"]
    assert door.main(with_init(words, tmp_path, *theirs)) == 0
    start = load_file(tmp_path / "new" / "checkpoints" / "0" / "model.safetensors")
    assert all(torch.equal(start[name], state[name]) for name in state)
    receipt = read_json(tmp_path / "new" / "receipt.json")
    line = next(line for line in receipt["rules"] if line["rule"] == "no pretrained weights")
    assert not line["passed"] and line["found"].startswith("began with the weights of first/export, ")
    assert "trained on from the weights of `first/export`" in (tmp_path / "new" / "export" / "README.md").read_text()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["model.width=64"], r"does not fit the recipe: embedding.weight is \[192, 32\] there, \[192, 64\] here"),
        (
            ["wordpiece.vocab_size=256"],
            r"without tokenizer= another one would be trained .*tokenizer=.*tokenizer\.json",
        ),
        (["tokenizer={other}"], r"they differ in 'model'.*\n?.*Use tokenizer=.*run/tokenizer\.json"),
        (["init=nowhere"], "init=nowhere is neither a run folder nor an exported folder"),
    ],
)
def test_weights_that_do_not_fit_are_refused_before_any_work(
    more: list[str], message: str, words: list[str], short: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other.json"
    tokenizer = read_json(short / "tokenizer.json")
    other.write_text(json.dumps({**tokenizer, "model": {**tokenizer["model"], "unk_token": "[SEP]"}}))
    said = [*with_run(words, tmp_path / "new"), "budget=2steps", f"init={short}", "data.dir=nowhere"]
    named = {word.partition("=")[0] for word in more}
    said = [word for word in said if word.partition("=")[0] not in named]
    with pytest.raises(CramError, match=message):
        door.main([*said, *(word.format(other=other) for word in more)])
    assert not (tmp_path / "new" / "recipe.yaml").exists() and not Path("nowhere").exists()
