"""Records as columns: gaps, parts of objects, and values that are not numbers."""

import math
from typing import Any

from cram.reporting.reading.columns import PART, tabulate


def columns_of(records: list[dict[str, Any]]) -> dict[str, list[float | None]]:
    """Columns with None for NaN, which is not equal to itself."""
    columns = tabulate(records)
    return {name: [None if math.isnan(value) else value for value in values] for name, values in columns.items()}


def test_numbers_and_gaps() -> None:
    records = [{"a": 1, "b": None}, {"a": 2.5}, {"c": 3}]
    assert columns_of(records) == {"a": [1.0, 2.5, None], "c": [None, None, 3.0]}


def test_objects_have_a_column_a_part() -> None:
    records = [{"lr": 0.1}, {"lr": {"matrices": 0.2}}, {"lr": {"gains": 0.3, "name": "x"}}]
    assert columns_of(records) == {
        "lr": [0.1, None, None],
        "lr/matrices": [None, 0.2, None],
        "lr/gains": [None, None, 0.3],
    }


def test_what_is_not_a_number_is_a_gap() -> None:
    assert columns_of([{"a": 1}, {"a": "x"}, {"a": True}, {"a": [2]}]) == {"a": [1.0, None, None, None]}
    assert columns_of([{"kind": "train"}]) == {}
    assert columns_of([]) == {}


def test_records_are_whole_where_parts_of_them_meet() -> None:
    records = [{"a": number} for number in range(PART + 1)] + [{"b": 0}]
    assert columns_of(records)["a"] == [*map(float, range(PART + 1)), None]
