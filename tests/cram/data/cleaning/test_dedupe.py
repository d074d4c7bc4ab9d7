import io
import json
import random
import subprocess
import sys
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from cram.data.cleaning import dedupe
from cram.data.cleaning.dedupe import HASHES, SHINGLE, Duplicates, choose_bands, find_duplicates, sign_texts
from cram.data.cleaning.word_hashes import hash_words, split_words

ROOT = Path(__file__).parents[4]
CORPUS = ROOT.parent / "shared/data/pretrain"
WORDS = [f"w{number}" for number in range(5000)]


def sign(texts: list[list[str]]) -> tuple[np.ndarray, np.ndarray]:
    exact, minhash = sign_texts(hash_words(texts))
    assert minhash is not None
    return exact, minhash


def jaccard(a: list[str], b: list[str]) -> float:
    """Of the sets of 5-word shingles, from the words themselves."""
    x, y = ({tuple(words[i : i + SHINGLE]) for i in range(max(1, len(words) - SHINGLE + 1))} for words in (a, b))
    return len(x & y) / len(x | y)


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


def changed(row: np.ndarray, places: slice) -> np.ndarray:
    return np.where(np.isin(np.arange(HASHES), np.arange(HASHES)[places]), row ^ np.uint32(1), row)


def twin(row: np.ndarray, band: int, place: int = 0) -> np.ndarray:
    """Similarity 113/128, and no band of eight hashes in common but this one."""
    differs = (np.arange(HASHES) % 8 == place) & (np.arange(HASHES) // 8 != band)
    return np.where(differs, row ^ np.uint32(1), row)


# Signatures


@given(st.lists(st.lists(st.sampled_from(["a", "b", "ab", "é"]), min_size=1, max_size=8), max_size=12))
def test_signatures_are_equal_where_the_letters_are_or_the_shingles(texts: list[list[str]]) -> None:
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
def test_a_text_is_signed_alone_as_among_others(texts: list[list[str]]) -> None:
    together = sign(texts)
    for number, text in enumerate(texts):
        for found, alone in zip(together, sign([text]), strict=True):
            assert (found[number] == alone[0]).all()


def test_minhash_may_be_left_out() -> None:
    words = hash_words([["a"], ["b"]])
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


def test_signatures_are_the_same_in_every_process_and_for_ever() -> None:
    code = (
        "from hashlib import sha256\nfrom cram.data.cleaning.dedupe import sign_texts\n"
        "from cram.data.cleaning.word_hashes import *\n"
        "texts = [[f'w{i * k % 97}' for i in range(k)] for k in range(1, 300)]\n"
        "found = sign_texts(hash_words(texts))\nprint(*(sha256(array.tobytes()).hexdigest()[:16] for array in found))"
    )
    for seed, threads in (("1", "1"), ("2", "2")):
        environment = {"PYTHONHASHSEED": seed, "RAYON_NUM_THREADS": threads, "OMP_NUM_THREADS": threads}
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
        )
        assert done.stdout.split() == ["47aff31ab41ec5ab", "02c404388eb9c0d5"]


# Bands


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


# In a bucket


@pytest.mark.parametrize("band", range(16))
def test_every_band_counts(band: int) -> None:
    row = unlike(1)[0]
    assert dropped(find(None, np.stack([row, twin(row, band)]))) == drops(near=[1])


def test_a_document_is_compared_with_the_first_and_with_the_one_before_it() -> None:
    rows = unlike(5)
    rows[:, :8] = rows[0, :8]
    rows[2] = twin(rows[0], 0)
    rows[4] = twin(rows[3], 0)
    assert dropped(find(None, rows)) == drops(near=[2, 4])
    rows = unlike(2000)
    rows[::2, :8] = rows[0, :8]
    rows[2::4] = [twin(row, 0) for row in rows[::4]]
    assert dropped(find(None, rows)) == drops(near=range(2, 2000, 4))


