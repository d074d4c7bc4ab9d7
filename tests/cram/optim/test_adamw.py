import pytest
import torch
from safetensors.torch import load, save
from torch import nn

from cram.config.optimizer import OptimizerConfig
from cram.optim.adamw import AdamW
from cram.optim.groups import parameter_groups
from tests.cram.optim.small_model import as_bytes, build, set_gradients

CONFIG = OptimizerConfig(lr=0.02, embedding_lr=0.05, beta1=0.8, beta2=0.95, eps=1e-6, weight_decay=0.3)
MULTIPLIERS = [0.1, 0.6, 1.0, 0.7, 0.3, 0.0]


def optimizer_of(model: nn.Module) -> AdamW:
    return AdamW(parameter_groups(model, CONFIG), CONFIG)


def run(model: nn.Module, optimizer: AdamW, steps: range) -> None:
    for step in steps:
        set_gradients(model, step)
        optimizer.step(MULTIPLIERS[step], 1.0)


def test_updates_equal_those_of_torch_at_each_groups_rate_times_the_multiplier() -> None:
    ours, twin = build(torch.float64), build(torch.float64)
    optimizer = optimizer_of(ours)
    embedding, linear, norm = twin
    reference = torch.optim.AdamW(
        [
            {"params": [linear.weight], "peak": 0.02, "weight_decay": 0.3},
            {"params": [embedding.weight], "peak": 0.05, "weight_decay": 0.0},
            {"params": [linear.bias, norm.weight, norm.bias], "peak": 0.02, "weight_decay": 0.0},
        ],
        betas=(0.8, 0.95),
        eps=1e-6,
        fused=False,
        foreach=False,
    )
    for step, multiplier in enumerate(MULTIPLIERS):
        for model in (ours, twin):
            set_gradients(model, step)
        optimizer.step(multiplier, 1.0)
        for group in reference.param_groups:
            group["lr"] = group["peak"] * multiplier
        reference.step()
        for (name, mine), other in zip(ours.named_parameters(), twin.parameters(), strict=True):
            torch.testing.assert_close(mine, other, rtol=1e-12, atol=1e-12, msg=f"{name} after update {step + 1}")
    assert not torch.equal(ours[1].weight, build(torch.float64)[1].weight)


def test_gains_and_biases_have_their_own_beta2_if_it_is_given() -> None:
    config = OptimizerConfig(**{**vars(CONFIG), "weight_decay": 0.0, "embedding_lr": None})
    twins = {beta2: OptimizerConfig(**{**vars(config), "beta2": beta2}) for beta2 in (0.95, 0.7)}
    models = {}
    for name, chosen in [(None, OptimizerConfig(**{**vars(config), "gains_beta2": 0.7})), *twins.items()]:
        models[name] = build(torch.float64)
        run(models[name], AdamW(parameter_groups(models[name], chosen), chosen), range(4))
    for name, parameter in models[None].named_parameters():
        beta2 = 0.95 if name in ("0.weight", "1.weight") else 0.7
        assert torch.equal(parameter, models[beta2].state_dict()[name]), name
    assert not torch.equal(models[0.95][2].weight, models[0.7][2].weight)


def test_a_multiplier_of_zero_moves_nothing() -> None:
    model = build()
    before = save(model.state_dict())
    set_gradients(model, 0)
    optimizer_of(model).step(0.0, 1.0)
    assert save(model.state_dict()) == before


def test_the_rate_shown_is_that_of_the_latest_update() -> None:
    model = build()
    optimizer = optimizer_of(model)
    run(model, optimizer, range(2))
    assert optimizer.lr() == {"matrices": 0.02 * 0.6, "embeddings": 0.05 * 0.6, "gains": 0.02 * 0.6}


def test_the_state_is_named_by_parameter() -> None:
    model = build()
    optimizer = optimizer_of(model)
    assert optimizer.state_tensors() == {}
    run(model, optimizer, range(2))
    state = optimizer.state_tensors()
    assert set(state) == {
        f"{name}/{entry}" for name, _ in model.named_parameters() for entry in ("step", "exp_avg", "exp_avg_sq")
    }
    assert all(float(value) == 2.0 for name, value in state.items() if name.endswith("/step"))


def test_a_loaded_state_continues_bit_for_bit() -> None:
    model = build()
    optimizer = optimizer_of(model)
    run(model, optimizer, range(3))
    weights, state = as_bytes(model, optimizer)
    run(model, optimizer, range(3, 6))
    resumed = build()
    resumed.load_state_dict(load(weights))
    again = optimizer_of(resumed)
    again.load_state_tensors(load(state))
    assert as_bytes(resumed, again) == (weights, state)
    run(resumed, again, range(3, 6))
    assert as_bytes(resumed, again) == as_bytes(model, optimizer)


def test_loading_replaces_the_state() -> None:
    model = build()
    optimizer = optimizer_of(model)
    run(model, optimizer, range(2))
    weights, state = as_bytes(model, optimizer)
    run(model, optimizer, range(2, 4))
    expected = as_bytes(model, optimizer)
    model.load_state_dict(load(weights))
    optimizer.load_state_tensors(load(state))
    run(model, optimizer, range(2, 4))
    assert as_bytes(model, optimizer) == expected
    optimizer.load_state_tensors({})
    assert optimizer.state_tensors() == {}


@pytest.mark.usefixtures("where_values_are")
def test_a_step_that_is_not_finite_changes_no_bit() -> None:
    model = build()
    optimizer = optimizer_of(model)
    set_gradients(model, 0)
    optimizer.step(1.0, 0.5, torch.tensor(True))
    before = as_bytes(model, optimizer)
    for sick in (float("nan"), float("inf")):
        for parameter in model.parameters():
            assert parameter.grad is not None
            parameter.grad.fill_(sick)
        optimizer.step(1.0, 0.5, torch.tensor(False))
        assert as_bytes(model, optimizer) == before
    set_gradients(model, 1)
    optimizer.step(1.0, 0.5, torch.tensor(True))
    assert as_bytes(model, optimizer) != before


def test_decay_fades_over_the_budget() -> None:
    def moved(final: float, progress: float, decay: float) -> torch.Tensor:
        model = build()
        config = OptimizerConfig(**{**vars(CONFIG), "final_decay": final, "weight_decay": decay})
        set_gradients(model, 0)
        AdamW(parameter_groups(model, config), config).step(1.0, progress)
        return model[1].weight.detach()

    torch.testing.assert_close(moved(0.0, 0.5, 0.3), moved(1.0, 0.5, 0.15))
    torch.testing.assert_close(moved(0.2, 1.0, 0.3), moved(1.0, 0.0, 0.06))
