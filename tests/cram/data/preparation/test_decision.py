import json
import random
from collections.abc import Callable
from dataclasses import replace
from itertools import count
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cram.config.data import DataConfig, DedupeConfig
from cram.data.cleaning.held_out_split import hash_text
from cram.data.preparation import chunks, first_pass
from cram.data.preparation import decision as module
from cram.data.preparation.decision import Decision, decide_fates
from cram.data.preparation.engine import LocalEngine
from cram.data.preparation.fates import Fate
from cram.data.preparation.first_pass import Segments
from cram.data.preparation.scan import Scanner
from cram.data.text.sources import open_source
from cram.terminal.progress import Progress

WORDS = [a + b for a in ("ba", "re", "mi", "to", "lu", "ken") for b in ("sor", "dal", "fin", "gus", "pel")]
HALF = DataConfig(held_out=0.5)
NONE = DataConfig(held_out=0.0)
REPORT = Progress(terminal=False)


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunks, "CHUNK_DOCUMENTS", 2)
    monkeypatch.setattr(first_pass, "SEGMENT_DOCUMENTS", 3)


def below_half(text: str) -> bool:
    return hash_text(text) < 1 << 63


def such(make: Callable[[random.Random], str], held_out: bool) -> str:
    """The first of some texts that is held out, or the first that is not."""
    return next(text for text in map(make, map(random.Random, count())) if below_half(text) == held_out)


def prose(seed: int, held_out: bool = False) -> str:
    return such(lambda source: " ".join(random.Random(f"{seed} {source.random()}").choices(WORDS, k=200)), held_out)


def exact_twin(text: str, held_out: bool = False) -> str:
    """The same words, some in capitals."""
    return such(
        lambda source: " ".join(word.upper() if source.random() < 0.2 else word for word in text.split()), held_out
    )


def near_twin(text: str, held_out: bool = False) -> str:
    """The text with one of 200 words changed."""

    def make(source: random.Random) -> str:
        words = text.split()
        words[source.randrange(len(words))] = f"other{source.randrange(10**6)}"
        return " ".join(words)

    return such(make, held_out)


