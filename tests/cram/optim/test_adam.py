"""Adam with an L2 penalty against a float64 implementation."""

import numpy as np
import torch

from cram.config.optimizer import OptimizerConfig
from cram.optim.adam import Adam
from cram.optim.groups import parameter_groups
from tests.cram.optim.small_model import build, set_gradients

CONFIG = OptimizerConfig(
    kind="adam", lr=0.02, beta1=0.8, beta2=0.95, eps=1e-6, weight_decay=0.3, decay_others=True, clip=None
)


def test_the_penalty_is_part_of_the_gradient_of_all_but_biases() -> None:
    model = build(torch.float64)
    optimizer = Adam(parameter_groups(model, CONFIG), CONFIG)
    weights = {name: weight.detach().numpy().copy() for name, weight in model.named_parameters()}
    first, second = ({name: np.zeros_like(weight) for name, weight in weights.items()} for _ in range(2))
    for step in range(1, 6):
        set_gradients(model, step)
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None
            decay = 0.0 if name.endswith("bias") else 0.3
            gradient = parameter.grad.numpy() + decay * weights[name]
            first[name] = 0.8 * first[name] + 0.2 * gradient
            second[name] = 0.95 * second[name] + 0.05 * gradient**2
            root = np.sqrt(second[name] / (1 - 0.95**step)) + 1e-6
            weights[name] = weights[name] - 0.02 * first[name] / (1 - 0.8**step) / root
        optimizer.step(1.0, 0.5)
    for name, parameter in model.named_parameters():
        np.testing.assert_allclose(parameter.detach().numpy(), weights[name], rtol=1e-9)
