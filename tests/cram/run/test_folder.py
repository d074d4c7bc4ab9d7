"""The folder of a run: which config may open it, its start files, its budget, and results that are set aside."""

from pathlib import Path

import numpy as np
import pytest

from cram.budget import Budget
from cram.config.config import Config
from cram.config.recipe import load_config
from cram.config.schema import collect_keys
from cram.data.shards.shards import ShardSet, ShardWriter
from cram.errors import CramError
from cram.files.atomic import read_json, write_atomic, write_json
from cram.run import checksums
from cram.run.checksums import (
    HELD_OUT,
    RECEIPT,
    RESULT_FILES,
    START_FILES,
    WEIGHTS,
    check_file,
    is_finished,
    read_run_config,
    register_results,
)
from cram.run.folder import RunFolder, find_run


@pytest.fixture
def config(tmp_path: Path) -> Config:
    config = Config(recipe="mine", run=str(tmp_path / "runs" / "a"))
    config.model.layers = 3
    return config


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    """Return a shard folder with one row."""
    folder = tmp_path / "shards"
    folder.mkdir()
    writer = ShardWriter(folder, 4, 8, 0)
    writer.write(*np.zeros((2, 1, 4), np.int32))
    writer.finish(b'{"version": "1.0"}', [], {"counts": {"documents": 1}})
    return folder


def begin_in(folder: RunFolder, shards: Path, environment: dict[str, object]) -> dict[str, str]:
    opened = ShardSet.open(shards)
    return folder.begin(shards, opened.hash, opened.tokenizer_path.read_bytes(), environment)


def begin(config: Config, shards: Path) -> Path:
    """Begin a run, release its lock without finishing it, and return its folder."""
    folder = RunFolder(config)
    begin_in(folder, shards, {"python": "3"})
    return folder.path


def finish(path: Path, receipt: dict[str, object]) -> None:
    """Write the result files of a run."""
    for name in (WEIGHTS, HELD_OUT):
        write_atomic(path / name, b"")
    write_json(path / RECEIPT, receipt)
    register_results(path)


def test_a_run_begins_with_its_start_files(config: Config, shards: Path) -> None:
    path = begin(config, shards)
    assert load_config(path / "recipe.yaml") == config
    assert read_json(path / "environment.json") == {"python": "3", "seed": config.seed, "shards": str(shards)}
    assert (path / "tokenizer.json").read_bytes() == (shards / "tokenizer.json").read_bytes()


def test_a_run_keeps_its_shards_while_the_folder_exists(config: Config, shards: Path) -> None:
    assert RunFolder(config).shards is None
    begin(config, shards)
    assert RunFolder(config).shards == shards
    shards.rename(shards.with_name("moved"))
    assert RunFolder(config).shards is None


def test_the_same_config_opens_a_run_again_and_changes_nothing(config: Config, shards: Path, tmp_path: Path) -> None:
    path = begin(config, shards)
    before = {name: (path / name).read_bytes() for name in ("recipe.yaml", "environment.json", "tokenizer.json")}
    config.run = str(tmp_path / "runs" / ".." / "runs" / "a")  # another path of the same folder
    folder = RunFolder(config)
    assert begin_in(folder, shards, {"python": "4"}) == folder.checkpoints().identity
    assert {name: (path / name).read_bytes() for name in before} == before


