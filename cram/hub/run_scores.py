"""The scores of a run, finished or at a checkpoint, on its held-out documents or on any text."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from cram.config.commands import EvaluateConfig
from cram.data.shards.shards import HeldOutDocument
from cram.data.special_tokens import SpecialTokens
from cram.data.text.options import DocumentRule
from cram.data.text.sources import open_source
from cram.errors import CramError
from cram.evaluation.halves import HALVES
from cram.evaluation.held_out_rows import build_held_out
from cram.evaluation.scores import BITS_NAMES, evaluate, unknown_note
from cram.hub.snapshot import open_snapshot
from cram.hub.trained import load_held_out, load_trained
from cram.machine.device import pick_device
from cram.run.checksums import read_run_config
from cram.run.folder import find_run

HELD_OUT_DOCUMENTS = "the held-out documents"


@dataclass(frozen=True)
class RunScores:
    """The scores of a run.

    Attributes:
        model: which model, in words.
        text: which text, in words.
        scores: of `evaluate`.
        objective: how the text was scored, "masked" or "causal".
        predicted: which tokens were predicted, in words.
        unknown_share: share of the text's bytes that does not count.
    """

    model: str
    text: str
    scores: dict[str, Any]
    objective: str
    predicted: str
    unknown_share: float

    def line(self) -> str:
        """All of it on one line."""
        bits = BITS_NAMES[self.objective]
        return (
            f"{self.model} on {self.text}: {self.scores['nats_per_token']:.4f} nats per token, "
            f"{self.scores[bits]:.4f} {bits.replace('_', ' ')}, accuracy {self.scores['accuracy']:.1%}, "
            f"{self.scores['predicted_tokens']:,} tokens predicted ({self.predicted})"
            f"{unknown_note(self.unknown_share)}{self._halves()}"
        )

    def _halves(self) -> str:
        """The nats of the halves of the held-out documents, after the other figures."""
        if self.text != HELD_OUT_DOCUMENTS or not all(self.scores[half] for half in HALVES):
            return ""
        return "; " + ", ".join(f"{self.scores[half]['nats_per_token']:.4f} nats on the {half} half" for half in HALVES)


def score_run(config: EvaluateConfig) -> RunScores:
    """Evaluate the model of a run.

    Raises:
        CramError: for a run, checkpoint or text that does not exist or cannot be read.
    """
    if not config.run:
        raise CramError("run= is missing. Give run=DIR with the folder of a finished run.")
    run = find_run(config.run)
    recipe = read_run_config(run)
    device = pick_device(config.device)
    snapshot = open_snapshot(run, recipe, config.checkpoint, device) if config.checkpoint else None
    model, tokenizer = (snapshot.model, snapshot.tokenizer) if snapshot else load_trained(run, recipe, device)
    if config.text is not None:
        limits, objective = replace(recipe.evaluation, tokens=config.tokens), recipe.objective.held_out
        documents = read_documents(config.text, config.text_field, config.document)
        rows = build_held_out(documents, tokenizer, recipe.data.seq_len, limits, objective=objective)
    else:
        rows = snapshot.held_out() if snapshot else load_held_out(run, model.vocab_size)
    mask = SpecialTokens.of(tokenizer).names(tokenizer).get("mask")
    predicted = {
        "masked": f"{recipe.evaluation.mask_rate:.0%} of the text, all shown as {mask}",
        "causal": "each from those before it",
    }
    return RunScores(
        model=f"{run} at update {snapshot.step}" if snapshot else str(run),
        text=config.text or HELD_OUT_DOCUMENTS,
        scores=evaluate(model, rows, device),
        objective=rows.objective,
        predicted=predicted[rows.objective],
        unknown_share=rows.unknown_share,
    )


def read_documents(name: str, text_field: str, document_rule: DocumentRule) -> Iterator[HeldOutDocument]:
    """Yield the documents of some files, without those that are blank.

    Args:
        name: glob of the files, or another source, as in `data.source`.
        text_field: the field that holds the text of a record.
        document_rule: what one document is in a .txt file.

    Raises:
        CramError: for a source that does not exist or cannot be read.
    """
    for part in open_source(name, text_field, document_rule).parts:
        for document in part.documents():
            if not document.is_blank:
                yield HeldOutDocument(document.text, hashlib.sha256(document.text.encode()).hexdigest())
