"""Counts against the real thing."""

import pytest
import torch

from cram.config import ModelConfig
from cram.model import Encoder
from cram.model.count import count_parameters, flops_per_position


@pytest.mark.parametrize("layers", [1, 4])
def test_parameters_equal_those_of_the_module(layers: int) -> None:
    config = ModelConfig(layers=layers, width=64, heads=4, mlp_width=96)
    with torch.device("meta"):
        model = Encoder(config, 512)
    total = sum(parameter.numel() for parameter in model.parameters())
    counted = count_parameters(config, 512)
    assert counted.total == total
    assert counted.without_embedding == total - model.embedding.weight.numel()


def test_flops_of_a_known_shape() -> None:
    config = ModelConfig(layers=1, width=2, heads=1, mlp_width=3)
    # body 4*4 + 3*2*3 = 34, head 4 + 2*10 = 24, attention 12*1*2*8 = 192
    assert flops_per_position(config, vocab_size=10, seq_len=8, predicted_share=0.5) == 6 * 34 + 6 * 24 * 0.5 + 192
