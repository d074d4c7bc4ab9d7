"""What all update rules share: the multipliers of the learning rates, and weight decay that fades."""

import pytest
import torch
from torch import Tensor

from cram.build import build_optimizer
from cram.config.optimizer import MuonConfig, OptimizerConfig
from tests.cram.optim.small_model import build, set_gradients


@pytest.mark.parametrize("kind", ["muon", "adamw", "lion", "sophia"])
def test_others_have_a_multiplier_of_their_own_if_it_is_given(kind: str) -> None:
    def moved(*others: float) -> dict[str, Tensor]:
        model = build(torch.float64)
        set_gradients(model, 0)
        optimizer = build_optimizer(model, OptimizerConfig(kind=kind, lr=0.02, embedding_lr=0.05))
        before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
        optimizer.step(0.5, 1.0, torch.tensor(True), *others)
        return {name: parameter.detach() - before[name] for name, parameter in model.named_parameters()}

    usual, same, less = moved(), moved(0.5), moved(0.25)
    for name, movement in usual.items():
        assert movement.any()
        assert torch.equal(movement, same[name])
        torch.testing.assert_close(less[name], movement if name == "1.weight" else movement / 2)


def test_decay_fades_over_the_budget() -> None:
    def moved(final: float, progress: float, decay: float) -> Tensor:
        model = build(torch.float64)
        config = OptimizerConfig(kind="muon", final_decay=final, muon=MuonConfig(lr=0.05, weight_decay=decay))
        set_gradients(model, 0)
        build_optimizer(model, config).step(1.0, progress)
        return model[1].weight.detach()

    torch.testing.assert_close(moved(0.0, 0.5, 0.3), moved(1.0, 0.5, 0.15))
    torch.testing.assert_close(moved(0.2, 1.0, 0.3), moved(1.0, 0.0, 0.06))
    assert not torch.equal(moved(1.0, 0.5, 0.3), moved(1.0, 0.5, 0.15))
