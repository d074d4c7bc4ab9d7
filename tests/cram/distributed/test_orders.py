"""Functions that all ranks carry out when rank 0 calls them."""

from collections.abc import Sequence
from typing import Any

import pytest

from cram.distributed import orders
from cram.distributed.launch import Launch
from cram.distributed.orders import end_orders, follow, on_all_ranks
from cram.distributed.ranks import Ranks


class FakeRanks(Ranks):
    """One of two ranks; what rank 0 spreads is kept in a list, from which the other one takes it."""

    def __init__(self, rank: int, messages: list[Any]) -> None:
        super().__init__(Launch(rank, 2, rank, 2))
        self._messages = messages

    def spread(self, message: Any) -> Any:
        if self.leads:
            self._messages.append(message)
            return message
        return self._messages.pop(0)

    def wait(self) -> None:
        pass


class FakeRun:
    """Writes down what is carried out, and with which facts."""

    def __init__(self, ranks: Ranks, facts: Sequence[int] = ()) -> None:
        self.ranks = ranks
        self.done: list[Any] = []
        self.known = list(facts)

    def facts(self) -> dict[str, Any]:
        return {"known": list(self.known)}

    def learn(self, facts: dict[str, Any]) -> None:
        self.known = facts["known"]


@on_all_ranks("updating")
def outer(run: FakeRun, number: int, *, local: str = "default") -> int:
    run.done.append(("outer", number, local, list(run.known), run.ranks.state[0]))
    return number + inner(run, number)


@on_all_ranks("saving")
def inner(run: FakeRun, number: int) -> int:
    run.done.append(("inner", number, run.ranks.state[0]))
    if number < 0:
        raise ZeroDivisionError
    return number


@pytest.fixture
def pair() -> tuple[FakeRun, FakeRun]:
    messages: list[Any] = []
    return FakeRun(FakeRanks(0, messages), [7]), FakeRun(FakeRanks(1, messages))


def test_the_others_do_what_rank_0_has_done(pair: tuple[FakeRun, FakeRun]) -> None:
    leader, follower = pair
    assert outer(leader, 3, local="of rank 0") == 6
    leader.known.append(8)
    inner(leader, 4)
    end_orders(leader.ranks, {"result": 1})
    assert follow(follower) == {"result": 1}
    others = [entry if entry[0] == "inner" else (*entry[:2], "default", *entry[3:]) for entry in leader.done]
    assert follower.done == others
    assert follower.done[0] == ("outer", 3, "default", [7], "updating")
    assert follower.done[1:] == [("inner", 3, "saving"), ("inner", 4, "saving")]
    assert follower.known == [7, 8]


def test_a_call_inside_of_an_order_is_no_other_order(pair: tuple[FakeRun, FakeRun]) -> None:
    leader, _ = pair
    outer(leader, 3)
    names = [message["do"].rpartition(".")[2] for message in leader.ranks._messages]  # type: ignore[attr-defined]
    assert names == ["outer"]


def test_after_an_order_that_failed_no_end_is_sent(pair: tuple[FakeRun, FakeRun]) -> None:
    leader, follower = pair
    with pytest.raises(ZeroDivisionError):
        inner(leader, -1)
    end_orders(leader.ranks, None)
    with pytest.raises(ZeroDivisionError):
        follow(follower)
    assert follower.ranks.failed


def test_a_process_that_is_alone_sends_nothing() -> None:
    run = FakeRun(Ranks())
    assert outer(run, 2) == 4
    end_orders(run.ranks, None)
    assert [entry[0] for entry in run.done] == ["outer", "inner"]


def test_names_of_orders_are_those_of_their_functions() -> None:
    assert orders._FUNCTIONS[f"{__name__}.outer"] is outer
