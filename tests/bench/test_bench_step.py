"""The step benchmark: its contenders do the same work, and it runs."""

import json
from pathlib import Path

import pytest
import torch

from bench import bench_step
from bench.bench_step import Size, main, make_batch, modernbert, ours
from cram.export import to_stock_names

SMALL = Size(layers=2, width=32, heads=2, mlp_width=48, vocab_size=64, rows=3, seq_len=20)


def test_batch_predicts_the_same_number_in_each_row() -> None:
    batch = make_batch(SMALL, 0.3, torch.device("cpu"))
    assert ((batch.labels != -100).sum(1) == 6).all()
    assert torch.equal((batch.labels.flatten() != -100).nonzero().flatten(), batch.slots)
    assert (batch.tokens.flatten()[batch.slots] == 4).all()


def test_contenders_have_the_same_loss_for_the_same_weights() -> None:
    batch = make_batch(SMALL, 0.3, torch.device("cpu"))
    model, loss = ours(SMALL, batch, torch.device("cpu"))
    losses = [loss()]
    for sparse in (False, True):
        stock, stock_loss = modernbert(SMALL, batch, sparse)
        stock.load_state_dict(to_stock_names(model.state_dict()), strict=False)
        losses.append(stock_loss())
    torch.testing.assert_close(losses[0], losses[1])
    torch.testing.assert_close(losses[0], losses[2])


def test_writes_speeds_and_ratios(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_step, "SIZES", {"small": SMALL})
    main(["sizes=small", "dtypes=fp32,bf16", "rates=0.30", "rounds=2", f"out={tmp_path}"])
    results = json.loads(next(tmp_path.glob("step-*.json")).read_text())
    case = results["cases"]["small bf16 mask 0.30"]
    speeds = case["tokens_per_second"]
    assert set(speeds) == {"cram", "modernbert", "modernbert_sparse", "bert"}
    assert case["over_sparse"] == pytest.approx(speeds["cram"]["median"] / speeds["modernbert_sparse"]["median"])
    assert case["parameters"]["cram"] == case["parameters"]["modernbert"]


def test_unknown_word() -> None:
    with pytest.raises(SystemExit, match="rownds"):
        main(["rownds=3"])
