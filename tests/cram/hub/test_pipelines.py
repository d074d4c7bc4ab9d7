"""The examples in a summary: a model's words stand out from the text that it was given."""

import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cram.hub.fill_mask import FILL_MASK, SENTENCES
from cram.hub.pipelines import quoted
from cram.hub.text_generation import PROMPTS, TEXT_GENERATION


def test_a_text_in_quotation_marks_is_one_line_and_reads_back() -> None:
    for text in ("list", " is", "a\nb", 'say "no"', "\u00e9", "##ing", ""):
        assert "\n" not in quoted(text)
        assert json.loads(quoted(text)) == text
    assert quoted("\u00e9") == '"\u00e9"'


def test_fill_mask_tokens_are_quoted(monkeypatch: pytest.MonkeyPatch) -> None:
    class Fill:
        tokenizer = SimpleNamespace(mask_token="<mask>")

        def __call__(self, sentence: str, top_k: int) -> list[dict[str, Any]]:
            return [{"token_str": ",", "score": 0.5}, {"token_str": "the", "score": 0.25}]

    monkeypatch.setattr("cram.hub.fill_mask.stock_pipeline", lambda *_: Fill())
    shown = [sentence.format(mask="<mask>") for sentence in SENTENCES]
    assert FILL_MASK.examples(Path()) == [f'{sentence} "," 50%, "the" 25%' for sentence in shown]


def test_the_text_of_a_decoder_stands_behind_its_prompt(monkeypatch: pytest.MonkeyPatch) -> None:
    def write(prompt: str, **options: Any) -> list[dict[str, str]]:
        return [{"generated_text": " a\ntown" if options["return_full_text"] is False else f"{prompt} a\ntown"}]

    monkeypatch.setattr("cram.hub.text_generation.stock_pipeline", lambda *_: write)
    lines = TEXT_GENERATION.examples(Path())
    assert lines == [f'"{prompt}" -> " a\\ntown"' for prompt in PROMPTS]
    assert all(re.fullmatch(r'"[^"]+" -> "[^"]+"', line) for line in lines)
