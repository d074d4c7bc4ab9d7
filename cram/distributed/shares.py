"""Which rows of an update each rank computes: a pure function of their number, the micro-batch, and the rank."""

import numpy as np
import numpy.typing as npt

from cram.errors import CramError


def places_of(rows: int, micro_rows: int, rank: int, size: int) -> npt.NDArray[np.int64]:
    """Return the places, within an update, of the rows that a rank computes.

    Each micro-batch of all ranks together, which one rank alone would compute at once, is shared out in parts of
    `micro_rows` rows. Every place belongs to exactly one rank.

    Args:
        rows: of the update. micro_rows: of a micro-batch of one rank. rank: of `size` ranks.
    """
    places = np.arange(rows, dtype=np.int64)
    own: npt.NDArray[np.int64] = places[places // micro_rows % size == rank]
    return own


def places_of_parts(rows: int, parts: int, micro_rows: int, rank: int, size: int) -> npt.NDArray[np.int64]:
    """Return the places of a rank's rows of the data, where each row of the model is made of several of them.

    Args:
        rows: of the data. parts: rows of the data in a row of the model; the last one may have fewer.
        micro_rows: rows of the model in a micro-batch of one rank. rank: of `size` ranks.
    """
    of_model = places_of(-(-rows // parts), micro_rows, rank, size)
    places = (of_model[:, None] * parts + np.arange(parts, dtype=np.int64)).ravel()
    return places[places < rows]


def check_shares(tokens: int, seq_len: int, size: int, key: str) -> None:
    """Check that the rows of an update can be shared out evenly.

    Args:
        tokens: of an update. seq_len: of a row. size: number of ranks. key: that the tokens were given by.

    Raises:
        CramError: the number of ranks does not divide the number of rows.
    """
    rows = max(1, round(tokens / seq_len))
    if rows % size:
        fitting = [number for number in range(size, 0, -1) if not rows % number]
        raise CramError(
            f"{key}={tokens}: {size} ranks cannot share the {rows} rows of {seq_len} tokens evenly. "
            f"Use {key}={-(-rows // size) * size * seq_len}, or --nproc-per-node={fitting[0]}."
        )