def test_a_document_is_compared_with_a_held_out_one_that_shares_any_band() -> None:
    rows = unlike(40)
    rows[:, :8] = rows[0, :8]
    rows[5] = twin(rows[30], 0)
    assert dropped(find(None, rows, held_out=(30,))) == drops(near_held_out=[5])
    assert dropped(find(None, rows)) == drops()


def test_clusters_grow_together_band_by_band() -> None:
    """The last joins the one before it in the first band, and so on: a tree as deep as the chain is long."""
    chain = [unlike(1)[0]]
    for band in range(7):
        chain.insert(0, twin(chain[0], band, place=band))
    assert dropped(find(None, np.stack(chain))) == drops(near=range(1, 8))
    assert dropped(find(None, np.stack(chain), held_out=(0,))) == drops(near_held_out=range(1, 8))


# Who is dropped


def test_of_equal_documents_the_first_is_kept() -> None:
    exact, minhash = sign([["a"], ["b"], ["a"], ["c"], ["b"], ["a"]])
    assert dropped(find(exact)) == dropped(find(exact, minhash)) == drops(exact=[2, 4, 5])
    assert dropped(find(None, minhash)) == drops(near=[2, 4, 5])
    assert dropped(find(None, minhash, threshold=None)) == drops()


def test_half_of_the_hash_is_not_enough() -> None:
    assert dropped(find(np.array([[1, 2], [1, 3], [4, 2], [1, 2]], np.uint64))) == drops(exact=[3])


def test_a_chain_goes_together_though_its_ends_are_unlike() -> None:
    first = unlike(1)[0]
    second = changed(first, slice(0, 13))
    third = changed(second, slice(13, 26))
    found = find(None, np.stack([third, unlike(1, 1)[0], second, first]))
    assert dropped(found) == drops(near=[2, 3])
    assert found.pairs == [(2, 0, 115 / 128), (3, 0, 102 / 128)]


def test_what_shares_a_band_alone_is_no_duplicate() -> None:
    rows = unlike(2)
    rows[1, :102] = rows[0, :102]
    assert dropped(find(None, rows)) == drops()
    rows[1, 102] = rows[0, 102]
    assert dropped(find(None, rows)) == drops(near=[1])


def test_what_is_like_a_held_out_document_is_dropped_before_and_behind_it() -> None:
    row, other = unlike(2)
    near = changed(row, slice(0, 9))
    rows = np.stack([near, row, other, row, near])
    exact = np.array([[1, 1], [0, 0], [2, 2], [0, 0], [3, 3]], np.uint64)
    assert dropped(find(exact, rows, held_out=(3,))) == drops(near_held_out=[0, 1, 4])
    assert dropped(find(exact, held_out=(3,))) == drops(near_held_out=[1])
    assert find(exact, rows, held_out=(3,)).pairs == [(0, 3, 119 / 128), (1, 3, 1.0), (4, 3, 119 / 128)]


def test_held_out_documents_are_never_dropped() -> None:
    exact, rows = np.zeros((6, 2), np.uint64), np.zeros((6, HASHES), np.uint32)
    for signs in ((exact, None), (None, rows), (exact, rows)):
        assert dropped(find(*signs, held_out=(2, 4))) == drops(near_held_out=[0, 1, 3, 5])
        assert dropped(find(*signs, held_out=tuple(range(6)))) == drops()


def test_a_chain_to_a_held_out_document_is_dropped_whole() -> None:
    first = unlike(1)[0]
    second = changed(first, slice(0, 13))
    third = changed(second, slice(13, 26))
    assert dropped(find(None, np.stack([first, second, third]), held_out=(2,))) == drops(near_held_out=[0, 1])


