"""The model card of an exported folder, made from the run's receipt."""

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from cram.config.config import Config
from cram.config.sources import format_sources, is_list, parse_sources
from cram.config.training import CardConfig
from cram.errors import CramError
from cram.hub.front_matter import GlueScore, split_languages, write_front_matter
from cram.hub.kinds import stock_model
from cram.hub.stock import StockModel
from cram.reporting.page.blocks import Figure
from cram.reporting.sections.formats import ABSENT

# The unit of each clock's budget, as the card names it.
UNITS = {
    "wall": "seconds of wall clock",
    "tokens": "tokens",
    "steps": "updates",
    "rst": "seconds of reference system time",
}

# Characters that begin markup in Markdown or HTML; `_` inside a word does not.
MARKUP = re.compile(r"[\\`*\[\]<>|#&~$!]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])")
# As the Hub writes them: licences by an identifier of its list; languages by ISO 639 codes, with a region or script.
LICENSE = re.compile(r"[a-z0-9]+(?:[.-][a-z0-9]+)*")
LANGUAGE = re.compile(r"[a-z]{2,3}(?:-[A-Za-z0-9]{2,8})*|multilingual|code")

CARD = """---
{front_matter}---

# {name}

A {noun} of {parameters:.1f} M parameters ({layers} layers of {width}, vocabulary {vocab_size}), {origin}
by cram inside a budget of {limit:g} {unit} on one {device}. Stock `{stock_class}`, no remote code.
{unfinished}{unstated}

| | |
|---|---|
{figures}| data | {source}, {data_tokens:,} tokens, {epochs:.3f} epochs of it, hash {data_hash} |
| rows | {seq_len} tokens |
| precision, seed | {precision}, {seed} |
| versions | {versions}; commit {commit} |
{picture}
## Use

```python
from transformers import pipeline

{usage}
```

Texts longer than {seq_len} tokens are longer than anything the model has seen. {advice}

{repeat}
## Rules of cramming

{rules}
"""

# How anybody repeats the held-out loss, for a class that scores text.
REPEAT = """## The held-out loss, repeated by `transformers` alone

{held_out_text}
Run this in the folder:

```python
import torch
from safetensors.torch import load_file
from transformers import {auto_class}

model = {auto_class}.from_pretrained(".").eval()
rows = load_file("held_out.safetensors")
nats, predicted = 0.0, 0
for part in torch.arange(len(rows["tokens"])).split(16):
    labels = rows["labels"][part].flatten()
    seen = (rows["tokens"][part] != model.config.pad_token_id).long()
    with torch.no_grad():
        logits = model(input_ids=rows["inputs"][part], attention_mask=seen).logits.flatten(0, 1)
    nats += torch.nn.functional.cross_entropy(logits, labels, reduction="sum").item()
    predicted += (labels != -100).sum().item()
print(f"{{nats / predicted:.4f}} nats per token")
```
"""
PICTURE = """
![Training and held-out loss over the time that was charged to the budget]({picture})
"""
NOT_REPEATED = """The held-out loss is that of the other part of the model, which stands in a folder of its own.
"""


def strip_folders(source: str) -> str:
    """Remove the folders of this machine from `data.source`; a glob or a name may be published and remains."""
    if is_list(source):
        return format_sources([replace(entry, path=strip_folders(entry.path)) for entry in parse_sources(source)])
    hub, name = ("hf:", source[3:]) if re.match("hf:(?!//)", source) else ("", source)
    steps = re.split(r"[/\\]", name)
    is_local = re.match(r"[/\\~]|[A-Za-z]:[/\\]|(?:file|local)://", name) or ".." in steps
    return hub + (steps[-1] if is_local else name)


def check_card(card: CardConfig) -> None:
    """Check licence and language of a model card.

    Raises:
        CramError: for a value that the Hub would refuse in a card's front matter.
    """
    if card.license is not None and not LICENSE.fullmatch(card.license):
        raise CramError(
            f"card.license={card.license} is not a licence identifier. Give one of the Hub's list in lower case, "
            "such as apache-2.0, mit or cc-by-4.0."
        )
    for code in split_languages(card):
        if not LANGUAGE.fullmatch(code):
            raise CramError(
                f"card.language={card.language}: '{code}' is not a language code. "
                "Give ISO 639 codes in lower case, such as en, or en,de for two."
            )


def _unfinished(receipt: dict[str, Any]) -> str:
    """A paragraph for the weights of a checkpoint; empty for those of a finished run."""
    if not receipt.get("unfinished"):
        return ""
    return (
        f"\n**Not the end of a run:** the weights of a checkpoint at update {receipt['updates']:,}, "
        f"{receipt['budget']['progress']:.1%} of the budget.\nThe learning rate had not come down, "
        "a finished run is better.\n"
    )


def _unstated(card: CardConfig) -> str:
    """A paragraph that names what the user has not stated; empty if both licence and language are stated."""
    missing = [name for name, value in (("licence", card.license), ("language", card.language)) if not value]
    if not missing:
        return ""
    return f"\nIts {' and '.join(missing)} {'have' if len(missing) > 1 else 'has'} not been stated.\n"


