"""Our kernels inside stock classifiers: the same logits and gradients, and no trace afterwards."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from cram.glue.fused import fused

SMALL = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 2, "vocab_size": 64}
TOKENS = torch.randint(5, 64, (4, 12), generator=torch.Generator().manual_seed(0))


def modernbert(**changes: Any) -> nn.Module:
    from transformers import ModernBertConfig, ModernBertForSequenceClassification

    torch.manual_seed(0)
    ids = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "cls_token_id": 1, "sep_token_id": 2}
    return ModernBertForSequenceClassification(ModernBertConfig(**SMALL, **ids, **changes))


def bert() -> nn.Module:
    from transformers import BertConfig, BertForSequenceClassification

    torch.manual_seed(0)
    return BertForSequenceClassification(BertConfig(**SMALL)).eval()


def logits_and_gradients(model: nn.Module) -> list[Tensor]:
    logits = model(input_ids=TOKENS).logits
    model.zero_grad()
    logits.square().sum().backward()
    return [logits.detach(), *(p.grad.clone() for p in model.parameters() if p.grad is not None)]


# Counted: norms of the embedding, of attention in all layers but the first, of the MLPs, the final norm, the head's;
# then gated MLPs.
@pytest.mark.parametrize(
    ("model", "replaced"),
    [
        (modernbert(), 1 + 2 + 3 + 1 + 1 + 3),
        (modernbert(norm_bias=True, mlp_bias=True), 1 + 2 + 3 + 1 + 1 + 3),
        (modernbert(hidden_activation="silu"), 1 + 2 + 3 + 1 + 1),
        (bert(), 1 + 2 * 3),
    ],
)
def test_a_stock_model_computes_the_same(model: nn.Module, replaced: int) -> None:
    expected = logits_and_gradients(model)
    with fused(model) as count:
        fused_values = logits_and_gradients(model)
    assert count == replaced
    assert len(fused_values) == len(expected)
    for value, expected_value in zip(fused_values, expected, strict=True):
        torch.testing.assert_close(value, expected_value, rtol=1e-4, atol=3e-5)


def test_dropout_stays_in_its_place() -> None:
    model = modernbert(mlp_dropout=0.5).train()
    torch.manual_seed(1)
    expected = model(input_ids=TOKENS).logits
    torch.manual_seed(1)
    with fused(model):
        torch.testing.assert_close(model(input_ids=TOKENS).logits, expected, rtol=1e-4, atol=1e-5)


def test_the_model_is_as_before_even_after_an_error() -> None:
    model = modernbert()
    names = list(model.state_dict())
    with pytest.raises(RuntimeError, match="out of memory"), fused(model):
        assert list(model.state_dict()) == names
        raise RuntimeError("out of memory")
    assert not any("forward" in vars(module) for module in model.modules())
