"""Records of a run as columns: an array of numbers for each value, quick for a hundred thousand records."""

from collections.abc import Sequence
from contextlib import suppress
from itertools import chain
from operator import itemgetter
from typing import Any

import numpy as np
import numpy.typing as npt

Column = npt.NDArray[np.float64]
PART = 1000  # records
_NUMBERS = {int, float, type(None)}


def tabulate(records: Sequence[dict[str, Any]]) -> dict[str, Column]:
    """Turn records into columns.

    Args:
        records: JSON objects. They may have different values.

    Returns:
        For each value by name as many numbers as there are records, NaN where a record does not have it or it is not a
        number. A value that is an object gives a column for each of its parts, named `lr/matrices`. Values that are
        never a number are left out, and those with one that is too large.
    """
    columns: dict[str, Column] = {}
    for name, values in _collect(records, _names(records)).items():
        types = set(map(type, values))
        if dict in types:
            objects = [value if type(value) is dict else {} for value in values]
            for part, parts in _collect(objects, _names(objects)).items():
                _add_numbers(columns, f"{name}/{part}", parts, set(map(type, parts)))
        _add_numbers(columns, name, values, types)
    return columns


def _names(records: Sequence[dict[str, Any]]) -> list[str]:
    return list(dict.fromkeys(chain.from_iterable(records)))


def _collect(records: Sequence[dict[str, Any]], names: Sequence[str]) -> dict[str, list[Any]]:
    """The values of each record by name; None where one is missing.

    Records are taken in parts that fit into the cache of a processor, which halves the time.
    """
    values: dict[str, list[Any]] = {name: [] for name in names}
    for begin in range(0, len(records), PART):
        part = records[begin : begin + PART]
        for name, collected in values.items():
            try:
                collected += list(map(itemgetter(name), part))
            except KeyError:
                collected += [record.get(name) for record in part]
    return values


def _add_numbers(columns: dict[str, Column], name: str, values: list[Any], types: set[type]) -> None:
    """Add a column unless it has no number."""
    if types & {int, float}:
        clean = values if types <= _NUMBERS else [value if type(value) in _NUMBERS else None for value in values]
        with suppress(OverflowError):  # a whole number beyond 1e308, which no run writes
            columns[name] = np.array(clean, np.float64)
