"""The LSTM against torch's own module, document by document, and against itself under slots and changed tokens."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from cram.config.model import ModelConfig
from cram.config.optimizer import OptimizerConfig
from cram.config.recipe import read_config
from cram.model.count import count_parameters, flops_per_position
from cram.model.lstm import LSTMBlock, LSTMModel, put_side_by_side
from cram.optim.groups import parameter_groups
from cram.planner.memory import activation_bytes

VOCAB, WIDTH, LAYERS = 96, 16, 2
CONFIG = {"kind": "lstm", "layers": LAYERS, "width": WIDTH, "heads": 12, "mlp_width": 1}
ROW = st.lists(st.integers(1, 9), min_size=1, max_size=5)


def build(dtype: torch.dtype = torch.float64) -> LSTMModel:
    """A small model whose every weight matters."""
    model = LSTMModel(ModelConfig(**CONFIG), VOCAB)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return model.to(dtype)


def stock(block: LSTMBlock) -> nn.LSTM:
    """torch's module with the same weights."""
    twin = nn.LSTM(WIDTH, WIDTH, batch_first=True).double()
    with torch.no_grad():
        twin.weight_ih_l0.copy_(block.input.weight)
        twin.weight_hh_l0.copy_(block.recurrent.weight)
        twin.bias_ih_l0.copy_(block.bias)
        twin.bias_hh_l0.zero_()
    return twin


def expected_hidden(model: LSTMModel, tokens: Tensor) -> Tensor:
    """The hidden states (n, width) of one document of tokens (n)."""
    hidden = model.embedding(tokens)
    for block in model.blocks:
        normal = nn.functional.rms_norm(hidden, (WIDTH,), block.norm.weight, model.config.norm_eps)
        hidden = hidden + stock(block)(normal[None])[0][0]
    return nn.functional.rms_norm(hidden, (WIDTH,), model.final_norm.weight, model.config.norm_eps)


def documents_of(lengths: list[list[int]]) -> Tensor:
    """Rows of documents of these lengths, padded to the longest row by a document of its own."""
    seq_len = max(map(sum, lengths))
    rows = [[*row, seq_len - sum(row)] for row in lengths]
    return torch.stack([torch.repeat_interleave(torch.arange(len(row)), torch.tensor(row)) for row in rows])


def random_tokens(rows: int, seq_len: int) -> Tensor:
    return torch.randint(0, VOCAB, (rows, seq_len), generator=torch.Generator().manual_seed(2))


@settings(max_examples=25)
@given(lengths=st.lists(ROW, min_size=1, max_size=3))
def test_packed_documents_equal_the_module_of_torch_on_each_document(lengths: list[list[int]]) -> None:
    model, documents = build(), documents_of(lengths)
    tokens = random_tokens(*documents.shape)
    packed = model(tokens, documents).view(*documents.shape, WIDTH)
    for row, places in enumerate(documents):
        for document in places.unique():
            expected = expected_hidden(model, tokens[row, places == document])
            torch.testing.assert_close(packed[row, places == document], expected, atol=1e-12, rtol=1e-12)


def test_documents_stand_side_by_side() -> None:
    pieces = put_side_by_side(torch.tensor([[0, 0, 0, 1], [0, 1, 1, 2]]))
    assert pieces.places.tolist() == [[0, 3, 4, 5, 7], [1, 0, 0, 6, 0], [2, 0, 0, 0, 0]]
    assert pieces.places.flatten()[pieces.back].tolist() == list(range(8))


def test_gradients_equal_those_of_the_module_of_torch() -> None:
    model, tokens = build(), random_tokens(1, 11)
    documents = documents_of([[4, 7]])
    weights = torch.randn(11, WIDTH, dtype=torch.float64)
    (model(tokens, documents) * weights).sum().backward()
    ours = [parameter.grad.clone() for parameter in (model.embedding.weight, model.blocks[0].norm.weight)]
    model.zero_grad()
    alone = torch.cat([expected_hidden(model, part) for part in tokens[0].split([4, 7])])
    (alone * weights).sum().backward()
    for gradient, parameter in zip(ours, (model.embedding.weight, model.blocks[0].norm.weight), strict=True):
        torch.testing.assert_close(gradient, parameter.grad, atol=1e-11, rtol=1e-11)


