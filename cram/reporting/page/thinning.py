"""Fewer points for a chart, without losing the highest and the lowest ones."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from cram.reporting.page.blocks import Number

MOST_POINTS = 2000  # of a series, twice the pixels of a wide chart


def thin(y: Sequence[Number], most: int = MOST_POINTS) -> list[int]:
    """Choose the points of a series that are drawn.

    Args:
        y: heights, in the order of their places; None, or a number that is not finite, for a gap.
        most: how many points are left at most, at least 5.

    Returns:
        Their indices, ascending: the first and the last point, and of each stretch of equal length the lowest and the
        highest point and the first gap. All of them where there are few enough.
    """
    count = len(y)
    if count <= most:
        return list(range(count))
    heights = np.array(y, np.float64)  # None becomes NaN
    gaps = ~np.isfinite(heights)
    stretches = (most - 2) // (3 if gaps.any() else 2)
    borders = [stretch * count // stretches for stretch in range(stretches + 1)]
    low, high = np.where(gaps, np.inf, heights), np.where(gaps, -np.inf, heights)
    kept = {0, count - 1}
    for begin, end in pairwise(borders):
        if not gaps[begin:end].all():
            kept |= {begin + int(low[begin:end].argmin()), begin + int(high[begin:end].argmax())}
        if gaps[begin:end].any():
            kept.add(begin + int(gaps[begin:end].argmax()))
    return sorted(kept)
