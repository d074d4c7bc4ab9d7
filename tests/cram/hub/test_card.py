"""A model card publishes what the user has stated, and nothing about the machine."""

import ast

import pytest
import yaml
from huggingface_hub import ModelCard
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from cram.config.config import Config
from cram.config.recipe import read_config
from cram.config.training import CardConfig
from cram.errors import CramError
from cram.hub.card import check_card, code_span, escape, make_card, strip_folders

RECEIPT = {
    "budget": {"clock": "wall", "limit": 60.0, "spent": 60.1},
    "held_out": {
        "nats_per_token": 3.0,
        "bits_per_masked_byte": 1.5,
        "accuracy": 0.25,
        "unigram_nats_per_token": 4.5,
        "mask_rate": 0.15,
    },
    "model": {"parameters": 34_000},
    "data": {"source": "/home/alice/letters/*.txt", "hash": "abc", "tokens": 1000, "seq_len": 24, "vocab_size": 64},
    "positions": 5000,
    "predicted_tokens": 900,
    "updates": 12,
    "epochs": 0.5,
    "device": "a machine",
    "precision": "float32",
    "seed": 0,
    "versions": {"torch": "2"},
    "commit": None,
    "rules": [],
}

TOKENS = {"mask": "[MASK]", "cls": "[CLS]", "sep": "[SEP]"}


def card(**stated: str) -> tuple[dict[str, object], str]:
    """Front matter and text of a card."""
    _, front, text = make_card("mine", Config(card=CardConfig(**stated)), RECEIPT, TOKENS).split("---\n", 2)
    return yaml.safe_load(front), text


@pytest.mark.parametrize(
    ("source", "published"),
    [
        ("pydocs", "pydocs"),
        ("texts/*.txt", "texts/*.txt"),
        ("/home/alice/texts/*.jsonl.zst", "*.jsonl.zst"),
        ("~/texts/**/a.parquet", "a.parquet"),
        ("../../alice/dump.jsonl", "dump.jsonl"),
        (r"C:\\Users\\alice\\dump.jsonl", "dump.jsonl"),
        ("hf:nyu-mll/glue:cola:train", "hf:nyu-mll/glue:cola:train"),
        ("hf:/home/alice/stories", "hf:stories"),
        ("hf:~/stories:small", "hf:stories:small"),
        ("hf://datasets/nyu-mll/glue/a.parquet", "hf://datasets/nyu-mll/glue/a.parquet"),
    ],
)
def test_no_folder_of_the_machine_is_published(source: str, published: str) -> None:
    assert strip_folders(source) == published
    assert strip_folders(published) == published
    assert "alice" not in published


def test_a_card_has_licence_and_languages_as_the_hub_reads_them() -> None:
    front, text = card(license="cc-by-4.0", language="en, no")
    assert front["license"] == "cc-by-4.0"
    assert front["language"] == ["en", "no"]
    assert "stated" not in text
    assert "alice" not in text


@pytest.mark.parametrize(
    ("stated", "sentence"),
    [
        ({}, "Its licence and language have not been stated."),
        ({"license": "mit"}, "Its language has not been stated."),
        ({"language": "de"}, "Its licence has not been stated."),
    ],
)
def test_a_card_names_what_has_not_been_stated(stated: dict[str, str], sentence: str) -> None:
    front, text = card(**stated)
    assert set(front) & {"license", "language"} == set(stated)
    assert sentence in text


@pytest.mark.parametrize(
    ("card", "message"),
    [
        (CardConfig(license="Apache 2.0"), "card.license=Apache 2.0 is not a licence identifier. .*apache-2.0"),
        (CardConfig(license=""), "card.license= is not a licence identifier"),
        (CardConfig(language="English"), "card.language=English: 'English' is not a language code"),
        (CardConfig(language="en;de"), "'en;de' is not a language code. .*en,de for two"),
        (CardConfig(language="en,"), "'' is not a language code"),
    ],
)
def test_values_that_the_hub_refuses_are_refused(card: CardConfig, message: str) -> None:
    with pytest.raises(CramError, match=message):
        check_card(card)


def test_the_words_of_a_card_are_text() -> None:
    stated = read_config(["recipe=bert_demo", "card.language=en,de", "card.license=mit"]).card
    assert stated == CardConfig("mit", "en,de")


HOSTILE = [
    "a\n---\nlicense: mit",
    "<script>alert(1)</script>",
    "[x](http://y)",
    "**b** | c",
    "`a` ``b",
    "# h",
    "a\\",
    "a&lt;",
]


@pytest.mark.parametrize("name", HOSTILE)
def test_names_are_shown_and_begin_no_markup(name: str) -> None:
    receipt = {**RECEIPT, "device": name, "init": name, "commit": name, "versions": {name: name}}
    receipt["data"] = {**RECEIPT["data"], "source": f"hf:{name}", "hash": name}
    receipt["rules"] = [{"rule": name, "found": name, "passed": True}]
    text = make_card(name, Config(), receipt, dict.fromkeys(TOKENS, name))
    front, body = text.split("---\n", 2)[1:]
    assert set(yaml.safe_load(front)) == {"library_name", "pipeline_tag", "tags", "model-index"}
    assert ModelCard(text).data.model_name == " ".join(name.split())
    assert len(text.splitlines()) == len(
        make_card("mine", Config(), RECEIPT | {"rules": receipt["rules"]}, TOKENS).splitlines()
    )
    ast.parse(body.split("```python\n")[1].split("```\n")[0])
    html = MarkdownIt("commonmark").enable("table").render(body)
    assert "<script" not in html.replace("&lt;script", "") and 'http://y"' not in html and "<strong>b" not in html
    assert html.count("<h1>") == 1
    rows = [line for line in html.splitlines() if line.startswith("<td>") or line.startswith("<tr>")]
    assert sum(line.startswith("<tr>") for line in rows) * 2 == sum(line.startswith("<td>") for line in rows) + 2


@given(st.text())
def test_a_text_in_markdown_is_the_text_in_one_line(text: str) -> None:
    shown = " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())
    for written in (escape(text), code_span(text)):
        (paragraph,) = MarkdownIt("commonmark").parse(f"a {written} z")[1:2]
        parts = paragraph.children or []
        assert {part.type for part in parts} <= {"text", "code_inline", "text_special"}
        assert " ".join("".join(part.content for part in parts).split()) == f"a {shown} z".replace("  ", " ")
