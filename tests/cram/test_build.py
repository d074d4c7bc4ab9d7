"""What the wiring chooses for a config, and what it refuses."""

import pytest
import torch

from cram.build import build_objective, check
from cram.config import WordPieceConfig
from cram.data.tokenizer import train_tokenizer
from cram.errors import CramError
from cram.objectives.causal import CausalObjective
from cram.objectives.masked import MaskedObjective
from cram.objectives.phased import CausalThenMasked
from cram.recipe import read_config


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["recipe=bert_demo", "model.kind=decoder"],
            "model.kind=decoder cannot learn objective.kind=masked: set objective.kind=causal, or another model.kind",
        ),
        (
            ["recipe=bert_demo", "objective.kind=causal"],
            "model.kind=encoder cannot learn objective.kind=causal: set objective.kind=masked, or model.kind=decoder",
        ),
        (
            ["recipe=gpt_demo", "model.kind=crammed"],
            "model.kind=crammed cannot learn objective.kind=causal: set objective.kind=masked, or model.kind=decoder",
        ),
        (
            ["recipe=gpt_demo", "objective.causal_share=0.2"],
            "objective.causal_share=0.2 is for objective.kind=masked: objective.kind=causal is causal throughout, "
            "leave it out.",
        ),
    ],
)
def test_a_model_and_an_objective_that_do_not_fit_are_refused(words: list[str], message: str) -> None:
    with pytest.raises(CramError, match=f"^{message}$"):
        check(read_config(words))


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        (["recipe=gpt_demo"], CausalObjective),
        (["recipe=bert_demo", "objective.causal_share=0"], MaskedObjective),
        (["recipe=bert_demo", "objective.causal_share=0.2"], CausalThenMasked),
    ],
)
def test_the_objective_is_the_configs(words: list[str], kind: type) -> None:
    texts = ["The old cat sat on the wide mat, while rain fell over towns and quick brown foxes jumped."] * 4
    tokenizer = train_tokenizer(texts, WordPieceConfig(vocab_size=64))
    config = read_config(words)
    assert isinstance(build_objective(config, tokenizer, 64, torch.device("cpu")), kind)
