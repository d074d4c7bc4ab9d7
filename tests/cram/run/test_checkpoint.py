"""Checkpoints: what is saved is read back, what is damaged is skipped, and which ones are kept."""

import errno
import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load, save

from cram.errors import CramError
from cram.files.atomic import write_atomic
from cram.run.checkpoint import Checkpoint, Checkpoints, Tensors

FILES = ("model.safetensors", "optimizer.safetensors", "state.json")
STATE = {"clock": {"updates": 3, "booked": {"updates": 0.1}}, "names": ["a", None], "mean": 1e-300}


def tensors(step: int) -> Tensors:
    """Return tensors of every dtype that a run may hold, with other values for each step."""
    generator = torch.Generator().manual_seed(step)
    drawn = torch.randn(3, 5, generator=generator)
    return {
        "fp32": drawn,
        "bf16": drawn.bfloat16(),
        "odd": torch.tensor([float("nan"), float("-inf"), -0.0, 1e-45]),
        "int64": torch.tensor([-1, 2**62 + step]),
        "bool": drawn > 0,
        "step": torch.tensor(float(step)),
        "empty": torch.zeros(0, 4),
    }


def save_step(checkpoints: Checkpoints, step: int) -> None:
    checkpoints.save(step, tensors(step), tensors(100 + step), STATE)


def check(checkpoint: Checkpoint | None, step: int) -> None:
    """Compare a checkpoint, bit for bit, with what `save_step` saved."""
    assert checkpoint is not None
    assert checkpoint.step == checkpoint.state["step"] == step
    assert save(checkpoint.model) == save(tensors(step))
    assert save(checkpoint.optimizer) == save(tensors(100 + step))
    assert {name: checkpoint.state[name] for name in STATE} == STATE


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def checkpoints(tmp_path: Path) -> Checkpoints:
    """Return the checkpoints 1 and 2 of a run."""
    checkpoints = Checkpoints(tmp_path)
    save_step(checkpoints, 1)
    save_step(checkpoints, 2)
    return checkpoints


def test_a_checkpoint_is_read_back_bit_for_bit(checkpoints: Checkpoints) -> None:
    check(checkpoints.read_newest(), 2)
    check(Checkpoints(checkpoints.folder.parent).read_newest(), 2)


def test_a_run_without_checkpoints_has_no_newest(tmp_path: Path) -> None:
    assert Checkpoints(tmp_path).read_newest() is None
    assert Checkpoints(tmp_path).steps() == []


