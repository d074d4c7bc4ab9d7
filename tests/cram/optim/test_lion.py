"""Lion against a float64 implementation of the paper's algorithm."""

import numpy as np
import pytest
import torch

from cram.config.optimizer import LionConfig, OptimizerConfig
from cram.optim.groups import parameter_groups
from cram.optim.lion import Lion
from tests.cram.optim.small_model import as_bytes, build, set_gradients

CONFIG = OptimizerConfig(
    kind="lion", embedding_lr=0.05, final_decay=0.5, lion=LionConfig(lr=0.02, beta1=0.8, beta2=0.95, weight_decay=0.3)
)
MULTIPLIERS = [0.1, 0.6, 1.0, 0.7, 0.3, 0.0]


def lion(model: torch.nn.Module) -> Lion:
    return Lion(parameter_groups(model, CONFIG), CONFIG)


def test_updates_are_those_of_the_paper() -> None:
    model = build(torch.float64)
    optimizer = lion(model)
    weights = {name: weight.detach().numpy().copy() for name, weight in model.named_parameters()}
    momenta = {name: np.zeros_like(weight) for name, weight in weights.items()}
    rates = {name: 0.05 if name == "0.weight" else 0.02 for name in weights}
    for step, multiplier in enumerate(MULTIPLIERS):
        set_gradients(model, step)
        progress = step / 5
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None
            gradient, lr = parameter.grad.numpy(), rates[name] * multiplier
            decay = 0.3 * (1.0 - 0.5 * progress) if name == "1.weight" else 0.0
            direction = np.sign(0.8 * momenta[name] + 0.2 * gradient)
            weights[name] = weights[name] - lr * (direction + decay * weights[name])
            momenta[name] = 0.95 * momenta[name] + 0.05 * gradient
        optimizer.step(multiplier, progress, torch.tensor(True))
        peaks = {"matrices": 0.02, "embeddings": 0.05, "gains": 0.02}
        assert optimizer.lr() == {name: peak * multiplier for name, peak in peaks.items()}
    for name, parameter in model.named_parameters():
        np.testing.assert_allclose(parameter.detach().numpy(), weights[name], rtol=1e-12, atol=1e-15)


@pytest.mark.usefixtures("where_values_are")
def test_gradients_that_are_not_finite_change_nothing() -> None:
    model = build()
    optimizer = lion(model)
    set_gradients(model, 0)
    optimizer.step(1.0, 0.0, torch.tensor(True))
    before = as_bytes(model, optimizer)
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, float("nan"))
    optimizer.step(1.0, 0.0, torch.tensor(False))
    assert as_bytes(model, optimizer) == before
