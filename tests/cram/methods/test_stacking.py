"""Layer stacking: which block becomes a copy of which, when, and what becomes of the optimizer."""

import pytest
import torch

from cram.config.methods import StackingConfig
from cram.config.model import ModelConfig
from cram.config.optimizer import OptimizerConfig
from cram.errors import CramError
from cram.methods.stacking import Stacking
from cram.model.crammed import Crammed
from cram.model.encoder import Encoder
from cram.model.transformer import Transformer
from cram.optim.adamw import AdamW
from cram.optim.groups import parameter_groups

SIZE = ModelConfig(layers=8, width=16, heads=2, mlp_width=32, zero_init=False, init_std=0.2)
TOKENS = torch.arange(32).view(2, 16) % 60 + 4


def grown(kind: type[Transformer], keep: bool = False) -> tuple[Stacking, Transformer, AdamW]:
    model = kind(SIZE, 64)  # type: ignore[call-arg]
    model.initialise(0)
    stacking = Stacking(StackingConfig(layers=2, at=[0.2, 0.5], keep_state=keep), 0)
    stacking.shape(model)
    config = OptimizerConfig()
    return stacking, model, AdamW(parameter_groups(model, config), config)


def train_once(model: Transformer, optimizer: AdamW) -> None:
    model(TOKENS).square().sum().backward()
    optimizer.step(1.0, 0.1)
    model.zero_grad(set_to_none=True)


@pytest.mark.parametrize("kind", [Encoder, Crammed])
def test_blocks_double_when_their_time_has_come(kind: type[Transformer]) -> None:
    stacking, model, optimizer = grown(kind)
    depths = []
    for progress in (0.0, 0.19, 0.2, 0.49, 0.5, 1.0):
        stacking.before_update(model, optimizer, progress)
        depths.append(model.depth)
    assert depths == [2, 2, 4, 4, 8, 8]


@pytest.mark.parametrize("kind", [Encoder, Crammed])
def test_each_new_block_is_a_copy_that_trains_apart(kind: type[Transformer]) -> None:
    stacking, model, optimizer = grown(kind)
    train_once(model, optimizer)
    below = {name: weight.clone() for name, weight in model.blocks.named_parameters()}
    stacking.before_update(model, optimizer, 0.3)
    for index in range(4):
        for name, weight in model.blocks[index].named_parameters():
            source = below.get(f"{index % 2}.{name}")
            if source is None:  # the first block of an encoder has no attention norm
                assert (index, name) == (2, "attention_norm.weight")
                assert torch.equal(weight, torch.ones_like(weight))
            else:
                assert torch.equal(weight, source)
    train_once(model, optimizer)
    one, other = (dict(model.blocks[index].named_parameters()) for index in (1, 3))
    assert not torch.equal(one["mlp.down.weight"], other["mlp.down.weight"])


@pytest.mark.parametrize("keep", [False, True])
def test_the_state_of_the_optimizer_is_dropped_or_copied(keep: bool) -> None:
    stacking, model, optimizer = grown(Crammed, keep)
    train_once(model, optimizer)
    before = optimizer.state_tensors()
    stacking.before_update(model, optimizer, 0.3)
    after = optimizer.state_tensors()
    if not keep:
        assert after == {}
        return
    for name, value in after.items():
        parts = name.split(".")
        if parts[0] == "blocks":
            parts[1] = str(int(parts[1]) % 2)
        assert torch.equal(value, before[".".join(parts)]), name


def test_a_model_takes_the_blocks_of_the_weights_that_it_loads() -> None:
    _, model, _ = grown(Encoder)
    weights = Encoder(SIZE, 64).state_dict()
    assert model.fit_blocks(weights)
    model.load_state_dict(weights)
    assert not model.fit_blocks(weights)
    assert not model.fit_blocks(["embedding.weight"])


def test_a_longer_budget_at_which_the_model_was_smaller_is_refused() -> None:
    stacking, model, optimizer = grown(Crammed)
    stacking.before_update(model, optimizer, 0.6)
    stacking.step_back(model, 0.5)
    with pytest.raises(CramError, match=r"stacking.at: the model has grown to 8 blocks, and would have 4 at 30%"):
        stacking.step_back(model, 0.3)


def test_it_names_the_depths_that_a_table_must_have() -> None:
    assert Stacking(StackingConfig(layers=4), 0).depths(16) == [4, 8, 16]
