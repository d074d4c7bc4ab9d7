"""What an update does is counted: against a model that is run, and by proportions that must hold."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from cram.config.recipe import read_config
from cram.model.count import flops_per_position
from cram.optim.whitening import orthogonalise
from cram.planner.memory import activation_bytes
from cram.planner.shape import Shape
from cram.planner.workload import Workload, predicted_share

SMALL = Shape(layers=2, width=32, heads=1, mlp_width=64, batch_tokens=1024)
VOCAB = 256


def make_work(*words: str, vocab_size: int = VOCAB, **changes: Any) -> Workload:
    config = read_config(["recipe=bert_demo", "data.seq_len=64", *words])
    return Workload(config, vocab_size, **({"device_type": "cpu"} | changes))


@pytest.mark.parametrize(
    ("words", "progress", "share"),
    [
        (["objective.mask_rate=0.5", "objective.final_mask_rate=0.1"], 0.5, 0.3),
        (["objective.mask_rate=0.5", "objective.final_mask_rate=null"], 0.9, 0.5),
        (["objective.causal_share=0.2", "objective.mask_rate=0.5", "objective.final_mask_rate=0.1"], 0.6, 0.3),
        (["objective.causal_share=0.2"], 0.1, 1.0),
        (["recipe=gpt_demo"], 0.9, 1.0),
    ],
)
def test_the_predicted_share(words: list[str], progress: float, share: float) -> None:
    config = read_config(["recipe=bert_demo", *words])
    assert predicted_share(config.objective, progress) == pytest.approx(share)


def test_the_products_are_those_of_each_position() -> None:
    work = make_work()
    flops = flops_per_position(SMALL.apply(work.config).model, VOCAB, 64, 0.25)
    assert work.counts(SMALL, 0.25)["products"] == pytest.approx(1024 * flops)


def test_newton_schulz_steps_are_counted() -> None:
    counts = make_work("optimizer.muon.newton_schulz_steps=2").counts(SMALL, 0.3)
    matrices = [(32, 32)] * 4 * 2 + [(64, 32)] * 2 * 2 + [(32, 64)] * 2 + [(32, 32)]
    with FlopCounterMode(display=False) as counter:
        for rows, columns in matrices:
            orthogonalise(torch.ones(1, rows, columns), 2, torch.float32)
    assert counts["orthogonalisation"] == counter.get_total_flops()
    ending = make_work("optimizer.muon.newton_schulz_steps=3", "optimizer.muon.final_newton_schulz_steps=1")
    assert ending.counts(SMALL, 0.3)["orthogonalisation"] == counts["orthogonalisation"]
    decorrelated = make_work("optimizer.muon.whitening=mud").counts(SMALL, 0.3)
    assert decorrelated["orthogonalisation"] == counts["orthogonalisation"] / 4
    assert make_work("optimizer.kind=adamw").counts(SMALL, 0.3)["orthogonalisation"] == 0


def test_counts_follow_size_and_batch() -> None:
    work = make_work()
    one, two = work.counts(SMALL, 0.3), work.counts(replace(SMALL, batch_tokens=2048), 0.3)
    for name in ("products", "logits", "activations"):
        assert two[name] == 2 * one[name]
    for name in ("orthogonalisation", "parameters", "layers", "update"):
        assert two[name] == one[name]
    deep = work.counts(replace(SMALL, layers=4), 0.3)
    assert (deep["layers"], deep["activations"]) == (4, 2 * one["activations"])
    assert work.counts(SMALL, 0.6)["logits"] == 2 * one["logits"]
    scores = replace(work, keeps_scores=True).counts(SMALL, 0.3)["activations"] - one["activations"]
    assert scores == 1024 * 2 * 1 * 64  # tokens, layers, heads, seq_len


def test_more_than_a_micro_batch_starts_each_layer_again() -> None:
    counts = make_work().counts(replace(SMALL, batch_tokens=16384), 0.3)
    assert counts["layers"] == 2 * 16384 / 4096


@pytest.mark.parametrize(
    ("words", "batch_tokens", "micro_rows", "rows"),
    [
        ([], 256, 4, 4),
        ([], 16384, 64, 256),
        ([], 1, 1, 1),
        (["batch.micro_rows=3"], 1024, 3, 15),  # 16 rows are five micro-batches
        (["batch.micro_rows=100"], 1024, 16, 16),
    ],
)
def test_rows_are_whole_micro_batches(words: list[str], batch_tokens: int, micro_rows: int, rows: int) -> None:
    work, shape = make_work(*words), replace(SMALL, batch_tokens=batch_tokens)
    assert (work.micro_rows(shape), work.rows(shape)) == (micro_rows, rows)


def test_a_gpus_micro_batch_is_what_its_memory_holds() -> None:
    shape = replace(SMALL, batch_tokens=2**20)
    work = make_work(device_type="cuda")
    assert work.micro_rows(shape) == 2**20 // 64
    # Nine tenths of the memory hold the state and five and a half rows, at three times the least that each needs.
    model = shape.apply(work.config).model
    memory = (16 * work.parameters(shape) + 5.5 * 3 * activation_bytes(model, 1, 64)) / 0.9
    small = replace(work, memory=int(memory))
    assert small.micro_rows(shape) == 4
    assert small.fits(shape)
    assert replace(work, memory=1000).micro_rows(shape) == 1


def test_what_fits() -> None:
    work = make_work()
    needed = work.memory_bytes(SMALL)
    assert needed > 16 * work.parameters(SMALL)
    assert work.fits(SMALL)
    assert replace(work, memory=int(needed / 0.9) + 10).fits(SMALL)
    assert not replace(work, memory=needed).fits(SMALL)


def test_the_machine_that_is_here() -> None:
    work = Workload.of(make_work("model.attention=softmax").config, VOCAB, torch.device("cpu"))
    assert work.keeps_scores
    assert work.memory is None or work.memory > 10**8
    assert not Workload.of(make_work("model.attention=sdpa").config, VOCAB, torch.device("cpu")).keeps_scores
