"""Counts against the real thing."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from cram.config.choices import MODELS
from cram.config.model import ModelConfig
from cram.model.count import count_parameters, flops_per_position, matrix_shapes
from cram.model.electra import Electra
from cram.model.kinds import new_model


@pytest.mark.parametrize("kind", list(MODELS))
@pytest.mark.parametrize("layers", [1, 4])
def test_parameters_equal_those_of_the_module(kind: str, layers: int) -> None:
    config = ModelConfig(kind=kind, layers=layers, width=64, heads=4, mlp_width=96)
    with torch.device("meta"):
        model = new_model(config, 512)
    total = sum(parameter.numel() for parameter in model.parameters())
    counted = count_parameters(config, 512)
    assert counted.total == total
    assert counted.without_embedding == total - model.embedding.weight.numel()


def test_flops_of_a_known_shape() -> None:
    config = ModelConfig(layers=1, width=2, heads=1, mlp_width=3)
    # body 4*4 + 3*2*3 = 34, head 4 + 2*10 = 24, attention 12*1*2*8 = 192
    assert flops_per_position(config, vocab_size=10, seq_len=8, predicted_share=0.5) == 6 * 34 + 6 * 24 * 0.5 + 192
    config.kind = "crammed"  # its head has no dense layer
    assert flops_per_position(config, vocab_size=10, seq_len=8, predicted_share=0.5) == 6 * 34 + 6 * 20 * 0.5 + 192


@pytest.mark.parametrize("kind", [kind for kind, choice in MODELS.items() if choice.attention])
def test_flops_equal_those_that_torch_counts(kind: str) -> None:
    config = ModelConfig(kind=kind, layers=2, width=32, heads=2, mlp_width=48, attention="softmax")
    model = new_model(config, 96)
    model.initialise(0)
    tokens, every = torch.zeros(2, 16, dtype=torch.int64), torch.arange(32)
    with FlopCounterMode(display=False) as counter:
        hidden = model(tokens, tokens)
        torch.nn.functional.cross_entropy(model.head(hidden), every).backward()
        if isinstance(model, Electra):
            model.discriminate(tokens, tokens).sum().backward()
    assert counter.get_total_flops() == 32 * flops_per_position(config, 96, 16, 1.0)


@pytest.mark.parametrize(("kind", "head"), [("encoder", [(6, 6)]), ("decoder", []), ("crammed", [])])
def test_the_matrices_of_a_fused_weight_are_listed_one_by_one(kind: str, head: list[tuple[int, int]]) -> None:
    shapes = matrix_shapes(ModelConfig(kind=kind, layers=2, width=6, heads=1, mlp_width=9), vocab_size=10)
    assert sorted(shapes) == sorted(2 * [*4 * [(6, 6)], *2 * [(9, 6)], (6, 9)] + head)
