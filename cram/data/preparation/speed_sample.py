"""A small sample of a source: how much text there is, and how long this machine takes for some of it.

The sample is read from the beginnings of parts all over the source, and goes through the same functions that a
preparation uses. Nothing is written.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from statistics import mean, stdev

from cram.config.data import DataConfig, WordPieceConfig
from cram.data.cleaning.word_hashes import WordSplitter, serialize_normalizer
from cram.data.preparation.chunks import split_into_chunks
from cram.data.preparation.scan import Scanner
from cram.data.preparation.second_pass import DocumentTokenizer
from cram.data.preparation.vocabulary import TokenizerSource
from cram.data.text.document import Document, LocatedDocument, Location, byte_size
from cram.data.text.source import Source, SourcePart
from cram.data.tokenizer import load_tokenizer
from cram.data.wordpiece import train_tokenizer
from cram.errors import CramError

Clock = Callable[[], float]

PARTS = 16  # that are read
# The most text that is read of a part. The beginning of a file is compressed less than the rest: after four megabytes
# zstandard at a high level gives 95% of the text for each byte that it gives in the whole file.
PART_BYTES = 4_000_000
READ_SECONDS = 2.0  # no further part is begun after this time, which matters for slow networks
MEASURED_BYTES = 2_000_000  # text that is scanned and tokenized
# Sizes of vocabulary that are tried on the sample. 16384 pieces of two megabytes give nearly as many bytes for each
# token as 32768 pieces of fifty (4.54 and 4.66 in English).
VOCABULARIES = (16384, 4096, 1024, 256)


@dataclass(frozen=True)
class TextSample:
    """Some documents of a source, and what they tell about all of it.

    Attributes:
        documents: from all sampled parts, each part in proportion to its text.
        parts: how many parts were sampled.
        text_bytes: bytes (UTF-8) of the whole source, as estimated; None if nothing tells its size.
        spread: standard error of `text_bytes`, as a share of it.
        document_bytes: mean bytes of a document.
        read_seconds: for each byte of text.
        usable: share of the text that is packed, because the scarcest source of a list with weights limits the others.
    """

    documents: list[Document]
    parts: int
    text_bytes: float | None
    spread: float
    document_bytes: float
    read_seconds: float
    usable: float = 1.0


@dataclass(frozen=True)
class Speeds:
    """Seconds that one process needs.

    Attributes:
        measured_bytes: of the text they were measured on.
        bytes_per_token: bytes of that text for each token.
        scan: for each byte in the first pass.
        train: to train the vocabulary on the sample; 0 if a tokenizer is given.
        known_words: for each byte of the second pass if all words have occurred before.
        new_words: more for the sample, because of words that occurred for the first time.
    """

    measured_bytes: int
    bytes_per_token: float
    scan: float
    train: float
    known_words: float
    new_words: float


@dataclass(frozen=True)
class _PartSample:
    """What was read of one part; `expansion` is text for each byte on the disk, None if unknown."""

    documents: list[Document]
    size: int
    text_bytes: int
    expansion: float | None


def read_sample(source: Source, clock: Clock) -> TextSample | None:
    """Read the beginnings of parts all over a source; None if there is no text in them.

    Args:
        source: what is read.
        clock: returns seconds.

    Raises:
        CramError: something cannot be read.
    """
    start = clock()
    samples: list[_PartSample] = []
    chosen = _choose_parts(source.parts)
    for part in chosen:
        if samples and clock() - start > READ_SECONDS:
            break
        samples.append(_read_part(part))
    seconds = clock() - start
    total = sum(sample.text_bytes for sample in samples)
    if not total:
        return None
    expansions = [sample.expansion for sample in samples]
    known = [one for one in expansions if one is not None]
    size = sum(part.size for part in source.parts)
    all_read = len(samples) == len(source.parts)
    weights = [
        (sample.size if all_read else size / len(samples)) * (sample.expansion or 0.0) or float(sample.text_bytes)
        for sample in samples
    ]
    spread = stdev(known) / mean(known) / len(known) ** 0.5 if len(known) > 1 else 0.1
    documents = sum(
        weight / max(1, sample.text_bytes) * len(sample.documents)
        for weight, sample in zip(weights, samples, strict=True)
    )
    document_bytes = sum(weights) / max(1.0, documents)
    text_bytes = sum(weights) if size and len(known) == len(samples) else None
    if text_bytes is None and (stated := source.stated_size):
        text_bytes = stated.documents * document_bytes
    return TextSample(
        documents=_thin(samples, weights),
        parts=len(samples),
        text_bytes=text_bytes,
        spread=spread,
        document_bytes=document_bytes,
        read_seconds=seconds / total,
        usable=_usable_share(source),
    )


def measure_speeds(sample: TextSample, data: DataConfig, tokenizer: TokenizerSource, clock: Clock) -> Speeds | None:
    """Clean, sign and tokenize the sample; None if it is too small to train any vocabulary on.

    Args:
        sample: the documents.
        data: how they are cleaned.
        tokenizer: the tokenizer to load, or how to train one.
        clock: returns seconds.

    Raises:
        CramError: the tokenizer is at fault.
    """
    documents = sample.documents
    size = sum(byte_size(document.text) for document in documents)
    start = clock()
    loaded = _load_or_train(documents, tokenizer)
    train = clock() - start if tokenizer.path is None else 0.0
    if loaded is None:
        return None
    split, definition = loaded
    scanner = Scanner(data, split)
    encode = DocumentTokenizer(definition, data.filters, word_table=data.word_table)
    located = [LocatedDocument(Location(0, number), document) for number, document in enumerate(documents)]
    chunks = list(split_into_chunks((one.document.text, one) for one in located))
    for chunk in chunks:  # libraries are loaded when a document first needs them, which may take longer than the sample
        Scanner(data, split)(chunk)
    encode(documents[:1])
    laps = [clock()]
    for chunk in chunks:
        scanner(chunk)
    laps.append(clock())
    tokens = 0
    for chunk in chunks:
        tokens += len(encode([document for _, document in chunk]).ids)
    laps.append(clock())
    for chunk in chunks:
        encode([document for _, document in chunk])
    laps.append(clock())
    scan, first, again = (end - begin for begin, end in pairwise(laps))
    return Speeds(size, size / max(1, tokens), scan / size, train, again / size, max(0.0, first - again))


def _usable_share(source: Source) -> float:
    """Compute which share of a source's text its weights let be packed, taking its size on the disk for its text."""
    sizes = [part.size for part in source.parts]
    if len(source.groups) == 1 or not all(sizes):
        return 1.0
    return min(sum(sizes[part] for part in group.parts) / group.share for group in source.groups) / sum(sizes)