def test_a_copy_counts_as_exact_though_its_twin_is_dropped_for_another_reason() -> None:
    row = unlike(1)[0]
    near = changed(row, slice(0, 9))
    exact = np.array([[1, 1], [1, 1], [2, 2]], np.uint64)
    assert dropped(find(exact, np.stack([near, near, row]), held_out=(2,))) == drops(exact=[1], near_held_out=[0])


def test_what_is_no_candidate_takes_no_part() -> None:
    exact, rows = np.zeros((3, 2), np.uint64), np.zeros((3, HASHES), np.uint32)
    assert dropped(find(exact, rows, without=(0,))) == drops(exact=[2])
    assert dropped(find(exact, rows, without=(0, 1))) == drops()
    assert dropped(find(exact, rows, held_out=(0,), without=(0,))) == drops(exact=[2])


@pytest.mark.parametrize("n", [0, 1])
def test_too_few_to_repeat(n: int) -> None:
    found = find(np.zeros((n, 2), np.uint64), np.zeros((n, HASHES), np.uint32))
    assert (dropped(found), found.pairs, len(found.near)) == (drops(), [], n)
    nothing = np.zeros(0, bool)
    assert find_duplicates([], [], nothing, nothing, 0.8).pairs == []


# The same whatever the pieces


@st.composite
def corpora(draw: st.DrawFn) -> dict[str, Any]:
    """Documents from a few prototypes, some hashes of each changed, some copies; and who takes part."""
    n = draw(st.integers(1, 40))
    source = np.random.default_rng(draw(st.integers(0, 2**32)))
    prototypes = source.integers(0, draw(st.integers(1, 6)), n)
    most = draw(st.sampled_from([4, 30]))
    rows = unlike(6)[prototypes]
    for row in rows:
        begin = source.integers(0, HASHES)
        row[begin : begin + source.integers(0, most + 1)] += source.integers(0, 3, dtype=np.uint32)
    held_out, candidates = source.random(n) < 0.2, source.random(n) < 0.9
    _, exact = np.unique(rows, axis=0, return_inverse=True)
    exact = np.stack([exact.ravel(), np.zeros(n)], axis=1).astype(np.uint64)
    return {
        "exact": exact,
        "minhash": rows,
        "held_out": held_out,
        "candidates": candidates,
        "prototypes": prototypes,
        "most": most,
    }


def run(corpus: dict[str, Any], **pieces: Any) -> Duplicates:
    """`pieces`: cuts between segments and an order of the rows."""
    cuts, order = pieces.get("cuts", []), pieces.get("order")
    exact, minhash = corpus["exact"], corpus["minhash"]
    if order is not None:
        places = np.argsort(order)
        exact, minhash = exact[places], minhash[places]
    return find_duplicates(
        np.split(exact, cuts), np.split(minhash, cuts), corpus["held_out"], corpus["candidates"], 0.8, order
    )


def same(a: Duplicates, b: Duplicates) -> bool:
    return dropped(a) == dropped(b) and a.pairs == b.pairs


@settings(max_examples=30, deadline=None)
@given(corpora(), st.data())
def test_segments_order_and_passes_make_no_difference(corpus: dict[str, Any], data: st.DataObject) -> None:
    n = len(corpus["held_out"])
    expected = run(corpus)
    cuts = sorted(data.draw(st.lists(st.integers(0, n), max_size=5)))
    order = np.array(data.draw(st.permutations(range(n))))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dedupe, "KEYS_AT_ONCE", data.draw(st.sampled_from([1, 2, 7, 1 << 24])))
        patch.setattr(dedupe, "BLOCK", data.draw(st.sampled_from([1, 2, 5, 1 << 15])))
        assert same(run(corpus, cuts=cuts, order=order), expected)
        assert same(run(corpus, cuts=cuts), expected)


