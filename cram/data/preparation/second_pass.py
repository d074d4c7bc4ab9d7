"""The second pass: it reads the kept documents again and tokenizes them."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

import numpy as np
import numpy.typing as npt
from tokenizers import Encoding, Tokenizer

from cram.config.data import FilterConfig
from cram.data.cleaning.cleaner import EMPTY, Cleaner
from cram.data.preparation.chunks import split_into_chunks
from cram.data.preparation.fates import Fate
from cram.data.preparation.held_out_search import HeldOutIndex, strip_frame
from cram.data.preparation.samples import Sample, Samples, add_samples, make_sample
from cram.data.preparation.stopwatch import Stopwatch
from cram.data.special_tokens import SpecialTokens, find_written_controls, select_text_tokens
from cram.data.text.document import Document, LocatedDocument, Location, byte_size
from cram.data.text.source import SourcePart


@dataclass(frozen=True)
class Overlap:
    """A document that contains windows of held-out documents.

    Attributes:
        windows: their indices in `HeldOutIndex.windows`, ascending, each once.
        bytes: of the document's text as it was read.
        sample: of the document, in case it is dropped.
    """

    windows: list[int]
    bytes: int
    sample: Sample


@dataclass
class TokenizedDocuments:
    """A chunk of documents as tokens.

    Attributes:
        ids: int32, the ids of all documents one after the other, each `[CLS] text [SEP]`.
        lengths: int64 [documents], the ids of each document; 0 if it was dropped.
        bytes: int64 [documents], of the cleaned texts.
        dropped: for each reason, the bytes of each dropped document as it was read.
        samples: of the dropped documents.
        seconds: by activity.
        overlaps: the documents that contain windows of held-out ones, by index in the chunk.
    """

    ids: npt.NDArray[np.int32]
    lengths: npt.NDArray[np.int64]
    bytes: npt.NDArray[np.int64]
    dropped: dict[str, list[int]]
    samples: Samples
    seconds: dict[str, float]
    overlaps: dict[int, Overlap] = field(default_factory=dict)

    def drop(self, reason: str, document: Document, text: str) -> None:
        """Count a document as dropped, and take a sample of its text."""
        self.dropped.setdefault(reason, []).append(byte_size(document.text))
        add_samples(self.samples, {reason: [make_sample(document, text)]})


class DocumentTokenizer:
    """Tokenizes chunks of documents. It is cheap to pickle: the tokenizer is made at the first call in each process.

    Documents are dropped if they have no tokens, if a filter on tokens says so, or if their ids are those of a held-out
    document.

    Args:
        tokenizer: the content of a tokenizer.json.
        filters: which lines are cut, and which documents are dropped by their tokens.
        held_out: a file of a `HeldOutIndex`; None does not search for held-out text.
    """

    def __init__(self, tokenizer: str, filters: FilterConfig, held_out: Path | None = None) -> None:
        self._definition = tokenizer
        self._cleaner = Cleaner(filters)
        self._index_path = held_out
        self._index: HeldOutIndex | None = None
        self._tokenizer: Tokenizer | None = None
        self._frame = 0  # tokens that frame a document
        self._controls: set[int] = set()

    def __call__(self, documents: list[Document]) -> TokenizedDocuments:
        """Clean and tokenize a chunk of documents."""
        stopwatch = Stopwatch()
        texts = [self._cleaner.clean(document.text) for document in documents]
        stopwatch.lap("cleaning")
        encodings = self.encode(texts)
        stopwatch.lap("tokenizing")
        sizes = np.array([byte_size(text) for text in texts], np.int64)
        result = TokenizedDocuments(np.empty(0, np.int32), np.empty(0, np.int64), sizes, {}, {}, stopwatch.seconds)
        for i, (document, text) in enumerate(zip(documents, texts, strict=True)):
            tokens = len(encodings[i]) - self._frame
            reason = EMPTY if tokens <= 0 else self._cleaner.judge_tokens(tokens, len(text))
            if reason:
                encodings[i] = []
                result.drop(reason, document, text)
        result.lengths = np.array([len(ids) for ids in encodings], np.int64)
        result.ids = np.fromiter(chain.from_iterable(encodings), np.int32, int(result.lengths.sum()))
        stopwatch.lap("gathering")
        if self._index_path:
            self._index = self._index or HeldOutIndex.load(self._index_path)
            self._search_held_out(self._index, result, documents, texts)
            stopwatch.lap("held-out ids")
        return result

    def encode(self, texts: list[str]) -> list[list[int]]:
        """Return the ids of each text, `[CLS] text [SEP]`."""
        if not self._tokenizer:
            self._tokenizer = Tokenizer.from_str(self._definition)
            self._frame = SpecialTokens.of(self._tokenizer).frame
            # `[MASK]` in a text is text: as a special token it would be an input that is never predicted.
            self._controls = find_written_controls(self._tokenizer, SpecialTokens.of(self._tokenizer))
            self._tokenizer.encode_special_tokens = True
        encodings = self._tokenizer.encode_batch_fast(texts)
        if not self._controls:
            return [encoding.ids for encoding in encodings]
        return [self._select_text_ids(encoding) for encoding in encodings]

    def _select_text_ids(self, encoding: Encoding) -> list[int]:
        ids = encoding.ids  # read once, because it is a new list of the whole document whenever it is read
        return [ids[place] for place in select_text_tokens(encoding, self._controls)]

    def _search_held_out(
        self, index: HeldOutIndex, result: TokenizedDocuments, documents: list[Document], texts: list[str]
    ) -> None:
        """Drop documents with the ids of a held-out one, and note those that contain windows of one."""
        ends = np.cumsum(result.lengths)
        starts = ends - result.lengths
        (nonempty,) = result.lengths.nonzero()
        equal = np.zeros(len(ends), bool)
        equal[nonempty] = index.match_documents(result.ids, starts[nonempty] + self._frame - 1, ends[nonempty] - 1)
        for i in np.flatnonzero(equal).tolist():
            result.drop(Fate.IDS_HELD_OUT.reason, documents[i], texts[i])
        places, windows = index.find_windows(result.ids)
        owners = np.searchsorted(ends, places, side="right")  # the document in which each window begins
        for i in np.unique(owners[~equal[owners]]).tolist():
            own_windows = np.unique(windows[owners == i]).tolist()
            sample = make_sample(documents[i], texts[i])
            result.overlaps[i] = Overlap(own_windows, byte_size(documents[i].text), sample)
        result.ids = result.ids[np.repeat(~equal, result.lengths)]
        result.lengths[equal] = 0


def index_held_out(texts: Iterable[str], tokenizer: str) -> HeldOutIndex:
    """Build the index by which held-out texts are searched for.

    Args:
        texts: the held-out texts.
        tokenizer: the content of a tokenizer.json.
    """
    encoder = DocumentTokenizer(tokenizer, FilterConfig())
    special = SpecialTokens.of(Tokenizer.from_str(tokenizer))
    chunks = split_into_chunks((text, text) for text in texts)
    return HeldOutIndex.of(
        [strip_frame(np.array(ids, np.int32), special) for chunk in chunks for ids in encoder.encode(chunk)]
    )


@dataclass(frozen=True)
class ChunkNote:
    """What belongs to a chunk of documents and is not sent to the worker process.

    Attributes:
        parts: the index of each document's part.
        cursor: the location of the last document.
        excerpts: of documents that were read since the chunk before and are to be shown, by document number.
        progress: bytes of the documents' text.
    """

    parts: list[int]
    cursor: Location
    excerpts: dict[int, Sample]
    progress: int


@dataclass
class KeptDocumentReader:
    """Reads the kept documents in chunks.

    Attributes:
        parts: of the source.
        kept: bool [documents], by document number.
        taken: how many documents of each part were scanned.
        with_excerpt: the numbers of the documents of which an excerpt is taken, kept or not.
        cursor: the location after which to start.
        excerpts: those taken after the last chunk, by document number.
    """

    parts: list[SourcePart]
    kept: npt.NDArray[np.bool_]
    taken: list[int]
    with_excerpt: set[int]
    cursor: Location = Location(0, -1)
    excerpts: dict[int, Sample] = field(default_factory=dict)

    def __iter__(self) -> Iterator[tuple[list[Document], ChunkNote]]:
        for chunk in split_into_chunks((located.document.text, located) for located in self._read()):
            parts = [location.part for location, _ in chunk]
            progress = sum(byte_size(document.text) for _, document in chunk)
            note = ChunkNote(parts, chunk[-1].location, self.excerpts, progress)
            self.excerpts = {}
            yield [document for _, document in chunk], note

    def _read(self) -> Iterator[LocatedDocument]:
        first_number = 0
        for part, taken in enumerate(self.taken):
            if taken and part >= self.cursor.part:
                first_record = self.cursor.record + 1 if part == self.cursor.part else 0
                yield from self._read_part(part, first_number, first_record)
            first_number += taken

    def _read_part(self, part: int, first_number: int, first_record: int) -> Iterator[LocatedDocument]:
        """Yield the kept documents of a part.

        Args:
            part: index of the part.
            first_number: document number of the part's first document.
            first_record: documents before it are skipped.
        """
        for record, document in zip(range(self.taken[part]), self.parts[part].documents(), strict=False):
            if record >= first_record:
                number = first_number + record
                if number in self.with_excerpt:
                    self.excerpts[number] = make_sample(document, document.text)
                if self.kept[number]:
                    yield LocatedDocument(Location(part, record), document)
