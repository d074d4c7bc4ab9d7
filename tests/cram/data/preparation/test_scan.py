import pickle
import random
from dataclasses import replace
from functools import cache
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cram.config.data import DataConfig, DedupeConfig, FilterConfig
from cram.data.cleaning.dedupe import HASHES
from cram.data.cleaning.held_out_split import HeldOutTexts
from cram.data.preparation.fates import Fate
from cram.data.preparation.samples import EXCERPT, FIXED, SAMPLES, Sample
from cram.data.preparation.scan import Scanner, ScanResult
from cram.data.text.document import Document, LocatedDocument, Location, byte_size, faulty_document

WORDS = ["river", "castle", "teacher", "garden", "letter", "window", "soldier", "winter", "market", "doctor", "engine"]
COOKIES = "We use cookies to make this site better for you."
NONE_HELD_OUT = DataConfig(held_out=0.0, filters=FilterConfig(max_words=80))
ALL_HELD_OUT = replace(NONE_HELD_OUT, held_out=1 - 2**-53)


@cache
def prose(seed: int, words: int = 40) -> str:
    return " ".join(random.Random(seed).choices(WORDS, k=words)) + "."


DROPPED = {
    "empty": "",
    "min_words": "Too short.",
    "max_words": prose(1, 81),
    "symbols": prose(2) + " = < > @" * 20,
    "digits": prose(3) + " 19141918200120021945" * 8,
    "repetition": "The same line again and again.\n" * 12,
}


def located(texts: list[str]) -> list[LocatedDocument]:
    return [LocatedDocument(Location(0, number), Document(text, f"file:{number}")) for number, text in enumerate(texts)]


def scanned(texts: list[str], config: DataConfig = NONE_HELD_OUT) -> ScanResult:
    return Scanner(config)(located(texts))


def fates(found: ScanResult) -> list[str]:
    return [Fate(int(fate)).reason for array in found.arrays["fate"] for fate in array]


def number(text: str) -> int:
    return int(sha256(text.encode()).hexdigest()[:16], 16)


@pytest.mark.parametrize("reason", DROPPED)
def test_each_filter_drops_its_documents(reason: str) -> None:
    found = scanned([prose(0), DROPPED[reason], prose(0)])
    assert fates(found) == ["kept", reason, "kept"]
    (sample,) = found.samples[reason]
    assert sample == Sample(number(DROPPED[reason] or "file:1"), "file:1", DROPPED[reason][:EXCERPT])
    assert not found.arrays["exact"][0][1].any() and not found.arrays["minhash"][0][1].any()
    assert found.arrays["exact"][0][0].any() and found.arrays["minhash"][0][0].any()


@pytest.mark.parametrize("text", ["", " \n\t", "\u2028", "... !!! ?"])
@pytest.mark.parametrize("least", [0, 10])
def test_a_text_without_a_word_is_empty(text: str, least: int) -> None:
    config = replace(NONE_HELD_OUT, filters=FilterConfig(min_words=least, symbols=None, repetition=False))
    assert fates(scanned([text], config)) == ["empty"]


@pytest.mark.parametrize("config", [NONE_HELD_OUT, ALL_HELD_OUT])
def test_the_sample_of_a_broken_document_has_its_fault(config: DataConfig) -> None:
    found = Scanner(config)([LocatedDocument(Location(2, 5), faulty_document("folder/a.jsonl:6", "broken JSON line"))])
    assert fates(found) == ["broken"] and found.held_out == HeldOutTexts()
    assert [(one.origin, one.text) for one in found.samples["broken"]] == [
        ("a.jsonl:6", "folder/a.jsonl:6: broken JSON line")
    ]
    assert [found.arrays[name][0].tolist() for name in ("part", "record", "bytes")] == [[2], [5], [0]]


def test_a_text_of_a_test_set_is_dropped(tmp_path: Path) -> None:
    (tmp_path / "dev.tsv").write_text(f"1\t{prose(5)}\n")
    config = replace(NONE_HELD_OUT, dedupe=DedupeConfig(decontaminate=f"{tmp_path}/*.tsv"))
    texts = [prose(4), f"He said: {prose(5)}", "short"]
    assert fates(scanned(texts, config)) == ["kept", "decontaminate", "min_words"]
    assert fates(scanned(texts)) == ["kept", "kept", "min_words"]
    assert fates(scanned(texts, replace(config, held_out=ALL_HELD_OUT.held_out))) == ["held_out"] * 3


