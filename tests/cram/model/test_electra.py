"""ELECTRA: sizes, the tied embedding, and what its parts compute."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cram.config.model import ModelConfig
from cram.model.count import count_parameters, flops_per_position
from cram.model.electra import Electra, generator_config
from cram.model.encoder import Encoder

SIZE = ModelConfig(
    kind="electra", layers=2, width=32, heads=4, mlp_width=48, zero_init=False, init_std=0.1, generator_share=0.5
)
VOCAB = 64


def electra(config: ModelConfig = SIZE) -> Electra:
    model = Electra(config, VOCAB)
    model.initialise(0)
    return model


@given(heads=st.integers(1, 16), head_dim=st.integers(1, 32), share=st.floats(0.01, 1.0))
def test_the_generator_has_heads_of_even_width(heads: int, head_dim: int, share: float) -> None:
    config = ModelConfig(width=2 * heads * head_dim, heads=heads, generator_share=share)
    size = generator_config(config)
    assert size.width % (2 * size.heads) == 0
    assert size.heads <= max(1, round(heads * share))
    assert abs(size.width - config.width * share) <= 2
    assert size.layers == config.layers


def test_the_embedding_is_one_parameter_of_the_discriminators_width() -> None:
    model = electra()
    assert model.embedding.weight.shape == (VOCAB, 32)
    assert model.generator.embedding is model.embedding
    assert model.head.output_weight is model.embedding.weight
    assert sum(weight.shape[0] == VOCAB for weight in model.state_dict().values()) == 1
    moved = model.to(torch.float64)
    assert moved.generator.embedding.weight.dtype == torch.float64


def test_the_discriminator_is_an_encoder() -> None:
    model, encoder = electra(), Encoder(SIZE, VOCAB)
    encoder.initialise(1)
    own = {name: weight for name, weight in model.state_dict().items() if name in encoder.state_dict()}
    encoder.load_state_dict({**encoder.state_dict(), **{n: w for n, w in own.items() if not n.startswith("head.")}})
    tokens, documents = torch.randint(0, VOCAB, (2, 8)), torch.tensor([[0] * 5 + [1] * 3, [0] * 8])
    assert torch.equal(model.encode(tokens, documents), encoder(tokens, documents))
    assert model.discriminate(tokens, documents).shape == (16,)
    assert model(tokens, documents).shape == (16, 16)


def test_sizes_count_both_parts() -> None:
    model, counts = electra(), count_parameters(SIZE, VOCAB)
    assert counts.total == sum(parameter.numel() for parameter in model.parameters())
    body = 2 * (4 * 32 * 32 + 3 * 32 * 48) + 2 * (4 * 16 * 16 + 3 * 16 * 24) + 32 * 16 + 32 * 32 + 32
    assert counts.body == body
    head = 16 * 16 + 16 * 32 + 32 * VOCAB
    expected = 6 * body + 6 * head * 0.15 + 12 * 2 * (32 + 16) * 8
    assert flops_per_position(SIZE, VOCAB, 8, 0.15) == pytest.approx(expected)
