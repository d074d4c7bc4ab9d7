"""Functions that all ranks carry out together when rank 0 calls them."""

from collections.abc import Callable
from functools import wraps
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

from cram.distributed.ranks import Ranks

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")
END = "end"  # the order after which a rank has nothing more to do

_FUNCTIONS: dict[str, Callable[..., Any]] = {}


class Ordering(Protocol):
    """What the first argument of such a function has."""

    @property
    def ranks(self) -> Ranks:
        """All ranks of the run."""
        ...

    def facts(self) -> dict[str, Any]:
        """Give what has to be equal on all ranks before they do anything, as JSON."""
        ...

    def learn(self, facts: dict[str, Any]) -> None:
        """Take over the facts of rank 0."""
        ...


Run = TypeVar("Run", bound=Ordering)


def on_all_ranks(
    state: str,
) -> Callable[[Callable[Concatenate[Run, Arguments], Result]], Callable[Concatenate[Run, Arguments], Result]]:
    """Let all ranks carry out a function of a run when rank 0 calls it.

    Arguments behind the first are JSON values, given by position. A keyword argument stays on the rank that calls, so
    that rank 0 can hand over what only rank 0 has; the other ranks see its default. A call inside of such a function is
    an ordinary call.

    Args:
        state: what a rank does meanwhile, one of `cram.distributed.watch.LIMITS`.
    """

    def decorate(
        function: Callable[Concatenate[Run, Arguments], Result],
    ) -> Callable[Concatenate[Run, Arguments], Result]:
        name = f"{function.__module__}.{function.__qualname__}"

        @wraps(function)
        def call(run: Run, /, *arguments: Arguments.args, **local: Arguments.kwargs) -> Result:
            with run.ranks.order(name, arguments, run.facts()), run.ranks.doing(state):
                return function(run, *arguments, **local)

        _FUNCTIONS[name] = call
        return call

    return decorate


def follow(run: Ordering) -> Any:
    """Carry out the orders of rank 0 until there is none left. Only other ranks call this.

    Returns:
        What rank 0 gives to `end_orders`.
    """
    while (order := run.ranks.receive())["do"] != END:
        run.learn(order["facts"])
        with run.ranks.inside():
            _FUNCTIONS[order["do"]](run, *order["arguments"])
    run.ranks.wait()
    return order["arguments"][0]


def end_orders(ranks: Ranks, result: Any) -> None:
    """Tell the other ranks that there is nothing more to do, unless an order has failed, which has ended them too.

    Args:
        result: a JSON value for all ranks.
    """
    if not ranks.failed:
        with ranks.order(END, (result,), {}):
            ranks.wait()  # a process that ends earlier would break the exchange of the others
