"""Finished runs of a small encoder and a small decoder, and their exports."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from cram.config.config import Config
from cram.config.data import DataConfig, WordPieceConfig
from cram.config.model import ModelConfig
from cram.config.objective import ObjectiveConfig
from cram.config.training import EvaluationConfig
from cram.data.shards.shards import HeldOutDocument
from cram.data.wordpiece import train_tokenizer
from cram.evaluation.held_out_rows import build_held_out
from cram.evaluation.scores import evaluate
from cram.files.atomic import write_json
from cram.hub.export import export_run
from cram.model.kinds import new_model
from cram.run.checksums import register_results, write_start_files

WORDS = ["the", "cat", "sat", "on", "a", "mat", "while", "many", "green", "birds", "sang", "of", "rivers"]
WORDS += ["and", "old", "mountains", "under", "stars"]
CONFIG = Config(
    model=ModelConfig(layers=3, width=32, heads=2, mlp_width=48, rope_theta=5000.0, norm_eps=1e-6, zero_init=False),
    data=DataConfig(seq_len=24),
    wordpiece=WordPieceConfig(vocab_size=64),
)
CAUSAL = replace(CONFIG, model=replace(CONFIG.model, kind="decoder"), objective=ObjectiveConfig(kind="causal"))


def sentence_of(number: int) -> str:
    """Words that depend on the number, three to forty-two of them."""
    return " ".join(WORDS[(number * 7 + i * (number + 3)) % len(WORDS)] for i in range(3 + number * 2 % 40))


def receipt_of(figures: dict[str, float], causal: bool) -> dict[str, Any]:
    """A receipt with these figures on the held-out rows."""
    return {
        "budget": {"clock": "wall", "limit": 60.0, "spent": 60.1, "overshoot": 0.1, "progress": 1.0},
        "held_out": {
            **figures,
            "unigram_nats_per_token": 4.5,
            **({"bigram_bits_per_byte": 3.75} if causal else {"mask_rate": 0.15}),
        },
        "model": {"kind": "encoder", "parameters": 34_000},
        "data": {"source": "pydocs", "hash": "abc123", "tokens": 1000, "seq_len": 24, "vocab_size": 64},
        "positions": 5000,
        "predicted_tokens": 900,
        "updates": 12,
        "epochs": 0.5,
        "device": "a machine",
        "precision": "float32",
        "seed": 0,
        "versions": {"torch": "2"},
        "commit": None,
        "rules": [
            {"rule": "one device", "passed": True, "found": "1"},
            {"rule": "no sample repeated", "passed": False, "found": "3"},
        ],
    }


def write_run(folder: Path, config: Config = CONFIG) -> Path:
    """A finished run of a small model whose every weight matters."""
    folder.mkdir()
    tokenizer = train_tokenizer([sentence_of(number) for number in range(60)], config.wordpiece)
    write_start_files(folder, config, {}, tokenizer.to_str(pretty=True).encode(), data="of the test")
    documents = [HeldOutDocument(sentence_of(number), f"{number:064x}") for number in range(40)]
    objective = config.objective.held_out
    rows = build_held_out(documents, tokenizer, config.data.seq_len, EvaluationConfig(), objective=objective)
    (folder / "held_out.safetensors").write_bytes(rows.to_bytes())
    model = new_model(config.model, tokenizer.get_vocab_size())
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            shift = 1.0 if parameter.ndim == 1 else 0.0
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.2 + shift)
    save_file(model.state_dict(), folder / "model.safetensors")
    figures = evaluate(model, rows, torch.device("cpu"))
    write_json(folder / "receipt.json", receipt_of(figures, objective == "causal"))
    register_results(folder)
    return folder


@pytest.fixture(scope="session")
def text() -> Callable[[int], str]:
    """Gives the text of a number."""
    return sentence_of


@pytest.fixture(scope="session")
def encoder_config() -> Config:
    """The config of the encoder's run."""
    return CONFIG


@pytest.fixture(scope="session")
def make_receipt() -> Callable[[dict[str, float], bool], dict[str, Any]]:
    """Makes a receipt of held-out figures, of a causal model or not."""
    return receipt_of


@pytest.fixture(scope="session")
def make_run() -> Callable[..., Path]:
    """Writes a finished run to a folder, by default an encoder's."""
    return write_run


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("runs") / "small")


@pytest.fixture(scope="session")
def exported(run: Path) -> Path:
    return export_run(run, run / "export")


@pytest.fixture(scope="session")
def decoder_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("runs") / "decoder", CAUSAL)


@pytest.fixture(scope="session")
def decoder(decoder_run: Path) -> Path:
    return export_run(decoder_run, decoder_run / "export")
