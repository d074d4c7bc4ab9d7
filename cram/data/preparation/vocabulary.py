"""The first stage: loads a tokenizer or trains one on a sample, and measures how much text makes a token."""

import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from cram.config.data import DataConfig, FilterConfig, SpecialConfig, WordPieceConfig
from cram.data.cleaning.cleaner import Cleaner
from cram.data.cleaning.dedupe import sign_texts
from cram.data.cleaning.held_out_split import choose_held_out, hash_text
from cram.data.cleaning.word_hashes import WordSplitter, serialize_normalizer
from cram.data.preparation.chunks import split_into_chunks
from cram.data.preparation.engine import Engine, LocalEngine
from cram.data.preparation.language import language_warnings
from cram.data.shards.mapped_arrays import read_if_intact
from cram.data.special_tokens import SpecialTokens
from cram.data.text.document import byte_size
from cram.data.text.reading_plan import ReadingPlan
from cram.data.text.source import Source
from cram.data.token_bytes import measure_lost_characters
from cram.data.tokenizer import load_tokenizer
from cram.data.wordpiece import make_normalizer, train_tokenizer
from cram.errors import CramError
from cram.files.atomic import sha256_bytes
from cram.files.sealed import read_sealed, write_sealed
from cram.terminal.progress import Progress, Stage

MEASURED_BYTES = 2_000_000  # text on which bytes per token are measured
LOST_BYTES = 500_000  # text in which lost characters are counted
SMALL_SAMPLE = 16_000_000  # bytes; a smaller sample is judged before further processes would have started
# The filter of compressibility is meant for text that is not prose. If it drops more of a sample than MANY_DROPPED, a
# warning names the value that would drop FEW_DROPPED: what 0.3 drops of English at 32768 pieces, rounded up.
MANY_DROPPED, FEW_DROPPED = 0.05, 0.01
NAME = "vocabulary.json"


@dataclass(frozen=True)
class TokenizerSource:
    """Where a preparation gets its tokenizer from: a file, or training on the text.

    Attributes:
        path: a tokenizer.json to load; None trains WordPiece on a sample of the source.
        wordpiece: how to train; unused with a path.
        special: names of the special tokens of the loaded tokenizer; unused without a path.
    """

    path: str | None = None
    wordpiece: WordPieceConfig = field(default_factory=WordPieceConfig)
    special: SpecialConfig = field(default_factory=SpecialConfig)

    def fingerprint(self) -> dict[str, Any] | str:
        """Return what the shards depend on: the settings of training, or the sha256 of the loaded tokenizer.

        The loaded tokenizer includes the roles of its special tokens, which files beside it may state.
        """
        if self.path is None:
            return asdict(self.wordpiece)
        return sha256_bytes(load_tokenizer(self.path, self.special).to_str().encode())


@dataclass(frozen=True)
class Vocabulary:
    """A tokenizer and what was measured with it.

    Attributes:
        definition: the content of tokenizer.json.
        bytes_per_token: bytes of the source's text for each token, with the text of documents that are dropped.
        lost: the share of characters that `measure_lost_characters` returns.
    """

    definition: str
    bytes_per_token: float
    lost: float = 0.0


def make_vocabulary(
    source: Source,
    data: DataConfig,
    chosen: TokenizerSource,
    folder: Path,
    progress: Progress,
    engine: Engine | None = None,
) -> Vocabulary:
    """Load the chosen tokenizer, or train one on documents that are not held out.

    Args:
        source: the text.
        data: how it is cleaned, and the held-out share.
        chosen: the tokenizer to load, or how to train one.
        folder: where the result is kept, and read from if it is there.
        progress: shows the sample and the training.
        engine: where the documents of the sample are judged; by default in this process.

    Raises:
        CramError: there is too little text, or the tokenizer is at fault.
    """
    if stored := read_if_intact(folder / NAME, read_sealed):
        return Vocabulary(**stored)
    wordpiece = chosen.wordpiece
    if chosen.path is None:
        split = WordSplitter(serialize_normalizer(make_normalizer(wordpiece)))
        with progress.stage("reading a sample for the tokenizer", None, "bytes") as stage:
            texts, bytes_read = _sample_texts(source, wordpiece.sample_bytes, data, split, engine, stage)
        with progress.stage("training the tokenizer", None, "bytes") as stage:
            tokenizer = train_tokenizer(texts, wordpiece)
            stage.advance(bytes_read)
    else:
        tokenizer = load_tokenizer(chosen.path, chosen.special)
        split = WordSplitter(serialize_normalizer(tokenizer.normalizer))
        texts, bytes_read = _sample_texts(source, MEASURED_BYTES, data, split)
    some_texts = _thin(texts, LOST_BYTES)
    lost = measure_lost_characters(tokenizer, SpecialTokens.of(tokenizer).unk, some_texts)
    for warning in language_warnings(some_texts, wordpiece if chosen.path is None else None, lost):
        print(f"warning: {warning}", flush=True)
    bytes_per_token, advice = _measure(tokenizer, texts, bytes_read, data.filters)
    if advice:
        print(f"warning: {advice}", flush=True)
    vocabulary = Vocabulary(tokenizer.to_str(pretty=True), bytes_per_token, lost)
    write_sealed(folder / NAME, asdict(vocabulary))
    return vocabulary


