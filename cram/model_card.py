"""The model card of an exported folder, made from the run's receipt."""

from typing import Any

from cram.config import Config

UNITS = {"wall": "seconds of wall clock", "tokens": "tokens", "steps": "updates"}

CARD = """---
library_name: transformers
pipeline_tag: fill-mask
tags: [modernbert, fill-mask, cram]
---

# {name}

A BERT of {parameters:.1f} M parameters ({layers} layers of {width}, vocabulary {vocab_size}), trained from scratch
by cram inside a budget of {limit:g} {unit} on one {device}. Stock `ModernBertForMaskedLM`, no remote code.

| | |
|---|---|
| held-out loss | {nats:.4f} nats per token ({bits:.4f} bits per masked byte), accuracy {accuracy:.1%} |
| unigram baseline | {unigram:.4f} nats per token |
| budget | {limit:g} {unit}, spent {spent:.6g} |
| seen | {positions:,} tokens ({predicted:,} predicted) in {updates:,} updates, {epochs:.3f} epochs |
| data | `{source}`, {data_tokens:,} tokens, hash `{data_hash}` |
| rows | {seq_len} tokens |
| precision, seed | {precision}, {seed} |
| versions | {versions}; commit {commit} |

## Use

```python
from transformers import pipeline

fill = pipeline("fill-mask", "path/to/this/folder")
print(fill("The capital of France is the city of [MASK]."))
```

Texts longer than {seq_len} tokens are longer than anything the model has seen. For classification, load the folder
with `AutoModelForSequenceClassification.from_pretrained(folder, num_labels=...)` and fine-tune.

## The held-out loss, repeated by `transformers` alone

{share:.0%} of the tokens of the rows in held_out.safetensors are shown as [MASK], one document or window a row.
Run this in the folder:

```python
import torch
from safetensors.torch import load_file
from transformers import AutoModelForMaskedLM

model = AutoModelForMaskedLM.from_pretrained(".").eval()
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


def model_card(name: str, config: Config, receipt: dict[str, Any]) -> str:
    """README.md of the exported folder, every figure from the receipt."""
    budget, data, held_out = receipt["budget"], receipt["data"], receipt["held_out"]
    rules = [f"- [{'x' if line['passed'] else ' '}] {line['rule']}: {line['found']}" for line in receipt["rules"]]
    return CARD.format(
        name=name,
        parameters=receipt["model"]["parameters"] / 1e6,
        layers=config.model.layers,
        width=config.model.width,
        vocab_size=data["vocab_size"],
        seq_len=data["seq_len"],
        limit=budget["limit"],
        unit=UNITS[budget["clock"]],
        spent=budget["spent"],
        device=receipt["device"],
        nats=held_out["nats_per_token"],
        bits=held_out["bits_per_masked_byte"],
        accuracy=held_out["accuracy"],
        unigram=held_out["unigram_nats_per_token"],
        share=held_out["mask_rate"],
        positions=receipt["positions"],
        predicted=receipt["predicted_tokens"],
        updates=receipt["updates"],
        epochs=receipt["epochs"],
        source=data["source"],
        data_tokens=data["tokens"],
        data_hash=data["hash"],
        precision=receipt["precision"],
        seed=receipt["seed"],
        versions=", ".join(f"{package} {version}" for package, version in receipt["versions"].items()),
        commit=receipt["commit"] or "unknown",
        rules="\n".join(rules),
    )
