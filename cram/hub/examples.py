"""A few examples of what an exported model says, by the stock pipelines."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

SENTENCES = (
    "The capital of France is the city of {mask}.",
    "This function returns the {mask} of its argument.",
    "He was born in the {mask} of 1950.",
)
SHOWN = 4
PROMPTS = ("The capital of France is", "This function returns")
NEW_TOKENS = 24
DRAWN = {"do_sample": True, "temperature": 0.7, "top_k": 40, "return_full_text": False}


def stock_pipeline(task: str, export: Path) -> Any:
    """A pipeline of `transformers` on an exported folder, without its progress bar."""
    from transformers import pipeline
    from transformers.utils import logging

    logging.disable_progress_bar()
    make: Any = pipeline  # its types know tasks by their literals only
    return make(task, str(export), device="cpu")


def fill_mask_examples(export: Path) -> list[str]:
    """The likeliest words for the hidden one of some sentences, by the stock fill-mask pipeline."""
    fill = stock_pipeline("fill-mask", export)
    lines = []
    for sentence in (sentence.format(mask=fill.tokenizer.mask_token) for sentence in SENTENCES):
        answers = fill(sentence, top_k=SHOWN)
        words = ", ".join(f"{quoted(answer['token_str'])} {answer['score']:.0%}" for answer in answers)
        lines.append(f"{sentence} {words}")
    return lines


def text_generation_examples(export: Path) -> list[str]:
    """Some prompts and, behind an arrow, what the stock text-generation pipeline goes on with: the same each time.

    Drawn and not the likeliest, because a small model's likeliest text soon repeats itself. The global generators are
    left as they were.
    """
    import torch

    write = stock_pipeline("text-generation", export)
    lines = []
    for prompt in PROMPTS:
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(0)
            answer = write(prompt, max_new_tokens=NEW_TOKENS, **DRAWN)
        lines.append(f"{quoted(prompt)} -> {quoted(answer[0]['generated_text'])}")
    return lines


def quoted(text: str) -> str:
    """A text in quotation marks on one line, so that it is told apart from what stands around it."""
    return json.dumps(text, ensure_ascii=False)


# By the pipeline that they come from: what a summary calls them, and who makes them.
EXAMPLES: dict[str, tuple[str, Callable[[Path], list[str]]]] = {
    "fill-mask": ("fill-mask", fill_mask_examples),
    "text-generation": ("written", text_generation_examples),
}
