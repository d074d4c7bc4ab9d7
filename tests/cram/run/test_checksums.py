"""The checksum list of a run: damaged files and checkpoints of other runs are refused."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from cram.config.config import Config
from cram.config.model import ModelConfig
from cram.errors import CramError
from cram.files.atomic import read_json, write_atomic, write_json
from cram.run import checksums as run_checksums
from cram.run.checkpoint import Checkpoints
from cram.run.checksums import (
    check_file,
    hash_identity,
    is_finished,
    open_checkpoints,
    read_receipt,
    read_run_config,
    read_shard_folder,
    register_results,
    unregister_results,
    write_start_files,
)

CONFIG = Config(run="runs/a", model=ModelConfig(norm_eps=1e-5))
RESULTS = {"model.safetensors": b"weights", "held_out.safetensors": b"rows"}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Return a folder with the files of a finished run."""
    write_start_files(tmp_path, CONFIG, {"shards": "there"}, b'{"version": "1.0"}', data="d")
    for name, data in RESULTS.items():
        write_atomic(tmp_path / name, data)
    write_json(tmp_path / "receipt.json", {"held_out": {"nats_per_token": 5.0}})
    register_results(tmp_path)
    return tmp_path


def test_the_files_of_a_run_are_read_back(run: Path) -> None:
    assert read_run_config(run) == CONFIG
    assert read_shard_folder(run) == Path("there")
    assert read_receipt(run) == {"held_out": {"nats_per_token": 5.0}}
    assert is_finished(run)


@pytest.mark.parametrize("name", ["recipe.yaml", "environment.json", "tokenizer.json", *RESULTS, "receipt.json"])
@pytest.mark.parametrize("damage", ["a bit", "more", "gone", "a folder"])
def test_a_damaged_or_missing_file_is_refused(run: Path, name: str, damage: str) -> None:
    path = run / name
    data = path.read_bytes()
    path.unlink()
    if damage == "a folder":
        path.mkdir()
    elif damage != "gone":
        path.write_bytes(bytes([data[0] ^ 1]) + data[1:] if damage == "a bit" else data + b" ")
    with pytest.raises(CramError, match=rf"{name}: (damaged or edited|missing).* Put it back as the run wrote it, or"):
        check_file(run, name)


def test_an_edited_value_of_the_recipe_is_detected(run: Path) -> None:
    path = run / "recipe.yaml"
    text = path.read_text()
    path.write_text(text.replace("norm_eps: 1.0e-05", "norm_eps: 1.0e-02"))
    assert path.read_text() != text
    with pytest.raises(CramError, match=r"recipe.yaml: damaged or edited"):
        read_run_config(run)


def test_an_edited_or_missing_list_is_refused(run: Path) -> None:
    path = run / "checksums.json"
    content = read_json(path)
    del content["files"]["recipe.yaml"]
    path.write_text(json.dumps(content))
    with pytest.raises(CramError, match=r"checksums.json: damaged or edited, .* own sha256 says. Put it back"):
        read_run_config(run)
    path.unlink()
    assert not is_finished(run)
    with pytest.raises(CramError, match=r"run=.*: checksums.json is missing, so nothing says whether"):
        read_run_config(run)


def test_results_outside_of_the_list_do_not_count(run: Path) -> None:
    unregister_results(run)
    assert not is_finished(run)
    for name in ("receipt.json", "model.safetensors"):
        with pytest.raises(
            CramError, match=rf"there is no {name}. Finish the run first: cram.train with the same words"
        ):
            check_file(run, name)
    assert read_run_config(run) == CONFIG
    (run / "recipe.yaml").write_text("")  # its checksum in the list is kept
    register_results(run)
    with pytest.raises(CramError, match=r"recipe.yaml: damaged or edited"):
        read_run_config(run)


def test_a_run_killed_between_two_writes_has_not_begun_or_is_not_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    for call in ("write_atomic", "write_json", "write_sealed"):
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(run_checksums, call, killed)
            write_start_files(tmp_path, CONFIG, {}, b"{}", data="d")
        assert not (tmp_path / "recipe.yaml").exists()
    write_start_files(tmp_path, CONFIG, {}, b"{}", data="d")
    for name in (*RESULTS, "receipt.json"):
        write_atomic(tmp_path / name, b"{}")
        assert not is_finished(tmp_path)
    register_results(tmp_path)
    assert is_finished(tmp_path)


def test_the_identity_changes_with_keys_that_change_the_weights_only() -> None:
    identity = hash_identity(CONFIG, "d", "t")
    assert identity == hash_identity(replace(CONFIG, run="b", budget="3h", threads=2, log_interval=7), "d", "t")
    assert identity["recipe"] != hash_identity(replace(CONFIG, seed=1), "d", "t")["recipe"]
    assert identity["recipe"] != hash_identity(replace(CONFIG, model=ModelConfig(norm_eps=1e-6)), "d", "t")["recipe"]
    assert (identity["data"], identity["tokenizer"]) == ("d", "t")


def test_a_checkpoint_of_another_run_with_equal_shapes_is_skipped(
    run: Path, tmp_path_factory: pytest.TempPathFactory, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path_factory.mktemp("other")
    write_start_files(other, replace(CONFIG, seed=1), {}, b'{"version": "2.0"}', data="d")
    open_checkpoints(run).save(1, {}, {}, {})
    open_checkpoints(other).save(2, {}, {}, {})
    (other / "checkpoints" / "2").rename(run / "checkpoints" / "2")
    newest = open_checkpoints(run).read_newest()
    assert newest is not None and newest.step == 1
    assert "state.json: the checkpoint of another run: its recipe and tokenizer differ." in capsys.readouterr().out
    Checkpoints(other).save(3, {}, {}, {})  # without an identity
    (other / "checkpoints" / "3").rename(run / "checkpoints" / "3")
    with pytest.raises(CramError, match="of another run: its recipe and data and tokenizer differ"):
        open_checkpoints(run).choose("3")
    (run / "checkpoints" / "1").rename(run / "checkpoints" / "5")
    with pytest.raises(CramError, match=r"5/state.json: the checkpoint was written at update 1\."):
        open_checkpoints(run).choose("5")
