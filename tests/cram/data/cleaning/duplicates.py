"""What the tests of duplicates share."""

from typing import Any

import numpy as np

from cram.data.cleaning.dedupe import HASHES, SHINGLE, Duplicates, find_duplicates, sign_texts
from proofs.columns import make_words


def sign(texts: list[list[str]]) -> tuple[np.ndarray, np.ndarray]:
    exact, minhash = sign_texts(make_words(texts))
    assert minhash is not None
    return exact, minhash


def jaccard(a: list[str], b: list[str]) -> float:
    """Of the sets of 5-word shingles, from the words themselves."""
    x, y = ({tuple(words[i : i + SHINGLE]) for i in range(max(1, len(words) - SHINGLE + 1))} for words in (a, b))
    return len(x & y) / len(x | y)


def find(
    exact: np.ndarray | None = None,
    minhash: np.ndarray | None = None,
    held_out: tuple[int, ...] = (),
    without: tuple[int, ...] = (),
    threshold: float | None = 0.8,
) -> Duplicates:
    n = len(exact if exact is not None else minhash)  # type: ignore[arg-type]
    numbers = np.arange(n)
    return find_duplicates(
        None if exact is None else [exact],
        None if minhash is None else [minhash],
        held_out=np.isin(numbers, held_out),
        candidates=~np.isin(numbers, without),
        threshold=threshold,
    )


def dropped(found: Duplicates) -> dict[str, list[int]]:
    return {name: np.flatnonzero(getattr(found, name)).tolist() for name in ("exact", "near", "near_held_out")}


def drops(exact: Any = (), near: Any = (), near_held_out: Any = ()) -> dict[str, list[int]]:
    return {"exact": list(exact), "near": list(near), "near_held_out": list(near_held_out)}


def unlike(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 2**32, (n, HASHES), dtype=np.uint32)