@settings(max_examples=30, deadline=None)
@given(corpora().filter(lambda corpus: corpus["most"] == 4))
def test_one_of_each_prototype_is_left(corpus: dict[str, Any]) -> None:
    """Where all that are alike are alike to each other, it is plain who must be left."""
    held_out, candidates = corpus["held_out"].tolist(), corpus["candidates"].tolist()
    found = run(corpus)
    for prototype in set(corpus["prototypes"].tolist()):
        here = [i for i in np.flatnonzero(corpus["prototypes"] == prototype).tolist() if candidates[i]]
        training = [i for i in here if not held_out[i]]
        guarded = len(training) < len(here)
        left = [i for i in training if not (found.exact | found.near | found.near_held_out)[i]]
        assert left == ([] if guarded else training[:1])
        assert not found.near[here].any() or not guarded
        assert not found.near_held_out[here].any() or guarded
    assert not (found.exact & found.near | found.exact & found.near_held_out | found.near & found.near_held_out).any()
    for number, kept, similarity in found.pairs:
        assert corpus["prototypes"][number] == corpus["prototypes"][kept]
        assert similarity == (corpus["minhash"][number] == corpus["minhash"][kept]).mean()
        assert held_out[kept] or not (found.exact | found.near | found.near_held_out)[kept]


# What it costs


@pytest.fixture
def compared(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """How many pairs were compared, call by call."""
    sizes: list[int] = []
    similarity = dedupe._SignatureRows.similarity

    def counted(table: Any, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        sizes.append(len(a))
        return similarity(table, a, b)

    monkeypatch.setattr(dedupe._SignatureRows, "similarity", counted)
    yield sizes


def test_work_is_linear_in_a_bucket(compared: list[int]) -> None:
    n = 5000
    assert dropped(find(None, np.zeros((n, HASHES), np.uint32))) == drops(near=range(1, n))
    assert sum(compared) <= 2 * n + dedupe.SAMPLES
    compared.clear()
    rows = unlike(n)
    rows[:, 8:16] = 0
    assert dropped(find(None, rows)) == drops()
    assert sum(compared) <= 2 * n
    compared.clear()
    rows[:, 15] = unlike(n)[:, 15]
    find(None, rows)
    assert sum(compared) == 0


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    n = 1 << 19
    exact = np.random.default_rng(0).integers(0, 2**63, (n, 2)).astype(np.uint64)
    held_out, candidates = np.zeros(n, bool), np.ones(n, bool)
    peaks = []
    for most in (1 << 15, 1 << 24):
        monkeypatch.setattr(dedupe, "KEYS_AT_ONCE", most)
        tracemalloc.start()
        find_duplicates([exact], None, held_out, candidates, None)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    megabyte = 1 << 20
    assert peaks[0] < 15 * n + 6 * megabyte
    assert peaks[1] < (15 + 40) * n + 6 * megabyte


def test_samples_are_few_and_spread_over_the_corpus() -> None:
    exact = np.repeat(np.arange(1000, dtype=np.uint64), 2)[:, None] * np.ones(2, np.uint64)
    pairs = find(exact).pairs
    assert len(pairs) == dedupe.SAMPLES
    assert all(number == kept + 1 and similarity == 1 for number, kept, similarity in pairs)
    numbers = [number for number, _, _ in pairs]
    assert numbers[0] == 1 and numbers[-1] == 1999
    assert max(np.diff(numbers)) < 3 * min(np.diff(numbers))


@pytest.mark.skipif(not CORPUS.is_dir(), reason=f"no corpus in {CORPUS}")
def test_textbook_pages_that_exist_in_two_editions() -> None:
    raw = zstandard.ZstdDecompressor(max_window_size=2**31).stream_reader(
        (CORPUS / "openstax-00.jsonl.zst").read_bytes()
    )
    texts = [split_words(json.loads(line)["text"]) for line in io.TextIOWrapper(raw, "utf-8", newline="\n")]
    found = find(*sign(texts), threshold=0.8)
    assert 30 <= found.near.sum() <= 45
    assert all(jaccard(texts[number], texts[kept]) > 0.7 for number, kept, _ in found.pairs)
