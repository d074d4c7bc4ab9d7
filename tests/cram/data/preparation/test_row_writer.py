import json
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cram.data.preparation import row_writer
from cram.data.preparation.row_writer import Counts, RowWriter
from cram.data.preparation.samples import Sample
from cram.data.preparation.second_pass import ChunkNote, TokenizedDocuments
from cram.data.shards import pack
from cram.data.shards.mapped_arrays import write_sealed_arrays
from cram.data.shards.pack import PackingKind, make_packer
from cram.data.shards.shards import ShardSet, ShardWriter
from cram.data.text.document import Location

PAD = 0
KINDS: tuple[PackingKind, ...] = ("greedy", "best_fit")
CHUNK = 3  # documents

Corpus = Sequence[tuple[int, int]]  # part and length of each document; of length 0 is one that was dropped

kinds = st.sampled_from(KINDS)
lengths = st.one_of(st.just(0), st.integers(2, 12), st.integers(2, 70))
corpora = st.lists(st.tuples(st.integers(0, 3), lengths), max_size=40).map(sorted)
small_shards = st.integers(1, 9)


@pytest.fixture(autouse=True)
def _constants(monkeypatch: pytest.MonkeyPatch) -> None:
    """Restore the constants that tests change."""
    monkeypatch.setattr(row_writer, "TOKENS_PER_SHARD", 3 * 8)
    monkeypatch.setattr(row_writer, "PART_BYTES", 10**9)
    monkeypatch.setattr(row_writer, "LONGEST", 50)
    monkeypatch.setattr(pack, "WINDOW_TOKENS", 60)
    monkeypatch.setattr(os, "fsync", lambda _: None)  # most of the time of these tests


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for all examples."""
    return tmp_path_factory.mktemp("rows") / "set"


def emptied(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    return folder


def numbered(corpus: Corpus) -> list[np.ndarray]:
    """The tokens of the documents: ascending, all different, none is PAD."""
    ends = np.cumsum([length for _, length in corpus])
    return [np.arange(end - length + 1, end + 1) for (_, length), end in zip(corpus, ends, strict=True)]


def size(length: int) -> int:
    """The bytes of a document, which are not in proportion to its tokens."""
    return 3 * length + 7


def chunks(corpus: Corpus, cursor: tuple[int, int]) -> Iterator[tuple[TokenizedDocuments, ChunkNote]]:
    """Yield the tokenized documents after a cursor, a few at a time."""
    documents = numbered(corpus)
    firsts = {part: [its for its, _ in corpus].index(part) for part, _ in corpus}
    places = [Location(part, number - firsts[part]) for number, (part, _) in enumerate(corpus)]
    start = sum(place <= cursor for place in places)
    for first in range(start, len(corpus), CHUNK):
        here = range(first, min(first + CHUNK, len(corpus)))
        dropped = [number for number in here if not len(documents[number])]
        encoded = TokenizedDocuments(
            np.concatenate([documents[number] for number in here]).astype(np.int32),
            np.array([len(documents[number]) for number in here], np.int64),
            np.array([size(len(documents[number])) for number in here], np.int64),
            {"empty": [7] * len(dropped)} if dropped else {},
            {"empty": [Sample(number, f"document:{number}", "") for number in dropped]} if dropped else {},
            {"tokenizing": 0.5},
        )
        excerpts = {number: Sample(number, "", f"document {number}") for number in here if number % 5 == 0}
        yield encoded, ChunkNote([places[number][0] for number in here], places[here[-1]], excerpts, 0)


class Run:
    """The writer, the packer and the row writer of one process."""

    def __init__(
        self,
        folder: Path,
        corpus: Corpus,
        kind: PackingKind = "greedy",
        seq_len: int = 8,
        limit: int | None = None,
        shares: Sequence[float] = (0.25, 0.5, 0.75, 1.0),
    ) -> None:
        folder.mkdir(exist_ok=True, parents=True)
        self.corpus, self.folder = corpus, folder
        self.writer = ShardWriter(folder, seq_len, max(64, sum(length for _, length in corpus) + 1), PAD)
        self.rows = RowWriter(folder, self.writer, make_packer(kind, seq_len, PAD), seq_len, list(shares), limit)

    def go_on(self, adds: int | None = None) -> bool:
        """Add the remaining chunks, or as many as given; return whether all are added."""
        for number, (encoded, note) in enumerate(chunks(self.corpus, self.rows.cursor)):
            if number == adds:
                return False
            self.rows.add(encoded, note)
        self.rows.finish()
        return True

    def outcome(self) -> dict[str, Any]:
        counts = asdict(self.rows.counts)
        counts.pop("seconds")
        token_counts, written = self.writer.state()
        return {
            "counts": counts,
            "token_counts": token_counts.tolist(),
            "lengths": self.rows.lengths.tolist(),
            "fill": self.rows.fill,
            "cut": self.rows.cut,
            "files": {path.name: path.read_bytes() for path in self.folder.glob("shard-*")},
            "written": json.dumps(written),
        }

    def opened(self) -> ShardSet:
        self.writer.finish(b"{}", [], {"counts": {"documents": 0}}, self.rows.lengths)
        return ShardSet.open(self.folder)


def straight(folder: Path, corpus: Corpus, **settings: Any) -> Run:
    run = Run(folder, corpus, **settings)
    assert run.go_on()
    return run


MIXED = [(part, 2 + (7 * number * number + 11 * part) % 29) for part in range(4) for number in range(12)]
MIXED[5] = MIXED[20] = MIXED[21] = (MIXED[20][0], 0)
MIXED = sorted(MIXED, key=lambda document: document[0])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("settings", [{}, {"limit": 400}], ids=str)
def test_a_writer_killed_after_any_chunk_ends_with_the_same_files(
    tmp_path: Path, kind: PackingKind, settings: dict[str, Any]
) -> None:
    row_writer.PART_BYTES = 500
    whole = straight(tmp_path / "whole", MIXED, kind=kind, **settings).outcome()
    assert len(whole["files"]) > 5 and whole["counts"]["dropped"] and whole["counts"]["excerpts"]
    for adds in range(1, 16):
        folder = tmp_path / f"{adds}"
        Run(folder, MIXED, kind, **settings).go_on(adds)
        again = Run(folder, MIXED, kind, **settings)
        assert again.go_on()
        assert again.outcome() == whole, adds
    cursor = (0, -1)
    for _ in range(40):  # again and again
        run = Run(tmp_path / "often", MIXED, kind, **settings)
        assert run.rows.cursor >= cursor
        cursor = run.rows.cursor
        if run.go_on(8):
            break
    assert cursor > (0, -1) and run.outcome() == whole


@pytest.mark.parametrize("kind", KINDS)
def test_a_writer_killed_between_a_shard_and_its_state_ends_with_the_same_files(
    tmp_path: Path, kind: PackingKind, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = straight(tmp_path / "whole", MIXED, kind=kind).outcome()
    for kill in range(4):
        states = iter(range(100))

        def write_or_die(*state: Any, kill: int = kill, states: Iterator[int] = states) -> None:
            if next(states) == kill:
                raise KeyboardInterrupt
            write_sealed_arrays(*state)

        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(row_writer, "write_sealed_arrays", write_or_die)
            Run(tmp_path / f"{kill}", MIXED, kind).go_on()
        assert (tmp_path / f"{kill}" / f"shard-{kill:05}.safetensors").exists()
        again = Run(tmp_path / f"{kill}", MIXED, kind)
        assert again.go_on() and again.outcome() == expected


@pytest.mark.parametrize("kind", KINDS)
def test_a_writer_killed_after_its_end_writes_the_last_shard_again(tmp_path: Path, kind: PackingKind) -> None:
    whole = straight(tmp_path / "set", MIXED, kind=kind)
    expected = whole.outcome()
    whole.opened()
    again = Run(tmp_path / "set", MIXED, kind)
    assert again.rows.cursor > (0, 0)
    assert again.go_on() and again.outcome() == expected


@pytest.mark.parametrize("damage", ["flipped", "cut", "gone", "state"])
def test_after_damage_a_writer_starts_anew(tmp_path: Path, damage: str) -> None:
    expected = straight(tmp_path / "whole", MIXED).outcome()
    run = Run(tmp_path / "set", MIXED)
    run.go_on(10)
    path = tmp_path / "set" / ("rows.safetensors" if damage == "state" else "shard-00000.safetensors")
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content[: len(content) // 2] if damage in ("cut", "state") else content)
    if damage == "gone":
        path.unlink()
    again = Run(tmp_path / "set", MIXED)
    assert again.rows.cursor == (0, -1) and again.rows.counts == Counts() and not again.rows.lengths.any()
    assert again.go_on() and again.outcome() == expected


@given(kinds, corpora, st.integers(2, 20), small_shards, st.integers(0, 300))
def test_every_token_of_every_document_is_in_the_rows_once_in_order(
    folder: Path, kind: PackingKind, corpus: Corpus, seq_len: int, shard: int, file_bytes: int
) -> None:
    row_writer.TOKENS_PER_SHARD, row_writer.PART_BYTES = shard * seq_len, file_bytes
    run = straight(emptied(folder), corpus, kind=kind, seq_len=seq_len)
    opened = run.opened()
    tokens, documents = opened.read(np.arange(opened.rows))
    flat = tokens.ravel()
    found = flat[flat != PAD]
    total = sum(length for _, length in corpus)
    assert sorted(found) == list(range(1, total + 1))
    owners = np.repeat(np.arange(len(corpus)), [length for _, length in corpus])
    assert all((np.diff(found[owners[found - 1] == owner]) == 1).all() for owner in np.unique(owners))
    assert kind != "greedy" or (np.diff(found) == 1).all()
    for row, borders in zip(tokens, documents, strict=True):
        its = np.insert(owners, 0, -1)[row]  # PAD is 0
        assert ((np.diff(its) != 0) == (np.diff(borders) == 1)).all() and borders[0] == 0

    counts = run.rows.counts
    there = [length for _, length in corpus if length]
    assert (counts.documents, counts.tokens, counts.not_needed) == (len(there), total, 0)
    assert counts.bytes == sum(map(size, there))
    empty = len(corpus) - len(there)
    assert counts.dropped == ({"empty": [empty, 7 * empty]} if empty else {})
    assert opened.tokens == total and opened.token_counts().sum() == total
    assert run.rows.fill == (total / flat.size if total else 0.0)
    histogram = np.bincount([min(length, 50) for length in there], minlength=51)
    assert opened.lengths().tolist() == histogram.tolist()


@given(kinds, corpora, st.integers(1, 900), st.lists(st.floats(0, 1), min_size=3, max_size=3).map(sorted))
def test_a_part_takes_no_more_when_its_share_of_the_limit_is_reached(
    folder: Path, kind: PackingKind, corpus: Corpus, limit: int, shares: list[float]
) -> None:
    row_writer.TOKENS_PER_SHARD, row_writer.PART_BYTES = 3 * 8, 10**9
    shares = [*shares, 1.0]
    run = straight(emptied(folder), corpus, kind=kind, limit=limit, shares=shares)
    taken: list[int] = []
    for number, (part, length) in enumerate(corpus):
        if length and sum(corpus[one][1] for one in taken) < limit * shares[part]:
            taken.append(number)
    counts, opened = run.rows.counts, run.opened()
    there = sum(length > 0 for _, length in corpus)
    assert (counts.documents, counts.not_needed) == (len(taken), there - len(taken))
    tokens, _ = opened.read(np.arange(opened.rows))
    documents = numbered(corpus)
    expected = np.concatenate([np.empty(0), *(documents[number] for number in taken)])
    assert np.array_equal(np.sort(tokens[tokens != PAD]), expected)
    last = corpus[taken[-1]][1] if taken else 0
    assert counts.tokens - last < limit, "not a document more than need be"
    assert opened.tokens == counts.tokens


def test_a_limit_is_spread_over_the_parts(tmp_path: Path) -> None:
    corpus = [(part, 10) for part in range(4) for _ in range(50)]
    run = straight(tmp_path / "set", corpus, limit=400)
    tokens, _ = run.opened().read(np.arange(run.writer.rows))
    parts = (tokens[tokens != PAD] - 1) // 500
    assert np.bincount(parts).tolist() == [100] * 4 and run.rows.counts.not_needed == 160


@pytest.mark.parametrize("kind", KINDS)
def test_small_files_share_rows_and_large_ones_end_with_a_padded_row(tmp_path: Path, kind: PackingKind) -> None:
    row_writer.PART_BYTES = 2 * size(5)
    corpus = [(0, 5), (1, 5), (2, 5), (2, 5), (2, 5), (3, 5)]  # full behind 1 and behind 2, in mid-chunk and at its end
    run = straight(tmp_path / "set", corpus, kind=kind)
    tokens, documents = run.opened().read(np.arange(run.writer.rows))
    owners = [{1 + (token > 10) + (token > 25) for token in row if token} for row in tokens]
    assert owners == ([{1}, {1}, {2}, {2}, {3}] if kind == "greedy" else [{1}, {1}, {2}, {2}, {2}, {3}])
    assert tokens[tokens != PAD].tolist() == list(range(1, 31))
    assert (tokens[1, -3:] == PAD).all() and documents[1, -1] == documents[1].max() > 0


@given(corpora, st.integers(0, 300))
def test_rows_are_padded_only_after_enough_text(folder: Path, corpus: Corpus, file_bytes: int) -> None:
    row_writer.TOKENS_PER_SHARD, row_writer.PART_BYTES = 3 * 8, file_bytes
    run = straight(emptied(folder), corpus)
    opened = run.opened()
    tokens, _ = opened.read(np.arange(opened.rows))
    groups, bytes, last = [0], 0, 0  # tokens between two ends that are padded
    for part, length in corpus:
        if length and part != last and bytes >= file_bytes:
            groups.append(0)
            bytes = 0
        if length:
            last = part
            groups[-1] += length
            bytes += size(length)
    expected = [-total % 8 for total in groups]
    assert (tokens == PAD).sum() == sum(expected)
    ends = np.cumsum(groups)
    padded = tokens[(tokens == PAD).any(axis=1)]
    assert {int(row[row != PAD].max()) for row in padded} == {
        int(end) for end, some in zip(ends, expected, strict=True) if some
    }


def test_counts_survive_json() -> None:
    counts = Counts(1, 2, 3, 4, {0: 3}, {"empty": [5, 6]})
    counts.samples = {"empty": [Sample(2**64 - 1, "größer:1", "text\u2028"), Sample(0, "", "")]}
    counts.excerpts = {7: Sample(8, "a", "b")}
    counts.seconds = {"packing": 0.125}
    assert Counts.from_json(json.dumps(asdict(counts))) == counts
    assert Counts.from_json(json.dumps(asdict(Counts()))) == Counts()
