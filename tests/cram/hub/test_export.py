"""Writing an export; a refused export leaves nothing behind."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from cram.config.config import Config
from cram.config.training import CardConfig
from cram.errors import CramError
from cram.evaluate import main as evaluate_door
from cram.evaluation.held_out import HeldOutSet
from cram.evaluation.scores import evaluate
from cram.export import main
from cram.files.atomic import write_json
from cram.files.sealed import hash_files, read_checksums
from cram.hub.export import export_run
from cram.hub.stock import StockModel
from cram.model.kinds import new_model
from cram.run.checksums import RESULT_FILES, register_results, unregister_results, write_start_files

MakeRun = Callable[..., Path]


def test_an_equal_folder_is_kept_and_another_is_not_overwritten(run: Path, exported: Path) -> None:
    before = {path.name: path.stat().st_mtime_ns for path in exported.iterdir()}
    assert export_run(run, exported) == exported
    assert before == {path.name: path.stat().st_mtime_ns for path in exported.iterdir()}
    other = run.parent / "other"
    other.mkdir()
    (other / "letter.txt").write_text("mine")
    with pytest.raises(CramError, match="something else"):
        export_run(run, other)
    assert [path.name for path in other.iterdir()] == ["letter.txt"]
    assert not list(run.parent.glob(".*partial"))


@pytest.mark.parametrize(("fixture", "key"), [("run", "norm_eps"), ("decoder_run", "rms_norm_eps")])
def test_wrong_logits_fail_and_leave_nothing(
    fixture: str, key: str, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    run = request.getfixturevalue(fixture)
    right = StockModel.config
    monkeypatch.setattr(StockModel, "config", lambda *arguments: right(*arguments) | {key: 0.1})
    with pytest.raises(RuntimeError, match="logits differ"):
        export_run(run, run.parent / "wrong")
    assert not (run.parent / "wrong").exists()


def test_unfinished_run_and_missing_words(tmp_path: Path, make_run: MakeRun) -> None:
    with pytest.raises(CramError, match="run= is missing"):
        main([])
    with pytest.raises(CramError, match=r"no recipe\.yaml"):
        main([f"run={tmp_path}"])
    run = make_run(tmp_path / "small")
    unregister_results(run)
    with pytest.raises(CramError, match=r"no receipt\.json"):
        main([f"run={run}", f"to={tmp_path / 'out'}"])
    assert not (tmp_path / "out").exists()


def test_a_kind_without_a_stock_class_is_refused(tmp_path: Path, make_run: MakeRun, encoder_config: Config) -> None:
    run = make_run(tmp_path / "small")
    config = replace(encoder_config, model=replace(encoder_config.model, kind="crammed"))
    write_start_files(run, config, {}, (run / "tokenizer.json").read_bytes(), data="of the test")
    register_results(run)
    words = [sys.executable, "-m", "cram.export", f"run={run}", f"to={tmp_path / 'out'}"]
    process = subprocess.run(words, capture_output=True, text=True, check=False)
    assert process.returncode == 2
    assert "Traceback" not in process.stderr
    assert "cannot be exported: transformers has no class that computes model.kind=crammed" in process.stderr
    assert "a run of model.kind=encoder or decoder or bert or electra can be exported" in process.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["tokenizer.json", *RESULT_FILES])
def test_a_file_that_the_run_did_not_write_is_refused(tmp_path: Path, make_run: MakeRun, name: str) -> None:
    run = make_run(tmp_path / "small")
    data = bytearray((run / name).read_bytes())
    data[-20] ^= 1
    (run / name).write_bytes(data)
    with pytest.raises(CramError, match=f"{name}: damaged or edited"):
        main([f"run={run}", f"to={tmp_path / 'out'}"])
    (run / name).unlink()
    with pytest.raises(CramError, match=f"{name}: missing"):
        main([f"run={run}", f"to={tmp_path / 'out'}"])
    assert not (tmp_path / "out").exists()


@pytest.fixture
def rewrite_receipt(
    make_receipt: Callable[[dict[str, float], bool], dict[str, Any]], encoder_config: Config
) -> Callable[[Path, dict[str, torch.Tensor], float], None]:
    """Writes a receipt with the loss of other weights, and some nats added."""

    def rewrite(run: Path, weights: dict[str, torch.Tensor], added: float) -> None:
        model = new_model(encoder_config.model, len(weights["embedding.weight"]))
        model.load_state_dict(weights)
        figures = evaluate(model.eval(), HeldOutSet.from_file(run / "held_out.safetensors"), torch.device("cpu"))
        figures["nats_per_token"] += added
        unregister_results(run)
        write_json(run / "receipt.json", make_receipt(figures, False))
        register_results(run)

    return rewrite


@pytest.mark.parametrize("added", [0.002, -0.002])
def test_a_receipt_with_another_loss_than_the_export_is_refused(
    tmp_path: Path, make_run: MakeRun, rewrite_receipt: Callable[..., None], added: float
) -> None:
    run = make_run(tmp_path / "small")
    rewrite_receipt(run, load_file(run / "model.safetensors"), added)
    with pytest.raises(
        CramError, match=r"the exported model has \d\.\d{4} nats per token .* the receipt says .*\. Nothing"
    ):
        main([f"run={run}", f"to={tmp_path / 'out'}"])
    assert [path.name for path in tmp_path.iterdir()] == ["small"]


def test_the_list_of_an_export_has_every_file_but_the_card(exported: Path) -> None:
    names = {path.name for path in exported.iterdir()} - {"README.md", "checksums.json"}
    assert read_checksums(exported) == hash_files(exported, names)


def test_large_logits_may_round_differently(
    tmp_path: Path, make_run: MakeRun, rewrite_receipt: Callable[..., None]
) -> None:
    run = make_run(tmp_path / "small")
    weights = load_file(run / "model.safetensors")
    weights["head.norm.weight"] *= 200.0  # logits in the hundreds differ by more than 1e-4 in fp32
    unregister_results(run)
    save_file(weights, run / "model.safetensors")
    rewrite_receipt(run, weights, 0.0)
    assert export_run(run, tmp_path / "out").is_dir()


def test_the_command(run: Path, tmp_path: Path) -> None:
    words = [sys.executable, "-m", "cram.export", f"run={run}", f"to={tmp_path / 'mine'}"]
    process = subprocess.run(words, capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr
    assert "logits equal" in process.stdout
    assert (tmp_path / "mine" / "model.safetensors").is_file()


@pytest.mark.parametrize(
    ("name", "tensor", "changed", "message"),
    [
        ("model", "final_norm.weight", None, r"the tensor final_norm\.weight, \[\d+\] of float32, is missing"),
        ("model", "final_norm.weight", torch.zeros(3), r"the tensor final_norm\.weight is \[3\] of float32, and \["),
        ("model", "final_norm.weight", "half", r"the tensor final_norm\.weight is \[\d+\] of float16, and \["),
        ("model", "embedding.weight", None, r"the tensor embedding\.weight is missing"),
        ("model", "embedding.weight", torch.zeros(()), r"the tensor embedding\.weight is \[\] of float32"),
        ("model", "embedding.weight", torch.zeros(2, 32), r"has 2 rows, and the tokenizer has \d+ tokens"),
        ("held_out", "labels", "beyond", r"the tensor labels holds 5000, and numbers from 0 to \d+ are needed"),
        ("held_out", "inputs", torch.zeros(1, 2), r"the tensor inputs is \[1, 2\] of float32, and \["),
    ],
)
def test_tensors_that_do_not_fit_are_named_by_every_command(
    run: Path, tmp_path: Path, name: str, tensor: str, changed: Any, message: str
) -> None:
    copy = shutil.copytree(run, tmp_path / "copy", ignore=shutil.ignore_patterns("export"))
    unregister_results(copy)
    path = copy / f"{name}.safetensors"
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    tensors = load_file(path)
    original = tensors.pop(tensor)
    if isinstance(changed, str):
        changed = original.half() if changed == "half" else original.index_fill(1, torch.tensor([0]), 5000)
    save_file(tensors if changed is None else {**tensors, tensor: changed}, path, metadata)
    register_results(copy)
    for door in (lambda: main([f"run={copy}", f"to={tmp_path / 'out'}"]), lambda: evaluate_door([f"run={copy}"])):
        with pytest.raises(CramError, match=message) as caught:
            door()
        assert str(caught.value).startswith(f"{path}: ") and len(str(caught.value).splitlines()) == 1
    assert [one.name for one in tmp_path.iterdir()] == ["copy"]


@pytest.mark.parametrize("place", ["/", "file", "file/below", "dangling", "link", "taken"])
def test_a_path_that_cannot_be_written_is_refused_and_nothing_is_left(run: Path, tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "notes.txt").write_text("mine")
    (tmp_path / "dangling").symlink_to("nowhere")
    (tmp_path / "link").symlink_to("taken")
    before = {path: path.lstat().st_mtime_ns for path in (*tmp_path.rglob("*"), *run.iterdir())}
    with pytest.raises(CramError, match=r"^to=/") as caught:
        main([f"run={run}", f"to={tmp_path / place}"])
    assert len(str(caught.value).splitlines()) == 1
    assert {path: path.lstat().st_mtime_ns for path in (*tmp_path.rglob("*"), *run.iterdir())} == before


def test_an_export_folder_that_is_a_link_is_not_written_through(run: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(run, tmp_path / "copy", ignore=shutil.ignore_patterns("export"))
    (tmp_path / "elsewhere").mkdir()
    (copy / "export").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(CramError, match=r"to=.*/export is a link\."):
        main([f"run={copy}"])
    assert not list((tmp_path / "elsewhere").iterdir())


def test_the_licence_in_the_recipe_of_a_run_is_checked_too(
    tmp_path: Path, make_run: MakeRun, encoder_config: Config
) -> None:
    run = make_run(tmp_path / "run", replace(encoder_config, card=CardConfig(license="mit\nmodel-index: []")))
    with pytest.raises(CramError, match=r"card\.license=mit\nmodel-index: \[\] is not a licence identifier"):
        main([f"run={run}", f"to={tmp_path / 'out'}"])
