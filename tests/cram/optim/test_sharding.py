"""Several ranks update a model as one rank does."""

from pathlib import Path

import pytest

from tests.cram.distributed.forked_ranks import run_forked
from tests.cram.optim.sharded_runs import SIZES, cases, run_all


@pytest.fixture(scope="module")
def passed(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """What each rank has passed."""
    folder: Path = tmp_path_factory.mktemp("ranks")
    run_forked(run_all, max(SIZES), folder)
    return {path.name for path in folder.iterdir()}


@pytest.mark.parametrize(("scenario", "config", "size"), list(cases()))
def test_several_ranks_are_as_one(scenario: str, config: str, size: int, passed: set[str]) -> None:
    assert {f"{scenario} {config} {size} {rank}" for rank in range(size)} <= passed
