"""The runs that `proofs.ranks` does with each number of ranks, and by how much they may differ."""

from dataclasses import dataclass

from cram.config.recipe import keep_last_words

# Twelve rows are computed at once, by 1, 2, 3, 4 or 6 ranks. An update grows from two such steps to four.
STEP_ROWS = 12
SEQ_LEN = 64
UPDATES = 30
DATA_WORDS = [
    "data.tokens=200000",
    f"data.seq_len={SEQ_LEN}",
    "data.processes=2",
    "data.epochs=4",
    "wordpiece.vocab_size=1024",
]
COMMON = [
    "model.size=given",
    "model.layers=4",
    "model.width=64",
    "model.heads=2",
    "model.mlp_width=96",
    f"batch.tokens={4 * STEP_ROWS * SEQ_LEN}",
    f"batch.start_tokens={2 * STEP_ROWS * SEQ_LEN}",
    "evaluation.tokens=16384",
    "evaluation.interval=0.5",
    "log_interval=1",
    "report.live=false",
    "device=cpu",
    "threads=1",
    "precision=fp32",
    "optimizer.muon.products=fp32",
    f"budget={UPDATES}steps",
]


@dataclass(frozen=True)
class Case:
    """A run, done with each number of ranks.

    Attributes:
        words: of the command, beside those that all cases have.
        recipe: that the words change.
        loss: largest difference of the loss of an update, relative to the loss.
        weights: largest difference of a weight at the end.
        same_rows: whether the rows of each update, and what is hidden in them, must be equal.
        once: whether each row of the data is trained on once an epoch.
        reordered: whether one rank also computes half as many rows at once, which is another order of the same sums.
            The size of an update must not grow then, because it would grow by other steps.
        why: reason for differences larger than those of the order of sums.
    """

    words: tuple[str, ...] = ()
    recipe: str = "bert_demo"
    loss: float = 1e-5
    weights: float = 1e-4
    same_rows: bool = True
    once: bool = True
    reordered: bool = False
    why: str = ""


ADAMW = ("optimizer.kind=adamw", "optimizer.lr=5e-4")
MUON = ("optimizer.kind=muon",)
CASES = {
    "encoder_adamw": Case(ADAMW),
    "encoder_muon": Case(MUON),
    "constant_size": Case((*MUON, "batch.start_tokens=null"), reordered=True),
    # With an eps of 1e-8, gradients near zero are divided by moments near zero, which magnifies their rounding.
    "decoder_adamw": Case((*ADAMW, "optimizer.eps=1e-6"), "gpt_demo"),
    "decoder_muon": Case(MUON, "gpt_demo"),
    "few_matrices": Case((*MUON, "model.layers=1", "optimizer.clip=null")),
    "lion": Case(("optimizer.kind=lion",), weights=2e-3, why="a step is the sign of a momentum near zero"),
    "ema_nesterov": Case((*MUON, "optimizer.ema_nesterov.lookahead=0.6")),
    "normuon": Case((*MUON, "optimizer.muon.row_beta2=0.95", "optimizer.muon.cautious=true")),
    "mud": Case(
        (*MUON, "optimizer.muon.whitening=mud", "batch.start_tokens=null"),
        loss=2e-2,
        weights=0.5,
        reordered=True,
        why="its triangular solve magnifies rounding",
    ),
    "clip": Case((*ADAMW, "optimizer.clip=0.05")),
    "noise_share": Case((*ADAMW, "batch.noise_share=0.02", "optimizer.clip=null")),
    "stacking_state": Case((*MUON, "stacking.layers=1", "stacking.keep_state=true")),
    "stacking": Case((*ADAMW, "stacking.layers=2", "stacking.at=[0.4]")),
    "dropping": Case((*MUON, "dropping.theta=0.5")),
    "averaging": Case((*ADAMW, "averaging.start=0.5")),
    "selective": Case((*ADAMW, "selective.beta=1.0"), once=False),
    "rho": Case((*ADAMW, "rho.keep=0.5", "rho.reference_layers=1"), once=False),
    "pruning": Case((*ADAMW, "pruning.keep=0.5"), once=False),
    "curriculum": Case((*ADAMW, "curriculum.competence=sqrt"), once=False),
    "superposition": Case((*MUON, "objective.superposition=4"), "gpt_demo"),
    "short_rows": Case((*MUON, "objective.causal_share=0.3", "objective.short_rows=32")),
    "difficulty": Case(
        (*ADAMW, "objective.difficulty=1.0", "objective.difficulty_updates=9", "objective.mask_rate_spread=0.2")
    ),
    "compiled_blocks": Case((*MUON, "compile.kind=blocks"), "gpt_demo"),
    "bf16": Case(
        (*MUON, "precision=bf16", "batch.start_tokens=null"),
        loss=1e-3,
        weights=0.1,
        reordered=True,
        why="bf16 rounds to 8 bits",
    ),
    "sophia": Case(
        ("optimizer.kind=sophia", "optimizer.sophia.interval=5"),
        loss=2e-2,
        weights=0.1,
        why="each rank draws the labels of its own rows",
    ),
    "dropout": Case((*ADAMW, "model.dropout=0.1"), loss=5e-2, weights=0.2, why="each rank draws what is left out"),
    "electra": Case((*ADAMW,), "electra_demo", loss=5e-2, weights=0.2, why="each micro-batch draws tokens of its own"),
}


def words_of(case: Case, ranks: int, step_rows: int = STEP_ROWS) -> list[str]:
    """The words of a case for a number of ranks, without the data and the run folder."""
    words = [f"recipe={case.recipe}", *DATA_WORDS, *COMMON, f"batch.micro_rows={step_rows // ranks}", *case.words]
    return keep_last_words(words)