def test_a_run_of_a_version_with_fewer_keys_is_opened_again(
    config: Config, shards: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = collect_keys(Config)
    fewer = {name: spec for name, spec in keys.items() if name != "objective.difficulty"}
    with monkeypatch.context() as earlier:
        earlier.setattr(checksums, "collect_keys", lambda _: fewer)
        path = begin(config, shards)
    assert begin_in(RunFolder(config), shards, {}) == checksums.read_identity(path)


def test_a_run_is_not_continued_with_other_data(config: Config, shards: Path, tmp_path: Path) -> None:
    begin(config, shards)
    folder = tmp_path / "others"
    folder.mkdir()
    writer = ShardWriter(folder, 4, 8, 0)
    writer.write(*np.ones((2, 1, 4), np.int32))
    writer.finish(b'{"version": "1.0"}', [], {"counts": {"documents": 1}})
    with pytest.raises(CramError, match=r"run=.*runs/a was begun with another data than there is now.\nPut it back"):
        begin_in(RunFolder(config), folder, {})


def test_another_recipe_is_refused_with_the_keys_that_differ(config: Config, shards: Path) -> None:
    begin(config, shards)
    config.model.layers = 4
    config.tokenizer = "mine.json"
    with pytest.raises(CramError, match=r"runs/a belongs to another recipe") as caught:
        RunFolder(config)
    message = str(caught.value)
    assert "model.layers is 3 there, 4 here" in message
    assert "tokenizer is None there, mine.json here" in message
    assert "run is" not in message
    assert len(message.splitlines()) == 2


def test_a_folder_with_other_files_is_refused_and_left_alone(config: Config, tmp_path: Path) -> None:
    path = tmp_path / "runs" / "a"
    path.mkdir(parents=True)
    (path / "letters.txt").write_text("mine")
    with pytest.raises(CramError, match=r"run=.*runs/a: the folder holds other files"):
        RunFolder(config)
    assert [file.name for file in path.iterdir()] == ["letters.txt"]


def test_an_empty_folder_and_one_of_a_run_that_never_began_are_accepted(config: Config, tmp_path: Path) -> None:
    (tmp_path / "runs" / "a").mkdir(parents=True)
    for _ in range(2):  # the first leaves its lock file
        assert not RunFolder(config).finished


def test_a_file_is_refused_and_left_alone(config: Config, tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "a").write_text("mine")
    with pytest.raises(CramError, match=r"run=.*runs/a is a file"):
        RunFolder(config)
    assert (tmp_path / "runs" / "a").read_text() == "mine"


def test_a_folder_that_cannot_be_made_is_refused(config: Config, tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("a file where the folder of the runs should be")
    with pytest.raises(CramError, match=r"run=.*runs/a: cannot be written .*Choose another run="):
        RunFolder(config)


def test_a_damaged_recipe_is_named(config: Config, shards: Path) -> None:
    path = begin(config, shards)
    (path / "recipe.yaml").write_text("model: [")
    with pytest.raises(CramError, match=r"recipe\.yaml: damaged or edited"):
        RunFolder(config)


def test_one_process_at_a_time_opens_a_run(config: Config) -> None:
    first = RunFolder(config)
    with pytest.raises(CramError, match=r"run=.*runs/a: another process is at work there"):
        RunFolder(config)
    del first
    RunFolder(config)


def test_a_run_is_finished_when_receipt_and_export_exist(config: Config, shards: Path) -> None:
    path = begin(config, shards)
    folder = RunFolder(config)
    assert not folder.finished
    finish(path, {"export": "export/"})
    assert not folder.finished
    (path / "export").mkdir()
    assert folder.finished
    (path / "receipt.json").unlink()
    assert not folder.finished


def test_a_run_that_is_not_exported_is_finished_with_its_receipt(config: Config, shards: Path) -> None:
    finish(begin(config, shards), {"export": "none: the run failed"})
    assert RunFolder(config).finished


def test_a_folder_without_a_run_is_refused_with_the_runs_beside_it(
    config: Config, shards: Path, tmp_path: Path
) -> None:
    begin(config, shards)
    run = Path(str(config.run))
    assert find_run(str(run)) == run
    beside = rf" Runs beside it: {run}\.$"
    with pytest.raises(CramError, match=rf"^run=.*nope is not a run folder: there is no such folder\.{beside}"):
        find_run(str(run.parent / "nope"))
    (run.parent / "empty").mkdir()
    with pytest.raises(CramError, match=r"^run=.*empty is not a run folder: there is no recipe\.yaml in it\."):
        find_run(str(run.parent / "empty"))


def test_keys_that_do_not_change_the_result_may_change(config: Config, shards: Path) -> None:
    begin(config, shards)
    config.recipe, config.threads, config.device, config.log_interval = "other", 3, "cpu", 7
    config.checkpoint.interval, config.evaluation.interval, config.budget = "7s", 0.5, "25h"
    config.data.dir, config.data.processes, config.compile.kind, config.card.license = "there", 2, "eager", "mit"
    RunFolder(config)


def test_the_budget_of_a_run_is_read_from_its_receipt_or_newest_checkpoint(config: Config, shards: Path) -> None:
    begin(config, shards)
    folder = RunFolder(config)
    assert folder.budget is None
    state = {"budget": {"clock": "wall", "limit": 75.0}}
    folder.checkpoints().save(3, {}, {}, state)
    assert folder.budget == Budget("wall", 75.0)
    finish(folder.path, {"budget": {"clock": "steps", "limit": 9.0, "spent": 9}})
    assert folder.budget == Budget("steps", 9.0)


def test_nothing_is_set_aside_without_results(config: Config, shards: Path) -> None:
    begin(config, shards)
    folder = RunFolder(config)
    (folder.path / "report.html").write_text("of a run that goes on")
    assert folder.set_aside(Budget("wall", 75.0)) is None
    (folder.path / "metrics.jsonl").touch()
    (folder.path / "glue.json").write_text("{}")
    assert folder.set_aside(Budget("wall", 75.0)) == folder.path / "budget-75s"
    assert not (folder.path / "glue.json").exists() and (folder.path / "recipe.yaml").exists()
    assert (folder.path / "budget-75s" / "report.html").exists() and not (folder.path / "report.html").exists()


@pytest.mark.parametrize("killed", [False, True])
def test_results_set_aside_are_a_finished_run_of_their_own(
    config: Config, shards: Path, monkeypatch: pytest.MonkeyPatch, killed: bool
) -> None:
    path = begin(config, shards)
    finish(path, {"export": "none", "budget": {"clock": "wall", "limit": 75.0}})
    (path / "metrics.jsonl").touch()
    folder = RunFolder(config)
    if killed:
        with monkeypatch.context() as patch, pytest.raises(ZeroDivisionError):
            patch.setattr(Path, "rename", lambda *_: 1 / 0)
            folder.set_aside(Budget("wall", 75.0))
    subfolder = folder.set_aside(Budget("wall", 75.0))
    assert subfolder and is_finished(subfolder) and not is_finished(path)
    for name in (*START_FILES, *RESULT_FILES):
        assert check_file(subfolder, name).is_file()
    assert read_run_config(path) == config


@pytest.mark.parametrize("name", ["checkpoints", "export", "tensorboard", "budget-3m"])
def test_a_subfolder_that_is_a_link_is_refused(tmp_path: Path, name: str) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".lock").touch()
    (tmp_path / "run" / name).symlink_to(elsewhere)
    with pytest.raises(CramError, match=rf"run/{name} is a link, but a run writes only into folders of its own\."):
        RunFolder(Config(run=str(tmp_path / "run")))
