"""Two phases: which objective makes a batch at which progress, and which tokens the encoder sees."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cram.config.model import ModelConfig
from cram.config.objective import ObjectiveConfig
from cram.data.shards.loader import TrainingRows
from cram.model.encoder import Encoder
from cram.objectives.causal import CausalObjective
from cram.objectives.masked import MaskedObjective
from cram.objectives.objective import Objective, Setting
from cram.objectives.phased import PhasedObjective

PAD, MASK, SPECIAL, VOCAB, SEQ_LEN = 0, 4, 5, 32, 16


def objective(kind: type[Objective], share: float = 0.0) -> Objective:
    config = ObjectiveConfig(mask_rate=0.5, final_mask_rate=0.15, causal_share=share)
    return kind(config, Setting(list(range(SPECIAL)), PAD, MASK, VOCAB, SEQ_LEN))


def some_rows(count: int) -> TrainingRows:
    source = np.random.default_rng(0)
    tokens = source.integers(SPECIAL, VOCAB, (count, SEQ_LEN), np.int32)
    return TrainingRows(tokens, np.zeros_like(tokens), np.arange(count), np.zeros(count, np.int32))


@given(share=st.floats(0.01, 0.99), progress=st.floats(0.0, 1.0))
def test_masks_begin_at_the_share_with_their_own_first_rate(share: float, progress: float) -> None:
    causal, plain = objective(CausalObjective), objective(MaskedObjective)
    both = objective(PhasedObjective, share)
    rows = some_rows(4)
    batch = both.prepare(rows, progress)
    if progress < share:
        assert batch.causal and batch.slots is None
        assert torch.equal(batch.labels, causal.prepare(rows, progress).labels)
    else:
        assert not batch.causal and batch.slots is not None
        assert torch.equal(batch.inputs, plain.prepare(rows, (progress - share) / (1.0 - share)).inputs)


def test_the_first_and_the_last_mask_rate_are_those_of_masking_alone() -> None:
    both, rows = objective(PhasedObjective, 0.25), some_rows(500)
    assert both.phases == (0.0, 0.25)
    shares = [both.prepare(rows, progress).predicted / rows.tokens.size for progress in (0.25, 1.0)]
    assert shares == pytest.approx([0.5, 0.15], abs=0.01)


def test_the_loss_hides_later_tokens_in_the_first_phase_alone() -> None:
    model = Encoder(ModelConfig(layers=2, width=16, heads=2, mlp_width=16, init_std=0.3, zero_init=False), VOCAB)
    model.initialise(0)
    both = objective(PhasedObjective, 0.5)
    rows = some_rows(2)
    for progress, alone in ((0.0, objective(CausalObjective)), (0.5, objective(MaskedObjective))):
        batch = both.prepare(rows, progress)
        expected = alone.loss(model, alone.prepare(rows, 0.0))
        torch.testing.assert_close(both.loss(model, batch), expected)
    inputs, documents = both.prepare(rows, 0.0).inputs, torch.from_numpy(rows.documents)
    changed = inputs.clone()
    changed[:, 9:] = SPECIAL
    for causal in (True, False):
        before = model(inputs, documents, causal=causal).view(2, SEQ_LEN, -1)[:, :9]
        after = model(changed, documents, causal=causal).view(2, SEQ_LEN, -1)[:, :9]
        assert torch.allclose(before, after, atol=1e-5) == causal


def test_without_a_causal_share_there_is_one_phase() -> None:
    plain, rows = objective(PhasedObjective), some_rows(4)
    assert plain.phases == (0.0,)
    for progress in (0.0, 0.3, 1.0):
        batch, expected = plain.prepare(rows, progress), objective(MaskedObjective).prepare(rows, progress)
        assert torch.equal(batch.inputs, expected.inputs)
        assert torch.equal(batch.labels, expected.labels)


def test_the_mask_rate_is_told_in_the_masked_phase_alone() -> None:
    both = objective(PhasedObjective, share=0.5)
    assert both.scheduled(0.4) == {}
    assert both.scheduled(0.5) == {"mask_rate": 0.5}
    assert both.scheduled(0.75) == pytest.approx({"mask_rate": 0.325})
