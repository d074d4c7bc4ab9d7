"""Checkpoints of runs, evaluated, exported and fine-tuned."""

from collections.abc import Callable
from pathlib import Path

import pytest

from cram import train as door
from cram.config.commands import GlueConfig
from cram.config.recipe import read_config
from cram.errors import CramError
from cram.evaluate import main as evaluate
from cram.export import main as export
from cram.files.atomic import read_json
from cram.glue.run import export_checkpoint
from cram.run.checkpoint import Checkpoints
from tests.cram.training.short_runs import STEADY, stop_at, with_run


@pytest.fixture(scope="module")
def words(tiny_run: Callable[[Path], list[str]], tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return [*tiny_run(tmp_path_factory.mktemp("runs")), *STEADY]


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


def test_weights_at_shares_of_the_budget_outlive_the_run_and_its_extension(words: list[str], tmp_path: Path) -> None:
    run = tmp_path / "run"
    own = [*with_run(words, run), "model.kind=encoder", "checkpoint.shares=[0.25,0.5]"]
    assert door.main([*own, "budget=8steps"]) == 0
    assert Checkpoints(run).steps() == [8, 4, 2]
    assert Checkpoints(run).complete_steps() == [8, 4]  # the learning rate falls from update 4 on
    first = (run / "checkpoints" / "2" / "model.safetensors").read_bytes()
    assert door.main([*own, "budget=16steps"]) == 0
    # Update 4 was half of the old budget and is a quarter of the new one.
    assert Checkpoints(run).steps() == [16, 8, 4, 2]
    assert Checkpoints(run).complete_steps() == [16, 8]
    assert (run / "checkpoints" / "2" / "model.safetensors").read_bytes() == first
    assert export([f"run={run}", "checkpoint=2"]) == 0
    assert read_json(run / "export-2" / "unfinished.json")["budget"]["progress"] == 0.25
    assert evaluate([f"run={run}", "checkpoint=4"]) == 0


def test_shares_of_checkpoints_lie_between_start_and_end() -> None:
    with pytest.raises(CramError, match=r"checkpoint\.shares.*above 0, below 1"):
        read_config(["recipe=bert_demo", "checkpoint.shares=[0.5,1]"])


def test_glue_takes_a_checkpoint_as_an_exported_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    said = GlueConfig(run=str(tmp_path), checkpoint="newest")
    with pytest.raises(CramError, match=r"checkpoint=newest: run=.* is not a run folder, and only these"):
        export_checkpoint(said)
    (tmp_path / "recipe.yaml").touch()
    monkeypatch.setattr("cram.hub.export.export_run", lambda run, checkpoint: run / "export-4")
    exported = export_checkpoint(said)
    assert (exported.run, exported.to) == (str(tmp_path / "export-4"), str(tmp_path / "glue-4"))


def test_a_checkpoint_with_fewer_blocks_than_the_recipe_is_evaluated_and_exported(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    stacking = ["model.kind=encoder", "model.layers=4", "stacking.layers=1", "stacking.at=[0.3,0.7]"]
    with monkeypatch.context() as patch:
        stop_at(patch, 5)
        assert door.main([*with_run(words, run), *stacking, "model.size=given", "budget=10steps"]) == 130
    assert evaluate([f"run={run}", "checkpoint=newest"]) == 0
    assert export([f"run={run}", "checkpoint=5"]) == 0  # which compares logits
    assert read_json(run / "export-5" / "config.json")["num_hidden_layers"] == 2
    assert "(2 layers of 32" in (run / "export-5" / "README.md").read_text()
