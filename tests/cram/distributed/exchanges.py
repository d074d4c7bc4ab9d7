"""What three ranks exchange in `test_ranks`; each check is done by all of them."""

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from unittest.mock import patch

import torch

from cram.distributed.ranks import PACKET, Ranks
from tests.cram.distributed.forked_ranks import ranks_of_first

SIZE = 3


def spread_gives_the_message_of_rank_0(ranks: Ranks) -> None:
    """Messages that fill one exchange, nearly or exactly, and longer ones."""
    room = PACKET - 8 - 2  # a text in JSON has two quotation marks
    for length in (0, room - 1, room, room + 1, 3 * PACKET):
        message = "x" * length if ranks.leads else f"of rank {ranks.rank}"
        assert ranks.spread(message) == "x" * length
    assert ranks.spread({"do": ["ä", 1.5, None]}) == {"do": ["ä", 1.5, None]}


def gather_keeps_the_order_of_the_ranks(ranks: Ranks) -> None:
    """Messages of unequal length, one of them empty."""
    assert ranks.gather("é" * ranks.rank) == ["", "é", "éé"]
    assert ranks.gather({"rank": ranks.rank}) == [{"rank": 0}, {"rank": 1}, {"rank": 2}]


def sums_and_largest_values_are_of_all_ranks(ranks: Ranks) -> None:
    """Values on the host, of the dtypes that are used."""
    for dtype in (torch.uint8, torch.int64, torch.float32, torch.float64):
        values = torch.tensor([ranks.rank, 2 - ranks.rank, 1], dtype=dtype)
        assert ranks.sum(values.clone()).tolist() == [3, 3, 3]
        assert ranks.largest(values).tolist() == [2, 2, 1]
    assert not ranks.waited  # outside of an update waiting loses nothing
    with ranks.doing("updating"):
        ranks.wait()
    assert ranks.waited > 0


def broadcast_gives_the_values_of_one_rank(ranks: Ranks) -> None:
    """From any rank, scalars too."""
    for source in range(SIZE):
        for shape in ((), (2, 3)):
            assert bool((ranks.broadcast(torch.full(shape, float(ranks.rank)), source) == source).all())


def spread_tensors_gives_those_of_rank_0(ranks: Ranks) -> None:
    """Dtypes of checkpoints, an empty tensor, a scalar, one that is not contiguous."""
    tensors = {
        "fp32": torch.arange(6.0).view(2, 3).mT,
        "bf16": torch.ones(3, dtype=torch.bfloat16),
        "bool": torch.tensor([True, False]),
        "int": torch.tensor(7),
        "nothing": torch.zeros(0, 4),
    }
    received = ranks.spread_tensors(tensors if ranks.leads else None)
    assert list(received) == list(tensors)
    assert all(torch.equal(received[name], tensor) for name, tensor in tensors.items())
    assert all(received[name].dtype == tensor.dtype for name, tensor in tensors.items())


def parts_are_added_up_and_come_back(ranks: Ranks) -> None:
    """Several exchanges at the same time; each rank has its own part of the sums, and gets those of the others."""
    flats = [torch.arange(6.0) + 10 * number * (ranks.rank + 1) for number in range(4)]
    pending = [work for flat in flats for work in ranks.reduce_scatter(flat)]
    ranks.finish(pending)
    sums = [3 * torch.arange(6.0) + 60 * number for number in range(4)]
    for flat, total in zip(flats, sums, strict=True):
        assert torch.equal(ranks.own(flat), total[2 * ranks.rank : 2 * ranks.rank + 2])
    ranks.finish([work for flat in flats for work in ranks.all_gather(flat)])
    assert all(torch.equal(flat, total) for flat, total in zip(flats, sums, strict=True))


def every_kind_of_exchange_is_tried(ranks: Ranks) -> None:
    """What a GPU needs memory for the first time."""
    kinds = ("reduce_scatter", "all_gather", "broadcast", "sum")
    with ExitStack() as patches:
        tried = [patches.enter_context(patch.object(ranks, kind, wraps=getattr(ranks, kind))) for kind in kinds]
        ranks.open_device_group()
    assert all(exchange.call_count == 1 for exchange in tried)


CHECKS: list[Callable[[Ranks], None]] = [
    spread_gives_the_message_of_rank_0,
    gather_keeps_the_order_of_the_ranks,
    sums_and_largest_values_are_of_all_ranks,
    broadcast_gives_the_values_of_one_rank,
    spread_tensors_gives_those_of_rank_0,
    parts_are_added_up_and_come_back,
    every_kind_of_exchange_is_tried,
]


def run_checks(number: int, folder: Path) -> None:
    """Do all checks on this rank; each that has passed leaves a file."""
    ranks = ranks_of_first(SIZE, number)
    for check in CHECKS:
        check(ranks)
        (folder / f"{check.__name__} {number}").touch()
