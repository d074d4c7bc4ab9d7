"""`python -m cram.evaluate run=DIR [text=FILES]`: held-out loss of a finished run, or its loss on any text."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace

from cram.command import run_door
from cram.config.commands import EvaluateConfig
from cram.config.recipe import read_words
from cram.errors import CramError

ABOUT = """Evaluate a finished run: on its held-out documents, or on any text.

    python -m cram.evaluate run=runs/bert_demo
    python -m cram.evaluate run=runs/bert_demo text='letters/*.txt'
    python -m cram.evaluate run=runs/bert_demo checkpoint=newest"""


@dataclass(frozen=True)
class TextDocument:
    """A document with the sha256 of its text, as the held-out ones have it."""

    text: str
    hash: str


def main(words: list[str]) -> int:
    """Print nats per token, bits per byte and accuracy."""
    said = read_words(EvaluateConfig, words)
    if not said.run:
        raise CramError("run= is missing. Say run=DIR with the folder of a finished run.")
    from cram.run.checksums import read_run_config
    from cram.run.folder import find_run

    run = find_run(said.run)
    config = read_run_config(run)
    from cram.data.special import SpecialTokens
    from cram.evaluation.held_out import BITS, build_held_out, evaluate, unknown_text
    from cram.hub.snapshot import open_snapshot
    from cram.hub.trained import load_held_out, load_trained
    from cram.machine.device import pick_device

    device = pick_device(said.device)
    snapshot = open_snapshot(run, config, said.checkpoint, device) if said.checkpoint else None
    model, tokenizer = (snapshot.model, snapshot.tokenizer) if snapshot else load_trained(run, config, device)
    if said.text is None:
        rows = snapshot.held_out() if snapshot else load_held_out(run, model.vocab_size)
    else:
        limits = replace(config.evaluation, tokens=said.tokens)
        objective = config.objective.held_out
        rows = build_held_out(_documents(said), tokenizer, config.data.seq_len, limits, objective=objective)
    figures = evaluate(model, rows, device)
    what = said.text or "the held-out documents"
    bits = BITS[rows.objective]
    mask = SpecialTokens.of(tokenizer).names(tokenizer).get("mask")
    how = {
        "masked": f"{config.evaluation.mask_rate:.0%} of the text, all shown as {mask}",
        "causal": "each from those before it",
    }
    which = f"{run} at update {snapshot.step}" if snapshot else str(run)
    print(
        f"{which} on {what}: {figures['nats_per_token']:.4f} nats per token, "
        f"{figures[bits]:.4f} {bits.replace('_', ' ')}, "
        f"accuracy {figures['accuracy']:.1%}, {figures['predicted_tokens']:,} tokens predicted "
        f"({how[rows.objective]}){unknown_text(rows.unknown_share)}"
    )
    return 0


def _documents(said: EvaluateConfig) -> Iterator[TextDocument]:
    from cram.data.text.sources import open_source

    assert said.text is not None
    for part in open_source(said.text, said.text_field, said.document).parts:
        for document in part.documents():
            if document.text.strip():
                yield TextDocument(document.text, hashlib.sha256(document.text.encode()).hexdigest())


if __name__ == "__main__":
    run_door(main, EvaluateConfig, ABOUT, only_prints=True)
