"""Look at documents: filter, hash and sign them; what one chunk, a segment or a corpus came to."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from cram.config.data import DataConfig
from cram.data.cleaning.decontaminate import Contamination
from cram.data.cleaning.dedupe import HASHES, signatures
from cram.data.cleaning.filters import REASONS, Filters
from cram.data.cleaning.held_out_split import held_out_limit, lowest, text_hash
from cram.data.cleaning.word_hashes import Splitter, Words, hash_words, split_words
from cram.data.preparation.stopwatch import Stopwatch, add_seconds
from cram.data.text.document import Document, LocatedDocument, byte_size

CHUNK_BYTES = 2_000_000  # text: an encoding takes hundreds of bytes a token, so documents of books come in fewer
CHUNK_DOCUMENTS = 1000
SAMPLES = 20
EXCERPT = 600  # characters of a sample

# What becomes of a document: the index of its fate. Filters and deduplication are named as the keys that set them.
KEPT, HELD_OUT, EMPTY, BROKEN = range(4)
FATES = (
    "kept",
    "held_out",
    "empty",
    "broken",
    *REASONS,
    "decontaminate",
    "exact",
    "near",
    "near_held_out",
    "ids_held_out",
    "window_held_out",
)
FATE = {name: number for number, name in enumerate(FATES)}

Item = TypeVar("Item")


@dataclass(order=True, frozen=True)
class Sample:
    """A dropped document to look at; those with the lowest hashes are kept, a fair sample of all."""

    hash: int
    origin: str
    text: str


Samples = dict[str, list[Sample]]


def add_samples(samples: Samples, others: Samples) -> None:
    """Take in more samples, and keep the lowest `SAMPLES` of each name."""
    for name, more in others.items():
        samples[name] = sorted({*samples.get(name, []), *more})[:SAMPLES]


def sample(document: Document, text: str) -> Sample:
    """A sample of a document: the start of `text`, or what is wrong with a broken one."""
    origin = Path(document.origin).name
    return Sample(text_hash(document.text or origin), origin, document.fault or text[:EXCERPT])


@dataclass
class Scanned:
    """What was found in some documents; in more after `add`."""

    arrays: dict[str, list[np.ndarray]] = field(default_factory=dict)  # an entry a document
    samples: Samples = field(default_factory=dict)
    held_out: dict[int, str] = field(default_factory=dict)  # hash -> text, the lowest hashes
    lowest: dict[int, str] = field(default_factory=dict)  # the kept one of the lowest hash: held out if no other is
    cut_documents: int = 0  # by the boilerplate filter
    cut_bytes: int = 0
    seconds: dict[str, float] = field(default_factory=dict)

    def add(self, other: "Scanned") -> None:
        """Take in what was found in further documents."""
        for name, arrays in other.arrays.items():
            self.arrays.setdefault(name, []).extend(arrays)
        add_samples(self.samples, other.samples)
        self.held_out = lowest({**self.held_out, **other.held_out})
        self.lowest = dict(sorted({**self.lowest, **other.lowest}.items())[:1])
        self.cut_documents += other.cut_documents
        self.cut_bytes += other.cut_bytes
        add_seconds(self.seconds, other.seconds)


class Scanner:
    """Looks at documents, in a worker process or here. Cheap to pickle: the heavy parts are made at first use.

    `split` makes the words by which texts are judged and compared.
    """

    def __init__(self, config: DataConfig, split: Splitter = split_words):
        self._config = config
        self._split = split
        self._filters = Filters(config.filters)
        self._limit = np.uint64(held_out_limit(config.held_out))
        self._contamination: Contamination | None = None

    def __call__(self, documents: list[LocatedDocument]) -> Scanned:
        """Entries, samples and held-out texts of some documents.

        Entries: part int32, record int64, fate uint8, hash uint64, bytes int64, and with deduplication exact
        uint64 [2] and minhash uint32 [HASHES], zero for documents that are dropped.
        """
        found, stopwatch = Scanned(), Stopwatch()
        texts = [document.text for _, document in documents]
        hashes = np.array([text_hash(text) for text in texts], np.uint64)
        fates = self._readable(documents, hashes)
        stopwatch.lap("hashing")
        cleaned = [
            self._clean(document, int(fate), found) for (_, document), fate in zip(documents, fates, strict=True)
        ]
        alive = np.flatnonzero(fates <= HELD_OUT).tolist()
        words = dict(zip(alive, hash_words([self._split(cleaned[i]) for i in alive]), strict=True))
        for i in np.flatnonzero(fates == KEPT).tolist():
            fates[i] = self._refused(cleaned[i], words[i])
        stopwatch.lap("filters")
        self._decontaminate(fates, words)
        stopwatch.lap("decontamination")
        signed = {i: words[i] for i in np.flatnonzero(fates <= HELD_OUT).tolist() if words[i].words}
        entries: dict[str, np.ndarray] = {
            "part": np.array([location.part for location, _ in documents], np.int32),
            "record": np.array([location.record for location, _ in documents], np.int64),
            "fate": fates,
            "hash": hashes,
            "bytes": np.array([byte_size(text) for text in texts], np.int64),
        }
        entries |= self._signatures(len(documents), signed)
        found.arrays = {name: [array] for name, array in entries.items()}
        stopwatch.lap("signatures")
        for i in np.flatnonzero(fates > HELD_OUT).tolist():
            add_samples(found.samples, {FATES[fates[i]]: [sample(documents[i].document, cleaned[i])]})
        found.held_out = {int(hashes[i]): texts[i] for i in np.flatnonzero(fates == HELD_OUT).tolist()}
        kept = np.flatnonzero(fates == KEPT)
        found.lowest = {int(hashes[i]): texts[i] for i in kept[np.argsort(hashes[kept])[:1]].tolist()}
        found.seconds = stopwatch.seconds
        return found

    def _readable(self, documents: list[LocatedDocument], hashes: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint8]:
        fates = np.where(hashes < self._limit, HELD_OUT, KEPT).astype(np.uint8)
        for i, (_, document) in enumerate(documents):
            if document.fault:
                fates[i] = BROKEN
            elif document.is_blank:
                fates[i] = EMPTY
        return fates

    def _clean(self, document: Document, fate: int, found: Scanned) -> str:
        """The text without boilerplate; a held-out one is left as it is, the same whatever the filters."""
        if fate != KEPT:
            return document.text
        text = self._filters.clean(document.text)
        if len(text) < len(document.text):
            found.cut_documents += 1
            found.cut_bytes += byte_size(document.text) - byte_size(text)
            kept = set(text.splitlines())
            lines = "\n".join(line for line in document.text.splitlines() if line not in kept)
            add_samples(found.samples, {"boilerplate": [sample(document, lines)]})
        return text

    def _refused(self, text: str, words: Words) -> int:
        if not words.words:
            return EMPTY
        reason = self._filters.refuse(text, words)
        return FATE[reason] if reason else KEPT

    def _decontaminate(self, fates: npt.NDArray[np.uint8], words: dict[int, Words]) -> None:
        if not self._config.dedupe.decontaminate:
            return
        self._contamination = self._contamination or Contamination(self._config.dedupe.decontaminate, self._split)
        for i in np.flatnonzero(fates == KEPT).tolist():
            if self._contamination.touches(words[i]):
                fates[i] = FATE["decontaminate"]

    def _signatures(self, documents: int, words: dict[int, Words]) -> dict[str, np.ndarray]:
        dedupe, found = self._config.dedupe, {}
        if dedupe.exact or dedupe.near is not None:
            exact, minhash = signatures(list(words.values()), near=dedupe.near is not None)
            found["exact"] = np.zeros((documents, 2), np.uint64)
            found["exact"][list(words)] = exact
            if minhash is not None:
                found["minhash"] = np.zeros((documents, HASHES), np.uint32)
                found["minhash"][list(words)] = minhash
        return found


def chunks(items: Iterable[tuple[str, Item]]) -> Iterator[list[Item]]:
    """Items by the thousand or by two million bytes of their texts, whichever is reached first.

    Where a chunk ends depends on nothing before its first item, so work may go on behind any of them.
    """
    chunk: list[Item] = []
    length = 0
    for text, item in items:
        chunk.append(item)
        length += byte_size(text)
        if len(chunk) >= CHUNK_DOCUMENTS or length >= CHUNK_BYTES:
            yield chunk
            chunk, length = [], 0
    if chunk:
        yield chunk