def test_held_out_documents_are_neither_filtered_nor_cleaned() -> None:
    texts = [text for name, text in DROPPED.items() if name != "empty"] + [f"{COOKIES}\n{prose(6)}"]
    found = scanned(texts, ALL_HELD_OUT)
    assert fates(found) == ["held_out"] * len(texts)
    assert found.held_out == HeldOutTexts({number(text): text for text in texts}, {})
    assert found.cut_documents == found.cut_bytes == 0 and not found.samples
    assert found.arrays["exact"][0].any(axis=1).all(), "near twins of them are looked for"


@given(st.floats(0.0, 0.99))
def test_documents_with_a_hash_below_the_share_are_held_out(share: float) -> None:
    texts = [prose(seed) for seed in range(12)]
    found = scanned(texts, replace(NONE_HELD_OUT, held_out=share))
    below = [number(text) < int(share * 2**64) for text in texts]
    assert fates(found) == ["held_out" if out else "kept" for out in below]
    assert found.held_out.below == {number(text): text for text, out in zip(texts, below, strict=True) if out}


def test_the_lowest_kept_document_is_noted_if_none_is_held_out() -> None:
    kept = [prose(seed) for seed in range(20)]
    lowest = min(kept, key=number)
    short = [text for text in (f"short {serial}" for serial in range(1000)) if number(text) < number(lowest)]
    texts = [*kept, *short, f"{COOKIES}\n{prose(6)}", lowest]
    found = scanned(texts)
    assert short and set(fates(found)) == {"kept", "min_words"}
    assert found.held_out == HeldOutTexts({}, {number(lowest): lowest})
    assert scanned(short).held_out.lowest == {}
    apart = ScanResult()
    for text in texts:
        apart.add(scanned([text]))
    assert apart.held_out == found.held_out


def test_only_the_lowest_hashes_are_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cram.data.cleaning.held_out_split.MOST_STORED", 5)
    texts = [prose(seed) for seed in range(20)]
    total = ScanResult()
    for start in range(0, 20, 4):
        total.add(scanned(texts[start : start + 4], ALL_HELD_OUT))
    assert list(total.held_out.below) == sorted(map(number, texts))[:5]


def test_c1_controls_are_replaced_and_counted_and_sampled() -> None:
    there, cut = f"{'a b ' * 200}wait\x85he \x91said\x92", f"{COOKIES[:-1]}\x97\n{prose(6)}"
    found = scanned([prose(8), there, cut, "oh\x85", "\x81 \x8d"])
    assert (found.fixed_documents, found.fixed_characters) == (3, 5)
    samples = {one.hash: one.text for one in found.samples[FIXED]}
    assert samples.keys() == {number(text) for text in (there, cut, "oh\x85")}, "of the text as it was read"
    assert "wait\u2026he \u2018said\u2019" in samples[number(there)]
    assert found.arrays["bytes"][0].tolist()[1] == len(there.encode())
    assert found.cut_documents == 1 and found.cut_bytes == len(f"{COOKIES[:-1]}\u2014\n".encode())
    off = replace(NONE_HELD_OUT, filters=replace(NONE_HELD_OUT.filters, fix_c1_controls=False))
    assert scanned([there], off).fixed_documents == 0 and FIXED not in scanned([there], off).samples


def test_held_out_texts_are_chosen_as_read_and_stored_with_c1_controls_replaced() -> None:
    text, other = f"{prose(1)}\x85he", f"{prose(1)}\u2026he"
    found = scanned([text, other], ALL_HELD_OUT).held_out
    assert found.below == {number(text): other, number(other): other}
    assert list(found.stored().values()) == [other], "equal texts are stored once"
    assert scanned([text]).held_out.lowest == {number(text): other}
    texts = [f"{prose(seed)}\x85" for seed in range(9)]
    stored = scanned(texts, ALL_HELD_OUT).held_out.stored()
    assert list(stored) == sorted(stored) == sorted(sha256(text.encode()).hexdigest() for text in stored.values())
    assert set(stored.values()) == {text.replace("\x85", "\u2026") for text in texts}


