"""What the ranks of `test_sharding` do: the same updates by one rank and by several, whose weights they compare.

Gradients are eighths, so that their sums do not depend on the order in which they are added.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from cram.build import build_optimizer
from cram.config.optimizer import EmaNesterovConfig, MuonConfig, OptimizerConfig
from cram.distributed.ranks import ALONE, Ranks
from cram.model.layers import FusedLinear
from cram.training.protocols import OptimizerProtocol
from tests.cram.distributed.forked_ranks import ranks_of_first

SIZES = (2, 3, 4)
STEPS = 3
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
    """A gradient of eighths; the highest block has none in some micro-batches, and the scale none in some updates."""
    generator = torch.Generator().manual_seed(sum(map(ord, name)) * 1000 + step * 50 + micro)
    return torch.randint(-8, 9, shape, generator=generator) / 8


def has_gradient(name: str, step: int, micro: int) -> bool:
    """Whether a micro-batch gives a parameter a gradient."""
    if name == "scale":
        return step != 1
    return not (name.startswith("blocks.2.") and micro % 4 != 1)


def backward(model: nn.Module, step: int, micro: int) -> None:
    """Do the backward pass of a micro-batch."""
    parts = [
        (parameter * gradient(name, parameter.shape, step, micro)).sum()
        for name, parameter in model.named_parameters()
        if has_gradient(name, step, micro)
    ]
    torch.stack(parts).sum().backward()


def accumulate(model: nn.Module, optimizer: OptimizerProtocol, step: int, ranks: Ranks, idle: int = -1) -> None:
    """Compute this rank's gradients of an update. The rank `idle` leaves its share to rank 0."""
    mine = [micro for micro in range(MICRO_BATCHES) if _worker(micro, ranks, idle) == ranks.rank]
    for micro in mine[:-1]:
        backward(model, step, micro)
    for micro in mine[-1:]:
        with optimizer.overlap():
            backward(model, step, micro)


def _worker(micro: int, ranks: Ranks, idle: int) -> int:
    rank = micro % ranks.size
    return 0 if rank == idle else rank


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


def train(config: OptimizerConfig, ranks: Ranks, steps: int = STEPS) -> tuple[Model, OptimizerProtocol]:
    """Train a new model."""
    model = Model()
    optimizer = build_optimizer(model, config, ranks)
    for step in range(steps):
        update(model, optimizer, step, ranks, idle=1 if step == 1 else -1)
    return model, optimizer


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


def check_weights_and_state(config: OptimizerConfig, ranks: Ranks) -> None:
    """Several updates, after which the weights and the whole state are those of one rank."""
    (model, optimizer), (expected, of_one) = train(config, ranks), train(config, ALONE)
    assert_equal(model, expected)
    assert_equal_state(optimizer, of_one, ranks)
    assert optimizer.lr() == of_one.lr()
    assert optimizer.scheduled(0.3) == of_one.scheduled(0.3)
    assert optimizer.values(0.3) == of_one.values(0.3)


SCENARIOS: dict[str, tuple[Callable[..., None], list[str]]] = {
    "weights_and_state": (check_weights_and_state, list(CONFIGS)),
}


def cases() -> Iterator[tuple[str, str, int]]:
    """All scenarios, configs and numbers of ranks."""
    for scenario, (_, configs) in SCENARIOS.items():
        for config in configs:
            for size in SIZES:
                yield scenario, config, size


def run_all(number: int, folder: Path) -> None:
    """Run all scenarios on this rank. Each that has passed leaves a file."""
    groups = {size: ranks_of_first(size, number) for size in SIZES}
    for scenario, config, size in cases():
        ranks = groups[size]
        if number < size:
            SCENARIOS[scenario][0](CONFIGS[config], ranks)
            (folder / f"{scenario} {config} {size} {number}").touch()
