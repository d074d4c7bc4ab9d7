"""Rows that are cut at first: what the model sees, what it predicts, and the sums of the rows that were cut."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cram.config.model import ModelConfig
from cram.config.objective import ObjectiveConfig
from cram.config.recipe import read_config
from cram.data.shards.loader import TrainingRows
from cram.errors import CramError
from cram.model.encoder import Encoder
from cram.objectives.objective import Objective, Setting
from cram.objectives.phased import PhasedObjective
from cram.objectives.short_rows import ShortRows

VOCAB, SEQ_LEN, LENGTH = 40, 16, 4
SETTING = Setting(list(range(5)), 0, 4, VOCAB, SEQ_LEN)


def make_rows(seed: int, rows: int) -> TrainingRows:
    random = np.random.default_rng(seed)
    tokens = random.integers(5, VOCAB, (rows, SEQ_LEN)).astype(np.int32)
    documents = np.cumsum(random.random((rows, SEQ_LEN)) < 0.15, axis=1, dtype=np.int32)
    return TrainingRows(tokens, documents, np.arange(rows), np.zeros(rows, np.int32))


def both(**config: float) -> tuple[ShortRows, Objective]:
    keys = ObjectiveConfig(mask_rate=0.5, short_rows=LENGTH, short_share=0.5, **config)
    whole = PhasedObjective(keys, SETTING)
    return ShortRows(keys, SETTING, whole), whole


def make_model() -> Encoder:
    model = Encoder(ModelConfig(layers=2, width=16, heads=2, mlp_width=16, init_std=0.3, zero_init=False), VOCAB)
    model.initialise(0)
    return model


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 10**6), rows=st.integers(1, 5), causal=st.booleans())
def test_the_loss_is_that_of_the_pieces_one_by_one(seed: int, rows: int, causal: bool) -> None:
    short, whole = both(causal_share=0.3 if causal else 0.0)
    data, model = make_rows(seed, rows), make_model()
    batch, uncut = short.prepare(data, 0.1), whole.prepare(data, 0.1)
    assert batch.inputs.shape == (rows * SEQ_LEN // LENGTH, LENGTH)
    assert torch.equal(batch.labels, uncut.labels) and batch.predicted == uncut.predicted
    slots = torch.arange(rows * SEQ_LEN) if uncut.slots is None else uncut.slots
    nats = torch.zeros(rows)
    for row in range(rows):
        for begin in range(0, SEQ_LEN, LENGTH):
            inside = (slots >= row * SEQ_LEN + begin) & (slots < row * SEQ_LEN + begin + LENGTH)
            piece = (
                uncut.inputs[row, None, begin : begin + LENGTH],
                uncut.documents[row, None, begin : begin + LENGTH],
            )
            hidden = model(*piece, slots[inside] - row * SEQ_LEN - begin, causal=causal)
            nats[row] += model.head.loss(hidden, uncut.labels[inside]).detach()
    assert short.loss(model, batch).item() == pytest.approx(float(nats.sum()), rel=1e-5, abs=1e-5)
    torch.testing.assert_close(short.nats_per_row(model, batch), nats, rtol=1e-4, atol=1e-4)
    assert np.array_equal(short.predicted_per_row(batch), whole.predicted_per_row(uncut))


def test_rows_are_whole_behind_the_share() -> None:
    short, whole = both(causal_share=0.3)
    assert short.phases == (0.0, 0.3, 0.5)
    data, model = make_rows(0, 4), make_model()
    for progress in (0.5, 1.0):
        batch, expected = short.prepare(data, progress), whole.prepare(data, progress)
        assert torch.equal(batch.inputs, expected.inputs)
        torch.testing.assert_close(short.nats_per_row(model, batch), whole.nats_per_row(model, expected))
    assert short.values(0.4)["rows"] == "4 tokens" and short.values(0.5)["rows"] == "16 tokens"
    assert short.scheduled(0.7) == whole.scheduled(0.7)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["objective.short_rows=128"], r"must be smaller than data\.seq_len=128 and divide it"),
        (["objective.short_rows=48"], r"must be smaller than data\.seq_len=128 and divide it"),
        (["recipe=electra_demo", "objective.short_rows=64"], r"cannot be used with objective\.kind=replaced"),
    ],
)
def test_what_does_not_go_together_is_refused(words: list[str], message: str) -> None:
    with pytest.raises(CramError, match=message):
        read_config(words if "recipe" in words[0] else ["recipe=bert_demo", *words])
