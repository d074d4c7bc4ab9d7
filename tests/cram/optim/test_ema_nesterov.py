"""Weights that move ahead of themselves, against the published recurrence with a copy of the weights, in float64."""

import pytest
import torch
from safetensors.torch import load
from torch import nn

from cram.build import build_optimizer
from cram.config.optimizer import EmaNesterovConfig, OptimizerConfig
from cram.errors import CramError
from cram.optim.ema_nesterov import EmaNesterov
from cram.optim.groups import parameter_groups
from cram.optim.lion import Lion
from cram.training.protocols import OptimizerProtocol
from tests.cram.optim.small_model import as_bytes, build, set_gradients

MULTIPLIERS = [0.4, 1.0, 0.9, 0.7, 0.5, 0.3]
PROGRESS = [0.1, 0.3, 0.5, 0.6, 0.8, 1.0]
AHEAD = EmaNesterovConfig(lookahead=0.6, decay=0.7, start=0.2, end=0.7)
RULES = ["lion", "adamw", "muon", "sophia"]


def config_of(kind: str, ahead: EmaNesterovConfig = AHEAD) -> OptimizerConfig:
    return OptimizerConfig(kind=kind, lr=0.02, ema_nesterov=ahead)


def run(model: nn.Module, optimizer: OptimizerProtocol, steps: range) -> None:
    for step in steps:
        set_gradients(model, step)
        optimizer.step(MULTIPLIERS[step], PROGRESS[step], torch.tensor(True))


def test_weights_follow_the_published_recurrence() -> None:
    """Gradients are a pull towards zero, so that it counts where they are taken."""
    config = config_of("lion")
    ours = build(torch.float64)
    optimizer = build_optimizer(ours, config)
    assert isinstance(optimizer, EmaNesterov)
    twin = build(torch.float64)
    rule = Lion(parameter_groups(twin, config), config)
    weights = [parameter.detach().clone() for parameter in twin.parameters()]
    means = [torch.zeros_like(weight) for weight in weights]
    for step, (multiplier, progress) in enumerate(zip(MULTIPLIERS, PROGRESS, strict=True)):
        # Update t - 1 made the weights ahead of update t, with its own multiplier and progress.
        ahead = 0.6 * MULTIPLIERS[step - 1] if step and 0.2 <= PROGRESS[step - 1] < 0.7 else 0.0
        for mine, parameter, weight, mean in zip(ours.parameters(), twin.parameters(), weights, means, strict=True):
            parameter.data.copy_(weight + ahead * mean)
            torch.testing.assert_close(mine.detach(), parameter.detach(), rtol=1e-12, atol=1e-12)
            mine.grad, parameter.grad = mine.detach() ** 3, parameter.detach() ** 3
        optimizer.step(multiplier, progress)
        rule.step(multiplier, progress)
        for parameter, weight, mean in zip(twin.parameters(), weights, means, strict=True):
            mean.lerp_(parameter.detach() - weight, 0.3)
            weight.copy_(parameter.detach())
    for mine, weight in zip(ours.parameters(), weights, strict=True):
        torch.testing.assert_close(mine.detach(), weight, rtol=1e-12, atol=1e-12)


@pytest.mark.usefixtures("where_values_are")
def test_a_finite_step_is_the_same_with_and_without_the_check() -> None:
    watched, alone = build(), build()
    run(watched, build_optimizer(watched, config_of("lion")), range(5))
    optimizer = build_optimizer(alone, config_of("lion"))
    assert isinstance(optimizer, EmaNesterov)
    for step in range(5):
        set_gradients(alone, step)
        optimizer.step(MULTIPLIERS[step], PROGRESS[step])
    torch.testing.assert_close(watched.state_dict(), alone.state_dict())


def test_nothing_is_ahead_outside_of_the_window() -> None:
    for start, end in ((0.99, 1.0), (0.0, 0.05)):
        ours, twin = build(), build()
        run(ours, build_optimizer(ours, config_of("lion", EmaNesterovConfig(0.6, 0.7, start, end))), range(5))
        run(twin, build_optimizer(twin, OptimizerConfig(kind="lion", lr=0.02)), range(5))
        for mine, other in zip(ours.parameters(), twin.parameters(), strict=True):
            assert torch.equal(mine, other)


@pytest.mark.usefixtures("where_values_are")
@pytest.mark.parametrize("kind", RULES)
def test_a_loaded_state_continues_bit_for_bit_and_a_sick_step_changes_nothing(kind: str) -> None:
    model = build()
    optimizer = build_optimizer(model, config_of(kind))
    assert optimizer.state_tensors() == {}
    run(model, optimizer, range(3))
    weights, state = as_bytes(model, optimizer)
    for parameter in model.parameters():
        assert parameter.grad is not None
        parameter.grad.fill_(float("nan"))
    optimizer.step(1.0, 0.5, torch.tensor(False))
    assert as_bytes(model, optimizer) == (weights, state)
    run(model, optimizer, range(3, 6))
    resumed = build()
    resumed.load_state_dict(load(weights))
    again = build_optimizer(resumed, config_of(kind))
    again.load_state_tensors(load(state))
    run(resumed, again, range(3, 6))
    assert as_bytes(resumed, again) == as_bytes(model, optimizer)
    again.load_state_tensors({})
    assert again.state_tensors() == {}


def test_a_state_of_a_run_that_was_never_ahead_can_be_loaded() -> None:
    model, config = build(), config_of("lion", EmaNesterovConfig(lookahead=0.6, end=0.05))
    optimizer, again = build_optimizer(model, config), build_optimizer(build(), config)
    run(model, optimizer, range(2))
    again.load_state_tensors(optimizer.state_tensors())
    assert as_bytes(model, again)[1] == as_bytes(model, optimizer)[1]


def test_a_state_without_movements_is_refused() -> None:
    model = build()
    plain = build_optimizer(model, OptimizerConfig(kind="lion", lr=0.02))
    run(model, plain, range(1))
    with pytest.raises(CramError, match=r"^the tensor 1\.weight/movement, .* is missing"):
        build_optimizer(model, config_of("lion")).load_state_tensors(plain.state_tensors())


def test_a_model_that_grows_keeps_the_movements_that_are_inherited() -> None:
    model = build()
    optimizer = build_optimizer(model, config_of("lion"))
    run(model, optimizer, range(3))
    before = optimizer.state_tensors()
    grown = nn.Sequential(*model, nn.Linear(4, 4))
    names = {name: name for name, _ in model.named_parameters()} | {"3.weight": "1.weight"}
    optimizer.regroup(grown, names)
    after = optimizer.state_tensors()
    assert torch.equal(after["3.weight/movement"], before["1.weight/movement"])
    assert torch.equal(after["0.weight/movement"], before["0.weight/movement"])
    assert not after["3.bias/movement"].any()
    run(grown, optimizer, range(3, 6))
    assert grown[3].weight.isfinite().all()


def test_rates_values_and_kind_are_those_of_the_rule() -> None:
    optimizer = build_optimizer(build(), config_of("sophia"))
    rule = build_optimizer(build(), OptimizerConfig(kind="sophia", lr=0.02))
    assert (optimizer.kind, optimizer.curvature_interval) == ("sophia", rule.curvature_interval)
    assert (optimizer.lr(), optimizer.values(0.3), optimizer.scheduled(0.3)) == (
        rule.lr(),
        rule.values(0.3),
        rule.scheduled(0.3),
    )
