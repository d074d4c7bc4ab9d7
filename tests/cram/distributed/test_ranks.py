"""What ranks exchange, and that a process that is alone exchanges nothing."""

from pathlib import Path

import pytest
import torch

from cram.distributed.launch import Launch
from cram.distributed.ranks import Ranks
from tests.cram.distributed.exchanges import CHECKS, SIZE, run_checks
from tests.cram.distributed.forked_ranks import run_forked


@pytest.fixture(scope="module")
def passed(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """What each rank has passed."""
    folder: Path = tmp_path_factory.mktemp("ranks")
    run_forked(run_checks, SIZE, folder)
    return {path.name for path in folder.iterdir()}


@pytest.mark.parametrize("check", [check.__name__ for check in CHECKS])
def test_exchanges(check: str, passed: set[str]) -> None:
    assert {f"{check} {rank}" for rank in range(SIZE)} <= passed


def test_a_process_that_is_alone_keeps_its_values() -> None:
    ranks, values = Ranks(), torch.tensor([1.0, 2.0])
    assert (ranks.alone, ranks.leads, ranks.size) == (True, True, 1)
    assert ranks.spread({"a": 1}) == {"a": 1}
    assert ranks.gather("a") == ["a"]
    assert all(exchange(values) is values for exchange in (ranks.largest, ranks.sum, ranks.broadcast))
    assert ranks.spread_tensors({"values": values}) == {"values": values}
    ranks.wait()


def test_a_state_ends_with_its_block_whatever_happens() -> None:
    ranks = Ranks(Launch(1, 2, 1, 2))
    ranks.enter("updating")
    with pytest.raises(ZeroDivisionError), ranks.doing("saving"):
        assert ranks.state[0] == "saving"
        raise ZeroDivisionError
    assert ranks.state[0] == "updating"
