"""The benchmark of reference times writes tables by which runs can count."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from bench import rst_table
from bench.loader_passes import make_shards
from bench.rst_table import RstTableConfig, choose_micro_rows, make_units, take_blocks
from cram.build import check, spread_rows
from cram.config.recipe import read_config
from cram.data.shards.shards import ShardSet
from cram.errors import CramError
from cram.model.kinds import build_model
from cram.reference_time import load_table

MODEL = ["recipe=bert_demo", "model.size=given", "model.layers=2", "model.width=32", "model.heads=1"]
WORDS = [*MODEL, "model.mlp_width=64", "data.seq_len=64", "device=cpu", "precision=fp32", "threads=1"]
WORDS += ["batch.start_tokens=null", "optimizer.kind=adamw"]
# Seconds of the units in the order of their names, by which the tests replace the clock.
TIMES = {"forward 1": 0.1, "forward 2": 0.2, "training 1": 0.3, "training 2": 0.5}
STEPS = {"optimizer adamw/1": 0.01, "optimizer adamw/2": 0.02, "optimizer lion/1": 0.03, "optimizer lion/2": 0.04}


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rst") / "set"
    make_shards(folder, 64, 20_000)
    return folder


def call_each(seconds: dict[str, float]) -> Callable[..., dict[str, list[float]]]:
    """A clock by which each unit takes given seconds, once less and once more; the units do their work."""

    def time_all(units: dict[str, Callable[[], object]], *_: Any) -> dict[str, list[float]]:
        for unit in units.values():
            unit()
        return {name: [seconds[name] - 0.005, seconds[name], seconds[name] + 9.0] for name in units}

    return time_all


def test_a_table_holds_medians_and_fits_the_runs_of_its_shape(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rst_table, "time_alternating", call_each(TIMES | STEPS))
    to = tmp_path / "mine.json"
    own = [f"data={shards}", f"to={to}", "name=mine", "optimizers=[adamw,lion]", "batch.micro_rows=3"]
    rst_table.main([*own, *WORDS])
    table = load_table(str(to))
    assert (table.machine, table.seq_len, table.micro_rows) == ("mine", 64, 3)
    assert table.vocab_size == ShardSet.open(shards).vocab_size
    assert table.seconds["training"] == {"1": 0.3, "2": 0.5}
    assert table.seconds["forward"] == {"1": 0.1, "2": 0.2}
    assert table.seconds["optimizer"] == {"adamw/1": 0.01, "lion/1": 0.03, "adamw/2": 0.02, "lion/2": 0.04}
    assert "fp32, threads: 1" in table.note
    run = [*WORDS, f"wordpiece.vocab_size={table.vocab_size}", "budget=rst:10m", f"rst.table={to}"]
    check(read_config([*run, "dropping.theta=0.5"]))
    with pytest.raises(CramError, match=r"the table of mine has no entry optimizer for muon with 2 blocks"):
        check(read_config([*run, "optimizer.kind=muon"]))
    with pytest.raises(CramError, match=r"is for wordpiece\.vocab_size=32768, not 4096: the head"):
        check(read_config([*run, "wordpiece.vocab_size=4096"]))
    with pytest.raises(CramError, match=r"the table of mine is for model\.width=32, not 64"):
        check(read_config([*run, "model.width=64"]))


def test_a_table_that_is_not_monotonic_is_not_written(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rst_table, "time_alternating", call_each(TIMES | STEPS | {"training 2": 0.25}))
    to = tmp_path / "mine.json"
    with pytest.raises(CramError, match=r"not monotonic: training of 2 blocks takes 0\.25 s, and of 1 blocks 0\.3 s"):
        rst_table.main([f"data={shards}", f"to={to}", *WORDS, "batch.micro_rows=2"])
    assert not to.exists()


def test_the_first_blocks_compute_what_the_deep_model_computes_with_the_others_left_out() -> None:
    config = read_config([*WORDS, "model.layers=3", "model.zero_init=false"]).model
    model = build_model(config, 512, 0, torch.device("cpu"))
    shallow = take_blocks(model, 2)
    assert (shallow.depth, model.depth) == (2, 3)
    assert {id(parameter) for parameter in shallow.parameters()} < {id(parameter) for parameter in model.parameters()}
    tokens, documents = torch.randint(512, (2, 64)), torch.zeros(2, 64, dtype=torch.int32)
    model.active = [0, 1]
    torch.testing.assert_close(shallow(tokens, documents), model(tokens, documents))
    model.active = None
    assert not torch.allclose(shallow(tokens, documents), model(tokens, documents))


def test_timing_leaves_the_weights_as_they_are(shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []

    def keep(*arguments: Any) -> Any:
        made.append(build_model(*arguments))
        return made[0]

    monkeypatch.setattr(rst_table, "build_model", keep)
    config, opened = read_config(WORDS), ShardSet.open(shards)
    units = make_units(config, opened, spread_rows(opened, 2), ["adamw", "lion", "sophia", "muon"])
    for _ in range(2):
        for unit in units.values():
            unit()
    fresh = build_model(config.model, opened.vocab_size, config.seed, torch.device("cpu"))
    for timed, untouched in zip(made[0].parameters(), fresh.parameters(), strict=True):
        torch.testing.assert_close(timed, untouched, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], r"^data= and to= are needed"),
        (["data=set"], r"^data= and to= are needed"),
        (["data=set", "to=x.json", "recipe=bert_demo"], r"add model\.size=given"),
        (["data=set", "to=x.json", *WORDS, "optimizers=[adamww]"], r"optimizer\.kind=adamww .*adamw"),
    ],
)
def test_words_that_make_no_table_are_refused(words: list[str], message: str) -> None:
    with pytest.raises(CramError, match=message):
        rst_table.main(words)


def test_rows_of_another_length_are_refused(shards: Path) -> None:
    config = read_config([*WORDS, "data.seq_len=128"])
    with pytest.raises(CramError, match=r"has rows of 64 tokens, and data\.seq_len=128\. Add data\.seq_len=64"):
        rst_table.measure_table(RstTableConfig(data=str(shards)), config, ["adamw"])


def test_the_micro_batch_is_that_of_a_run_and_named_on_a_gpu() -> None:
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    assert choose_micro_rows(read_config([*WORDS, "batch.tokens=1_000_000"]), cpu) == 64  # 4096 positions
    assert choose_micro_rows(read_config([*WORDS, "batch.tokens=256"]), cpu) == 4
    assert choose_micro_rows(read_config([*WORDS, "batch.micro_rows=7"]), gpu) == 7
    with pytest.raises(CramError, match=r"^batch\.micro_rows= is needed on a GPU"):
        choose_micro_rows(read_config(WORDS), gpu)


def test_a_measured_table_is_plain_json(shards: Path, tmp_path: Path) -> None:
    to = tmp_path / "mine.json"
    one_block = [*WORDS, "model.layers=1", "batch.micro_rows=2", "rounds=2"]
    rst_table.main([f"data={shards}", f"to={to}", *one_block])
    seconds = json.loads(to.read_text())["seconds"]
    assert {kind: list(entries) for kind, entries in seconds.items()} == {
        "optimizer": ["adamw/1"],
        "training": ["1"],
        "forward": ["1"],
    }
    assert all(entry > 0 for entries in seconds.values() for entry in entries.values())
