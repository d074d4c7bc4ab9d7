"""Fewer points for a chart, without losing the highest and the lowest ones."""

from collections.abc import Sequence

from cram.reporting.page.blocks import Number

MOST_POINTS = 2000  # of a series, twice the pixels of a wide chart


def thin(y: Sequence[Number], most: int = MOST_POINTS) -> list[int]:
    """Choose the points of a series that are drawn.

    Args:
        y: heights, in the order of their places; None for a gap.
        most: how many points are left at most, at least 4.

    Returns:
        Their indices, ascending: the first and the last point, and the lowest and the highest of each stretch of equal
        length. All of them where there are few enough.
    """
    count = len(y)
    if count <= most:
        return list(range(count))
    kept = {0, count - 1}
    stretches = max(1, (most - 2) // 2)
    for stretch in range(stretches):
        begin, end = stretch * count // stretches, (stretch + 1) * count // stretches
        finite = [index for index in range(begin, end) if y[index] is not None]
        if finite:
            kept |= {min(finite, key=y.__getitem__), max(finite, key=y.__getitem__)}  # type: ignore[arg-type]
        elif begin < end:
            kept.add(begin)
    return sorted(kept)
