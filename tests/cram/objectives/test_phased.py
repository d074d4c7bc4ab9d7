"""Two phases: which objective makes a batch at which progress, and what the encoder may see of it."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cram.config.model import ModelConfig
from cram.config.training import ObjectiveConfig
from cram.data.shards.loader import TrainingRows
from cram.model import Encoder
from cram.objectives.causal import CausalBatch, CausalObjective
from cram.objectives.masked import MaskedBatch, MaskedObjective
from cram.objectives.phased import CausalThenMasked

PAD, MASK, SPECIAL, VOCAB, SEQ_LEN = 0, 4, 5, 32, 16


def masked() -> MaskedObjective:
    config = ObjectiveConfig(mask_rate=0.5, final_mask_rate=0.15)
    return MaskedObjective(config, list(range(SPECIAL)), MASK, VOCAB, SEQ_LEN, seed=0, static_shapes=False)


def some_rows(count: int) -> TrainingRows:
    source = np.random.default_rng(0)
    tokens = source.integers(SPECIAL, VOCAB, (count, SEQ_LEN), np.int32)
    return TrainingRows(tokens, np.zeros_like(tokens), np.arange(count), np.zeros(count, np.int32))


@given(share=st.floats(0.01, 0.99), progress=st.floats(0.0, 1.0))
def test_masks_begin_at_the_share_with_their_own_first_rate(share: float, progress: float) -> None:
    causal, plain = CausalObjective(PAD), masked()
    both = CausalThenMasked(causal, plain, share)
    rows = some_rows(4)
    batch = both.prepare(rows, progress)
    if progress < share:
        assert isinstance(batch, CausalBatch)
        assert torch.equal(batch.labels, causal.prepare(rows, progress).labels)
    else:
        assert isinstance(batch, MaskedBatch)
        assert torch.equal(batch.inputs, plain.prepare(rows, (progress - share) / (1.0 - share)).inputs)


def test_the_first_and_the_last_mask_rate_are_those_of_masking_alone() -> None:
    both, rows = CausalThenMasked(CausalObjective(PAD), masked(), 0.25), some_rows(500)
    assert both.phases == (0.0, 0.25)
    shares = [both.prepare(rows, progress).predicted / rows.tokens.size for progress in (0.25, 1.0)]
    assert shares == pytest.approx([0.5, 0.15], abs=0.01)


def test_the_loss_hides_later_tokens_in_the_first_phase_alone() -> None:
    model = Encoder(ModelConfig(layers=2, width=16, heads=2, mlp_width=16, init_std=0.3, zero_init=False), VOCAB)
    model.initialise(0)
    both = CausalThenMasked(CausalObjective(PAD), masked(), 0.5)
    rows = some_rows(2)
    for progress, objective in ((0.0, CausalObjective(PAD)), (0.5, masked())):
        batch = both.prepare(rows, progress)
        expected = objective.loss(model, objective.prepare(rows, 0.0))
        torch.testing.assert_close(both.loss(model, batch), expected)
    inputs, documents = both.prepare(rows, 0.0).inputs, torch.from_numpy(rows.documents)
    changed = inputs.clone()
    changed[:, 9:] = SPECIAL
    for causal in (True, False):
        before = model(inputs, documents, causal=causal).view(2, SEQ_LEN, -1)[:, :9]
        after = model(changed, documents, causal=causal).view(2, SEQ_LEN, -1)[:, :9]
        assert torch.allclose(before, after, atol=1e-5) == causal
