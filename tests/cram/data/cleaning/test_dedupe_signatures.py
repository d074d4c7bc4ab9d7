import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cram.data.cleaning.dedupe import HASHES, choose_bands, sign_texts
from proofs.columns import make_words
from tests.cram.data.cleaning.duplicates import find, jaccard, sign

ROOT = Path(__file__).parents[4]
WORDS = [f"w{number}" for number in range(5000)]


def near_twins(count: int, most_changed: int, seed: int) -> tuple[list[list[str]], np.ndarray]:
    """Pairs of texts, one after the other, of which a few words differ; and the similarity of each pair."""
    source = random.Random(seed)
    texts, similarities = [], []
    for number in range(count):
        text = source.choices(WORDS, k=source.randrange(100, 400))
        twin = list(text)
        for place in source.sample(range(len(text)), number * most_changed * len(text) // (400 * count)):
            twin[place] = source.choice(WORDS)
        texts += [text, twin]
        similarities.append(jaccard(text, twin))
    return texts, np.array(similarities)


def twin(row: np.ndarray, band: int, place: int = 0) -> np.ndarray:
    """Similarity 113/128, and no band of eight hashes in common but this one."""
    differs = (np.arange(HASHES) % 8 == place) & (np.arange(HASHES) // 8 != band)
    return np.where(differs, row ^ np.uint32(1), row)


@given(st.lists(st.lists(st.sampled_from(["a", "b", "ab", "é"]), min_size=1, max_size=8), max_size=12))
def test_signatures_are_equal_if_letters_or_shingles_are(texts: list[list[str]]) -> None:
    exact, minhash = sign(texts)
    assert (exact.dtype, exact.shape, minhash.dtype, minhash.shape) == (
        np.uint64,
        (len(texts), 2),
        np.uint32,
        (len(texts), HASHES),
    )
    for i, a in enumerate(texts):
        for j, b in enumerate(texts):
            assert (exact[i] == exact[j]).all() == ("".join(a) == "".join(b))
            assert (exact[i] == exact[j]).any() == ("".join(a) == "".join(b))
            assert (minhash[i] == minhash[j]).all() == (jaccard(a, b) == 1)


@given(st.lists(st.lists(st.sampled_from("abc"), min_size=1, max_size=30), max_size=8))
def test_a_text_has_the_same_signature_alone_and_among_others(texts: list[list[str]]) -> None:
    together = sign(texts)
    for number, text in enumerate(texts):
        for found, alone in zip(together, sign([text]), strict=True):
            assert (found[number] == alone[0]).all()


def test_minhash_may_be_left_out() -> None:
    words = make_words([["a"], ["b"]])
    exact, minhash = sign_texts(words, near=False)
    assert minhash is None
    assert (exact == sign([["a"], ["b"]])[0]).all()


def test_the_share_of_equal_hashes_estimates_the_jaccard_similarity() -> None:
    """It is unbiased, and its variance no larger than that of the mean of 128 independent draws."""
    texts, true = near_twins(600, most_changed=60, seed=1)
    _, minhash = sign(texts)
    error = (minhash[::2] == minhash[1::2]).mean(axis=1) - true
    variance = true * (1 - true) / HASHES
    assert true.min() < 0.4
    assert true.max() > 0.9
    assert abs(error.sum()) < 4 * np.sqrt(variance.sum())
    score = error[variance > 0] / np.sqrt(variance[variance > 0])
    assert score.std() < 1.1
    assert np.abs(score).max() < 5


def test_signatures_are_the_same_in_every_process() -> None:
    code = (
        "from hashlib import sha256\nfrom cram.data.cleaning.dedupe import sign_texts\n"
        "from proofs.columns import make_words\n"
        "texts = [[f'w{i * k % 97}' for i in range(k)] for k in range(1, 300)]\n"
        "found = sign_texts(make_words(texts))\nprint(*(sha256(array.tobytes()).hexdigest()[:16] for array in found))"
    )
    for seed, threads in (("1", "1"), ("2", "2")):
        environment = {"PYTHONHASHSEED": seed, "RAYON_NUM_THREADS": threads, "OMP_NUM_THREADS": threads}
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
        )
        assert done.stdout.split() == ["47aff31ab41ec5ab", "02c404388eb9c0d5"]


def test_sixteen_bands_of_eight_at_the_usual_threshold() -> None:
    assert choose_bands(0.8) == choose_bands(0.9) == choose_bands(1) == (16, 8)
    assert (choose_bands(0.7), choose_bands(0.6), choose_bands(0.5), choose_bands(0.01)) == (
        (25, 5),
        (32, 4),
        (42, 3),
        (128, 1),
    )


@given(st.floats(0.025, 1))
def test_bands_find_what_is_at_the_threshold(threshold: float) -> None:
    bands, rows = choose_bands(threshold)
    assert bands * rows <= HASHES
    assert 1 - (1 - threshold**rows) ** bands >= 0.94
    assert rows == 8 or 1 - (1 - threshold ** (rows + 1)) ** (HASHES // (rows + 1)) < 0.94


@pytest.mark.parametrize("threshold", [0.9, 0.8, 0.6])
def test_near_twins_are_found_and_only_these(threshold: float) -> None:
    """Beyond three standard deviations of the estimate nothing is missed and nothing is taken for what it is not."""
    texts, true = near_twins(800, most_changed=40, seed=2)
    found = find(*sign(texts), threshold=threshold)
    twins = (found.near | found.exact)[1::2]
    doubt = 3 * np.sqrt(threshold * (1 - threshold) / HASHES)
    surely, never = true > threshold + doubt, true < threshold - doubt
    assert not (found.near | found.exact)[::2].any()
    assert min(surely.sum(), never.sum()) > 30
    assert twins[surely].mean() >= 0.99
    assert twins[never].mean() <= 0.01
