"""What the wiring chooses for a config, and what it refuses."""

import gc
import math
import re
import weakref
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cram.build import build_objective, build_optimizer, check, make_measure
from cram.config.data import WordPieceConfig
from cram.config.recipe import read_config
from cram.data.shards.shards import ShardSet, ShardWriter
from cram.data.wordpiece import train_tokenizer
from cram.errors import CramError
from cram.objectives.causal import CausalObjective
from cram.objectives.phased import PhasedObjective
from cram.planner.shape import Shape

TEXTS = ["The old cat sat on the wide mat, while rain fell over towns and quick brown foxes jumped."] * 4


RTX = [
    "budget=rst:1h",
    "rst.table=rtx3090_crammed",
    "model.size=given",
    "model.kind=crammed",
    "model.width=768",
    "model.heads=12",
    "model.mlp_width=1536",
    "wordpiece.vocab_size=32768",
    "data.seq_len=128",
]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["model.attention=flash"], "model.attention=flash cannot run: "),
        (["compile.cuda_graphs=true"], "compile.cuda_graphs=true needs a GPU"),
        (["model.layers=1000", "model.width=6144"], r"weights, gradients and optimizer take [\d,.]+ GB, and cpu has"),
        (
            ["wordpiece.vocab_size=4194304", "model.width=65536", "model.heads=64"],
            r"wordpiece\.vocab_size=4194304: weights, gradients",
        ),
        (
            ["data.seq_len=65536", "batch.tokens=1e12", "batch.micro_rows=65536"],
            r"^data\.seq_len=65536, batch\.micro_rows=65536: with model\.layers=\d+, .* takes more than [\d,.]+ GB",
        ),
        (
            ["data.seq_len=65536", "model.attention=softmax", "model.width=1024", "model.heads=64", "model.layers=100"],
            r"^data\.seq_len=65536, batch\.micro_rows=1: with model\.layers=100, .* takes more than",
        ),
    ],
)
def test_what_this_machine_cannot_do_is_refused(words: list[str], message: str) -> None:
    with pytest.raises(CramError, match=message):
        check(read_config(["recipe=bert_demo", "model.size=given", "device=cpu", *words]))


@pytest.mark.parametrize(
    ("words", "kind", "phases"),
    [
        (["recipe=gpt_demo"], CausalObjective, (0.0,)),
        (["recipe=bert_demo", "objective.causal_share=0"], PhasedObjective, (0.0,)),
        (["recipe=bert_demo", "objective.causal_share=0.2"], PhasedObjective, (0.0, 0.2)),
    ],
)
def test_the_objective_is_the_configs(words: list[str], kind: type, phases: tuple[float, ...]) -> None:
    tokenizer = train_tokenizer(TEXTS, WordPieceConfig(vocab_size=64))
    config = read_config(words)
    objective = build_objective(config, tokenizer, 64, torch.device("cpu"))
    assert isinstance(objective, kind)
    assert objective.phases == phases


SHAPE = Shape(layers=1, width=16, heads=1, mlp_width=32, batch_tokens=64)


@pytest.fixture
def shards(tmp_path: Path) -> ShardSet:
    """Twenty rows of 16 tokens."""
    writer = ShardWriter(tmp_path, 16, 64, 0)
    tokens = np.random.default_rng(0).integers(5, 64, (20, 16), dtype=np.int32)
    writer.write(tokens, np.zeros_like(tokens))
    tokenizer = train_tokenizer(TEXTS, WordPieceConfig(vocab_size=64)).to_str().encode()
    writer.finish(tokenizer, [], {"counts": {"documents": 20}})
    return ShardSet.open(tmp_path)


@pytest.mark.parametrize("recipe", ["bert_demo", "gpt_demo"])
def test_an_update_of_a_shape_is_timed_without_traces(
    recipe: str, shards: ShardSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = read_config([f"recipe={recipe}", "device=cpu", "data.seq_len=16", "wordpiece.vocab_size=64"])
    before, models = torch.get_rng_state(), []

    def build_and_note(model: torch.nn.Module, *rest: Any) -> object:
        models.append(weakref.ref(model))
        return build_optimizer(model, *rest)

    monkeypatch.setattr("cram.build.build_optimizer", build_and_note)
    measure = make_measure(config, shards, seconds=0.0)
    gc.disable()  # what is not referred to must be freed without it, because a collection takes a tenth of a second
    try:
        assert 0.0 < measure(SHAPE) < 60.0
        assert [model() for model in models] == [None]
    finally:
        gc.enable()
    assert torch.equal(torch.get_rng_state(), before)


def test_a_shape_that_cannot_be_trained_here_takes_forever(shards: ShardSet, monkeypatch: pytest.MonkeyPatch) -> None:
    config = read_config(["recipe=bert_demo", "device=cpu", "data.seq_len=16", "wordpiece.vocab_size=64"])
    measure = make_measure(config, shards, seconds=0.0)
    assert measure(replace(SHAPE, batch_tokens=32 * 16)) == math.inf  # more rows than there are
    for error in (torch.OutOfMemoryError("fake"), RuntimeError("can't allocate memory"), CramError("one row")):
        monkeypatch.setattr("cram.build.time_update", _raising(error))
        assert measure(SHAPE) == math.inf
    monkeypatch.setattr("cram.build.time_update", _raising(RuntimeError("another")))
    with pytest.raises(RuntimeError, match="another"):
        measure(SHAPE)


def _raising(error: Exception) -> Callable[..., float]:
    def time_update(*_: object) -> float:
        raise error

    return time_update


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["selective.beta=1", "rho.keep=0.5"],
            "selective and rho cannot be used together: both change the point `select` of an update.",
        ),
        (["curriculum.competence=sqrt", "pruning.keep=0.5"], "curriculum and pruning cannot be used together"),
        (
            ["rho.keep=0.5", "pruning.keep=0.5"],
            "rho and pruning cannot be used together: both change the point `start`",
        ),
        (
            ["budget=rst:1h", "rst.table=rtx3090_crammed", "model.size=given"],
            "rst.table: the table of NVIDIA RTX 3090 is for model.kind=crammed, not encoder.",
        ),
        (
            [*RTX, "selective.beta=1", "model.layers=8"],
            "rst.table: the table of NVIDIA RTX 3090 has no entry forward for 8 blocks; it has: 16.",
        ),
        ([*RTX, "model.layers=17"], "rst.table: the table of NVIDIA RTX 3090 has no entry training for 17 blocks"),
    ],
)
def test_methods_and_tables_that_do_not_fit_are_refused_before_any_work(words: list[str], message: str) -> None:
    with pytest.raises(CramError, match=f"^{re.escape(message)}"):
        check(read_config(["recipe=bert_demo", "device=cpu", *words]))
