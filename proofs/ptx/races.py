"""Races: accesses to the same bytes, one of them a write, between which nothing sets an order.

Barriers order the accesses of the threads of a CTA, or of a warp. Without one nothing orders the threads of a warp
either, because hardware may let them go apart. Nothing orders two CTAs within a launch. Several threads may write the
same value, as compilers let threads do that hold copies of one element.
"""

from dataclasses import dataclass, fields

import numpy as np

from proofs.ptx.lanes import WARP
from proofs.ptx.memory import Access, Region
from proofs.ptx.values import UNSIGNED, Array


@dataclass(frozen=True)
class Race:
    """Two accesses without an order: the region, a byte that both touch, and the lines of the text."""

    region: str
    byte: int
    lines: tuple[int, ...]


MOST_UNIT = 8  # bytes that are compared at once


@dataclass(frozen=True)
class _Touches:
    """Every touch of every unit of a region, one entry each."""

    units: Array
    threads: Array
    epochs: Array
    warp_epochs: Array
    lines: Array
    writes: Array
    values: Array  # 0 for reads

    def __getitem__(self, which: Array) -> "_Touches":
        return _Touches(*(getattr(self, column.name)[which] for column in fields(self)))


def _list_touches(accesses: list[Access], unit: int) -> _Touches:
    columns: list[list[Array]] = [[] for _ in fields(_Touches)]
    for access in accesses:
        pieces = access.size // unit
        count = len(access.offsets) * pieces
        columns[0].append((access.offsets[:, None] // unit + np.arange(pieces)).reshape(-1))
        for place, column in enumerate((access.threads, *access.epochs), 1):
            columns[place].append(column.repeat(pieces))
        columns[4].append(np.full(count, access.line))
        columns[5].append(np.full(count, access.written is not None))
        values = np.zeros(count, UNSIGNED[8 * unit])
        if access.written is not None:
            values = np.ascontiguousarray(access.written).view(UNSIGNED[8 * unit]).reshape(-1)
        columns[6].append(values)
    return _Touches(*(np.concatenate(column) for column in columns))


def _find_conflict(keys: tuple[Array, ...], actors: Array, touches: _Touches) -> Array:
    """Return the touches of a group of equal keys that needs an order: empty where there is none.

    Several actors take part in it, one of them writes, and not all write the same.
    """
    order = np.lexsort(keys)
    changes = np.zeros(len(order), bool)
    changes[:1] = True
    for key in keys:
        changes[1:] |= key[order][1:] != key[order][:-1]
    starts = np.flatnonzero(changes)

    def differ(column: Array) -> Array:
        least, most = (extreme.reduceat(column[order], starts) for extreme in (np.minimum, np.maximum))
        return np.asarray(least != most)

    some_write = np.logical_or.reduceat(touches.writes[order], starts)
    conflict = differ(actors) & some_write & (differ(touches.writes) | differ(touches.values))
    if not conflict.any():
        return order[:0]
    first = int(conflict.argmax())
    end = starts[first + 1] if first + 1 < len(starts) else len(order)
    return order[starts[first] : end]


def find_race(region: Region, threads: int, is_shared: bool) -> Race | None:
    """Return a race in a region after a launch, or None.

    Args:
        region: with the accesses of the whole launch.
        threads: of a CTA.
        is_shared: whether each CTA has a part of its own, so that only threads of one CTA can meet.
    """
    if all(access.written is None for access in region.accesses):
        return None
    unit = min(MOST_UNIT, *(access.size for access in region.accesses))
    touches = _list_touches(region.accesses, unit)
    # Where nothing is written there is no race, and most of what is read is not written.
    touches = touches[np.isin(touches.units, np.unique(touches.units[touches.writes]))]
    found = touches.units[:0]
    ctas = touches.threads // threads
    if not is_shared:
        found = _find_conflict((touches.units,), ctas, touches)
    if not len(found):  # warps of a CTA
        found = _find_conflict((touches.epochs, ctas, touches.units), touches.threads // WARP, touches)
    if not len(found):  # threads of a warp
        keys = (touches.warp_epochs, touches.epochs, touches.threads // WARP, touches.units)
        found = _find_conflict(keys, touches.threads, touches)
    if not len(found):
        return None
    lines = tuple(sorted({int(line) for line in touches.lines[found]}))
    return Race(region.name, int(touches.units[found[0]]) * unit, lines)
