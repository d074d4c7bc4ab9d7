"""The decoder against the stock class it must equal, and against itself under packing, slots and changed tokens."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from cram.config.model import ModelConfig
from cram.config.optimizer import OptimizerConfig
from cram.hub.qwen3 import QWEN3
from cram.model.decoder import Decoder
from cram.model.layers import RMSNorm
from cram.optim.groups import parameter_groups

VOCAB = 96
CONFIG = {"kind": "decoder", "layers": 3, "width": 32, "heads": 4, "mlp_width": 48}
ROW = st.lists(st.integers(1, 9), min_size=1, max_size=5)


def build(dtype: torch.dtype = torch.float32, **changes: object) -> Decoder:
    """A small decoder whose every weight matters: nothing starts at zero or one."""
    model = Decoder(ModelConfig(**{**CONFIG, **changes}), VOCAB)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            shift = 1.0 if parameter.ndim == 1 else 0.0
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.2 + shift)
    return model.to(dtype)


def random_tokens(rows: int, seq_len: int) -> Tensor:
    return torch.randint(0, VOCAB, (rows, seq_len), generator=torch.Generator().manual_seed(2))


def documents_of(lengths: list[list[int]]) -> Tensor:
    """Rows of documents of these lengths, padded to the longest row by a document of its own."""
    seq_len = max(map(sum, lengths))
    rows = [[*row, seq_len - sum(row)] for row in lengths]
    return torch.stack([torch.repeat_interleave(torch.arange(len(row)), torch.tensor(row)) for row in rows])


def stock(model: Decoder) -> nn.Module:
    """Qwen3 with the same weights, in float64."""
    from transformers import Qwen3Config, Qwen3ForCausalLM

    c = model.config
    config = Qwen3Config(
        vocab_size=VOCAB,
        hidden_size=c.width,
        intermediate_size=c.mlp_width,
        num_hidden_layers=c.layers,
        num_attention_heads=c.heads,
        num_key_value_heads=c.heads,
        head_dim=c.width // c.heads,
        rms_norm_eps=c.norm_eps,
        rope_parameters={"rope_type": "default", "rope_theta": c.rope_theta},
        tie_word_embeddings=True,
        attn_implementation="eager",
    )
    twin = Qwen3ForCausalLM(config)
    missing, unexpected = twin.load_state_dict(QWEN3.rename(model.state_dict()), strict=False)
    assert set(missing) == {"lm_head.weight"}
    assert not unexpected
    return twin.double()


@pytest.mark.parametrize("attention", ["sdpa", "softmax"])
def test_logits_and_gradients_equal_the_stock_class(attention: str) -> None:
    model = build(attention=attention, rope_theta=500.0, norm_eps=1e-3)
    twin = stock(model)
    model.double()
    tokens = random_tokens(4, 17)
    documents = torch.zeros_like(tokens)
    labels = torch.where(torch.rand(tokens.shape, generator=torch.Generator().manual_seed(3)) < 0.8, tokens, -100)
    answer = twin(input_ids=tokens, labels=labels)
    hidden = model(tokens, documents)
    # The stock norm rounds to fp32, whatever the dtype.
    torch.testing.assert_close(model.head(hidden).view(4, 17, VOCAB), answer.logits, atol=1e-5, rtol=1e-5)

    shifted = F.pad(labels[:, 1:], (0, 1), value=-100).flatten()
    loss = model.head.loss(hidden, shifted) / (shifted != -100).sum()
    torch.testing.assert_close(loss, answer.loss, atol=1e-6, rtol=1e-6, check_dtype=False)
    loss.backward()
    answer.loss.backward()
    gradients = QWEN3.rename({name: parameter.grad for name, parameter in model.named_parameters()})
    for name, parameter in twin.named_parameters():
        torch.testing.assert_close(
            gradients[name], parameter.grad, atol=1e-5, rtol=1e-5, msg=lambda m, n=name: f"{n}: {m}"
        )


@pytest.mark.parametrize("attention", ["sdpa", "softmax"])
@settings(max_examples=25)
@given(lengths=st.lists(ROW, min_size=1, max_size=3))
def test_packed_documents_equal_each_document_alone(attention: str, lengths: list[list[int]]) -> None:
    model = build(torch.float64, attention=attention)
    documents = documents_of(lengths)
    tokens = random_tokens(*documents.shape)
    packed = model(tokens, documents).view(*documents.shape, -1)
    for row, row_lengths in enumerate(lengths):
        begin = 0
        for length in row_lengths:
            piece = tokens[None, row, begin : begin + length]
            alone = model(piece, torch.zeros_like(piece))
            torch.testing.assert_close(packed[row, begin : begin + length], alone, atol=1e-10, rtol=1e-10)
            begin += length


@pytest.mark.parametrize("attention", ["sdpa", "softmax"])
@settings(max_examples=25)
@given(lengths=st.lists(ROW, min_size=1, max_size=2), data=st.data())
def test_a_token_changes_only_itself_and_later_positions_of_its_document(
    attention: str, lengths: list[list[int]], data: st.DataObject
) -> None:
    model = build(torch.float64, attention=attention)
    documents = documents_of(lengths)
    rows, seq_len = documents.shape
    row, place = data.draw(st.integers(0, rows - 1)), data.draw(st.integers(0, seq_len - 1))
    tokens = random_tokens(rows, seq_len)
    changed = tokens.clone()
    changed[row, place] = (changed[row, place] + 1) % VOCAB
    before, after = (model(part, documents).view(rows, seq_len, -1) for part in (tokens, changed))
    moved = (before - after).abs().amax(-1) > 1e-9
    expected = torch.zeros(rows, seq_len, dtype=torch.bool)
    expected[row, place:] = documents[row, place:] == documents[row, place]
    assert torch.equal(moved, expected)


@pytest.mark.parametrize("attention", ["sdpa", "softmax"])
@pytest.mark.parametrize("packed", [False, True])
def test_slots_equal_gathering_afterwards(attention: str, packed: bool) -> None:
    model = build(attention=attention)
    tokens = random_tokens(3, 16)
    documents = (torch.arange(16) // 6).expand(3, 16) if packed else torch.zeros_like(tokens)
    slots = torch.tensor([40, 3, 17, 17, 0, 30])
    torch.testing.assert_close(model(tokens, documents, slots), model(tokens, documents)[slots], atol=1e-5, rtol=1e-5)


def test_initialise_fills_every_norm_and_zeroes_the_output_projections() -> None:
    with torch.device("meta"):
        model = Decoder(ModelConfig(**CONFIG), VOCAB)
    model.to_empty(device="cpu")
    model.initialise(seed=7)
    norms = [module for module in model.modules() if isinstance(module, RMSNorm)]
    assert len(norms) == 4 * 3 + 1
    assert all(bool((norm.weight == 1.0).all()) for norm in norms)
    for block in model.blocks:
        assert not block.attention.out.weight.any()
        assert not block.mlp.down.weight.any()
        assert 0.015 < block.mlp.up.weight.std() < 0.025
    tokens = random_tokens(2, 8)
    with torch.no_grad():
        embedded = F.rms_norm(model.embedding(tokens), (32,), eps=model.config.norm_eps).flatten(0, 1)
        torch.testing.assert_close(model(tokens, torch.zeros_like(tokens)), embedded)


def test_a_bf16_step_keeps_dtypes_repeats_and_stays_near_fp32() -> None:
    tokens = random_tokens(4, 32)
    documents = (torch.arange(32) // 10).expand(4, 32)
    labels = torch.where(tokens % 4 == 0, -100, tokens).flatten()
    results = []
    for enabled in (False, True, True):
        model = build()
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            loss = model.head.loss(model(tokens, documents), labels)
        assert loss.dtype == torch.float32
        loss.backward()
        results.append([loss.detach(), *(parameter.grad for parameter in model.parameters())])
    exact, first, second = results
    assert all(bool(part.isfinite().all()) for part in first)
    assert all(torch.equal(one, two) for one, two in zip(first, second, strict=True))
    assert float(first[0]) == pytest.approx(float(exact[0]), rel=0.02)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_the_norm_keeps_the_dtype_and_computes_in_fp32(dtype: torch.dtype) -> None:
    norm = RMSNorm(8, 1e-3)
    with torch.no_grad():
        norm.weight.copy_(torch.arange(1.0, 9.0))
    norm.to(torch.float64 if dtype == torch.float64 else torch.float32)
    x = (torch.randn(5, 8, generator=torch.Generator().manual_seed(0)) * 3).to(dtype)
    exact = x.double() / (x.double().square().mean(-1, keepdim=True) + 1e-3).sqrt() * norm.weight.double()
    assert norm(x).dtype == dtype
    tolerance = {torch.bfloat16: 1e-2, torch.float32: 1e-6, torch.float64: 1e-12}[dtype]
    torch.testing.assert_close(norm(x), exact.to(dtype), rtol=tolerance, atol=tolerance)
    y, total = norm.add(x, x)
    assert torch.equal(total, 2 * x)
    assert torch.equal(y, norm(total))


def test_gains_are_a_group_and_fused_weights_are_split_into_their_matrices() -> None:
    model = build()
    groups = {
        group.name: {id(parameter) for parameter in group.parameters}
        for group in parameter_groups(model, OptimizerConfig())
    }
    assert groups["gains"] == {id(module.weight) for module in model.modules() if isinstance(module, RMSNorm)}
    assert groups["matrices"] == {id(module.weight) for module in model.modules() if isinstance(module, nn.Linear)}
    assert groups["embeddings"] == {id(model.embedding.weight)}
    (matrices,) = (group for group in parameter_groups(model, OptimizerConfig()) if group.name == "matrices")
    splits = dict(zip(matrices.parameters, matrices.splits, strict=True))
    for block in model.blocks:
        assert splits[block.attention.qkv.weight] == (32, 32, 32)
        assert splits[block.mlp.up.weight] == (48, 48)
    assert sum(rows != () for rows in splits.values()) == 6
