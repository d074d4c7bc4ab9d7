"""What the wiring chooses for a config, and what it refuses."""

import pytest
import torch

from cram.build import build_objective, check
from cram.config.data import WordPieceConfig
from cram.config.recipe import read_config
from cram.data.wordpiece import train_tokenizer
from cram.errors import CramError
from cram.objectives.causal import CausalObjective
from cram.objectives.phased import PhasedObjective


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
        check(read_config(["recipe=bert_demo", "device=cpu", *words]))


@pytest.mark.parametrize(
    ("words", "kind", "phases"),
    [
        (["recipe=gpt_demo"], CausalObjective, (0.0,)),
        (["recipe=bert_demo", "objective.causal_share=0"], PhasedObjective, (0.0,)),
        (["recipe=bert_demo", "objective.causal_share=0.2"], PhasedObjective, (0.0, 0.2)),
    ],
)
def test_the_objective_is_the_configs(words: list[str], kind: type, phases: tuple[float, ...]) -> None:
    texts = ["The old cat sat on the wide mat, while rain fell over towns and quick brown foxes jumped."] * 4
    tokenizer = train_tokenizer(texts, WordPieceConfig(vocab_size=64))
    config = read_config(words)
    objective = build_objective(config, tokenizer, 64, torch.device("cpu"))
    assert isinstance(objective, kind)
    assert objective.phases == phases
