"""Look at documents: filter, hash and sign them; what one chunk, a segment or a corpus came to."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from cram.config.data import DataConfig
from cram.data.cleaning.cleaner import Cleaner, Judgement
from cram.data.cleaning.decontaminate import BenchmarkNgrams
from cram.data.cleaning.dedupe import HASHES, sign_texts
from cram.data.cleaning.filters import REASONS
from cram.data.cleaning.held_out_split import HeldOutTexts, hash_text, lies_below_share
from cram.data.cleaning.word_hashes import Words, WordSplitter, split_words
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
    return Sample(hash_text(document.text or origin), origin, document.fault or text[:EXCERPT])


@dataclass
class Scanned:
    """What was found in some documents; in more after `add`."""

    arrays: dict[str, list[np.ndarray]] = field(default_factory=dict)  # an entry a document
    samples: Samples = field(default_factory=dict)
    held_out: HeldOutTexts = field(default_factory=HeldOutTexts)
    cut_documents: int = 0  # by the boilerplate filter
    cut_bytes: int = 0
    seconds: dict[str, float] = field(default_factory=dict)

    def add(self, other: "Scanned") -> None:
        """Take in what was found in further documents."""
        for name, arrays in other.arrays.items():
            self.arrays.setdefault(name, []).extend(arrays)
        add_samples(self.samples, other.samples)
        self.held_out.add(other.held_out)
        self.cut_documents += other.cut_documents
        self.cut_bytes += other.cut_bytes
        add_seconds(self.seconds, other.seconds)


class Scanner:
    """Looks at documents, in a worker process or here. Cheap to pickle: the heavy parts are made at first use.

    `split` makes the words by which texts are judged and compared.
    """

    def __init__(self, config: DataConfig, split: WordSplitter = split_words) -> None:
        self._config = config
        self._split = split
        self._cleaner = Cleaner(config.filters, split)
        self._contamination: BenchmarkNgrams | None = None

    def __call__(self, documents: list[LocatedDocument]) -> Scanned:
        """Entries, samples and held-out texts of some documents.

        Entries: part int32, record int64, fate uint8, hash uint64, bytes int64, and with deduplication exact
        uint64 [2] and minhash uint32 [HASHES], zero for documents that are dropped.
        """
        found, stopwatch = Scanned(), Stopwatch()
        texts = [document.text for _, document in documents]
        hashes = np.array([hash_text(text) for text in texts], np.uint64)
        fates = np.where(lies_below_share(hashes, self._config.held_out), HELD_OUT, KEPT).astype(np.uint8)
        stopwatch.lap("hashing")
        judgements = self._cleaner.judge(texts, exempt=set(np.flatnonzero(fates == HELD_OUT).tolist()))
        for i, ((_, document), judgement) in enumerate(zip(documents, judgements, strict=True)):
            if document.fault:
                fates[i] = BROKEN
            elif judgement.reason:
                fates[i] = FATE[judgement.reason]
            self._count_cut(document, judgement, found)
        stopwatch.lap("filters")
        self._decontaminate(fates, judgements)
        stopwatch.lap("decontamination")
        alive = np.flatnonzero(fates <= HELD_OUT).tolist()
        signed = {i: judgements[i].words for i in alive if judgements[i].words.words}
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
            add_samples(found.samples, {FATES[fates[i]]: [sample(documents[i].document, judgements[i].text)]})
        below = {int(hashes[i]): texts[i] for i in np.flatnonzero(fates == HELD_OUT).tolist()}
        kept = np.flatnonzero(fates == KEPT)
        lowest = {int(hashes[i]): texts[i] for i in kept[np.argsort(hashes[kept])[:1]].tolist()}
        found.held_out = HeldOutTexts(below, lowest)
        found.seconds = stopwatch.seconds
        return found

    def _count_cut(self, document: Document, judgement: Judgement, found: Scanned) -> None:
        """Count the lines that were cut out of a document, and keep them as a sample."""
        if len(judgement.text) == len(document.text):
            return
        found.cut_documents += 1
        found.cut_bytes += byte_size(document.text) - byte_size(judgement.text)
        lines_kept = set(judgement.text.splitlines())
        lines_cut = "\n".join(line for line in document.text.splitlines() if line not in lines_kept)
        add_samples(found.samples, {"boilerplate": [sample(document, lines_cut)]})

    def _decontaminate(self, fates: npt.NDArray[np.uint8], judgements: list[Judgement]) -> None:
        if not self._config.dedupe.decontaminate:
            return
        self._contamination = self._contamination or BenchmarkNgrams(self._config.dedupe.decontaminate, self._split)
        for i in np.flatnonzero(fates == KEPT).tolist():
            if self._contamination.occur_in(judgements[i].words):
                fates[i] = FATE["decontaminate"]

    def _signatures(self, documents: int, words: dict[int, Words]) -> dict[str, np.ndarray]:
        dedupe, found = self._config.dedupe, {}
        if dedupe.exact or dedupe.near is not None:
            exact, minhash = sign_texts(list(words.values()), near=dedupe.near is not None)
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