def test_the_two_highest_steps_are_kept(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    for step in (8, 9, 10, 11):
        save_step(checkpoints, step)
    assert checkpoints.steps() == [11, 10]
    assert sorted(path.name for path in checkpoints.folder.iterdir()) == ["10", "11"]
    check(checkpoints.read_newest(), 11)


def test_a_step_can_be_saved_again(checkpoints: Checkpoints) -> None:
    checkpoints.save(2, {"other": torch.ones(1)}, {}, STATE)
    newest = checkpoints.read_newest()
    assert newest is not None and list(newest.model) == ["other"]
    assert checkpoints.steps() == [2, 1]


def test_only_safetensors_and_json_are_written(checkpoints: Checkpoints) -> None:
    folder = checkpoints.folder / "2"
    assert sorted(path.name for path in folder.iterdir()) == sorted(FILES)
    json.loads((folder / "state.json").read_text())
    for name in FILES[:2]:
        assert set(load((folder / name).read_bytes())) == set(tensors(2))


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", ["truncated", "empty", "missing", "of another step"])
def test_a_damaged_checkpoint_is_skipped_with_a_warning(
    checkpoints: Checkpoints, capsys: pytest.CaptureFixture[str], name: str, damage: str
) -> None:
    path = checkpoints.folder / "2" / name
    if damage == "missing":
        path.unlink()
    elif damage == "of another step" and name != "state.json":
        shutil.copyfile(checkpoints.folder / "1" / name, path)
    else:
        path.write_bytes(path.read_bytes()[:-1] if damage == "truncated" and name != "state.json" else b"")
    check(checkpoints.read_newest(), 1)
    warning = capsys.readouterr().out
    assert "warning: checkpoint 2 is damaged and passed over" in warning
    assert name in warning


@pytest.mark.parametrize("name", FILES)
def test_every_flipped_bit_is_detected(checkpoints: Checkpoints, name: str) -> None:
    path = checkpoints.folder / "2" / name
    intact = path.read_bytes()
    for offset in range(0, len(intact), 7):
        flipped = bytearray(intact)
        flipped[offset] ^= 1 << offset % 8
        path.write_bytes(flipped)
        newest = checkpoints.read_newest()
        assert newest is not None and newest.step == 1, f"bit {offset % 8} of byte {offset}"
    path.write_bytes(intact)
    check(checkpoints.read_newest(), 2)


@pytest.mark.parametrize("edited", ['{"step": 2}', "[]", "null", "3", '{"files": {}, "sha256": "00"}'])
def test_an_edited_state_is_skipped(checkpoints: Checkpoints, edited: str) -> None:
    path = checkpoints.folder / "2" / "state.json"
    state = json.loads(path.read_text())
    path.write_text(edited)
    check(checkpoints.read_newest(), 1)
    state["clock"]["updates"] += 1
    path.write_text(json.dumps(state))
    check(checkpoints.read_newest(), 1)


def test_a_damaged_checkpoint_is_removed_when_the_run_continues_from_an_earlier_one(checkpoints: Checkpoints) -> None:
    save_step(checkpoints, 9)
    (checkpoints.folder / "9" / "state.json").unlink()
    check(checkpoints.read_newest(), 2)
    save_step(checkpoints, 5)
    assert checkpoints.steps() == [5, 2]


def test_a_run_whose_checkpoints_are_all_damaged_is_refused(checkpoints: Checkpoints) -> None:
    for step in ("1", "2"):
        (checkpoints.folder / step / "model.safetensors").unlink()
    with pytest.raises(CramError, match=r"checkpoints: every checkpoint is damaged\. .*another run="):
        checkpoints.read_newest()


def test_a_half_written_checkpoint_is_never_used_and_removed_at_the_next_save(checkpoints: Checkpoints) -> None:
    shutil.copytree(checkpoints.folder / "2", checkpoints.folder / ".3.partial")
    (checkpoints.folder / ".3.partial" / "optimizer.safetensors").rename(checkpoints.folder / ".3.partial" / "half")
    assert checkpoints.steps() == [2, 1]
    check(checkpoints.read_newest(), 2)
    shutil.copytree(checkpoints.folder / "2", checkpoints.folder / ".7.partial")
    save_step(checkpoints, 3)
    check(checkpoints.read_newest(), 3)
    assert sorted(path.name for path in checkpoints.folder.iterdir()) == ["2", "3"]
    assert sorted(path.name for path in (checkpoints.folder / "3").iterdir()) == sorted(FILES)


@pytest.mark.parametrize("files_written", [0, 1, 2])
def test_a_full_disk_leaves_the_older_checkpoints_and_nothing_else(
    checkpoints: Checkpoints, monkeypatch: pytest.MonkeyPatch, files_written: int
) -> None:
    before, calls = content(checkpoints.folder), []

    def fsync(_: int) -> None:
        calls.append(1)
        if len(calls) > files_written:
            raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fsync)
        with pytest.raises(CramError, match=rf"{FILES[files_written]}: the disk is full"):
            save_step(checkpoints, 3)
    assert content(checkpoints.folder) == before
    assert sorted(path.name for path in checkpoints.folder.iterdir()) == ["1", "2"]
    save_step(checkpoints, 3)  # the patch has ended: there is space again
    check(checkpoints.read_newest(), 3)