def test_a_token_changes_only_itself_and_later_positions_of_its_document() -> None:
    model, documents = build(), documents_of([[3, 5, 4]])
    tokens = random_tokens(1, 12)
    changed = tokens.clone()
    changed[0, 4] = (changed[0, 4] + 1) % VOCAB
    moved = (model(tokens, documents) - model(changed, documents)).abs().amax(-1) > 1e-9
    assert moved.tolist() == [False] * 4 + [True] * 4 + [False] * 4


def test_slots_equal_gathering_afterwards_and_tokens_alone_are_one_document_a_row() -> None:
    model, tokens = build(), random_tokens(3, 8)
    documents = torch.zeros_like(tokens)
    slots = torch.tensor([20, 3, 17, 17, 0])
    assert torch.equal(model(tokens, documents, slots), model(tokens, documents)[slots])
    assert torch.equal(model(tokens), model(tokens, documents, causal=True))


def test_initial_weights_are_drawn_and_only_the_forget_gate_has_a_bias() -> None:
    with torch.device("meta"):
        model = LSTMModel(ModelConfig(**(CONFIG | {"width": 64})), VOCAB)
    model.to_empty(device="cpu")
    model.initialise(seed=7)
    for block in model.blocks:
        assert block.bias.view(4, 64).mean(1).tolist() == [0.0, 1.0, 0.0, 0.0]
        assert 0.018 < block.recurrent.weight.std() < 0.022
        assert bool((block.norm.weight == 1.0).all())


def test_every_gate_is_a_matrix_of_its_own() -> None:
    model = build()
    matrices, embeddings, gains = parameter_groups(model, OptimizerConfig())
    assert matrices.splits == [(WIDTH,) * 4] * (2 * LAYERS)
    assert embeddings.names == ["embedding.weight"]
    assert len(gains.names) == 2 * LAYERS + 1


def test_parameters_and_operations_are_counted() -> None:
    config = ModelConfig(**CONFIG)
    counted = count_parameters(config, VOCAB)
    assert counted.body == 8 * WIDTH**2 * LAYERS
    assert counted.without_embedding == counted.body + LAYERS * (4 * WIDTH + WIDTH) + WIDTH
    # Only of float64 are the products of the layer single operations that torch counts.
    model, tokens = build(), random_tokens(4, 8)
    with FlopCounterMode(display=False) as counter:
        nn.functional.cross_entropy(model.head(model(tokens)), tokens.flatten()).backward()
    # The empty first state needs no gradient.
    skipped = 2 * 4 * 4 * WIDTH**2 * LAYERS
    assert counter.get_total_flops() == 32 * flops_per_position(config, VOCAB, 8, 1.0) - skipped
    assert activation_bytes(config, rows=3, seq_len=8) == 2 * 3 * 8 * LAYERS * 6 * WIDTH


def test_a_bf16_step_repeats_and_stays_near_fp32() -> None:
    tokens, documents = random_tokens(4, 32), (torch.arange(32) // 10).expand(4, 32)
    results = []
    for enabled in (False, True, True):
        model = build(torch.float32)
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            loss = model.head.loss(model(tokens, documents), tokens.flatten())
        loss.backward()
        results.append([loss.detach(), *(parameter.grad for parameter in model.parameters())])
    exact, first, second = results
    assert all(torch.equal(one, two) for one, two in zip(first, second, strict=True))
    assert float(first[0]) == pytest.approx(float(exact[0]), rel=0.02)


def test_heads_and_the_inner_width_are_not_looked_at() -> None:
    words = ["recipe=gpt_demo", "model.kind=lstm", "model.width=50", "model.heads=7"]
    assert read_config(words).model.width == 50
