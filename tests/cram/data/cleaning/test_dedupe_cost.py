import io
import json
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
from cram.data.cleaning.dedupe import HASHES, Duplicates, find_duplicates
from cram.data.cleaning.word_hashes import split_words
from tests.cram.data.cleaning.duplicates import dropped, drops, find, jaccard, sign, unlike

ROOT = Path(__file__).parents[4]
CORPUS = ROOT.parent / "shared/data/pretrain"


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
