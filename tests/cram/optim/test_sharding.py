"""Several ranks update a model as one rank does."""

from pathlib import Path

import pytest
import torch

from cram.build import build_optimizer
from cram.config.model import ModelConfig
from cram.config.optimizer import OptimizerConfig
from cram.model.kinds import new_model
from cram.optim.sharding import ShardedOptimizer
from tests.cram.distributed.forked_ranks import run_forked
from tests.cram.optim.recorded_ranks import RecordedRanks
from tests.cram.optim.sharded_runs import SIZES, cases, run_all


@pytest.fixture(scope="module")
def passed(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """What each rank has passed."""
    folder: Path = tmp_path_factory.mktemp("ranks")
    run_forked(run_all, max(SIZES), folder)
    return {path.name for path in folder.iterdir()}


@pytest.mark.parametrize(("check", "config", "size"), list(cases()))
def test_several_ranks_are_as_one(check: str, config: str, size: int, passed: set[str]) -> None:
    assert {f"{check} {config} {size} {rank}" for rank in range(size)} <= passed


@pytest.mark.parametrize("kind", ["adamw", "muon"])
@pytest.mark.parametrize("size", [2, 4])
def test_a_rank_holds_its_share_of_the_state_and_as_much_for_exchange_as_for_gradients(kind: str, size: int) -> None:
    with torch.device("meta"):
        model = new_model(ModelConfig(layers=4, width=256, heads=4, mlp_width=384), 8192)
    config = OptimizerConfig(kind=kind)
    whole = sum(tensor.nbytes for tensor in build_optimizer(model, config).expected_state().values())
    weights = sum(parameter.nbytes for parameter in model.parameters())
    held = []
    for rank in range(size):
        ranks = RecordedRanks(rank, size)
        optimizer = build_optimizer(model, config, ranks)
        assert isinstance(optimizer, ShardedOptimizer)
        optimizer.collect()
        assert (
            sum(flat.nbytes for flat in ranks.reduced) <= 1.05 * weights
        )  # a matrix that is left over is padded for the other ranks
        held.append(sum(tensor.nbytes for tensor in optimizer.rule.expected_state().values()))
    assert max(held) <= 1.05 * whole / size
    assert sum(held) <= 1.001 * whole  # AdamW counts the updates of each piece
