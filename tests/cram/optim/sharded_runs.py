"""What the ranks of `test_sharding` do: the same updates by one rank and by several, whose weights they compare.

Gradients are eighths, so that their sums do not depend on the order in which they are added.
"""

import copy
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from cram.build import build_optimizer
from cram.config.optimizer import EmaNesterovConfig, MuonConfig, OptimizerConfig
from cram.distributed.ranks import ALONE, Ranks
from cram.errors import CramError
from cram.model.layers import FusedLinear
from cram.optim import buckets
from cram.training.loss_scale import LossScale
from cram.training.protocols import OptimizerProtocol
from tests.cram.distributed.forked_ranks import ranks_of_first

SIZES = (2, 3, 4)
STEPS = 3
FULL = 2**16  # bytes of a bucket, so that this small model has several
MICRO_BATCHES = 12  # of an update, on all ranks together
CONFIGS = {
    "adamw": OptimizerConfig(lr=0.02, gains_beta2=0.9, decay_others=True),
    "adam": OptimizerConfig(kind="adam", lr=0.02),
    "lion": OptimizerConfig(kind="lion"),
    "sophia": OptimizerConfig(kind="sophia"),
    "muon": OptimizerConfig(kind="muon", muon=MuonConfig(products="fp32", row_beta2=0.9, cautious=True)),
    "muon-ema": OptimizerConfig(
        kind="muon",
        final_decay=0.5,
        muon=MuonConfig(products="fp32", whitening="mud"),
        ema_nesterov=EmaNesterovConfig(lookahead=0.6, decay=0.5, start=0.0, end=0.9),
    ),
}


class Model(nn.Module):
    """An embedding that is cut, blocks with a fused weight of unequal matrices, and parameters that stay whole."""

    def __init__(self, blocks: int = 3) -> None:
        super().__init__()
        self.embedding = nn.Embedding(70, 64)
        self.blocks = nn.ModuleList(self.block() for _ in range(blocks))
        self.norm = nn.LayerNorm(64)
        self.scale = nn.Parameter(torch.ones(()))
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator))

    @staticmethod
    def block() -> nn.ModuleDict:
        """A block with matrices of (64, 64), (32, 64) and (64, 32)."""
        return nn.ModuleDict({"up": FusedLinear(64, (64, 64, 32), bias=True), "down": nn.Linear(32, 64, bias=False)})

    def grow(self) -> dict[str, str]:
        """Put a block below and a copy of the highest one above, and return where each parameter's state comes from."""
        old = {id(parameter): name for name, parameter in self.named_parameters()}
        copy = self.block()
        copy.load_state_dict(self.blocks[-1].state_dict())
        top = {name: f"blocks.{len(self.blocks) - 1}.{name}" for name, _ in copy.named_parameters()}
        fresh = self.block()
        with torch.no_grad():
            for parameter in fresh.parameters():
                parameter.fill_(0.5)
        self.blocks = nn.ModuleList([fresh, *self.blocks, copy])
        inherited = {name: old[id(each)] for name, each in self.named_parameters() if id(each) in old}
        return inherited | {f"blocks.{len(self.blocks) - 1}.{name}": source for name, source in top.items()}


def gradient(name: str, shape: torch.Size, step: int, micro: int) -> Tensor:
    """A gradient of eighths."""
    generator = torch.Generator().manual_seed(sum(map(ord, name)) * 1000 + step * 50 + micro)
    return torch.randint(-8, 9, shape, generator=generator) / 8


def has_gradient(name: str, step: int, micro: int) -> bool:
    """Whether a micro-batch gives a parameter a gradient: block 2 has one in some, the scale in some updates."""
    if name == "scale":
        return step != 1
    return not (name.startswith("blocks.2.") and micro % 4 != 1)


def backward(model: nn.Module, step: int, micro: int, factor: float = 1.0) -> None:
    """Do the backward pass of a micro-batch."""
    parts = [
        (parameter * (factor * gradient(name, parameter.shape, step, micro))).sum()
        for name, parameter in model.named_parameters()
        if has_gradient(name, step, micro)
    ]
    torch.stack(parts).sum().backward()


def accumulate(model: nn.Module, optimizer: OptimizerProtocol, step: int, ranks: Ranks, idle: int = -1) -> None:
    """Compute this rank's gradients of an update. The rank `idle` leaves its share to rank 0."""
    workers = [0 if micro % ranks.size == idle else micro % ranks.size for micro in range(MICRO_BATCHES)]
    mine = [micro for micro, worker in enumerate(workers) if worker == ranks.rank]
    for micro in mine[:-1]:
        backward(model, step, micro)
    for micro in mine[-1:]:
        with optimizer.overlap():
            backward(model, step, micro)


