"""The model card of an exported folder, made from the run's receipt."""

import json
import re
from typing import Any

from cram.config.config import Config
from cram.config.training import CardConfig
from cram.errors import CramError
from cram.files.atomic import to_json
from cram.hub.stock import AUTO_CLASSES, PIPELINES, STOCK_CLASSES

UNITS = {"wall": "seconds of wall clock", "tokens": "tokens", "steps": "updates"}

# What Markdown and HTML take for markup; `_` within a word is not markup.
MARKUP = re.compile(r"[\\`*\[\]<>|#&~$!]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])")
# As the Hub writes them: licences by an identifier of its list, languages by ISO 639 codes, a region or script behind.
LICENSE = re.compile(r"[a-z0-9]+(?:[.-][a-z0-9]+)*")
LANGUAGE = re.compile(r"[a-z]{2,3}(?:-[A-Za-z0-9]{2,8})*|multilingual|code")

CARD = """---
{metadata}library_name: transformers
pipeline_tag: {task}
tags: [{architecture}, {task}, cram]
---

# {name}

A {what} of {parameters:.1f} M parameters ({layers} layers of {width}, vocabulary {vocab_size}), {origin}
by cram inside a budget of {limit:g} {unit} on one {device}. Stock `{stock_class}`, no remote code.
{unfinished}{unstated}

| | |
|---|---|
| held-out loss | {nats:.4f} nats per token ({bits}), accuracy {accuracy:.1%} |
| unigram baseline | {unigram:.4f} nats per token |
| budget | {limit:g} {unit}, spent {spent:.6g} |
| seen | {positions:,} tokens ({predicted:,} predicted) in {updates:,} updates, {epochs:.3f} epochs |
| data | {source}, {data_tokens:,} tokens, hash {data_hash} |
| rows | {seq_len} tokens |
| precision, seed | {precision}, {seed} |
| versions | {versions}; commit {commit} |

## Use

```python
from transformers import pipeline

{use}
```

Texts longer than {seq_len} tokens are longer than anything the model has seen. {further}

## The held-out loss, repeated by `transformers` alone

{how}
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

## Rules of cramming

{rules}
"""

# What a card says of each kind of model.
KINDS = {
    "encoder": {
        "architecture": "modernbert",
        "what": "BERT",
        "use": """fill = pipeline("fill-mask", "path/to/this/folder")
print(fill({prompt}))""",
        "further": """For classification, load the folder
with `AutoModelForSequenceClassification.from_pretrained(folder, num_labels=...)` and fine-tune.""",
        "how": "{share:.0%} of the tokens of the rows in held_out.safetensors are shown as {mask}, "
        "one document or window a row.",
    },
    "decoder": {
        "architecture": "qwen3",
        "what": "decoder",
        "use": """write = pipeline("text-generation", "path/to/this/folder")
print(write("The capital of France is", max_new_tokens=40, do_sample=True, temperature=0.7))""",
        "further": "A text{begins} ends with\n{sep}.",
        "how": "Every ordinary token of the rows in held_out.safetensors but a row's first is predicted from those "
        "before it,\none document or window a row; `labels` are the tokens that follow.",
    },
}


def public_source(source: str) -> str:
    """What may be published of `data.source`: a folder of this machine is left out, a glob or a name remains."""
    hub, name = ("hf:", source[3:]) if source.startswith("hf:") else ("", source)
    steps = re.split(r"[/\\]", name)
    of_machine = re.match(r"[/\\~]|[A-Za-z]:[/\\]", name) or ".." in steps
    return hub + (steps[-1] if of_machine else name)


def check_card(card: CardConfig) -> None:
    """Errors: CramError for what the Hub would refuse in a card's front matter."""
    if card.license is not None and not LICENSE.fullmatch(card.license):
        raise CramError(
            f"card.license={card.license} is not a licence identifier. Give one of the Hub's list in lower case, "
            "such as apache-2.0, mit or cc-by-4.0."
        )
    for code in languages(card):
        if not LANGUAGE.fullmatch(code):
            raise CramError(
                f"card.language={card.language}: '{code}' is not a language code. "
                "Give ISO 639 codes in lower case, such as en, or en,de for two."
            )


def languages(card: CardConfig) -> list[str]:
    """The codes in `card.language`."""
    return [] if card.language is None else [code.strip() for code in card.language.split(",")]


def _metadata(card: CardConfig) -> str:
    """The lines of the front matter that only the user can know. Quoted: `no`, Norwegian, is a truth value in YAML."""
    codes = languages(card)
    lines = [f"language: {to_json(codes)}"] if codes else []
    lines += [f"license: {card.license}"] if card.license else []
    return "".join(f"{line}\n" for line in lines)


