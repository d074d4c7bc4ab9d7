"""The second pass reads the kept documents again and tokenizes them."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from cram.config.data import FilterConfig
from cram.data.cleaning.cleaner import EMPTY, Cleaner
from cram.data.preparation.held_out_search import HeldOutIndex, strip_frame
from cram.data.preparation.scan import Sample, Samples, add_samples, chunks, sample
from cram.data.preparation.stopwatch import Stopwatch
from cram.data.special import SpecialTokens, text_places, written_controls
from cram.data.text.document import Document, LocatedDocument, Location, byte_size
from cram.data.text.source import SourcePart

Bools = npt.NDArray[np.bool_]


@dataclass
class TokenizedDocuments:
    """Documents as tokens, framed by special ones, one behind the other; one that was dropped has length 0."""

    ids: npt.NDArray[np.int32]
    lengths: npt.NDArray[np.int64]
    bytes: npt.NDArray[np.int64]
    dropped: dict[str, list[int]]  # reason -> bytes of each dropped document
    samples: Samples
    seconds: dict[str, float]
    overlaps: dict[int, "Overlap"] = field(default_factory=dict)  # by the number of the document


@dataclass(frozen=True)
class Overlap:
    """A document with windows of held-out ones: their numbers, its bytes as it was read, and a sample of it."""

    windows: list[int]
    bytes: int
    sample: Sample


class DocumentTokenizer:
    """Tokenizes documents, in a worker process or here; the tokenizer is made at first use.

    With `held_out`, a file of `HeldOutIndex`, it drops those whose ids are a held-out document's, and tells of those
    that hold some of them.
    """

    def __init__(self, tokenizer: str, filters: FilterConfig, held_out: Path | None = None) -> None:
        self._definition = tokenizer
        self._cleaner = Cleaner(filters)
        self._held_out = held_out
        self._ids: HeldOutIndex | None = None
        self._tokenizer: Tokenizer | None = None
        self._frame = 0
        self._controls: set[int] = set()

    def __call__(self, documents: list[Document]) -> TokenizedDocuments:
        """The tokens of some documents."""
        stopwatch = Stopwatch()
        texts = [self._cleaner.clean(document.text) for document in documents]
        stopwatch.lap("cleaning")
        encodings = self.encode(texts)
        stopwatch.lap("tokenizing")
        dropped: dict[str, list[int]] = {}
        samples: Samples = {}
        for i, (document, text) in enumerate(zip(documents, texts, strict=True)):
            tokens = len(encodings[i]) - self._frame
            reason = EMPTY if tokens <= 0 else self._cleaner.judge_tokens(tokens, len(text))
            if reason:
                encodings[i] = []
                dropped.setdefault(reason, []).append(byte_size(document.text))
                add_samples(samples, {reason: [sample(document, text)]})
        lengths = np.array([len(ids) for ids in encodings], np.int64)
        ids = np.fromiter(chain.from_iterable(encodings), np.int32, int(lengths.sum()))
        sizes = np.array([byte_size(text) for text in texts], np.int64)
        stopwatch.lap("gathering")
        found = TokenizedDocuments(ids, lengths, sizes, dropped, samples, stopwatch.seconds)
        if self._held_out:
            self._ids = self._ids or HeldOutIndex.load(self._held_out)
            self._look_for(self._ids, found, documents, texts)
            stopwatch.lap("held-out ids")
        return found

    def encode(self, texts: list[str]) -> list[list[int]]:
        """The ids of each text, framed."""
        if not self._tokenizer:
            self._tokenizer = Tokenizer.from_str(self._definition)
            self._frame = SpecialTokens.of(self._tokenizer).frame
            # `[MASK]` in a text is text here: as a special token it would be an input that is never predicted.
            self._controls = written_controls(self._tokenizer, SpecialTokens.of(self._tokenizer))
            self._tokenizer.encode_special_tokens = True
        encodings = self._tokenizer.encode_batch_fast(texts)
        if not self._controls:
            return [encoding.ids for encoding in encodings]
        return [[encoding.ids[place] for place in text_places(encoding, self._controls)] for encoding in encodings]

    def _look_for(
        self, held_out: HeldOutIndex, found: TokenizedDocuments, documents: list[Document], texts: list[str]
    ) -> None:
        """Drop what has all ids of a held-out document, and tell what holds windows of one."""
        ends = np.cumsum(found.lengths)
        starts = ends - found.lengths
        (there,) = found.lengths.nonzero()
        equal = np.zeros(len(ends), bool)
        equal[there] = held_out.match_documents(found.ids, starts[there] + self._frame - 1, ends[there] - 1)
        for i in np.flatnonzero(equal).tolist():
            found.dropped.setdefault("ids_held_out", []).append(byte_size(documents[i].text))
            add_samples(found.samples, {"ids_held_out": [sample(documents[i], texts[i])]})
        places, numbers = held_out.find_windows(found.ids)
        owners = np.searchsorted(ends, places, side="right")
        for i in np.unique(owners[~equal[owners]]).tolist():
            windows = np.unique(numbers[owners == i]).tolist()
            found.overlaps[i] = Overlap(windows, byte_size(documents[i].text), sample(documents[i], texts[i]))
        found.ids = found.ids[np.repeat(~equal, found.lengths)]
        found.lengths[equal] = 0


def index_held_out(texts: Iterable[str], tokenizer: str) -> HeldOutIndex:
    """The ids by which held-out texts are looked for, with the tokenizer of a tokenizer.json."""
    encoder = DocumentTokenizer(tokenizer, FilterConfig())
    special = SpecialTokens.of(Tokenizer.from_str(tokenizer))
    encoded = (ids for chunk in chunks((text, text) for text in texts) for ids in encoder.encode(chunk))
    return HeldOutIndex.of([strip_frame(np.array(ids, np.int32), special) for ids in encoded])


@dataclass(frozen=True)
class ChunkNote:
    """What belongs to a chunk of documents and stays in this process."""

    parts: list[int]  # the part of each document
    cursor: Location  # of the last one
    excerpts: dict[int, Sample]  # documents met on the way that are to be shown, by number
    progress: int  # bytes of text


@dataclass
class KeptDocumentReader:
    """Reads the kept documents by the chunk.

    kept: bool [documents], by document number. taken: how many documents of each part those are.
    shown: numbers of documents of which an excerpt is wanted. cursor: the location after which to start.
    """

    parts: list[SourcePart]
    kept: npt.NDArray[np.bool_]
    taken: list[int]
    shown: set[int]
    cursor: Location = Location(0, -1)
    excerpts: dict[int, Sample] = field(default_factory=dict)  # those met behind the last chunk

    def __iter__(self) -> Iterator[tuple[list[Document], ChunkNote]]:
        for chunk in chunks((read.document.text, read) for read in self._read()):
            parts = [location.part for location, _ in chunk]
            progress = sum(byte_size(document.text) for _, document in chunk)
            note = ChunkNote(parts, chunk[-1].location, self.excerpts, progress)
            self.excerpts = {}
            yield [document for _, document in chunk], note

    def _read(self) -> Iterator[LocatedDocument]:
        first, last_record = self.cursor
        start = 0
        for i, (part, taken) in enumerate(zip(self.parts, self.taken, strict=True)):
            if taken and i >= first:
                done = last_record + 1 if i == first else 0
                yield from self._wanted(i, part, start, done)
            start += taken

    def _wanted(self, i: int, part: SourcePart, start: int, done: int) -> Iterator[LocatedDocument]:
        """The kept ones of a part's documents from number `done` on; the part's first has the number `start` of all."""
        for record, document in zip(range(self.taken[i]), part.documents(), strict=False):
            if record >= done:
                if start + record in self.shown:
                    self.excerpts[start + record] = sample(document, document.text)
                if self.kept[start + record]:
                    yield LocatedDocument(Location(i, record), document)