def scanned(folder: Path, parts: list[list[str]], config: DataConfig) -> Segments:
    folder.mkdir(exist_ok=True)
    for number, texts in enumerate(parts):
        (folder / f"{number}.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    done = Segments(folder)
    done.scan(open_source(f"{folder}/*.jsonl"), None, Scanner(config), LocalEngine(1), REPORT)
    return done


def decided(folder: Path, parts: list[list[str]], config: DataConfig) -> Decision:
    return decide_fates(scanned(folder, parts, config), config, folder, REPORT)


def fates(decision: Decision) -> list[str]:
    return [Fate(int(fate)).reason for fate in decision.fates]


def test_every_kind_of_duplicate_has_its_fate(tmp_path: Path) -> None:
    first, second, held_out = prose(1), prose(2), prose(3, held_out=True)
    parts = [
        [first, near_twin(second), "short", held_out],
        [exact_twin(first), prose(4), near_twin(held_out), exact_twin(held_out), held_out],
        [near_twin(first), second, exact_twin(first), ""],
    ]
    short = "held_out" if below_half("short") else "min_words"
    decision = decided(tmp_path / "set", parts, HALF)
    assert fates(decision) == [
        *("kept", "kept", short, "held_out"),
        *("exact", "kept", "near_held_out", "near_held_out", "held_out"),
        *("near", "near", "exact", "empty"),
    ]
    pairs = {(dropped, kept) for dropped, kept, _ in decision.pairs}
    assert {(4, 0), (11, 0), (9, 0), (10, 1)} <= pairs
    assert {(dropped, kept) for dropped, kept in pairs if dropped in (6, 7)} in (
        {(6, 3), (7, 3)},
        {(6, 8), (7, 8)},
    )
    for dropped, _, similarity in decision.pairs:
        assert similarity == 1.0 if dropped in (4, 7, 11) else 0.8 <= similarity < 1.0


def test_a_duplicate_before_the_held_out_document_is_dropped_too(tmp_path: Path) -> None:
    held_out = prose(3, held_out=True)
    decision = decided(tmp_path / "set", [[near_twin(held_out), exact_twin(held_out)], [held_out, prose(1)]], HALF)
    assert fates(decision) == ["near_held_out", "near_held_out", "held_out", "kept"]


@pytest.mark.parametrize(
    ("dedupe", "exact", "near"),
    [
        (DedupeConfig(), "exact", "near"),
        (DedupeConfig(near=None), "exact", "kept"),
        (DedupeConfig(exact=False, near=None), "kept", "kept"),
        (DedupeConfig(exact=False), "near", "near"),
        (DedupeConfig(near=1.0), "exact", "kept"),
    ],
)
def test_each_kind_can_be_switched_off(tmp_path: Path, dedupe: DedupeConfig, exact: str, near: str) -> None:
    first = prose(1)
    config = replace(HALF, dedupe=dedupe)
    lone = prose(5, held_out=True)
    decision = decided(tmp_path / "set", [[first, lone], [exact_twin(first), near_twin(first)]], config)
    assert fates(decision) == ["kept", "held_out", exact, near]
    assert {dropped for dropped, _, _ in decision.pairs} == {
        number for number, fate in ((2, exact), (3, near)) if fate != "kept"
    }


@pytest.mark.parametrize("dedupe", [DedupeConfig(), DedupeConfig(exact=False, near=None)])
def test_if_no_hash_is_low_enough_the_lowest_kept_document_is_held_out(tmp_path: Path, dedupe: DedupeConfig) -> None:
    texts = [prose(seed) for seed in range(8)]
    lowest = min(texts, key=hash_text)
    others = [text for text in texts if text != lowest]
    short = next(text for text in map("short {}".format, count()) if hash_text(text) < hash_text(lowest))
    config = replace(NONE, dedupe=dedupe)
    done = scanned(tmp_path / "set", [[*others[:3], short, lowest], [lowest, *others[3:], near_twin(lowest)]], config)
    decision = decide_fates(done, config, tmp_path / "set", REPORT)
    last = "near_held_out" if dedupe.near else "kept"
    assert fates(decision) == ["kept"] * 3 + ["min_words", "held_out", "held_out"] + ["kept"] * 4 + [last]
    assert done.totals().held_out.chosen() == {hash_text(lowest): lowest}, (
        "the text that is stored is the one that is held out"
    )


def test_the_first_by_location_is_kept_even_if_it_was_scanned_later(tmp_path: Path) -> None:
    first = [prose(seed) for seed in range(6)]
    later = [near_twin(first[4]), exact_twin(first[5]), near_twin(first[0]), prose(6, held_out=True)]
    padding = "x" * 100_000  # a large file with little text: the first is read on when it is at its end
    for name, texts, more in (("0", first, ""), ("1", later, padding)):
        lines = (json.dumps({"text": text, "more": more}) + "\n" for text in texts)
        (tmp_path / f"{name}.jsonl").write_text("".join(lines))
    done = Segments(tmp_path)
    done.scan(open_source(f"{tmp_path}/*.jsonl"), sum(map(len, first + later)), Scanner(HALF), LocalEngine(1), REPORT)
    assert not (np.diff(done.order) > 0).all()
    assert fates(decide_fates(done, HALF, tmp_path, REPORT)) == ["kept"] * 6 + ["near", "exact", "near", "held_out"]


def test_nothing_to_hold_out(tmp_path: Path) -> None:
    assert fates(decided(tmp_path / "set", [["short", ""], ["short"]], NONE)) == ["min_words", "empty", "min_words"]


def test_a_decision_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = prose(1)
    done = scanned(tmp_path / "set", [[first, prose(3, held_out=True)], [near_twin(first)]], HALF)
    decision = decide_fates(done, HALF, tmp_path / "set", REPORT)
    monkeypatch.setattr(module, "find_duplicates", None)
    again = decide_fates(Segments(tmp_path / "set"), HALF, tmp_path / "set", REPORT)
    assert decision.fates.dtype == again.fates.dtype == np.uint8
    assert np.array_equal(again.fates, decision.fates)
    assert again.pairs == decision.pairs and len(decision.pairs) == 1
    assert [type(value) for value in again.pairs[0]] == [int, int, float]


@given(st.lists(st.sampled_from(["first", "twin", "near", "other", "held", "held near", "short", ""]), max_size=12))
def test_the_first_of_similar_documents_is_kept(tmp_path_factory: pytest.TempPathFactory, names: list[str]) -> None:
    first, held = prose(1), prose(3, held_out=True)
    texts = {"first": first, "twin": exact_twin(first), "near": near_twin(first), "other": prose(4)}
    texts |= {"held": held, "held near": near_twin(held), "short": "short", "": "", "lone": prose(6, held_out=True)}
    named = ["lone", *names]
    found = fates(decided(tmp_path_factory.mktemp("set"), [[texts[name] for name in named]], HALF))
    words = {"twin": "first"}  # which has the words of which, and which is like which
    topics = {"twin": "first", "near": "first", "held near": "held"}
    for number, (name, fate) in enumerate(zip(named, found, strict=True)):
        seen = named[:number]
        if below_half(texts[name]) and name:
            assert fate == "held_out"
        elif name in ("short", ""):
            assert fate == ("min_words" if name else "empty")
        elif words.get(name, name) in [words.get(one, one) for one in seen]:
            assert fate == "exact"
        elif name == "held near":
            assert fate == ("near_held_out" if "held" in named else "kept")
        else:
            assert fate == ("near" if topics.get(name, name) in [topics.get(one, one) for one in seen] else "kept")