def test_boilerplate_is_cut_and_counted_and_sampled() -> None:
    text = f"Größe\n{COOKIES}\n{prose(7)}"
    found = scanned([prose(8), text, f"{COOKIES}\nshort"])
    assert fates(found) == ["kept", "kept", "min_words"]
    assert found.cut_documents == 2 and found.cut_bytes == 2 * len(f"{COOKIES}\n")
    assert {(one.hash, one.text) for one in found.samples["boilerplate"]} == {
        (number(text), COOKIES),
        (number(f"{COOKIES}\nshort"), COOKIES),
    }
    plain = scanned([f"Größe\n{prose(7)}"])
    assert np.array_equal(found.arrays["exact"][0][1], plain.arrays["exact"][0][0]), "signed without it"
    assert found.arrays["hash"][0][1] == number(text), "hashed with it: the same whatever the filters"


def test_entries_have_their_dtypes_and_shapes() -> None:
    texts = [prose(0), "größer als", prose(0), prose(0).upper()]
    arrays = {name: array for name, (array,) in scanned(texts).arrays.items()}
    assert {name: (array.dtype.name, array.shape) for name, array in arrays.items()} == {
        "part": ("int32", (4,)),
        "record": ("int64", (4,)),
        "fate": ("uint8", (4,)),
        "hash": ("uint64", (4,)),
        "bytes": ("int64", (4,)),
        "exact": ("uint64", (4, 2)),
        "minhash": ("uint32", (4, HASHES)),
    }
    assert arrays["bytes"].tolist() == [len(text.encode()) for text in texts]
    assert arrays["hash"].tolist() == list(map(number, texts))
    assert arrays["hash"][0] == arrays["hash"][2] != arrays["hash"][3]
    assert (arrays["exact"][[2, 3]] == arrays["exact"][0]).all(), "the same words"


@pytest.mark.parametrize(
    ("exact", "near", "made"),
    [
        (True, None, {"exact"}),
        (False, 0.8, {"exact", "minhash"}),
        (True, 0.8, {"exact", "minhash"}),
        (False, None, set()),
    ],
)
@pytest.mark.parametrize("texts", [[prose(0), "short"], ["short", ""]])
def test_only_signatures_that_are_used_are_computed(
    exact: bool, near: float | None, made: set[str], texts: list[str]
) -> None:
    found = scanned(texts, replace(NONE_HELD_OUT, dedupe=DedupeConfig(exact=exact, near=near)))
    assert found.arrays.keys() == {"part", "record", "fate", "hash", "bytes"} | made
    assert all(len(array) == 2 for (array,) in found.arrays.values())


@given(st.lists(st.integers(1, 9), min_size=1, max_size=8))
def test_chunks_do_not_matter(lengths: list[int]) -> None:
    texts = [*DROPPED.values(), *(prose(seed) for seed in range(6)), f"{COOKIES}\n{prose(7)}", *DROPPED.values()]
    whole, apart = (ScanResult() for _ in range(2))
    documents = located(texts)
    scanner = Scanner(replace(NONE_HELD_OUT, held_out=0.3))
    whole.add(scanner(documents))
    while documents:
        length = lengths[len(documents) % len(lengths)]
        apart.add(scanner(documents[:length]))
        documents = documents[length:]
    assert (whole.samples, whole.held_out) == (apart.samples, apart.held_out)
    assert (whole.cut_documents, whole.cut_bytes) == (apart.cut_documents, apart.cut_bytes)
    for name, arrays in whole.arrays.items():
        assert np.array_equal(np.concatenate(arrays), np.concatenate(apart.arrays[name])), name


def test_samples_are_few_and_short() -> None:
    texts = [f"{serial} " + "- " * EXCERPT for serial in range(3 * SAMPLES)]
    samples = scanned(texts).samples["min_words"]
    assert [one.hash for one in samples] == sorted(map(number, texts))[:SAMPLES]
    assert {len(one.text) for one in samples} == {EXCERPT}


def test_a_pickled_scanner_is_small() -> None:
    scanner = Scanner(NONE_HELD_OUT)
    pickled = pickle.dumps(scanner)
    assert len(pickled) < 2000
    assert fates(pickle.loads(pickled)(located([prose(0)]))) == ["kept"]


@given(st.text())
def test_byte_size_is_that_of_utf_8(text: str) -> None:
    assert byte_size(text) == len(text.encode())
