from pathlib import Path

import numpy as np
import pytest

from cram.clock import Budget
from cram.config.config import Config
from cram.config.recipe import load_config
from cram.data.shards.shards import ShardSet, ShardWriter
from cram.errors import CramError
from cram.files.atomic import read_json, write_atomic, write_json
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
    """A shard folder of one row."""
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
    """A run that has begun and ended, unfinished. Its folder is given back."""
    folder = RunFolder(config)
    begin_in(folder, shards, {"python": "3"})
    return folder.path


def finish(path: Path, receipt: dict[str, object]) -> None:
    """Leave what a finished run leaves."""
    for name in (WEIGHTS, HELD_OUT):
        write_atomic(path / name, b"")
    write_json(path / RECEIPT, receipt)
    register_results(path)


def test_a_run_is_named_by_what_it_was_started_with(config: Config, shards: Path) -> None:
    path = begin(config, shards)
    assert load_config(path / "recipe.yaml") == config
    assert read_json(path / "environment.json") == {"python": "3", "seed": config.seed, "shards": str(shards)}
    assert (path / "tokenizer.json").read_bytes() == (shards / "tokenizer.json").read_bytes()


def test_a_run_that_has_begun_keeps_its_shards_while_they_are_there(config: Config, shards: Path) -> None:
    assert RunFolder(config).shards is None
    begin(config, shards)
    assert RunFolder(config).shards == shards
    shards.rename(shards.with_name("moved"))
    assert RunFolder(config).shards is None


def test_the_same_words_open_it_again_and_change_nothing(config: Config, shards: Path, tmp_path: Path) -> None:
    path = begin(config, shards)
    before = {name: (path / name).read_bytes() for name in ("recipe.yaml", "environment.json", "tokenizer.json")}
    config.run = str(tmp_path / "runs" / ".." / "runs" / "a")  # the same folder, said otherwise
    folder = RunFolder(config)
    assert begin_in(folder, shards, {"python": "4"}) == folder.checkpoints().identity
    assert {name: (path / name).read_bytes() for name in before} == before


def test_other_data_than_a_run_began_with_is_refused(config: Config, shards: Path, tmp_path: Path) -> None:
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
    assert [there.name for there in path.iterdir()] == ["letters.txt"]


def test_an_empty_folder_and_one_of_a_run_that_never_began_are_taken(config: Config, tmp_path: Path) -> None:
    (tmp_path / "runs" / "a").mkdir(parents=True)
    for _ in range(2):  # the first leaves its lock file
        assert not RunFolder(config).finished


def test_a_file_is_no_run_folder(config: Config, tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "a").write_text("mine")
    with pytest.raises(CramError, match=r"run=.*runs/a is a file"):
        RunFolder(config)
    assert (tmp_path / "runs" / "a").read_text() == "mine"


def test_a_folder_that_cannot_be_made_is_told(config: Config, tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("a file where the folder of the runs should be")
    with pytest.raises(CramError, match=r"run=.*runs/a: cannot be written .*Choose another run="):
        RunFolder(config)


def test_a_damaged_recipe_is_named(config: Config, shards: Path) -> None:
    path = begin(config, shards)
    (path / "recipe.yaml").write_text("model: [")
    with pytest.raises(CramError, match=r"recipe\.yaml: damaged or edited"):
        RunFolder(config)


def test_one_run_at_a_time_writes_there(config: Config) -> None:
    first = RunFolder(config)
    with pytest.raises(CramError, match=r"run=.*runs/a: another process is at work there"):
        RunFolder(config)
    del first
    RunFolder(config)


def test_a_run_is_finished_once_receipt_and_export_are_there(config: Config, shards: Path) -> None:
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


def test_what_is_no_run_folder_is_named_with_those_beside_it(config: Config, shards: Path, tmp_path: Path) -> None:
    begin(config, shards)
    run = Path(str(config.run))
    assert find_run(str(run)) == run
    beside = rf" Runs beside it: {run}\.$"
    with pytest.raises(CramError, match=rf"^run=.*nope is not a run folder: there is no such folder\.{beside}"):
        find_run(str(run.parent / "nope"))
    (run.parent / "empty").mkdir()
    with pytest.raises(CramError, match=r"^run=.*empty is not a run folder: there is no recipe\.yaml in it\."):
        find_run(str(run.parent / "empty"))


def test_only_keys_that_change_the_result_name_a_run(config: Config, shards: Path) -> None:
    begin(config, shards)
    config.recipe, config.threads, config.device, config.log_interval = "other", 3, "cpu", 7
    config.checkpoint.interval, config.evaluation.interval, config.budget = "7s", 0.5, "25h"
    config.data.dir, config.data.processes, config.compile.kind, config.card.license = "there", 2, "eager", "mit"
    RunFolder(config)


def test_the_budget_of_a_run_is_its_receipts_or_its_newest_checkpoints(config: Config, shards: Path) -> None:
    begin(config, shards)
    folder = RunFolder(config)
    assert folder.budget is None
    state = {"budget": {"clock": "wall", "limit": 75.0}}
    folder.checkpoints().save(3, {}, {}, state)
    assert folder.budget == Budget("wall", 75.0)
    finish(folder.path, {"budget": {"clock": "steps", "limit": 9.0, "spent": 9}})
    assert folder.budget == Budget("steps", 9.0)


def test_nothing_is_set_aside_where_there_is_nothing(config: Config, shards: Path) -> None:
    begin(config, shards)
    folder = RunFolder(config)
    assert folder.set_aside(Budget("wall", 75.0)) is None
    (folder.path / "metrics.jsonl").touch()
    (folder.path / "glue.json").write_text("{}")
    assert folder.set_aside(Budget("wall", 75.0)) == folder.path / "budget-75s"
    assert not (folder.path / "glue.json").exists() and (folder.path / "recipe.yaml").exists()


@pytest.mark.parametrize("killed", [False, True])
def test_what_is_set_aside_is_a_finished_run_with_a_list_of_its_own(
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
    kept = folder.set_aside(Budget("wall", 75.0))
    assert kept and is_finished(kept) and not is_finished(path)
    for name in (*START_FILES, *RESULT_FILES):
        assert check_file(kept, name).is_file()
    assert read_run_config(path) == config


@pytest.mark.parametrize("name", ["checkpoints", "export", "tensorboard", "budget-3m"])
def test_a_folder_of_a_run_that_is_a_link_is_not_written_through(tmp_path: Path, name: str) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".lock").touch()
    (tmp_path / "run" / name).symlink_to(elsewhere)
    with pytest.raises(CramError, match=rf"run/{name} is a link, but a run writes only into folders of its own\."):
        RunFolder(Config(run=str(tmp_path / "run")))
