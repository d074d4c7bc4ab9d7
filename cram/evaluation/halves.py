"""The two halves of the held-out documents.

Learning rates and methods are chosen by the tuning half, so its loss flatters what was chosen. What was chosen is then
compared by the judging half, which no choice has seen. The hash of its text decides which half a document belongs to,
so the halves are the same in every preparation, and equal texts are in the same half.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

TUNING, JUDGING = HALVES = ("tuning", "judging")


def halves_of(hashes: Sequence[str]) -> npt.NDArray[np.uint8]:
    """Return which half each document belongs to, as an index of HALVES: uint8 [n].

    Args:
        hashes: the sha256 of each text, in hex. Its last bit decides; the first bits decide what is held out.
    """
    return np.array([int(text_hash[-1], 16) & 1 for text_hash in hashes], np.uint8)
