"""Replaced token detection against a computation by hand in float64."""

from typing import Any

import numpy as np
import pytest
import torch

from cram.config.model import ModelConfig
from cram.config.objective import ObjectiveConfig
from cram.data.shards.loader import TrainingRows
from cram.model.electra import Electra
from cram.objectives.batch import IGNORED
from cram.objectives.objective import Setting
from cram.objectives.replaced import ReplacedObjective, fill

VOCAB, SEQ_LEN = 64, 16
SIZE = ModelConfig(kind="electra", layers=1, width=16, heads=2, mlp_width=24, zero_init=False, init_std=0.3)


def rows(count: int = 4, epoch: int = 0) -> TrainingRows:
    tokens = np.random.default_rng(0).integers(5, VOCAB, (count, SEQ_LEN), dtype=np.int32)
    tokens[-1, -6:] = 0  # padding
    documents = np.zeros_like(tokens)
    documents[-1, -6:] = 1
    return TrainingRows(tokens, documents, np.arange(count), np.full(count, epoch, np.int32))


def objective(weight: float = 50.0) -> ReplacedObjective:
    config = ObjectiveConfig(
        kind="replaced", mask_rate=0.3, final_mask_rate=0.3, replace_mask=0.85, discriminator_weight=weight
    )
    return ReplacedObjective(config, Setting([0, 1, 2, 3, 4], 0, 4, VOCAB, SEQ_LEN))


def electra() -> Electra:
    model = Electra(SIZE, VOCAB).to(torch.float64)
    model.initialise(0)
    return model


def test_the_loss_is_the_mean_of_the_generator_plus_weight_times_that_of_the_discriminator() -> None:
    model, of = electra(), objective(7.0)
    batch = of.prepare(rows(), 0.5)
    logits = model.head(model(batch.inputs, batch.documents, batch.slots))
    filled = fill(logits, batch)
    assert batch.slots is not None
    predicted = batch.labels != IGNORED
    generator = -logits.log_softmax(-1)[predicted, batch.labels[predicted]].sum() / batch.predicted
    judged = (batch.original != 0).flatten()
    probabilities = model.discriminate(filled, batch.documents).sigmoid()[judged]
    replaced = (filled != batch.original).flatten()[judged]
    discriminator = -torch.where(replaced, probabilities.log(), (1 - probabilities).log()).mean()
    assert replaced.any()
    loss = (of.loss(model, batch) / batch.predicted).detach()
    assert float(loss) == pytest.approx(float((generator + 7.0 * discriminator).detach()), rel=1e-6)


def test_a_restored_token_counts_as_original_and_only_hidden_ones_are_filled() -> None:
    of = objective()
    batch = of.prepare(rows(), 0.5)
    assert batch.slots is not None
    sure = torch.full((len(batch.slots), VOCAB), -1e9)
    sure[torch.arange(len(batch.slots)), batch.labels.clamp(min=0)] = 1e9
    assert torch.equal(fill(sure, batch), batch.original)
    wrong = fill(-sure, batch)
    changed = (wrong != batch.original).flatten().nonzero().squeeze(1)
    assert sorted(changed.tolist()) == sorted(batch.slots[batch.labels != IGNORED].tolist())


def test_the_same_rows_draw_the_same_tokens_and_another_epoch_others() -> None:
    of, model = objective(), electra()
    first, again, later = (of.prepare(rows(epoch=epoch), 0.5) for epoch in (0, 0, 1))
    assert first.seed == again.seed != later.seed
    drawn: list[Any] = [fill(model.head(model(b.inputs, b.documents, b.slots)), b) for b in (first, again)]
    assert torch.equal(*drawn)


def test_draws_follow_the_generators_probabilities() -> None:
    of = objective()
    batch = of.prepare(rows(200), 0.5)
    assert batch.slots is not None
    logits = torch.full((len(batch.slots), VOCAB), -1e9)
    logits[:, 5], logits[:, 6] = np.log(0.25), np.log(0.75)
    drawn = fill(logits, batch).flatten()[batch.slots[batch.labels != IGNORED]]
    assert set(drawn.tolist()) == {5, 6}
    assert float((drawn == 6).float().mean()) == pytest.approx(0.75, abs=0.05)


def test_the_discriminator_teaches_the_generator_only_through_the_embedding() -> None:
    model = electra()
    whole, half = objective(50.0), objective(0.0)
    batch = whole.prepare(rows(), 0.5)
    gradients = []
    for of in (whole, half):
        model.zero_grad()
        of.loss(model, batch).backward()
        gradients.append({name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None})
    for name, gradient in gradients[0].items():
        of_generator = name.startswith(("generator.", "head."))
        assert torch.equal(gradient, gradients[1][name]) == of_generator, name
