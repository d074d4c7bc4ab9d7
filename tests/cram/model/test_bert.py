"""BERT against the stock class, and its two variants with norms before."""

import pytest
import torch
from transformers import BertConfig, BertForMaskedLM

from cram.config.model import ModelConfig
from cram.hub.bert import BERT
from cram.model.bert import Bert, LearnedPositions, MinimalBert, PrenormBert
from cram.model.count import count_parameters

SIZE = ModelConfig(
    kind="bert", layers=2, width=32, heads=4, mlp_width=48, zero_init=False, init_std=0.3, positions=24, norm_eps=1e-12
)
VOCAB = 64
TOKENS = torch.randint(5, VOCAB, (3, 16), generator=torch.Generator().manual_seed(0))


def build(kind: type[LearnedPositions], config: ModelConfig = SIZE) -> LearnedPositions:
    model = kind(config, VOCAB)  # type: ignore[call-arg, arg-type]
    model.initialise(0)
    with torch.no_grad():
        for index, parameter in enumerate(model.parameters()):
            generator = torch.Generator().manual_seed(index)
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.1)  # biases that are not zero
    return model.to(torch.float64)


@pytest.fixture(scope="module")
def stock() -> tuple[LearnedPositions, BertForMaskedLM]:
    model = build(Bert)
    config = BertConfig(
        vocab_size=VOCAB,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=48,
        max_position_embeddings=24,
        layer_norm_eps=1e-12,
        attn_implementation="eager",
    )
    theirs = BertForMaskedLM(config).to(torch.float64).eval()
    missing, unexpected = theirs.load_state_dict(BERT.rename(model.state_dict()), strict=False)
    assert not unexpected
    assert set(missing) <= {
        "bert.embeddings.position_ids",
        "cls.predictions.decoder.weight",
        "cls.predictions.decoder.bias",
    }
    theirs.tie_weights()
    return model, theirs


def test_logits_and_gradients_are_those_of_the_stock_class(stock: tuple[LearnedPositions, BertForMaskedLM]) -> None:
    model, theirs = stock
    ours, expected = model.head(model(TOKENS)), theirs(input_ids=TOKENS).logits.flatten(0, 1)
    torch.testing.assert_close(ours, expected, rtol=1e-9, atol=1e-9)
    slots = torch.tensor([1, 17, 40])
    torch.testing.assert_close(model.head(model(TOKENS, None, slots)), expected[slots], rtol=1e-9, atol=1e-9)
    labels = torch.arange(48) % VOCAB
    model.head.loss(model(TOKENS), labels).backward()
    torch.nn.functional.cross_entropy(expected, labels, reduction="sum").backward()
    gradients = BERT.rename({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
    for name, parameter in theirs.named_parameters():
        if name in gradients and "token_type" not in name:
            torch.testing.assert_close(gradients[name], parameter.grad, rtol=1e-7, atol=1e-7, msg=name)


@pytest.mark.parametrize("kind", [Bert, PrenormBert, MinimalBert])
def test_documents_of_a_row_do_not_see_each_other(kind: type[LearnedPositions]) -> None:
    model = build(kind)
    row, documents = TOKENS[:1], torch.tensor([[0] * 10 + [1] * 6])
    packed = model(row, documents)
    torch.testing.assert_close(packed[:10], model(row[:, :10]))
    torch.testing.assert_close(packed[10:], model(row[:, 10:]))


@pytest.mark.parametrize("kind", [PrenormBert, MinimalBert])
def test_the_variants_compute_their_formula(kind: type[LearnedPositions]) -> None:
    model = build(kind)
    documents = torch.zeros_like(TOKENS)
    x = model.embedding_norm(model.embedding(TOKENS) + model.positions(torch.arange(16)))
    for block in model.blocks:
        attention, mlp = block.attention, block.mlp
        q, k, v = attention.qkv(block.attention_norm(x)).view(3, 16, 3, 4, 8).permute(2, 0, 3, 1, 4)  # type: ignore
        mixed = ((q @ k.mT) / 8**0.5).softmax(-1) @ v
        x = x + attention.out(mixed.transpose(1, 2).flatten(2))  # type: ignore[operator, union-attr]
        inner = mlp.up(block.mlp_norm(x))  # type: ignore[operator, union-attr]
        x = x + mlp.down(torch.nn.functional.gelu(inner))  # type: ignore[operator, union-attr]
    if kind is PrenormBert:
        x = model.final_norm(x)
    torch.testing.assert_close(model(TOKENS, documents), x.flatten(0, 1), rtol=1e-9, atol=1e-9)
    assert (model.head.bias is None) == (kind is PrenormBert)


def test_sizes_are_those_of_bert_base() -> None:
    base = ModelConfig(kind="bert", layers=12, width=768, heads=12, mlp_width=3072)
    counts = count_parameters(base, 30522)
    # BERT base has 109,514,298 with its head; ours has no embedding of two token types.
    assert counts.total == 109_514_298 - 2 * 768
    assert counts.body == 12 * (4 * 768 * 768 + 2 * 768 * 3072)
