import json

import torch
from torch import nn

from cram.training.loss_scale import LossScale

CPU = torch.device("cpu")


def gradients(model: nn.Linear, factor: float, scale: LossScale) -> torch.Tensor:
    model.zero_grad()
    scale.backward(factor * model.weight.square().sum())
    scale.unscale()
    assert model.weight.grad is not None
    found = model.weight.grad.clone()
    scale.update()
    return found


def test_unscaled_gradients_are_the_true_ones() -> None:
    model = nn.Linear(3, 3, bias=False)
    scale = LossScale(model.parameters(), CPU)
    torch.testing.assert_close(gradients(model, 0.5, scale), model.weight.detach())


def test_it_shrinks_after_an_overflow_and_remembers() -> None:
    model = nn.Linear(3, 3, bias=False)
    scale = LossScale(model.parameters(), CPU)
    gradients(model, 1.0, scale)
    before = scale.state()["scale"]
    assert not gradients(model, float("inf"), scale).isfinite().all()
    state = json.loads(json.dumps(scale.state()))
    assert state["scale"] == before / 2
    other = LossScale(model.parameters(), CPU)
    other.load(state)
    assert other.state() == state