def _unfinished(receipt: dict[str, Any]) -> str:
    """A paragraph on the weights of a checkpoint."""
    if not receipt.get("unfinished"):
        return ""
    return (
        f"\n**Not the end of a run:** the weights of a checkpoint at update {receipt['updates']:,}, "
        f"{receipt['budget']['progress']:.1%} of the budget.\nThe learning rate had not come down, "
        "a finished run is better.\n"
    )


def _unstated(card: CardConfig) -> str:
    """A paragraph on what the front matter lacks."""
    lacking = [name for name, said in (("licence", card.license), ("language", card.language)) if not said]
    if not lacking:
        return ""
    return f"\nIts {' and '.join(lacking)} {'have' if len(lacking) > 1 else 'has'} not been stated.\n"


def plain(text: str) -> str:
    """A text as one line of Markdown that shows it: no markup, no HTML, no cell of a table begins in it."""
    return MARKUP.sub(r"\\\g<0>", _one_line(text))


def code(text: str) -> str:
    """A text as code in one line of Markdown; a table may hold it."""
    text = _one_line(text)
    fence = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    space = " " if text.startswith("`") or text.endswith("`") else ""
    if not text or "|" in text:  # which a table would take for the end of a cell, and code cannot escape
        return plain(text)
    return f"{fence}{space}{text}{space}{fence}"


def _one_line(text: str) -> str:
    shown = "".join(letter if letter.isprintable() else " " for letter in str(text))
    return " ".join(shown.split())


def model_card(name: str, config: Config, receipt: dict[str, Any], tokens: dict[str, str]) -> str:
    """README.md of the exported folder, every figure from the receipt, licence and language as the user said.

    Args:
        tokens: special ones by their roles.
    """
    budget, data, held_out = receipt["budget"], receipt["data"], receipt["held_out"]
    kind = config.model.kind
    filled = {
        "share": held_out.get("mask_rate"),
        "mask": code(tokens.get("mask", "")),
        "prompt": json.dumps(f"The capital of France is the city of {tokens.get('mask')}.", ensure_ascii=False),
        "sep": code(tokens["sep"]),
        "begins": f" begins with {code(tokens['cls'])}, which the tokenizer adds, and" if "cls" in tokens else "",
    }
    said = {part: text.format(**filled) for part, text in KINDS[kind].items()}
    rules = [
        f"- [{'x' if line['passed'] else ' '}] {plain(line['rule'])}: {plain(line['found'])}"
        for line in receipt["rules"]
    ]
    return CARD.format(
        metadata=_metadata(config.card),
        origin=f"trained on from the weights of {code(receipt['init'])}"
        if receipt.get("init")
        else "trained from scratch",
        unfinished=_unfinished(receipt),
        unstated=_unstated(config.card),
        name=plain(name),
        task=PIPELINES[kind],
        stock_class=STOCK_CLASSES[kind],
        auto_class=AUTO_CLASSES[kind],
        **said,
        parameters=receipt["model"]["parameters"] / 1e6,
        layers=config.model.layers,
        width=config.model.width,
        vocab_size=data["vocab_size"],
        seq_len=data["seq_len"],
        limit=budget["limit"],
        unit=UNITS[budget["clock"]],
        spent=budget["spent"],
        device=plain(receipt["device"]),
        nats=held_out["nats_per_token"],
        bits=_bits(held_out),
        accuracy=held_out["accuracy"],
        unigram=held_out["unigram_nats_per_token"],
        positions=receipt["positions"],
        predicted=receipt["predicted_tokens"],
        updates=receipt["updates"],
        epochs=receipt["epochs"],
        source=code(public_source(data["source"])),
        data_tokens=data["tokens"],
        data_hash=code(data["hash"]),
        precision=plain(receipt["precision"]),
        seed=receipt["seed"],
        versions=", ".join(plain(f"{package} {version}") for package, version in receipt["versions"].items()),
        commit=plain(receipt["commit"] or "unknown"),
        rules="\n".join(rules) or "They are judged when a run is finished.",
    )


def _bits(held_out: dict[str, Any]) -> str:
    if "bits_per_byte" not in held_out:
        return f"{held_out['bits_per_masked_byte']:.4f} bits per masked byte"
    bits, bigram = held_out["bits_per_byte"], held_out["bigram_bits_per_byte"]
    return f"{bits:.4f} bits per byte, where counts of pairs of bytes give {bigram:.4f}"
