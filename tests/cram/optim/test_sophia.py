"""Sophia-G against a float64 implementation, and its estimate against the true curvature."""

import numpy as np
import pytest
import torch

from cram.config.objective import ObjectiveConfig
from cram.config.optimizer import OptimizerConfig, SophiaConfig
from cram.model.heads import TiedHead
from cram.objectives.batch import IGNORED, Batch
from cram.objectives.objective import Objective, Setting
from cram.optim.groups import parameter_groups
from cram.optim.sophia import Sophia
from tests.cram.optim.small_model import as_bytes, build, set_gradients

KEYS = SophiaConfig(lr=0.02, beta1=0.8, beta2=0.9, rho=0.3, weight_decay=0.3, interval=2)
CONFIG = OptimizerConfig(kind="sophia", sophia=KEYS)
MULTIPLIERS = [0.1, 0.6, 1.0, 0.7, 0.3, 0.0]
TRUE = torch.tensor(True)


def sophia(model: torch.nn.Module) -> Sophia:
    return Sophia(parameter_groups(model, CONFIG), CONFIG)


def test_updates_are_those_of_the_paper() -> None:
    model = build(torch.float64)
    optimizer = sophia(model)
    assert optimizer.curvature_interval == 2
    weights = {name: weight.detach().numpy().copy() for name, weight in model.named_parameters()}
    momenta, curvatures = ({name: np.zeros_like(weight) for name, weight in weights.items()} for _ in range(2))
    clipped = 0
    for step, multiplier in enumerate(MULTIPLIERS):
        if step % 2 == 0:
            set_gradients(model, 100 + step)
            for name, parameter in model.named_parameters():
                assert parameter.grad is not None
                curvatures[name] = 0.9 * curvatures[name] + 0.1 * 7 * parameter.grad.numpy() ** 2
            optimizer.take_curvature(7, TRUE)
        set_gradients(model, step)
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None
            momenta[name] = 0.8 * momenta[name] + 0.2 * parameter.grad.numpy()
            ratio = np.abs(momenta[name]) / (0.3 * curvatures[name] + 1e-15)
            clipped += int((ratio < 1.0).sum())
            decay = 0.3 if name == "1.weight" else 0.0
            change = np.sign(momenta[name]) * np.minimum(ratio, 1.0) + decay * weights[name]
            weights[name] = weights[name] - 0.02 * multiplier * change
        optimizer.step(multiplier, 0.5, TRUE)
    assert 0 < clipped < 6 * sum(weight.size for weight in weights.values())
    for name, parameter in model.named_parameters():
        np.testing.assert_allclose(parameter.detach().numpy(), weights[name], rtol=1e-12, atol=1e-15)


@pytest.mark.usefixtures("where_values_are")
def test_gradients_that_are_not_finite_change_nothing() -> None:
    model = build()
    optimizer = sophia(model)
    set_gradients(model, 0)
    optimizer.take_curvature(3, TRUE)
    optimizer.step(1.0, 0.0, TRUE)
    before = as_bytes(model, optimizer)
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, float("inf"))
    optimizer.take_curvature(3, torch.tensor(False))
    optimizer.step(1.0, 0.0, torch.tensor(False))
    assert as_bytes(model, optimizer) == before


class Softmax(torch.nn.Module):
    """Logits are a weight times an input: the Gauss-Newton matrix of its loss is known."""

    def __init__(self) -> None:
        super().__init__()
        self.outputs = torch.nn.Embedding(3, 2)
        self.outputs.weight.data = torch.tensor([[0.5, -0.2], [0.1, 0.4], [-0.3, 0.6]])
        self.head = TiedHead(self.outputs)

    def forward(self, inputs: torch.Tensor, documents: torch.Tensor, slots: None, causal: bool) -> torch.Tensor:
        return inputs


class Toy(Objective):
    """An objective without rows of its own."""


def test_the_estimate_is_the_gauss_newton_diagonal_on_average() -> None:
    model = Softmax()
    inputs = torch.tensor([[1.0, 2.0], [-1.0, 0.5], [9.0, 9.0], [0.3, -0.7]])
    labels = torch.tensor([0, 0, IGNORED, 0])
    batch = Batch(inputs, torch.zeros(4), labels, predicted=3)
    objective = Toy(ObjectiveConfig(), Setting([], 0, None, 3, 1))
    generator, total, draws = torch.Generator().manual_seed(0), torch.zeros(3, 2), 3000
    for _ in range(draws):
        model.zero_grad()
        (objective.sampled_loss(model, batch, generator) / 3).backward()
        assert model.outputs.weight.grad is not None
        total += 3 * model.outputs.weight.grad**2
    predicted = (inputs @ model.outputs.weight.T).softmax(-1)[labels != IGNORED].detach()
    exact = torch.einsum("nk,nd->kd", predicted * (1.0 - predicted), inputs[labels != IGNORED] ** 2) / 3
    assert (total / draws).numpy() == pytest.approx(exact.numpy(), rel=0.08)
