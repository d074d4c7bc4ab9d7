"""What becomes of a document."""

from enum import IntEnum

import numpy as np
import numpy.typing as npt

from cram.data.cleaning.filters import REASONS

FateArray = npt.NDArray[np.uint8]


class Fate(IntEnum):
    """What becomes of a document: it is kept, held out, or dropped for a reason.

    The members for filters come from the table of filters: a new filter needs no line here. The values are stored as
    uint8, one for each document, in the files of a preparation that may be continued.
    """

    KEPT = 0
    HELD_OUT = 1
    EMPTY = 2
    BROKEN = 3
    # In the body of a class, `locals()` is the namespace that the members are made of.
    locals().update({reason.upper(): value for value, reason in enumerate(REASONS, start=4)})
    DECONTAMINATE = len(REASONS) + 4
    EXACT = len(REASONS) + 5
    NEAR = len(REASONS) + 6
    NEAR_HELD_OUT = len(REASONS) + 7
    IDS_HELD_OUT = len(REASONS) + 8
    WINDOW_HELD_OUT = len(REASONS) + 9

    @property
    def is_kept(self) -> bool:
        """Whether the document is trained on."""
        return self is Fate.KEPT

    @property
    def is_dropped(self) -> bool:
        """Whether the document is neither trained on nor held out."""
        return self not in (Fate.KEPT, Fate.HELD_OUT)

    @property
    def reason(self) -> str:
        """The fate's name in manifests, statistics and reports; for a filter, the key that sets it."""
        return self.name.lower()

    @classmethod
    def of(cls, reason: str) -> "Fate":
        """Return the fate with this name."""
        return cls[reason.upper()]


def find_dropped(fates: FateArray) -> npt.NDArray[np.bool_]:
    """Return which fates are reasons for dropping a document: bool, of the shape of `fates`."""
    return np.array([fate.is_dropped for fate in Fate])[fates]