def test_an_interrupted_save_leaves_the_older_checkpoints_and_nothing_else(
    checkpoints: Checkpoints, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(path: Path, data: bytes) -> None:
        write_atomic(path, data)
        raise KeyboardInterrupt

    before = content(checkpoints.folder)
    monkeypatch.setattr("cram.run.checkpoint.write_atomic", interrupt)
    with pytest.raises(KeyboardInterrupt):
        save_step(checkpoints, 3)
    assert content(checkpoints.folder) == before


def test_the_newest_checkpoint_before_the_decay_is_kept_too(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, decay=0.5)
    for step, progress in ((1, 0.2), (5, 0.5), (6, 0.51), (7, 0.8), (9, 1.0)):
        checkpoints.save(step, tensors(step), tensors(100 + step), {**STATE, "last_progress": progress})
    assert checkpoints.steps() == [9, 7, 5]
    assert checkpoints.step_before_decay() == 5
    (tmp_path / "checkpoints" / "5" / "state.json").write_text("{}")
    assert checkpoints.step_before_decay() is None


def save_kept(checkpoints: Checkpoints, step: int, progress: float = 1.0, kept: bool = True) -> None:
    state = {**STATE, "last_progress": progress}
    checkpoints.save(step, tensors(step), tensors(100 + step), state, kept=kept)


def files_of(checkpoints: Checkpoints) -> dict[int, list[str]]:
    steps = checkpoints.steps()
    return {step: sorted(path.name for path in (checkpoints.folder / str(step)).iterdir()) for step in steps}


LIGHT = ["model.safetensors", "state.json"]


def test_a_checkpoint_that_is_kept_loses_all_but_its_weights_when_no_resume_needs_more(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, decay=0.5)
    save_kept(checkpoints, 3)
    for step in (4, 5, 6, 7):
        save_step(checkpoints, step)
        assert checkpoints.steps() == sorted({3, step, max(3, step - 1)}, reverse=True)
    assert files_of(checkpoints) == {7: sorted(FILES), 6: sorted(FILES), 3: LIGHT}
    assert checkpoints.complete_steps() == [7, 6]
    light = checkpoints.choose("3")
    assert save(light.model) == save(tensors(3)) and light.optimizer == {}
    check(checkpoints.choose("newest"), 7)


@settings(max_examples=25, deadline=None)
@given(
    kept=st.lists(st.booleans(), min_size=1, max_size=8),
    decay=st.integers(0, 8),
)
def test_every_kept_checkpoint_has_its_weights_and_what_a_resume_needs_is_complete(
    kept: list[bool], decay: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    checkpoints = Checkpoints(tmp_path_factory.mktemp("run"), decay=decay / 8)
    for step, keep in enumerate(kept):
        save_kept(checkpoints, step, step / 8, keep)
    last = len(kept) - 1
    complete = {last, max(0, last - 1), min(last, decay)}
    weights = {step for step, keep in enumerate(kept) if keep}
    assert checkpoints.complete_steps() == sorted(complete, reverse=True)
    assert checkpoints.steps() == sorted(complete | weights, reverse=True)
    assert checkpoints.step_before_decay() == min(last, decay)
    for step in checkpoints.steps():
        assert save(checkpoints.read(step).model) == save(tensors(step))


def test_a_kept_checkpoint_stays_kept_when_it_is_saved_again(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, decay=0.5)
    save_kept(checkpoints, 3)
    save_step(checkpoints, 3)
    for step in (4, 5, 6):
        save_step(checkpoints, step)
    assert checkpoints.steps() == [6, 5, 3]


def test_a_kept_checkpoint_is_removed_when_the_run_goes_back_behind_it(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    for step in (3, 6):
        save_kept(checkpoints, step)
    save_step(checkpoints, 5)
    assert checkpoints.steps() == [5, 3]


def test_a_run_goes_on_from_no_checkpoint_that_holds_only_weights(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, decay=0.5)
    save_kept(checkpoints, 3, progress=0.2)
    for step in (4, 5, 6):
        save_kept(checkpoints, step, progress=step / 10, kept=False)
    assert files_of(checkpoints)[3] == LIGHT
    for step in checkpoints.complete_steps():
        (checkpoints.folder / str(step) / "state.json").unlink()
    assert checkpoints.step_before_decay() is None
    assert checkpoints.read_newest_state() is None
    with pytest.raises(CramError, match=r"every checkpoint is damaged, apart from the weights that are kept of 3\."):
        checkpoints.read_newest()


def test_damage_of_kept_weights_is_detected(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, decay=0.5)
    save_kept(checkpoints, 3)
    for step in (4, 5):
        save_step(checkpoints, step)
    path = checkpoints.folder / "3" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(CramError, match=r"3/model\.safetensors: damaged or edited"):
        checkpoints.choose("3")


def test_a_checkpoint_is_chosen_by_number_or_as_the_newest(checkpoints: Checkpoints, tmp_path: Path) -> None:
    check(checkpoints.choose("newest"), 2)
    check(checkpoints.choose("1"), 1)
    for name in ("7", "-1", "oldest", "1.0"):
        with pytest.raises(CramError, match=rf"checkpoint={name}: .*checkpoints\. Use newest or one of these: 1, 2\."):
            checkpoints.choose(name)
    with pytest.raises(CramError, match=r"checkpoint=newest: .*one of these: none\."):
        Checkpoints(tmp_path / "other").choose("newest")
    (checkpoints.folder / "1" / "model.safetensors").unlink()
    with pytest.raises(CramError, match=r"model\.safetensors: cannot be read"):
        checkpoints.choose("1")


def test_a_checkpoint_that_is_saved_again_exists_all_the_time(
    checkpoints: Checkpoints, monkeypatch: pytest.MonkeyPatch
) -> None:
    renamed: list[str] = []
    rename = Path.rename

    def watch(path: Path, to: Path) -> Path:
        renamed.append(path.name)
        return rename(path, to)

    monkeypatch.setattr(Path, "rename", watch)
    checkpoints.save(2, {"other": torch.ones(1)}, {}, STATE)
    assert renamed == ["2", ".2.partial"]
    assert sorted(path.name for path in checkpoints.folder.iterdir()) == ["1", "2"]


@pytest.mark.parametrize("name", ["007", "²", "٣", "-1", "+7", "7_0", "7 ", "1e3", "9" * 5000, "link", "7"])
def test_files_and_folders_with_other_names_are_left_alone(checkpoints: Checkpoints, name: str) -> None:
    folder, steps = checkpoints.folder, checkpoints.steps()
    if name == "7":
        (folder / name).write_text("a file")
    elif name == "link":
        (folder / "8").symlink_to(folder / str(steps[0]))
    elif len(name) < 255:
        (folder / name).mkdir()
    assert checkpoints.steps() == steps
    with pytest.raises(CramError, match=r"there is none in"):
        checkpoints.choose(name)
    for step in (7, 8):
        save_step(checkpoints, step)
        check(checkpoints.read_newest(), step)
