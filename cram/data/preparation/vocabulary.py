"""The first stage: a tokenizer, given or trained on a sample of the source, and how much text makes a token."""

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
from cram.data.pieces import lost_characters
from cram.data.preparation.language import language_warnings
from cram.data.preparation.scan import chunks
from cram.data.shards.mapped_arrays import read_kept
from cram.data.special import SpecialTokens
from cram.data.text.document import byte_size
from cram.data.text.reading_plan import ReadingPlan
from cram.data.text.source import Source
from cram.data.tokenizer import load_tokenizer, make_normalizer, train_tokenizer
from cram.errors import CramError
from cram.files.atomic import sha256_bytes
from cram.files.sealed import read_sealed, write_sealed
from cram.terminal.progress import Progress

MEASURED_BYTES = 2_000_000  # text on which bytes per token are measured
LOST_BYTES = 500_000  # text in which lost characters are counted
# Compressibility is meant for what is no prose. A sample that loses more than the first share to it is told of the
# value that would drop the second, which is what 0.3 drops of English at 32768 pieces, rounded up.
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
        """What the shards depend on: the settings of training, or the sha256 of the loaded tokenizer.

        The loaded tokenizer includes the roles of its special tokens, which files beside it may state.
        """
        if self.path is None:
            return asdict(self.wordpiece)
        return sha256_bytes(load_tokenizer(self.path, self.special).to_str().encode())


@dataclass(frozen=True)
class Vocabulary:
    """A tokenizer.json and what was measured with it.

    bytes_per_token: of the source's text, dropped documents included. lost: the share of `lost_characters`.
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
) -> Vocabulary:
    """Loads the chosen tokenizer, or trains one on documents that are not held out; keeps the result in `folder`.

    Raises:
        CramError: there is too little text, or the tokenizer is at fault.
    """
    wordpiece = chosen.wordpiece
    if earlier := read_kept(folder / NAME, read_sealed):
        return Vocabulary(**earlier)
    if chosen.path is None:
        with progress.stage("training the tokenizer", None, "bytes") as stage:
            split = WordSplitter(serialize_normalizer(make_normalizer(wordpiece)))
            texts, taken = _sample(source, wordpiece.sample_bytes, data, split)
            tokenizer = train_tokenizer(texts, wordpiece)
            stage.advance(taken)
    else:
        tokenizer = load_tokenizer(chosen.path, chosen.special)
        texts, taken = _sample(source, MEASURED_BYTES, data, WordSplitter(serialize_normalizer(tokenizer.normalizer)))
    some = texts[:: max(1, sum(map(byte_size, texts)) // LOST_BYTES)]
    lost = lost_characters(tokenizer, SpecialTokens.of(tokenizer).unk, some)
    for warning in language_warnings(some, wordpiece if chosen.path is None else None, lost):
        print(f"warning: {warning}", flush=True)
    pace, unfit = _measure(tokenizer, texts, taken, data.filters)
    if unfit:
        print(f"warning: {unfit}", flush=True)
    found = Vocabulary(tokenizer.to_str(pretty=True), pace, lost)
    write_sealed(folder / NAME, asdict(found))
    return found


def _sample(source: Source, limit: int, data: DataConfig, split: WordSplitter) -> tuple[list[str], int]:
    """Texts spread over the source that are neither held out nor filtered, and the bytes of all that were read.

    A text with the letters of a held-out one counts as held out.
    """
    cleaner = Cleaner(data.filters, split)
    plan = ReadingPlan(source, limit)
    texts = (document.text for _, document in plan if not document.is_blank)
    found: list[str] = []
    hashes: list[int] = []
    keys: list[bytes] = []
    readable = 0
    for chunk in chunks((text, text) for text in texts):
        readable += len(chunk)
        for text, judgement in zip(chunk, cleaner.judge(chunk), strict=True):
            if judgement.reason is None:
                found.append(judgement.text)
                hashes.append(hash_text(text))
                keys.append(sign_texts([judgement.words], near=False)[0].tobytes())
    held_out = choose_held_out(np.array(hashes, np.uint64), data.held_out)
    twins = {key for key, out in zip(keys, held_out, strict=True) if out}
    left = [text for text, key in zip(found, keys, strict=True) if key not in twins]
    if not left:
        raise nothing_left(data, readable, len(found), sampled=not all(plan.state.exhausted))
    return left, plan.state.bytes


def _measure(tokenizer: Tokenizer, texts: list[str], taken: int, config: FilterConfig) -> tuple[float, str | None]:
    """On texts from all over the sample: bytes per token, and a warning where compressibility drops many of them.

    The bytes are corrected by the share of the sample that was dropped.
    """
    cleaner = Cleaner(config)
    total = sum(map(byte_size, texts))
    some = texts[:: max(1, total // MEASURED_BYTES)]
    lengths = list(map(len, tokenizer.encode_batch_fast(some)))
    frame = SpecialTokens.of(tokenizer).frame
    pairs = list(zip(lengths, map(len, some), strict=True))
    kept = [length for length, characters in pairs if not cleaner.judge_tokens(length - frame, characters)]
    pace = taken / total * sum(map(byte_size, some)) / max(1, sum(kept))
    dropped = 1 - len(kept) / len(some)
    if dropped <= MANY_DROPPED:
        return pace, None
    shares = np.array([(length - frame) / characters for length, characters in pairs])
    fitting = math.ceil(float(np.quantile(shares, 1 - FEW_DROPPED)) * 100 + 1) / 100
    return pace, (
        f"data.filters.compressibility={config.compressibility} drops {dropped:.0%} of the documents of a sample, with "
        f"a vocabulary of {tokenizer.get_vocab_size():,} (the smaller it is, the more tokens a character takes); "
        f"data.filters.compressibility={fitting} would drop {FEW_DROPPED:.0%}"
    )


def nothing_left(data: DataConfig, documents: int, held_out: int, sampled: bool = False) -> CramError:
    """What to tell the user of a source without a training document; `sampled`: only some of it was looked at."""
    of_what = " of a sample of the source" if sampled else ""
    if not documents:
        return CramError(f"data.source={data.source!r}: the files hold no text; give other ones")
    if held_out == documents:
        return CramError(
            f"data.source={data.source!r}: nothing is left to train on, "
            f"its {held_out} document(s){of_what} are held out\n"
            "give more documents, cut .txt files into more (data.document=blank_line or line), or lower data.held_out"
        )
    if held_out:
        return CramError(
            f"data.source={data.source!r}: nothing is left to train on, "
            f"of {documents} documents{of_what} {held_out} are held out and the others dropped\n"
            "give more documents, see data.filters and data.dedupe, or lower data.held_out"
        )
    return CramError(
        f"data.source={data.source!r}: nothing is left to train on, all {documents} document(s){of_what} are dropped\n"
        "see data.filters and data.dedupe: data.filters.min_words=0 keeps short ones, for example"
    )