def _thin(texts: list[str], limit: int) -> list[str]:
    """Take every n-th text, so that about `limit` bytes are left."""
    return texts[:: max(1, sum(map(byte_size, texts)) // limit)]


@dataclass(frozen=True)
class _SampleDocument:
    """A document of the sample that no filter drops: its cleaned text, and two hashes that tell which are held out."""

    text: str
    hash: int
    signature: bytes


class _SampleJudge:
    """Judges the documents of a chunk; workers get a copy."""

    def __init__(self, cleaner: Cleaner) -> None:
        self._cleaner = cleaner

    def __call__(self, chunk: list[str]) -> list[_SampleDocument]:
        """Return the documents that no filter drops."""
        judged = [(text, one) for text, one in zip(chunk, self._cleaner.judge(chunk), strict=True) if not one.reason]
        signatures, _ = sign_texts([judgement.words for _, judgement in judged], near=False)
        return [
            _SampleDocument(judgement.text, hash_text(text), signature.tobytes())
            for (text, judgement), signature in zip(judged, signatures, strict=True)
        ]


def _sample_texts(
    source: Source,
    limit: int,
    data: DataConfig,
    split: WordSplitter,
    engine: Engine | None = None,
    stage: Stage | None = None,
) -> tuple[list[str], int]:
    """Read a sample of the source, and take the texts that are neither held out nor dropped by a filter.

    A text with the same letters as a held-out one counts as held out.

    Returns:
        The cleaned texts, and the bytes of all documents that were read.
    """
    plan = ReadingPlan(source, limit)
    texts = (document.text for _, document in plan if not document.is_blank)
    chunks = split_into_chunks((text, text) for text in texts)
    kept: list[_SampleDocument] = []
    documents = 0
    judge = _SampleJudge(Cleaner(data.filters, split))
    with (engine if engine and limit >= SMALL_SAMPLE else LocalEngine(1)).start(judge) as workers:
        for (count, size), judged in workers.map((chunk, (len(chunk), sum(map(byte_size, chunk)))) for chunk in chunks):
            documents += count
            kept += judged
            if stage:
                stage.advance(size)
    hashes = np.fromiter((document.hash for document in kept), np.uint64, len(kept))
    is_held_out = choose_held_out(hashes, data.held_out)
    held_out = {document.signature for document, chosen in zip(kept, is_held_out, strict=True) if chosen}
    training_texts = [document.text for document in kept if document.signature not in held_out]
    if not training_texts:
        raise nothing_left(data, documents, len(kept), sampled=not all(plan.state.exhausted))
    return training_texts, plan.state.bytes


def _measure(tokenizer: Tokenizer, texts: list[str], bytes_read: int, config: FilterConfig) -> tuple[float, str | None]:
    """Measure bytes per token on texts from all over the sample.

    Args:
        tokenizer: encodes the texts.
        texts: of the sample, without dropped and held-out documents.
        bytes_read: of the sample, with them; the result is corrected by their share.
        config: the filters.

    Returns:
        Bytes per token, and a warning if the filter of compressibility drops many of the texts.
    """
    cleaner = Cleaner(config)
    some_texts = _thin(texts, MEASURED_BYTES)
    lengths = list(map(len, tokenizer.encode_batch_fast(some_texts)))
    frame = SpecialTokens.of(tokenizer).frame
    pairs = list(zip(lengths, map(len, some_texts), strict=True))
    kept = [length for length, characters in pairs if not cleaner.judge_tokens(length - frame, characters)]
    bytes_kept, bytes_measured = sum(map(byte_size, texts)), sum(map(byte_size, some_texts))
    bytes_per_token = bytes_read / bytes_kept * bytes_measured / max(1, sum(kept))
    dropped = 1 - len(kept) / len(some_texts)
    if dropped <= MANY_DROPPED:
        return bytes_per_token, None
    tokens_per_character = np.array([(length - frame) / characters for length, characters in pairs])
    value = math.ceil(float(np.quantile(tokens_per_character, 1 - FEW_DROPPED)) * 100 + 1) / 100
    return bytes_per_token, (
        f"data.filters.compressibility={config.compressibility} drops {dropped:.0%} of the documents of a sample with "
        f"a vocabulary of {tokenizer.get_vocab_size():,} (a smaller one needs more tokens for each character); "
        f"data.filters.compressibility={value} would drop {FEW_DROPPED:.0%}"
    )


def nothing_left(data: DataConfig, documents: int, held_out: int, sampled: bool = False) -> CramError:
    """Make the error for a source without a document to train on.

    Args:
        data: names the source in the message.
        documents: that can be read and are not blank.
        held_out: of these, the held-out ones.
        sampled: whether only a sample of the source was read.
    """
    of_what = " of a sample of the source" if sampled else ""
    if not documents:
        return CramError(f"data.source={data.source!r}: the files contain no text; give others.")
    if held_out == documents:
        return CramError(
            f"data.source={data.source!r}: nothing is left to train on, "
            f"its {held_out} document(s){of_what} are held out\n"
            "give more documents, cut .txt files into more (data.document=blank_line or line), or lower data.held_out."
        )
    if held_out:
        return CramError(
            f"data.source={data.source!r}: nothing is left to train on, "
            f"of {documents} documents{of_what} {held_out} are held out and the others dropped\n"
            "give more documents, see data.filters and data.dedupe, or lower data.held_out."
        )
    return CramError(
        f"data.source={data.source!r}: nothing is left to train on, all {documents} document(s){of_what} are dropped\n"
        "see data.filters and data.dedupe; for example data.filters.min_words=0 keeps short ones."
    )