def update(model: nn.Module, optimizer: OptimizerProtocol, step: int, ranks: Ranks, idle: int = -1) -> None:
    """Do an update, with an estimate of the curvature for a rule that wants one."""
    if optimizer.curvature_interval:
        accumulate(model, optimizer, step + 100, ranks, idle)
        optimizer.collect()
        optimizer.take_curvature(100, torch.tensor(True))
        model.zero_grad(set_to_none=True)
    accumulate(model, optimizer, step, ranks, idle)
    assert not optimizer.collect()
    optimizer.step(1.0 - 0.1 * step, step / 10, torch.tensor(True), 0.5)
    model.zero_grad(set_to_none=True)


def train(name: str, ranks: Ranks, steps: int = STEPS) -> tuple[Model, OptimizerProtocol]:
    """Train a new model by one of `CONFIGS`. In the second update rank 1 has no rows."""
    model = Model()
    optimizer = build_optimizer(model, CONFIGS[name], ranks)
    for step in range(steps):
        update(model, optimizer, step, ranks, idle=1 if step == 1 else -1)
    return model, optimizer


@cache
def by_one(name: str, steps: int = STEPS) -> tuple[Model, OptimizerProtocol]:
    """The same by one rank; not to be changed."""
    return train(name, ALONE, steps)


def assert_close(name: str, value: Tensor, expected: Tensor) -> None:
    """Compare tensors, up to the rounding of products of another number of matrices."""
    torch.testing.assert_close(value, expected, rtol=1e-6, atol=1e-6, msg=lambda text: f"{name}: {text}")


def assert_equal(model: nn.Module, expected: nn.Module) -> None:
    """Compare weights."""
    for (name, parameter), other in zip(model.named_parameters(), expected.parameters(), strict=True):
        assert_close(name, parameter, other)


def assert_equal_state(optimizer: OptimizerProtocol, expected: OptimizerProtocol, ranks: Ranks) -> None:
    """Compare the whole state, in order, with that of one rank."""
    state, other = optimizer.state_tensors(), expected.state_tensors()
    if not ranks.leads:
        assert not state
        return
    assert list(state) == list(other)
    for name, value in state.items():
        assert_close(name, value, other[name])


def check_weights_and_state(name: str, ranks: Ranks) -> None:
    """After several updates the weights, the whole state and what is shown are those of one rank."""
    (model, optimizer), (expected, of_one) = train(name, ranks), by_one(name)
    assert_equal(model, expected)
    assert_equal_state(optimizer, of_one, ranks)
    assert optimizer.lr() == of_one.lr()
    assert optimizer.scheduled(0.3) == of_one.scheduled(0.3)
    assert optimizer.values(0.3) == of_one.values(0.3)


def check_load(name: str, ranks: Ranks) -> None:
    """Several ranks go on with the state of one, and one with that of several."""
    expected, of_one = by_one(name, 2)
    model = copy.deepcopy(expected)
    optimizer = build_optimizer(model, CONFIGS[name], ranks)
    optimizer.load_state_tensors({entry: value.clone() for entry, value in of_one.state_tensors().items()})
    assert_equal_state(optimizer, of_one, ranks)
    state = optimizer.state_tensors()
    update(model, optimizer, 2, ranks)
    assert_equal(model, by_one(name)[0])
    if ranks.leads:
        model = copy.deepcopy(expected)
        optimizer = build_optimizer(model, CONFIGS[name])
        optimizer.load_state_tensors(state)
        update(model, optimizer, 2, ALONE)
        assert_equal(model, by_one(name)[0])


def check_forget(name: str, ranks: Ranks) -> None:
    """An empty state forgets everything, and a state that does not fit is refused by all ranks."""
    _, optimizer = train(name, ranks, 1)
    state = by_one(name)[1].state_tensors()
    first = next(iter(state))
    for wrong in (
        {entry: value for entry, value in state.items() if entry != first},
        state | {"unknown/momentum": torch.zeros(1)},
        state | {first: torch.zeros(7)},
    ):
        with pytest.raises(CramError, match="the tensor"):
            optimizer.load_state_tensors(wrong)
    assert bool(optimizer.state_tensors()) == ranks.leads
    optimizer.load_state_tensors({})
    assert optimizer.state_tensors() == {}


def check_failed(name: str, ranks: Ranks) -> None:
    """A rank that fails, before or after it has begun to exchange gradients, lets all ranks begin again."""
    model, optimizer = train(name, ranks, 2)
    before = copy.deepcopy(model)
    last = ranks.rank == ranks.size - 1
    for fails in range(2):
        if not (last and fails == 0):
            accumulate(model, optimizer, 2, ranks)
        assert optimizer.collect(failed=last)
        assert not optimizer.gradients(model)
        assert all(parameter.grad is None for parameter in model.parameters())
    accumulate(model, optimizer, 2, ranks)
    assert not optimizer.collect()
    optimizer.step(1.0, 0.5, torch.tensor(False))
    assert_equal(model, before)
    update(model, optimizer, 2, ranks)
    assert_equal(model, by_one(name)[0])


