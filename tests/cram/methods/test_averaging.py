import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load, save
from torch import nn

from cram.config.training import AveragingConfig
from cram.methods.averaging import Averaging


def train(model: nn.Linear, method: Averaging, values: list[float], first: int, total: int) -> None:
    """Set the weight to each value in turn and let the method see it."""
    for number, value in enumerate(values, first):
        with torch.no_grad():
            model.weight.fill_(value)
        method.after_step(model, number / total)


def linear() -> nn.Linear:
    return nn.Linear(2, 2, bias=False, dtype=torch.float64)


@given(st.lists(st.floats(-10, 10), min_size=1, max_size=20), st.floats(0.0, 0.95))
def test_the_result_is_the_mean_of_the_weights_from_the_start_on(values: list[float], start: float) -> None:
    model, method = linear(), Averaging(AveragingConfig(start=start))
    train(model, method, values, 1, len(values))
    method.finish(model)
    tail = [value for number, value in enumerate(values, 1) if number / len(values) >= start]
    torch.testing.assert_close(model.weight.detach(), torch.full_like(model.weight, sum(tail) / len(tail)))


def test_with_a_decay_the_latest_count_most() -> None:
    model, method = linear(), Averaging(AveragingConfig(start=0.0, decay=0.9))
    train(model, method, [1.0, 2.0, 3.0], 1, 3)
    method.finish(model)
    expected = 0.9 * (0.9 * 1.0 + 0.1 * 2.0) + 0.1 * 3.0
    torch.testing.assert_close(model.weight.detach(), torch.full_like(model.weight, expected))


@given(st.integers(0, 6))
def test_a_resumed_average_is_the_same_bit_for_bit(cut: int) -> None:
    values = [0.1, -2.0, 3.3, 4.7, 5.9, 0.2]
    straight, method = linear(), Averaging(AveragingConfig(start=0.4))
    train(straight, method, values, 1, 6)
    method.finish(straight)
    model, first = linear(), Averaging(AveragingConfig(start=0.4))
    train(model, first, values[:cut], 1, 6)
    second = Averaging(AveragingConfig(start=0.4))
    second.load_state_tensors(load(save(first.state_tensors())), model)
    train(model, second, values[cut:], 1 + cut, 6)
    second.finish(model)
    second.finish(model)  # a run that is resumed at its end does it again
    assert torch.equal(model.weight, straight.weight)
