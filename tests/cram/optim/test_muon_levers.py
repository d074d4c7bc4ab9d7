"""Muon's switches against a plain loop over matrices in float64, and that each is resumed bit for bit."""

from typing import Any

import pytest
import torch
from safetensors.torch import load
from torch import Tensor, nn

from cram.config.optimizer import MuonConfig, OptimizerConfig
from cram.optim.groups import parameter_groups
from cram.optim.muon import Muon
from cram.optim.whitening import decorrelate, orthogonalise
from tests.cram.optim.small_model import as_bytes, set_gradients

MULTIPLIERS = [0.4, 1.0, 0.7, 0.3]
PROGRESS = [0.0, 0.3, 0.6, 0.9]
LEVERS: list[dict[str, Any]] = [
    {"row_beta2": 0.9},
    {"whitening": "mud"},
    {"whitening": "mud", "mud_passes": 2, "row_beta2": 0.8},
    {"final_newton_schulz_steps": 1},
]


def build(dtype: torch.dtype = torch.float64) -> nn.Sequential:
    """An embedding, a weight of three matrices and one that is wider than high."""
    model = nn.Sequential(nn.Embedding(6, 4), nn.Linear(4, 13, bias=False), nn.Linear(6, 4, bias=False))
    model[1].splits = (4, 4, 5)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return model.to(dtype)


def muon_of(model: nn.Module, changes: dict[str, Any]) -> Muon:
    muon = MuonConfig(lr=0.05, momentum=0.9, weight_decay=0.3, newton_schulz_steps=3, **changes)
    config = OptimizerConfig(kind="muon", muon=muon)
    return Muon(parameter_groups(model, config), config)


def run(model: nn.Module, optimizer: Muon, steps: range) -> None:
    for step in steps:
        set_gradients(model, step)
        optimizer.step(MULTIPLIERS[step], PROGRESS[step], torch.tensor(True))


def plain(weight: Tensor, gradients: list[Tensor], changes: dict[str, Any]) -> Tensor:
    """Move one matrix by the definitions, step by step."""
    momentum, squares = torch.zeros_like(weight), torch.zeros(len(weight), 1, dtype=weight.dtype)
    scale, beta2 = max(1.0, weight.shape[0] / weight.shape[1]) ** 0.5, changes.get("row_beta2")
    for multiplier, progress, gradient in zip(MULTIPLIERS, PROGRESS, gradients, strict=True):
        momentum = 0.9 * momentum + 0.1 * gradient
        looked_ahead = (0.9 * momentum + 0.1 * gradient)[None]
        if changes.get("whitening") == "mud":
            direction = decorrelate(looked_ahead, changes.get("mud_passes", 1), weight.dtype)[0]
        else:
            steps = {0.0: 3, 0.3: 2, 0.6: 2, 0.9: 1}[progress] if "final_newton_schulz_steps" in changes else 3
            direction = orthogonalise(looked_ahead, steps, weight.dtype)[0]
        if beta2 is not None:
            squares = beta2 * squares + (1 - beta2) * (direction**2).mean(dim=1, keepdim=True)
            even = direction / squares.sqrt()
            direction = even * direction.norm() / even.norm()
        weight = weight - 0.05 * multiplier * (scale * direction + 0.3 * weight)
    return weight


@pytest.mark.parametrize("changes", LEVERS)
def test_updates_equal_those_of_a_plain_loop(changes: dict[str, Any]) -> None:
    model = build()
    before = [*model[1].weight.detach().split((4, 4, 5)), model[2].weight.detach().clone()]
    before = [matrix.clone() for matrix in before]
    gradients: list[list[Tensor]] = []
    for step in range(len(MULTIPLIERS)):
        set_gradients(model, step)
        gradients.append([*model[1].weight.grad.split((4, 4, 5)), model[2].weight.grad])
    run(model, muon_of(model, changes), range(4))
    after = [*model[1].weight.detach().split((4, 4, 5)), model[2].weight.detach()]
    usual = build()
    run(usual, muon_of(usual, {}), range(4))
    assert (usual[1].weight - model[1].weight).abs().max() > 1e-3
    for number, (start, end) in enumerate(zip(before, after, strict=True)):
        expected = plain(start, [of_step[number] for of_step in gradients], changes)
        torch.testing.assert_close(end, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.usefixtures("where_values_are")
@pytest.mark.parametrize("changes", LEVERS)
def test_a_loaded_state_continues_bit_for_bit_and_a_sick_step_changes_nothing(changes: dict[str, Any]) -> None:
    model = build(torch.float32)
    optimizer = muon_of(model, changes)
    run(model, optimizer, range(2))
    weights, state = as_bytes(model, optimizer)
    for parameter in model.parameters():
        assert parameter.grad is not None
        parameter.grad[0] = float("nan")
    optimizer.step(1.0, 0.5, torch.tensor(False))
    assert as_bytes(model, optimizer) == (weights, state)
    run(model, optimizer, range(2, 4))
    resumed = build(torch.float32)
    resumed.load_state_dict(load(weights))
    again = muon_of(resumed, changes)
    again.load_state_tensors(load(state))
    run(resumed, again, range(2, 4))
    assert as_bytes(resumed, again) == as_bytes(model, optimizer)
