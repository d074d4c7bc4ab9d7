"""The second pass: it reads the kept documents again and tokenizes them."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from cram.config.data import WORD_TABLE, FilterConfig
from cram.data.cleaning.cleaner import EMPTY, Cleaner
from cram.data.encoding.document_encoder import DocumentEncoder
from cram.data.preparation.chunks import split_by_size, split_into_chunks
from cram.data.preparation.fates import Fate
from cram.data.preparation.held_out_search import HeldOutIndex, strip_frame
from cram.data.preparation.samples import Sample, Samples, add_samples, make_sample
from cram.data.preparation.stopwatch import Stopwatch
from cram.data.special_tokens import SpecialTokens
from cram.data.text.document import Document, LocatedDocument, Location, byte_size
from cram.data.text.source import SourcePart

SLOW_TOKENIZER = (
    "this tokenizer's texts cannot be cut into words exactly, so data.word_table is not used and each document is "
    "tokenized as a whole, which takes about four times as long"
)


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
        ids: uint16 or int32, the ids of all documents one after the other, each `[CLS] text [SEP]`.
        lengths: int64 [documents], the ids of each document; 0 if it was dropped.
        bytes: int64 [documents], of the cleaned texts.
        dropped: for each reason, the bytes of each dropped document as it was read.
        samples: of the dropped documents.
        seconds: by activity.
        overlaps: the documents that contain windows of held-out ones, by index in the chunk.
    """

    ids: npt.NDArray[np.integer]
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

    def keep(self, kept: npt.NDArray[np.bool_]) -> None:
        """Remove the ids of all documents but those of `kept`, bool [documents]."""
        if not kept.all():
            self.ids = self.ids[np.repeat(kept, self.lengths)]
            self.lengths[~kept] = 0


class DocumentTokenizer:
    """Tokenizes chunks of documents. It is cheap to pickle: the tokenizer is made at the first call in each process.

    Documents are dropped if they have no tokens, if a filter on tokens says so, or if their ids are those of a held-out
    document.

    Args:
        tokenizer: the content of a tokenizer.json.
        filters: which lines are cut, and which documents are dropped by their tokens.
        held_out: a file of a `HeldOutIndex`; None does not search for held-out text.
        word_table: how many words each process remembers with their ids.
    """

    def __init__(
        self, tokenizer: str, filters: FilterConfig, held_out: Path | None = None, word_table: int = WORD_TABLE
    ) -> None:
        self._encoder = DocumentEncoder(tokenizer, word_table)
        self._cleaner = Cleaner(filters)
        self._index_path = held_out
        self._index: HeldOutIndex | None = None

    def __call__(self, documents: list[Document]) -> TokenizedDocuments:
        """Clean and tokenize a chunk of documents."""
        stopwatch = Stopwatch()
        texts = [self._cleaner.clean(document.text) for document in documents]
        stopwatch.lap("cleaning")
        ids, lengths = self._encoder.encode_documents(texts)
        stopwatch.lap("tokenizing")
        sizes = np.array([byte_size(text) for text in texts], np.int64)
        result = TokenizedDocuments(ids, lengths, sizes, {}, {}, stopwatch.seconds)
        self._drop_by_tokens(result, documents, texts)
        stopwatch.lap("gathering")
        if self._index_path:
            self._index = self._index or HeldOutIndex.load(self._index_path)
            self._search_held_out(self._index, result, documents, texts)
            stopwatch.lap("held-out ids")
        return result

    @property
    def is_slow(self) -> bool:
        """Whether the tokenizer has no use for the table of words."""
        return self._encoder.is_slow

    def _drop_by_tokens(self, result: TokenizedDocuments, documents: list[Document], texts: list[str]) -> None:
        """Drop documents without tokens, and those that a filter on tokens drops."""
        kept = np.ones(len(texts), bool)
        for i, tokens in enumerate((result.lengths - self._encoder.frame).tolist()):
            reason = EMPTY if tokens <= 0 else self._cleaner.judge_tokens(tokens, len(texts[i]))
            if reason:
                kept[i] = False
                result.drop(reason, documents[i], texts[i])
        result.keep(kept)

    def _search_held_out(
        self, index: HeldOutIndex, result: TokenizedDocuments, documents: list[Document], texts: list[str]
    ) -> None:
        """Drop documents with the ids of a held-out one, and note those that contain windows of one."""
        ends = np.cumsum(result.lengths)
        starts = ends - result.lengths
        prefix = self._encoder.frame - 1  # ids before the text
        (nonempty,) = result.lengths.nonzero()
        equal = np.zeros(len(ends), bool)
        equal[nonempty] = index.match_documents(result.ids, starts[nonempty] + prefix, ends[nonempty] - 1)
        for i in np.flatnonzero(equal).tolist():
            result.drop(Fate.IDS_HELD_OUT.reason, documents[i], texts[i])
        places, windows = index.find_windows(result.ids)
        owners = np.searchsorted(ends, places, side="right")  # the document in which each window begins
        for i in np.unique(owners[~equal[owners]]).tolist():
            own_windows = np.unique(windows[owners == i]).tolist()
            sample = make_sample(documents[i], texts[i])
            result.overlaps[i] = Overlap(own_windows, byte_size(documents[i].text), sample)
        result.keep(~equal)


def index_held_out(texts: Iterable[str], tokenizer: str) -> HeldOutIndex:
    """Build the index by which held-out texts are searched for.

    Args:
        texts: the held-out texts.
        tokenizer: the content of a tokenizer.json.
    """
    encoder = DocumentEncoder(tokenizer, WORD_TABLE)
    special = SpecialTokens.of(Tokenizer.from_str(tokenizer))
    chunks = split_into_chunks((text, text) for text in texts)
    return HeldOutIndex.of([strip_frame(ids, special) for chunk in chunks for ids in _split(encoder, chunk)])


def _split(encoder: DocumentEncoder, texts: list[str]) -> list[npt.NDArray[np.integer]]:
    """Return the ids of each text."""
    ids, lengths = encoder.encode_documents(texts)
    return np.split(ids, np.cumsum(lengths)[:-1])


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
        for chunk, progress in split_by_size((byte_size(located.document.text), located) for located in self._read()):
            parts = [location.part for location, _ in chunk]
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
