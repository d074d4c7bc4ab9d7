"""The step benchmark: its contenders do the same work, one that fails does not stop the others, and it runs."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from bench import step_stock, step_training
from bench.step import StepBenchConfig, choose_contenders, main
from bench.step_profile import KINDS
from bench.step_stock import StepSize, build_modernbert, build_ours, make_batch
from bench.step_training import RandomRows, format_line
from cram.config.training import CompileConfig
from cram.errors import CramError
from cram.hub.modernbert import MODERNBERT

CPU = torch.device("cpu")
SMALL = StepSize(layers=2, width=32, heads=2, mlp_width=48, vocab_size=64, rows=3, seq_len=20)
TINY = (
    "recipe=bert_demo",
    "model.layers=2",
    "model.width=32",
    "model.heads=2",
    "model.mlp_width=48",
    "wordpiece.vocab_size=64",
    "data.seq_len=16",
    "batch.tokens=128",
    "batch.micro_rows=4",
)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Use sizes that take little time."""
    monkeypatch.setattr(step_stock, "SIZES", {"small": SMALL})
    monkeypatch.setitem(step_training.SETTINGS, "cpu", {"tiny": TINY})


def run(*words: str) -> None:
    main(["dtypes=fp32", "rates=0.30", "rounds=2", *words])


def results(folder: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((folder / "step-cpu.json").read_text())
    return loaded


def test_batch_predicts_the_same_number_in_each_row() -> None:
    batch = make_batch(SMALL, 0.3, CPU)
    assert ((batch.labels != -100).sum(1) == 6).all()
    assert torch.equal((batch.labels.flatten() != -100).nonzero().flatten(), batch.slots)
    assert (batch.tokens.flatten()[batch.slots] == 4).all()


def test_contenders_have_the_same_loss_for_the_same_weights() -> None:
    batch = make_batch(SMALL, 0.3, CPU)
    model, loss = build_ours(SMALL, batch, CPU)
    losses = [loss()]
    for sparse in (False, True):
        stock, stock_loss = build_modernbert(SMALL, batch, sparse)
        stock.load_state_dict(MODERNBERT.rename(model.state_dict()), strict=False)
        losses.append(stock_loss())
    torch.testing.assert_close(losses[0], losses[1])
    torch.testing.assert_close(losses[0], losses[2])


@pytest.mark.usefixtures("small")
def test_writes_speeds_and_ratios_beside_stock_models(tmp_path: Path) -> None:
    run("parts=stock", "sizes=small", f"out={tmp_path}")
    case = results(tmp_path)["cases"]["small fp32 mask 0.30"]
    speeds = case["tokens_per_second"]
    assert set(speeds) == {"cram", "modernbert", "modernbert_sparse", "bert"}
    assert case["over_sparse"] == pytest.approx(speeds["cram"]["median"] / speeds["modernbert_sparse"]["median"])
    assert case["parameters"]["cram"] == case["parameters"]["modernbert"]


@pytest.mark.usefixtures("small")
def test_measures_the_update_of_a_run_and_profiles_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run("parts=training", "compile=eager", f"out={tmp_path}")
    training = results(tmp_path)["training"]
    assert list(training) == ["tiny eager adamw", "tiny eager muon"]
    for result in training.values():
        assert result["tokens_per_update"] == 128
        assert result["micro_rows"] == 4
        assert result["tokens_per_second"]["median"] > 0
        shares = result["profile"]["shares"]
        assert tuple(shares) == KINDS
        assert sum(shares.values()) == pytest.approx(1.0)
        assert min(shares["matrix products"], shares["our kernels"], shares["optimizer"]) > 0
    printed = capsys.readouterr().out
    assert printed.startswith("   0 s  tiny eager begins\n")
    assert "tiny eager muon, micro-batch 4:" in printed


@pytest.mark.usefixtures("small")
def test_a_contender_that_fails_is_recorded_and_the_others_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compile_session = step_training.compile_session

    def fail(session: Any, config: CompileConfig) -> dict[str, Any]:
        if config.kind == "model":
            raise torch.OutOfMemoryError("no room\nfor this")
        if config.kind == "blocks":
            return {"kind": "eager", "failed": {"blocks": "code is wrong"}}
        return compile_session(session, config)

    monkeypatch.setattr(step_training, "compile_session", fail)
    run("parts=training", "compile=model,blocks,eager", "optimizers=adamw", f"out={tmp_path}")
    training = results(tmp_path)["training"]
    assert training["tiny model adamw"] == {"error": "OutOfMemoryError: no room for this"}
    assert training["tiny blocks adamw"] == {"error": "RuntimeError: code is wrong"}
    assert training["tiny eager adamw"]["tokens_per_second"]["median"] > 0
    assert "no room" in format_line("a", training["tiny model adamw"])


@pytest.mark.usefixtures("small")
def test_contenders_that_are_left_out_are_named(tmp_path: Path) -> None:
    run("sizes=small", "limit=1e-9", f"out={tmp_path}")
    loaded = results(tmp_path)
    assert (loaded["cases"], loaded["training"]) == ({}, {})
    assert loaded["left_out"] == ["small fp32 mask 0.30", "tiny eager", "tiny blocks"]


def test_random_rows_are_repeated_with_new_numbers() -> None:
    rows = RandomRows(vocab_size=64, seq_len=8)
    first = rows.next(step_training.POOL)
    again = rows.next(2)
    assert (again.tokens == first.tokens[:2]).all()
    assert again.index.tolist() == [step_training.POOL, step_training.POOL + 1]
    assert first.tokens.min() >= 5
    assert first.tokens.max() < 64


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("quick", [False, True])
def test_the_default_contenders_exist_on_each_device(device: str, quick: bool) -> None:
    choice = choose_contenders(StepBenchConfig(quick=quick), torch.device(device))
    assert set(choice.compile) <= set(step_training.COMPILE)
    assert set(choice.sizes) <= set(step_stock.SIZES)
    assert step_training.SETTINGS[device]


def test_a_list_that_is_given_replaces_the_default() -> None:
    choice = choose_contenders(StepBenchConfig(rates=[0.5], optimizers=["muon"]), CPU)
    assert (choice.rates, choice.optimizers, choice.compile) == ([0.5], ["muon"], ["eager", "blocks"])


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("rownds=3", "unknown key 'rownds'"),
        ("rounds=1", "rounds=1 is out of range"),
        ("compile=all", "compile=all is not one of eager, blocks,"),
        ("settings=small", "settings=small is not one of encoder 4x256"),
    ],
)
def test_wrong_words_are_refused(word: str, message: str) -> None:
    with pytest.raises(CramError, match=message):
        main([word])
