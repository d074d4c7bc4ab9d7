"""Which documents are held out: decided by a hash of the text, so that it is the same everywhere."""

from hashlib import sha256

import numpy as np
import numpy.typing as npt

from cram.data.text.document import byte_size

# What is stored of the held-out texts: about two million tokens to evaluate on, in a file of some megabytes.
MOST_STORED, MOST_BYTES = 4000, 16_000_000


LEAST_DOCUMENTS, LEAST_BYTES = 100, 100_000  # the standard error of 100 documents is a tenth of their spread


def too_few(documents: int, bytes: int) -> str | None:
    """What to say of held-out text that is too little to measure by; None where there is enough."""
    if documents >= LEAST_DOCUMENTS and bytes >= LEAST_BYTES:
        return None
    return (
        f"{documents:,} held-out document(s) of {bytes:,} bytes are too little to measure by, another choice of them "
        f"gives another loss; raise data.held_out or give more text: {LEAST_DOCUMENTS} and {LEAST_BYTES:,} bytes "
        "at least"
    )


def text_hash(text: str) -> int:
    """The first 64 bits of a text's sha256, as a number."""
    return int.from_bytes(sha256(text.encode()).digest()[:8])


def held_out_limit(share: float) -> int:
    """Texts whose `text_hash` lies below it are held out."""
    return int(share * 2**64)


def held_out_mask(hashes: npt.NDArray[np.uint64], share: float) -> npt.NDArray[np.bool_]:
    """Which of some texts are held out, by their hashes: bool [n].

    Those below `held_out_limit`; where there is none, those with the lowest hash of all, so that two different
    texts suffice. Equal texts go together.
    """
    chosen = hashes < np.uint64(held_out_limit(share))
    return chosen if chosen.any() or not len(hashes) else hashes == hashes.min()


def lowest(texts: dict[int, str]) -> dict[int, str]:
    """Of texts by their hashes those that are stored, the lowest hashes first: the same whatever is added when."""
    chosen: dict[int, str] = {}
    bytes = 0
    for number, text in sorted(texts.items())[:MOST_STORED]:
        if bytes >= MOST_BYTES:
            break
        chosen[number] = text
        bytes += byte_size(text)
    return chosen
