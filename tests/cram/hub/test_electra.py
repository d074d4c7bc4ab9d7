"""The two folders of an ELECTRA, loaded by stock classes."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForMaskedLM, AutoModelForSequenceClassification

from cram.config.config import Config
from cram.config.objective import ObjectiveConfig
from cram.errors import CramError
from cram.hub.export import export_run
from cram.hub.initial import read_initial
from cram.hub.trained import load_trained


@pytest.fixture(scope="module")
def electra_run(
    tmp_path_factory: pytest.TempPathFactory, encoder_config: Config, make_run: Callable[..., Path]
) -> tuple[Path, Config]:
    model = replace(encoder_config.model, kind="electra", generator_share=0.5)
    config = replace(encoder_config, model=model, objective=ObjectiveConfig(kind="replaced"))
    return make_run(tmp_path_factory.mktemp("runs") / "electra", config), config


def test_both_parts_are_what_stock_classes_compute(electra_run: tuple[Path, Config]) -> None:
    run, config = electra_run
    to = export_run(run, run / "export")
    ours, _ = load_trained(run, config, torch.device("cpu"))
    tokens = torch.randint(5, 60, (3, 20))
    encoder = AutoModelForSequenceClassification.from_pretrained(to, num_labels=3).eval()
    generator = AutoModelForMaskedLM.from_pretrained(run / "export-generator").eval()
    with torch.no_grad():
        hidden = encoder.base_model(tokens).last_hidden_state
        torch.testing.assert_close(hidden, ours.encode(tokens).view_as(hidden), rtol=1e-4, atol=1e-4)  # type: ignore
        logits = generator(tokens).logits
        torch.testing.assert_close(logits, ours.head(ours(tokens)).view_as(logits), rtol=1e-4, atol=1e-4)
    assert torch.equal(encoder.head.dense.weight, ours.discriminator_head.dense.weight)  # type: ignore
    assert encoder.classifier.weight.shape == (3, 32)
    assert "stands in a folder of its own" in (to / "README.md").read_text()
    assert "nats per token" in (run / "export-generator" / "README.md").read_text()


def test_weights_of_an_export_are_not_those_of_both_parts(electra_run: tuple[Path, Config]) -> None:
    run, config = electra_run
    to = export_run(run, run / "export")
    with pytest.raises(CramError, match=r"is not an export of model.kind=electra"):
        read_initial(replace(config, init=str(to)))
