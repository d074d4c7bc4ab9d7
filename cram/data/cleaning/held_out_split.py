"""The held-out rule: which documents are held out.

A document is held out if the hash of its text lies below the share `data.held_out`. If no hash does, the documents with
the lowest hash are held out, so that a corpus of two different texts is enough. Because the rule looks at the text
alone, it chooses the same documents in every preparation, and equal texts are held out together.
"""

from dataclasses import dataclass, field
from hashlib import sha256

import numpy as np
import numpy.typing as npt

from cram.data.text.document import byte_size

TextHashes = npt.NDArray[np.uint64]

# How many held-out texts are stored: about two million tokens to evaluate on, in a file of some megabytes.
MOST_STORED, MOST_BYTES = 4000, 16_000_000

LEAST_DOCUMENTS, LEAST_BYTES = 100, 100_000  # the standard error of 100 documents is a tenth of their spread


def hash_text(text: str) -> int:
    """Return the first 64 bits of a text's sha256 as a number."""
    return hash_content(text.encode())


def hash_content(content: bytes) -> int:
    """Return what `hash_text` does for a text that is given in UTF-8."""
    return int.from_bytes(sha256(content).digest()[:8])


def lies_below_share(hashes: TextHashes, share: float) -> npt.NDArray[np.bool_]:
    """Return which hashes lie below the share of all hashes: bool [n].

    These documents are held out wherever they occur. Only `choose_held_out` knows about the others.
    """
    return hashes < np.uint64(int(share * 2**64))


def choose_held_out(hashes: TextHashes, share: float) -> npt.NDArray[np.bool_]:
    """Apply the held-out rule to the hashes of all candidates: which ones are held out, bool [n]."""
    below = lies_below_share(hashes, share)
    return below if below.any() or not len(hashes) else hashes == hashes.min()


@dataclass
class HeldOutTexts:
    """The texts that may be held out, collected while documents are read; texts by their hashes.

    Attributes:
        below: texts that lie below the share. If there are many, those with the lowest hashes.
        lowest: of the other texts the one with the lowest hash, which is held out if there are none below the share.
    """

    below: dict[int, str] = field(default_factory=dict)
    lowest: dict[int, str] = field(default_factory=dict)

    def add(self, other: "HeldOutTexts") -> None:
        """Take in the texts of further documents."""
        self.below = choose_stored({**self.below, **other.below})
        self.lowest = dict(sorted({**self.lowest, **other.lowest}.items())[:1])

    def chosen(self) -> dict[int, str]:
        """Return the texts that the held-out rule chooses."""
        return self.below or self.lowest

    def stored(self) -> dict[str, str]:
        """Return the chosen texts by the sha256 of each in hex, ascending.

        A text in which C1 controls were replaced was chosen by the hash of the text as it was read, and is stored as
        training would have seen it. Two texts that have become equal are stored once.
        """
        return dict(sorted((sha256(text.encode()).hexdigest(), text) for text in self.chosen().values()))


def choose_stored(texts: dict[int, str]) -> dict[int, str]:
    """Return the texts with the lowest hashes, as many as are stored, in ascending order of their hashes.

    The result does not depend on the order in which texts were added.
    """
    stored: dict[int, str] = {}
    total = 0
    for text_hash, text in sorted(texts.items())[:MOST_STORED]:
        if total >= MOST_BYTES:
            break
        stored[text_hash] = text
        total += byte_size(text)
    return stored


def describe_shortage(documents: int, bytes: int) -> str | None:
    """Return a warning if the held-out text is too short to measure by, else None."""
    if documents >= LEAST_DOCUMENTS and bytes >= LEAST_BYTES:
        return None
    return (
        f"{documents:,} held-out document(s) of {bytes:,} bytes are too few to measure by: another choice of them "
        f"would give another loss. Raise data.held_out or give more text: at least {LEAST_DOCUMENTS} documents and "
        f"{LEAST_BYTES:,} bytes"
    )