def _choose_parts(parts: list[SourcePart]) -> list[SourcePart]:
    """Choose parts evenly over the bytes of a source, so that large ones are chosen more often; each once."""
    if len(parts) <= PARTS:
        return parts
    total, seen = sum(part.size or 1 for part in parts), 0
    chosen: list[SourcePart] = []
    for part in parts:
        seen += part.size or 1
        if seen * PARTS >= total * (len(chosen) + 0.5):
            chosen.append(part)
    return chosen[:PARTS]


def _read_part(part: SourcePart) -> _PartSample:
    """Read the beginning of a part.

    Compressed files are read in blocks. Between two changes of the position lies a block's text.
    """
    documents: list[Document] = []
    text_bytes, position = 0, 0
    steps: list[tuple[int, int]] = []
    for document, new_position in part.read():
        if new_position != position:
            position = new_position
            steps.append((text_bytes, position))
        documents.append(document)
        text_bytes += byte_size(document.text)
        if text_bytes >= PART_BYTES:
            break
    else:
        return _PartSample(documents, part.size, text_bytes, text_bytes / part.size if part.size else None)
    if len(steps) > 1:
        (text_before, position_before), (text_after, position_after) = steps[(len(steps) - 1) // 2], steps[-1]
        expansion = (text_after - text_before) / (position_after - position_before)
        return _PartSample(documents, part.size, text_bytes, expansion)
    return _PartSample(documents, part.size, text_bytes, text_bytes / position if position else None)


def _thin(samples: list[_PartSample], weights: list[float]) -> list[Document]:
    """Take documents of each part in proportion to its text, about `MEASURED_BYTES` in all; long ones are cut."""
    chosen: list[Document] = []
    for sample, weight in zip(samples, weights, strict=True):
        quota = int(MEASURED_BYTES * weight / sum(weights))
        for document in sample.documents[:: max(1, sample.text_bytes // max(1, quota))]:
            if quota <= 0:
                break
            chosen.append(replace(document, text=document.text[:quota]))
            quota -= byte_size(chosen[-1].text)
    return chosen


def _load_or_train(documents: list[Document], tokenizer: TokenizerSource) -> tuple[WordSplitter, str] | None:
    """Load the tokenizer, or train one with as many pieces as the sample gives: its words, and its tokenizer.json."""
    if tokenizer.path is not None:
        loaded = load_tokenizer(tokenizer.path, tokenizer.special)
        return WordSplitter(serialize_normalizer(loaded.normalizer)), loaded.to_str()
    texts = [document.text for document in documents]
    for size in VOCABULARIES:
        wordpiece: WordPieceConfig = replace(tokenizer.wordpiece, vocab_size=min(size, tokenizer.wordpiece.vocab_size))
        try:
            trained = train_tokenizer(texts, wordpiece)
        except CramError:  # the sample has fewer pieces, or more characters
            continue
        return WordSplitter(serialize_normalizer(trained.normalizer)), trained.to_str()
    return None
