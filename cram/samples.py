"""A few examples of what an exported model says, by the stock pipelines."""

from collections.abc import Callable
from pathlib import Path

SENTENCES = (
    "The capital of France is the city of {mask}.",
    "This function returns the {mask} of its argument.",
    "He was born in the {mask} of 1950.",
)
SHOWN = 4
PROMPTS = ("The capital of France is", "This function returns")
NEW_TOKENS = 24


def fill_mask_examples(export: Path) -> list[str]:
    """The likeliest words for the hidden one of some sentences, by the stock fill-mask pipeline."""
    from transformers import pipeline
    from transformers.utils import logging

    logging.disable_progress_bar()
    fill = pipeline("fill-mask", str(export), device="cpu")
    lines = []
    assert fill.tokenizer is not None
    for sentence in (sentence.format(mask=fill.tokenizer.mask_token) for sentence in SENTENCES):
        answers = fill(sentence, top_k=SHOWN)
        words = ", ".join(f"{answer['token_str']} {answer['score']:.0%}" for answer in answers)
        lines.append(f"{sentence} {words}")
    return lines


def text_generation_examples(export: Path) -> list[str]:
    """Texts that begin as some prompts do, by the stock text-generation pipeline: the same ones each time.

    Drawn and not the likeliest, because a small model's likeliest text soon repeats itself. The global generators are
    left as they were.
    """
    import torch
    from transformers import pipeline
    from transformers.utils import logging

    logging.disable_progress_bar()
    write = pipeline("text-generation", str(export), device="cpu")
    lines = []
    for prompt in PROMPTS:
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(0)
            answer = write(prompt, max_new_tokens=NEW_TOKENS, do_sample=True, temperature=0.7, top_k=40)
        lines.append(answer[0]["generated_text"])
    return lines


# By the pipeline that they come from: what a summary calls them, and who makes them.
EXAMPLES: dict[str, tuple[str, Callable[[Path], list[str]]]] = {
    "fill-mask": ("fill-mask", fill_mask_examples),
    "text-generation": ("written", text_generation_examples),
}