def check_regroup(name: str, ranks: Ranks) -> None:
    """A model that grows keeps the states that it inherits, wherever they are; a model that inherits none forgets."""
    (model, optimizer), (expected, of_one) = train(name, ranks, 2), train(name, ALONE, 2)
    names, same = model.grow(), expected.grow()
    assert names == same
    optimizer.regroup(model, names)
    of_one.regroup(expected, names)
    assert_equal_state(optimizer, of_one, ranks)
    for each, rule, these in ((model, optimizer, ranks), (expected, of_one, ALONE)):
        update(each, rule, 3, these)
    assert_equal(model, expected)
    assert_equal_state(optimizer, of_one, ranks)
    assert optimizer.lr() == of_one.lr()
    optimizer.regroup(model, {})
    assert optimizer.state_tensors() == {}


def small_models(name: str, ranks: Ranks) -> tuple[list[nn.Sequential], list[OptimizerProtocol]]:
    """A model with two parameters of several ranks and of one, with the same weights, and their update rules."""
    models = [nn.Sequential(nn.Linear(4, 4)) for _ in range(2)]
    for parameter in models[0].parameters():
        ranks.broadcast(parameter.detach())
    models[1].load_state_dict(models[0].state_dict())
    return models, [build_optimizer(models[0], CONFIGS[name], ranks), build_optimizer(models[1], CONFIGS[name])]


def check_few_pieces(name: str, ranks: Ranks) -> None:
    """There may be fewer matrices, and fewer pieces, than ranks."""
    models, rules = small_models(name, ranks)
    for step in range(2):
        update(models[0], rules[0], step, ranks)
        update(models[1], rules[1], step, ALONE)
    assert_equal(*models)
    assert_equal_state(*rules, ranks)
    assert rules[0].lr() == rules[1].lr()
    assert rules[0].scheduled(0.3) == rules[1].scheduled(0.3)


def check_partly_begun(name: str, ranks: Ranks) -> None:
    """The state is whole as soon as one rank has one, although other ranks have not updated anything yet."""
    models, rules = small_models(name, ranks)
    for model, rule in zip(models, rules, strict=True):
        if rule is rules[1] or ranks.leads:
            model[0].weight.sum().backward()
        rule.collect()
        rule.step(1.0, 0.5)
    assert_equal_state(*rules, ranks)


def check_loss_scale(name: str, ranks: Ranks) -> None:
    """Where the gradients of one rank overflow, the factor shrinks on all; a rank may have neither pieces nor rows."""
    model = nn.Sequential(nn.Linear(4, 4))
    optimizer = build_optimizer(model, CONFIGS[name], ranks)
    scale = LossScale(optimizer.owned(model), ranks.device, ranks)
    for overflows in (False, True):
        if ranks.leads:
            scale.backward((model[0].weight * (float("inf") if overflows else 3.0)).sum())
        optimizer.collect()
        scale.unscale()
        if not overflows:
            assert all(bool((gradient == 3.0).all()) for gradient in optimizer.gradients(model))
        scale.update()
    assert ranks.gather(scale.state()["scale"]) == [2.0**15] * ranks.size


SCENARIOS: dict[Callable[[str, Ranks], None], dict[str, tuple[int, ...]]] = {
    check_weights_and_state: {name: SIZES if name in ("adamw", "muon", "muon-ema") else (3,) for name in CONFIGS},
    check_load: {"adamw": (2,), "muon": (3,), "muon-ema": (2,)},
    check_forget: {"muon-ema": (3,)},
    check_failed: {"adamw": (2,), "muon-ema": (3,)},
    check_regroup: {"adamw": (3,), "muon": (4,), "muon-ema": (2,)},
    check_few_pieces: {"adamw": (2,), "sophia": (4,), "muon": (4,), "muon-ema": (4,)},
    check_partly_begun: {"adamw": (3,), "muon-ema": (2,)},
    check_loss_scale: {"adamw": (2,), "muon": (4,)},
}


def cases() -> Iterator[tuple[str, str, int]]:
    """The name of each check, with its configs and numbers of ranks."""
    for check, sizes_of in SCENARIOS.items():
        for config, sizes in sizes_of.items():
            for size in sizes:
                yield check.__name__, config, size


def run_all(number: int, folder: Path) -> None:
    """Run all checks on this rank. Each that has passed leaves a file."""
    buckets.FULL = FULL
    groups = {size: ranks_of_first(size, number) for size in SIZES}
    for check, config, size in cases():
        if number < size:
            print(check, config, size, flush=True)
            globals()[check](config, groups[size])
            (folder / f"{check} {config} {size} {number}").touch()
