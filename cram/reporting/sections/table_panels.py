"""Which arms of a table are compared with each other: those of one column and one of the budgets of each arm."""

from collections.abc import Sequence
from typing import Protocol, TypeVar

from cram.budget import Budget
from cram.errors import CramError


class Placed(Protocol):
    """What has a place in a table: the figures of an arm, or a run of it."""

    @property
    def arm(self) -> str:
        """The name of the arm."""
        ...

    @property
    def column(self) -> str:
        """The column of the table; empty where it has none."""
        ...

    @property
    def budget(self) -> str:
        """The budget, as in a recipe."""
        ...


Item = TypeVar("Item", bound=Placed)


def group_by_panel(items: Sequence[Item], baseline: str) -> list[tuple[str, list[Item]]]:
    """Group items by column, and where arms have several budgets by these, the least first.

    An arm may have a share of the budget only, so that budgets are told apart by their place among those of the arm.

    Args:
        items: of a table.
        baseline: the arm whose budget names a group.

    Returns:
        A title, which is empty where there is one column and one budget of each arm, and the items, for each group.
    """
    budgets: dict[tuple[str, str], set[str]] = {}
    for item in items:
        budgets.setdefault((item.arm, item.column), set()).add(item.budget)
    groups: dict[tuple[int, str], list[Item]] = {}
    for item in items:
        place = sorted(budgets[item.arm, item.column], key=budget_limit).index(item.budget)
        groups.setdefault((place, item.column), []).append(item)
    several = any(place for place, _ in groups)
    named = []
    for (_, column), members in sorted(groups.items(), key=lambda group: group[0][0]):
        budget = next((item.budget for item in members if item.arm == baseline), members[0].budget)
        parts = (column, f"budget of {budget}" if several else "")
        named.append((", ".join(part for part in parts if part), members))
    return named


def budget_limit(budget: str) -> float:
    """The size of a budget in its own unit; budgets of an unknown form count as equal."""
    try:
        return Budget.parse(budget).limit
    except CramError:
        return 0.0


def is_of_time(budget: str) -> bool:
    """Whether a budget is one of time."""
    try:
        return Budget.parse(budget).clock in ("wall", "rst")
    except CramError:
        return True
