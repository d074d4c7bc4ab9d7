"""A few examples of what an exported model says."""

from pathlib import Path

SENTENCES = (
    "The capital of France is the city of [MASK].",
    "This function returns the [MASK] of its argument.",
    "He was born in the [MASK] of 1950.",
)
SHOWN = 4


def fill_mask_examples(export: Path) -> list[str]:
    """The likeliest words for the [MASK] of some sentences, by the stock fill-mask pipeline."""
    from transformers import pipeline
    from transformers.utils import logging

    logging.disable_progress_bar()
    fill = pipeline("fill-mask", str(export), device="cpu")
    lines = []
    for sentence in SENTENCES:
        answers = fill(sentence, top_k=SHOWN)
        words = ", ".join(f"{answer['token_str']} {answer['score']:.0%}" for answer in answers)
        lines.append(f"{sentence} {words}")
    return lines
