"""Layer dropping against the published formula, and in a forward pass."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cram.config.methods import DroppingConfig
from cram.config.model import ModelConfig
from cram.methods.dropping import Dropping
from cram.model.crammed import Crammed
from cram.model.encoder import Encoder

SIZE = ModelConfig(layers=4, width=16, heads=2, mlp_width=32, zero_init=False, init_std=0.2)


class FakeModel:
    depth = 8
    active: list[int]


@given(progress=st.floats(0.0, 1.0), theta=st.floats(0.1, 1.0), gamma=st.floats(0.5, 200.0))
def test_the_share_is_that_of_the_paper(progress: float, theta: float, gamma: float) -> None:
    dropping = Dropping(DroppingConfig(theta=theta, gamma=gamma), 0)
    share = dropping.share(progress)
    assert dropping.scheduled(progress) == {"last_block_share": share}
    assert share == pytest.approx(float((1 - np.float64(theta)) * np.exp(-np.float64(gamma) * progress) + theta))
    assert theta <= share <= 1.0


def test_upper_blocks_are_left_out_more_often() -> None:
    dropping, model, counts = Dropping(DroppingConfig(theta=0.5, gamma=100.0), 0), FakeModel(), np.zeros(8)
    for seed in range(4000):
        dropping.depth(model, 1.0, seed)
        counts[model.active] += 1
    assert counts / 4000 == pytest.approx(1.0 - np.arange(1, 9) / 8 * 0.5, abs=0.03)


def test_the_same_seed_draws_the_same_blocks() -> None:
    dropping, model = Dropping(DroppingConfig(theta=0.5), 0), FakeModel()
    dropping.depth(model, 0.5, 7)
    drawn = model.active
    dropping.depth(model, 0.5, 8)
    dropping.depth(model, 0.5, 7)
    assert model.active == drawn


@pytest.mark.parametrize("kind", [Encoder, Crammed])
@pytest.mark.parametrize("active", [[], [0], [2], [1, 3], [0, 1, 2, 3]])
def test_a_block_that_is_left_out_passes_its_input_on(kind: type[Encoder], active: list[int]) -> None:
    model = kind(SIZE, 64)
    model.initialise(0)
    tokens, slots = torch.randint(5, 64, (2, 8)), torch.tensor([1, 9, 12])
    model.active = active
    with torch.no_grad():
        dropped, all_positions = model(tokens, None, slots), model(tokens)
        assert model.computed_blocks == len(active)
        # What a block adds is zero where its output projections are, which is another way to leave it out.
        for index in set(range(4)) - set(active):
            model.blocks[index].attention.out.weight.zero_()  # type: ignore[union-attr, operator]
            model.blocks[index].mlp.down.weight.zero_()  # type: ignore[union-attr, operator]
        model.active = None
        torch.testing.assert_close(dropped, model(tokens, None, slots))
        torch.testing.assert_close(all_positions[slots], dropped)


def test_evaluation_computes_all_blocks() -> None:
    model = Encoder(SIZE, 64)
    model.initialise(0)
    tokens = torch.randint(5, 64, (2, 8))
    expected = model(tokens)
    model.active = [1]
    assert not torch.equal(model(tokens), expected)
    model.eval()
    assert torch.equal(model(tokens), expected)
    assert model.computed_blocks == 4
