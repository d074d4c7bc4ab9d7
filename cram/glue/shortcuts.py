"""Leave out work on a CPU while a stock ModernBERT is fine-tuned, without a trace in what is saved."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cram.glue.fused import replaced_forwards

_DRAWS = 2**16  # a dropout mask compares 16 random bits with the share


@contextmanager
def shortcuts(model: nn.Module) -> Iterator[int]:
    """In the `with` body, a ModernBERT classifier computes what its result depends on, and draws dropout faster.

    Where the classifier reads the first token, the last layer computes this token only; its keys and values are those
    of all tokens. Without dropout, results differ by rounding only. Dropout drops the same share, but other elements
    than torch would. Other classes get the faster dropout alone.

    Yields:
        Number of modules that are changed.
    """
    replaced: list[tuple[nn.Module, Callable[..., Tensor]]] = [
        (module, _drop_forward(module)) for module in model.modules() if type(module) is nn.Dropout
    ]
    if (last := _last_layer(model)) is not None:
        replaced.append((last, _first_token_forward(last)))
    with replaced_forwards(replaced) as count:
        yield count


def drop(hidden: Tensor, share: float) -> Tensor:
    """Set a share of the elements to zero, rounded to 1 / 65536, and divide the others by what is kept.

    One random number of 64 bits serves four elements, which takes a CPU a fraction of the time of `F.dropout`.
    """
    dropped = min(round(share * _DRAWS), _DRAWS - 1)
    bits = torch.empty(-(-hidden.numel() // 4), dtype=torch.int64, device=hidden.device)
    bits.random_(torch.iinfo(torch.int64).min, None)
    draws = bits.view(torch.int16)[: hidden.numel()].view(hidden.shape)
    factors = (draws >= dropped - _DRAWS // 2).to(hidden.dtype).mul_(_DRAWS / (_DRAWS - dropped))
    return hidden * factors


def _drop_forward(module: Any) -> Callable[[Tensor], Tensor]:
    return lambda hidden: drop(hidden, module.p) if module.training and module.p else hidden


def _last_layer(model: nn.Module) -> nn.Module | None:
    """The last layer of a ModernBERT whose classifier reads the first token; None for any other model."""
    from transformers import ModernBertForSequenceClassification

    if type(model) is not ModernBertForSequenceClassification or model.config.classifier_pooling != "cls":
        return None
    layer: nn.Module = model.model.layers[-1]
    return layer if model.config._attn_implementation == "sdpa" else None


def _first_token_forward(layer: Any) -> Callable[..., Tensor]:
    """The forward pass of a layer for the first token: (B, tokens, width) -> (B, 1, width)."""
    from transformers.models.modernbert.modeling_modernbert import apply_rotary_pos_emb

    def forward(
        hidden: Tensor, attention_mask: Tensor | None, position_embeddings: tuple[Tensor, Tensor], **_: Any
    ) -> Tensor:
        attention, normal, first = layer.attn, layer.attn_norm(hidden), hidden[:, :1]
        rows, tokens, width = hidden.shape
        weights = attention.Wqkv.weight.split((width, 2 * width))
        biases = (None, None) if attention.Wqkv.bias is None else attention.Wqkv.bias.split((width, 2 * width))
        q = F.linear(normal[:, :1], weights[0], biases[0]).view(rows, 1, -1, attention.head_dim).transpose(1, 2)
        k, v = F.linear(normal, weights[1], biases[1]).view(rows, tokens, 2, -1, attention.head_dim).unbind(2)
        # The angle of the first position is zero, so that its query stays as it is.
        k = apply_rotary_pos_emb(k.transpose(1, 2), k.transpose(1, 2), *position_embeddings)[1]
        mask = None if attention_mask is None else attention_mask[:, :, :1]
        share = attention.attention_dropout if layer.training else 0.0
        heads = F.scaled_dot_product_attention(q, k, v.transpose(1, 2), mask, share)
        first = first + attention.out_drop(attention.Wo(heads.transpose(1, 2).flatten(2)))
        result: Tensor = first + layer.mlp(layer.mlp_norm(first))
        return result

    return forward
