"""A BERT, exported and loaded by stock classes."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from transformers import AutoModelForMaskedLM, AutoModelForSequenceClassification

from cram.config.config import Config
from cram.hub.export import export_run
from cram.hub.initial import read_initial
from cram.hub.trained import load_trained


def test_a_bert_is_exported_without_loss_and_read_again(
    tmp_path: Path, encoder_config: Config, make_run: Callable[..., Path]
) -> None:
    config = replace(encoder_config, model=replace(encoder_config.model, kind="bert", positions=40))
    run = make_run(tmp_path / "bert", config)
    to = export_run(run)  # which compares logits and held-out loss
    assert type(AutoModelForMaskedLM.from_pretrained(to)).__name__ == "BertForMaskedLM"
    assert AutoModelForSequenceClassification.from_pretrained(to, num_labels=3).config.max_position_embeddings == 40
    ours, _ = load_trained(run, config, torch.device("cpu"))
    again = read_initial(replace(config, init=str(to), tokenizer=str(to / "tokenizer.json")))
    assert all(torch.equal(again[name], weight) for name, weight in ours.state_dict().items())