def escape(text: str) -> str:
    """Write a text as one line of Markdown in which no character acts as markup, HTML or the border of a table cell."""
    return MARKUP.sub(r"\\\g<0>", one_line(text))


def code_span(text: str) -> str:
    """Write a text as code in one line of Markdown, also inside a table."""
    text = one_line(text)
    fence = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    space = " " if text.startswith("`") or text.endswith("`") else ""
    if not text or "|" in text:  # a table reads "|" as the end of a cell, and code has no escape for it
        return escape(text)
    return f"{fence}{space}{text}{space}{fence}"


def one_line(text: str) -> str:
    """Write a text in one line, without characters that are not shown."""
    shown = "".join(letter if letter.isprintable() else " " for letter in str(text))
    return " ".join(shown.split())


def make_card(
    name: str,
    config: Config,
    receipt: dict[str, Any],
    tokens: dict[str, str],
    stock: StockModel | None = None,
    figures: Sequence[Figure] = (),
    glue: Sequence[GlueScore] = (),
    picture: str | None = None,
) -> str:
    """README.md of the exported folder: every figure is from the receipt, licence and language are the user's.

    Args:
        name: title of the card.
        config: the run's config.
        receipt: the run's receipt, or the same figures of a checkpoint.
        tokens: special tokens by role.
        stock: how the stock class names the model; None for the first of the model's kind.
        figures: of the headline of the run's page.
        glue: scores of the model on GLUE.
        picture: name of the file beside the card that shows the loss over time; None where there is none.
    """
    stock = stock or stock_model(config.model.kind)
    origin = (
        f"trained on from the weights of {code_span(receipt['init'])}"
        if receipt.get("init")
        else "trained from scratch"
    )
    return CARD.format(
        name=escape(name),
        front_matter=write_front_matter(one_line(name), config, receipt, stock, glue),
        picture=PICTURE.format(picture=picture) if picture else "",
        origin=origin,
        unfinished=_unfinished(receipt),
        unstated=_unstated(config.card),
        layers=config.model.layers,
        width=config.model.width,
        rules=_rules(receipt),
        figures="".join(map(_figure_row, figures)),
        **_stock_texts(stock, receipt["held_out"], tokens),
        **_origin(receipt),
    )


def _stock_texts(stock: StockModel, held_out: dict[str, Any], tokens: dict[str, str]) -> dict[str, str]:
    """The fields of the card that depend on the stock model."""
    task = stock.task
    fields = {
        "share": held_out.get("mask_rate"),
        "mask": code_span(tokens.get("mask", "")),
        "prompt": json.dumps(f"The capital of France is the city of {tokens.get('mask')}.", ensure_ascii=False),
        "sep": code_span(tokens["sep"]),
        "begins": f" begins with {code_span(tokens['cls'])}, which the tokenizer adds, and" if "cls" in tokens else "",
    }
    held_out_text = task.held_out_text.format(**fields)
    repeat = REPEAT.format(held_out_text=held_out_text, auto_class=task.auto_class)
    return {
        "stock_class": stock.class_name,
        "noun": task.noun,
        "usage": task.usage.format(**fields),
        "advice": task.advice.format(**fields),
        "repeat": repeat if stock.scores_text else NOT_REPEATED,
    }


def _figure_row(figure: Figure) -> str:
    """A row of the card's table; none for a figure that the run does not have."""
    if figure.value == ABSENT:
        return ""
    space = "" if figure.unit in ("", "%") else " "
    detail = f" ({escape(figure.detail)})" if figure.detail else ""
    return f"| {escape(figure.label)} | {escape(figure.value)}{space}{escape(figure.unit)}{detail} |\n"


def _origin(receipt: dict[str, Any]) -> dict[str, Any]:
    """The fields of the card that name size, budget and origin, from the receipt."""
    budget, data = receipt["budget"], receipt["data"]
    return {
        "parameters": receipt["model"]["parameters"] / 1e6,
        "vocab_size": data["vocab_size"],
        "seq_len": data["seq_len"],
        "limit": budget["limit"],
        "unit": UNITS[budget["clock"]],
        "device": escape(receipt["device"]),
        "source": code_span(strip_folders(data["source"])),
        "data_tokens": data["tokens"],
        "data_hash": code_span(data["hash"]),
        "epochs": receipt["epochs"],
        "precision": escape(receipt["precision"]),
        "seed": receipt["seed"],
        "versions": ", ".join(escape(f"{package} {version}") for package, version in receipt["versions"].items()),
        "commit": escape(receipt["commit"] or "unknown"),
    }


def _rules(receipt: dict[str, Any]) -> str:
    lines = [
        f"- [{'x' if line['passed'] else ' '}] {escape(line['rule'])}: {escape(line['found'])}"
        for line in receipt["rules"]
    ]
    return "\n".join(lines) or "They are judged when a run is finished."
