"""Arms are compared with those of the same column and of the same place among their budgets."""

from cram.reporting.reading.tables import ArmFigures
from cram.reporting.sections.table_panels import group_by_panel, is_of_time


def arms(*places: tuple[str, str, str]) -> list[ArmFigures]:
    return [ArmFigures(arm, column, budget, {0: 5.0}) for arm, column, budget in places]


def named(groups: list[tuple[str, list[ArmFigures]]]) -> list[tuple[str, list[str]]]:
    return [(title, [f"{arm.arm} {arm.budget}" for arm in members]) for title, members in groups]


def test_budgets_are_ordered_by_their_size_and_a_share_of_one_is_compared_with_the_whole() -> None:
    items = arms(("a", "", "10m"), ("a", "", "90s"), ("half", "", "5m"), ("half", "", "45s"))
    assert named(group_by_panel(items, "a")) == [
        ("budget of 90s", ["a 90s", "half 45s"]),
        ("budget of 10m", ["a 10m", "half 5m"]),
    ]


def test_one_budget_and_no_column_have_no_title() -> None:
    items = arms(("a", "", "10m"), ("half", "", "5m"))
    assert named(group_by_panel(items, "a")) == [("", ["a 10m", "half 5m"])]


def test_columns_stand_apart() -> None:
    items = arms(("a", "wall", "10m"), ("a", "rst", "rst:10m"), ("b", "wall", "10m"))
    assert named(group_by_panel(items, "a")) == [("wall", ["a 10m", "b 10m"]), ("rst", ["a rst:10m"])]


def test_budgets_of_an_unknown_form_are_of_time() -> None:
    assert [is_of_time(budget) for budget in ("10m", "rst:1h", "9steps", "1e6tokens", "soon")] == [
        True,
        True,
        False,
        False,
        True,
    ]
