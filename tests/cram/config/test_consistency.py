"""Rules over several keys of a config."""

import re

import pytest

from cram.config.recipe import read_config
from cram.errors import CramError

ELECTRA = ["model.kind=electra", "objective.kind=replaced"]
GIVEN = ["model.size=given"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["model.width=32", "model.heads=3"], "model.width=32 is not a multiple of model.heads=3: change either."),
        (
            ["model.width=9", "model.heads=3"],
            "model.heads=3 makes heads 3 wide, but rotary positions need an even width",
        ),
        (
            ["model.kind=crammed", "model.width=27", "model.heads=3"],
            "model.width=27 is odd, but sinusoidal positions need an even width",
        ),
        (
            ["model.kind=decoder"],
            "model.kind=decoder cannot learn objective.kind=masked: set objective.kind=causal",
        ),
        (["objective.kind=causal"], "model.kind=encoder cannot learn objective.kind=causal: set objective.kind=masked"),
        (
            ["objective.replace_mask=0.9", "objective.replace_random=0.2"],
            "objective.replace_mask=0.9 and objective.replace_random=0.2: their sum must be at most 1.",
        ),
        (["averaging.decay=0.9"], "averaging.decay=0.9 needs averaging.start, where averaging begins."),
        (["compile.cuda_graphs=true", "compile.kind=eager"], "compile.cuda_graphs=true replays compiled code"),
        (["data.address=10.0.0.1:6379"], "data.address=10.0.0.1:6379 is that of a Ray cluster, and data.engine=local"),
        (["data.filters.max_words=5"], "data.filters.max_words=5 is less than data.filters.min_words=10"),
        (["wordpiece.vocab_size=1000"], "wordpiece.vocab_size=1000 is not a multiple of 64: the nearest is 1024."),
        (["wordpiece.vocab_size=65"], "wordpiece.vocab_size=65 is not a multiple of 64: the nearest is 64."),
        (["special.mask=<mask>"], "special.mask=<mask> names a token of a given tokenizer: say tokenizer=FILE too"),
        (["budget=1:30:00"], "budget=1:30:00 is not a valid budget. Write 90s, 10m or 24h"),
        (["budget=rst:1h"], "budget=rst:1h needs rst.table, the seconds of each pass on a reference machine."),
        (
            ["budget=1h", "rst.table=rtx3090_crammed"],
            "rst.table=rtx3090_crammed is for a budget of reference system time, and budget=1h: write budget=rst:1h",
        ),
        (
            ["budget=rst:1h", "rst.table=rtx3090_crammed", "model.size=auto"],
            "budget=rst:... needs the shape that its table is for: set model.size=given",
        ),
        (
            ["budget=rst:1h", "rst.table=rtx3090_crammed", "model.size=given", "batch.micro_rows=4"],
            "batch.micro_rows is given by the table of a budget of reference system time: leave it out.",
        ),
        (
            [*ELECTRA, "selective.beta=1"],
            "selective needs the loss of each row, and objective.kind=replaced has none: use objective.kind=masked",
        ),
        ([*ELECTRA, "rho.keep=0.5"], "rho needs the loss of each row"),
        ([*ELECTRA, "pruning.keep=0.5"], "pruning needs the loss of each row"),
        ([*ELECTRA, "optimizer.kind=sophia"], "optimizer.kind=sophia draws labels from the predictions"),
        (
            ["optimizer.muon.whitening=mud", "optimizer.muon.final_newton_schulz_steps=2"],
            "optimizer.muon.final_newton_schulz_steps=2 is for optimizer.muon.whitening=newton_schulz: leave one",
        ),
        (
            ["optimizer.ema_nesterov.lookahead=0.5", "optimizer.ema_nesterov.start=0.8"],
            "optimizer.ema_nesterov.start=0.8 is not before optimizer.ema_nesterov.end=0.76: change one.",
        ),
        ([*ELECTRA, "objective.causal_share=0.1"], "objective.causal_share=0.1 is for objective.kind=masked"),
        (["model.kind=electra"], "model.kind=electra cannot learn objective.kind=masked: set objective.kind=replaced"),
        (["objective.kind=replaced"], "model.kind=encoder cannot learn objective.kind=replaced"),
        ([*ELECTRA, "dropping.theta=0.5"], "dropping cannot be used with model.kind=electra"),
        ([*GIVEN, "model.layers=12", "stacking.layers=4"], "stacking.layers=4 is doubled at each of the 2 values"),
        ([*GIVEN, "model.layers=8", "stacking.layers=3", "stacking.at=[0.5]"], "stacking.layers=3 is doubled at each"),
        (["stacking.layers=1"], "stacking.layers needs a given depth: set model.layers, or model.size=given."),
        (
            [*GIVEN, "model.layers=4", "stacking.layers=1", "stacking.at=[0.5,0.2]"],
            "stacking.at=[0.5, 0.2]: the values",
        ),
        (
            [*GIVEN, "model.layers=4", "stacking.layers=1", "compile.cuda_graphs=true"],
            "compile.cuda_graphs=true cannot be used with stacking",
        ),
        (["batch.noise_share=1"], "batch.noise_share=1.0 chooses sizes between batch.start_tokens and batch.tokens"),
        (["curriculum.competence=sqrt", "data.order=likely_first"], "curriculum draws the rows itself"),
        (["pruning.reference_share=0.5", "pruning.scoring_share=0.5"], "pruning.reference_share=0.5 and"),
        (
            ["model.kind=bert", "data.seq_len=600"],
            "data.seq_len=600 is longer than model.positions=512: change one.",
        ),
        (["checkpoint.interval=5"], "checkpoint.interval=5 is not a valid duration above zero."),
    ],
)
def test_keys_that_contradict_each_other_are_refused(words: list[str], message: str) -> None:
    with pytest.raises(CramError, match=f"^{re.escape(message)}"):
        read_config(["recipe=bert_demo", *words])


def test_a_causal_objective_takes_no_causal_share() -> None:
    with pytest.raises(CramError, match=r"objective.causal_share=0.2 is for objective.kind=masked: .* leave it out\.$"):
        read_config(["recipe=gpt_demo", "objective.causal_share=0.2"])


@pytest.mark.parametrize(
    ("text", "correction"), [("1:30:00", "90m"), ("1:30", "90s"), ("10M", "10m"), ("10 m", "10m"), ("1_0m", "10m")]
)
def test_a_budget_in_another_notation_is_answered_with_ours(text: str, correction: str) -> None:
    with pytest.raises(CramError, match=f"; for {text} write {correction}\\.$"):
        read_config(["recipe=bert_demo", f"budget={text}"])
