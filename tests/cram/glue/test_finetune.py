"""The published settings, against a loop written by hand; learning; prediction."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from cram.glue.data import load_task
from cram.glue.finetune import PROTOCOLS, Hyperparameters, finetune, predict
from cram.glue.metrics import compute_metrics
from cram.glue.pretrained import open_pretrained
from cram.glue.splits import Split
from cram.glue.tasks import TASKS, Task
from cram.glue.tokens import TokenizedSplit, epoch_batches, tokenize_split

CPU = torch.device("cpu")


def model_and_data(
    checkpoint: Path, glue_folder: Path, task: Task, cache: Path, dropout: float
) -> tuple[nn.Module, TokenizedSplit]:
    encoder = open_pretrained(str(checkpoint), 32, "first")
    data = load_task(str(glue_folder), task, check_counts=False)
    model = encoder.new_classifier(task, 0, dropout, "first", untrained=False)
    return model, tokenize_split(data.train, encoder.tokenizer, 32, cache)


def test_protocols_are_the_published_ones() -> None:
    assert PROTOCOLS["cramming"] == Hyperparameters(learning_rate=4e-5, batch=16, epochs=5)
    assert PROTOCOLS["bert"] == Hyperparameters(learning_rate=2e-5, batch=32, epochs=5)
    assert Hyperparameters(1e-3, 16, 5).updates(100) == 30
    assert Hyperparameters(1e-3, 16, 5).updates(3) == 5


@pytest.mark.parametrize("name", ["rte", "stsb"])
def test_updates_are_adamw_with_the_published_schedule(
    checkpoint: Path, glue_folder: Path, tmp_path: Path, name: str
) -> None:
    hyperparameters = Hyperparameters(learning_rate=2e-3, batch=8, epochs=3)
    model, train = model_and_data(checkpoint, glue_folder, TASKS[name], tmp_path, 0.0)
    reference, _ = model_and_data(checkpoint, glue_folder, TASKS[name], tmp_path, 0.0)
    finetune(model, train, hyperparameters, 3, 0, torch.float32, lambda _: None)
    weights = list(reference.parameters())
    moments = [(torch.zeros_like(weight), torch.zeros_like(weight)) for weight in weights]
    total, step = 24, 0
    assert train.labels is not None
    reference.train()
    for epoch in range(3):
        for indices in epoch_batches(train.lengths, 8, 3, epoch):
            warm = int(0.1 * total)
            share = step / warm if step < warm else 0.5 * (1 + math.cos(math.pi * (step - warm) / (total - warm)))
            logits = reference(**train.batch(indices, 0, CPU)).logits
            outputs, labels = (logits[:, 0] if name == "stsb" else logits), train.labels[indices]
            loss = ((outputs - labels) ** 2).mean() if name == "stsb" else nn.functional.cross_entropy(outputs, labels)
            gradients = torch.autograd.grad(loss, weights)
            step += 1
            for weight, gradient, (first, second) in zip(weights, gradients, moments, strict=True):
                first.mul_(0.9).add_(gradient, alpha=0.1)
                second.mul_(0.98).addcmul_(gradient, gradient, value=0.02)
                ratio = first / (1 - 0.9**step) / ((second / (1 - 0.98**step)).sqrt() + 1e-6)
                weight.data.sub_(2e-3 * share * ratio)
    assert step == total
    for parameter, expected in zip(model.parameters(), weights, strict=True):
        torch.testing.assert_close(parameter, expected, atol=2e-5, rtol=1e-3)


def test_a_seed_gives_the_same_weights_again_and_dropout_is_on(
    checkpoint: Path, glue_folder: Path, tmp_path: Path
) -> None:
    def trained(seed: int, dropout: float) -> torch.Tensor:
        model, train = model_and_data(checkpoint, glue_folder, TASKS["rte"], tmp_path, dropout)
        finetune(model, train, Hyperparameters(1e-3, 16, 1), seed, 0, torch.float32, lambda _: None)
        return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])

    assert torch.equal(trained(0, 0.1), trained(0, 0.1))
    assert not torch.equal(trained(0, 0.1), trained(1, 0.1))
    assert not torch.equal(trained(0, 0.1), trained(0, 0.0))


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_the_loss_falls_and_every_update_is_counted(
    checkpoint: Path, glue_folder: Path, tmp_path: Path, precision: torch.dtype
) -> None:
    model, train = model_and_data(checkpoint, glue_folder, TASKS["sst2"], tmp_path, 0.1)
    advanced: list[int] = []
    loss = finetune(model, train, Hyperparameters(3e-3, 8, 8), 0, 0, precision, advanced.append)
    assert advanced == [1] * 64
    assert loss < 0.2
    assert train.labels is not None
    assert compute_metrics(TASKS["sst2"], predict(model, train, 0), train.labels.numpy())["accuracy"] > 95


def test_predictions_are_in_the_order_of_the_examples(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = open_pretrained(str(checkpoint), 32, "first")
    model = encoder.new_classifier(TASKS["mnli"], 0, 0.1, "first", untrained=False)
    texts: list[tuple[str, ...]] = [
        ("the warm film " * (row % 5 + 1), "a garden " * (row % 3 + 1)) for row in range(30)
    ]
    split = tokenize_split(Split(texts, None), encoder.tokenizer, 32, tmp_path)
    monkeypatch.setattr("cram.glue.finetune.EVALUATION_EXAMPLES", 7)
    advanced: list[int] = []
    outputs = predict(model, split, encoder.pad_id, advanced.append)
    assert advanced == [7, 7, 7, 7, 2]
    assert outputs.shape == (30, 3)
    for row, pair in enumerate(texts):
        with torch.no_grad():
            alone = model(**encoder.tokenizer(*pair, truncation=True, max_length=32, return_tensors="pt")).logits[0]
        np.testing.assert_allclose(outputs[row], alone.numpy(), atol=1e-5)
