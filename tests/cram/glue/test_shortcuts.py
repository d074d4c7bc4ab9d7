"""Shortcuts on a CPU: the same logits and gradients, dropout of the right share, and no trace afterwards."""

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from cram.glue.shortcuts import drop, shortcuts

SMALL = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 2, "vocab_size": 64}
TOKENS = torch.randint(5, 64, (4, 12), generator=torch.Generator().manual_seed(0))
LENGTHS = torch.tensor([12, 7, 9, 3])
MASK = (torch.arange(12) < LENGTHS[:, None]).long()


def modernbert(**changes: Any) -> nn.Module:
    from transformers import ModernBertConfig, ModernBertForSequenceClassification

    torch.manual_seed(0)
    ids = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "cls_token_id": 1, "sep_token_id": 2}
    return ModernBertForSequenceClassification(ModernBertConfig(**SMALL, **ids, **changes))


def bert() -> nn.Module:
    from transformers import BertConfig, BertForSequenceClassification

    torch.manual_seed(0)
    return BertForSequenceClassification(BertConfig(**SMALL))


def logits_and_gradients(model: nn.Module, mask: Tensor) -> list[Tensor]:
    logits = model(input_ids=TOKENS, attention_mask=mask).logits
    model.zero_grad()
    logits.square().sum().backward()
    return [logits.detach(), *(p.grad.clone() for p in model.parameters() if p.grad is not None)]


@pytest.mark.parametrize("mask", [MASK, torch.ones_like(MASK)])
@pytest.mark.parametrize(
    ("model", "last_layers"),
    [
        (modernbert(classifier_pooling="cls"), 1),
        (modernbert(classifier_pooling="cls", attention_bias=True, mlp_bias=True, local_attention=4), 1),
        (modernbert(classifier_pooling="mean"), 0),
        (bert(), 0),
    ],
)
def test_a_stock_model_computes_the_same(model: nn.Module, last_layers: int, mask: Tensor) -> None:
    model.eval()
    expected = logits_and_gradients(model, mask)
    with shortcuts(model) as count:
        values = logits_and_gradients(model, mask)
    assert count == last_layers + sum(type(module) is nn.Dropout for module in model.modules())
    assert len(values) == len(expected)
    for value, expected_value in zip(values, expected, strict=True):
        torch.testing.assert_close(value, expected_value, rtol=1e-4, atol=1e-5)


def test_the_last_layer_computes_one_token() -> None:
    model = modernbert(classifier_pooling="cls").eval()
    with shortcuts(model):
        assert model.model(input_ids=TOKENS).last_hidden_state.shape == (4, 1, 32)  # type: ignore[operator]
    assert model.model(input_ids=TOKENS).last_hidden_state.shape == (4, 12, 32)  # type: ignore[operator]


@given(st.lists(st.integers(1, 9), min_size=1, max_size=3), st.floats(0.0, 0.99), st.integers(0, 9))
def test_dropout_gives_zero_or_what_is_kept(shape: list[int], share: float, seed: int) -> None:
    torch.manual_seed(seed)
    hidden = torch.ones(shape)
    kept = drop(hidden, share)
    assert kept.shape == hidden.shape
    assert bool(((kept == 0) | ((kept * (1 - share) - 1).abs() < 2e-3)).all())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_dropout_drops_its_share_and_keeps_the_mean(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    kept = drop(torch.ones(1_000_000, dtype=dtype), 0.1).float()
    assert float((kept == 0).float().mean()) == pytest.approx(0.1, abs=0.002)
    assert float(kept.mean()) == pytest.approx(1.0, abs=0.005)
    neighbours = ((kept[1:] == 0) & (kept[:-1] == 0)).float().mean()
    assert float(neighbours) == pytest.approx(0.01, abs=0.001)


def test_dropout_is_on_in_training_only_and_nothing_stays_behind() -> None:
    model = modernbert(classifier_pooling="cls", mlp_dropout=0.5).train()
    with pytest.raises(RuntimeError, match="out of memory"), shortcuts(model):
        assert not torch.equal(model(input_ids=TOKENS).logits, model(input_ids=TOKENS).logits)
        model.eval()
        assert torch.equal(model(input_ids=TOKENS).logits, model(input_ids=TOKENS).logits)
        raise RuntimeError("out of memory")
    assert not any("forward" in vars(module) for module in model.modules())
