"""Encodes documents as `[CLS] text [SEP]`: the ids of the tokenizers library, mostly from a table of known words."""

import re
from itertools import chain

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from tokenizers import Encoding, Tokenizer, pre_tokenizers

from cram.data.encoding.word_boundaries import WordBoundaries, find_boundaries
from cram.data.encoding.word_table import WordTable, gather
from cram.data.special_tokens import SpecialTokens, find_written_controls, padded_vocabulary_size, select_text_tokens

Ids = npt.NDArray[np.integer]
Lengths = npt.NDArray[np.int64]

MOST_BYTES = 1 << 27  # text that is encoded at once; Arrow's offsets are int32


class DocumentEncoder:
    """Encodes documents as the tokenizer does, and faster. It is cheap to pickle: it loads the tokenizer at first use.

    Where the tokenizer's texts can be cut exactly (`find_boundaries`), each distinct word is encoded once and its ids
    are remembered. Other tokenizers encode each document as a whole.

    Names of special tokens in a text are text: `[MASK]` as a special token would be an input that is never predicted.

    Args:
        tokenizer: the content of a tokenizer.json.
        words: how many words are remembered; 0 encodes each document as a whole.
    """

    def __init__(self, tokenizer: str, words: int) -> None:
        self._definition = tokenizer
        self._words = words
        self._loaded: _LoadedTokenizer | None = None

    def __getstate__(self) -> dict[str, object]:
        """Leave out what is made at first use."""
        return {**self.__dict__, "_loaded": None}

    @property
    def is_slow(self) -> bool:
        """Whether words are to be remembered, but the tokenizer's texts cannot be cut exactly."""
        return bool(self._words) and self.table is None

    @property
    def frame(self) -> int:
        """How many ids of a document frame its text."""
        return self._load().special.frame

    @property
    def table(self) -> WordTable | None:
        """The table of known words; None if documents are encoded as a whole."""
        return self._load().table

    def encode_documents(self, texts: list[str]) -> tuple[Ids, Lengths]:
        """Encode texts as documents.

        Returns:
            The ids of all documents one after the other, each `[CLS] text [SEP]`: uint16 if the vocabulary allows, else
            int32. And how many ids each document has, int64 [texts].
        """
        return self._load().encode_documents(texts)

    def _load(self) -> "_LoadedTokenizer":
        if self._loaded is None:
            self._loaded = _LoadedTokenizer(self._definition, self._words)
        return self._loaded


class _LoadedTokenizer:
    """What a `DocumentEncoder` makes at first use."""

    def __init__(self, definition: str, words: int) -> None:
        self._tokenizer = Tokenizer.from_str(definition)
        self.special = SpecialTokens.of(self._tokenizer)
        self._controls = find_written_controls(self._tokenizer, self.special)
        self._tokenizer.encode_special_tokens = True
        self._dtype: type[np.integer] = np.uint16 if padded_vocabulary_size(self._tokenizer) <= 1 << 16 else np.int32
        boundaries = find_boundaries(self._tokenizer) if words else None
        if self._tokenizer.encode("").ids != self._framed([]):  # another post-processor
            boundaries = None
        self._boundaries = boundaries
        self.table: WordTable | None = None
        if boundaries is not None:
            self._word_tokenizer = _without_prefix_space(self._tokenizer, boundaries)
            # The model alone takes a quarter of the time. A pattern of no bytes at all never matches a word.
            self._is_plain = re.compile(boundaries.plain_words or b"").fullmatch
            self._plain_prefix = boundaries.plain_prefix
            self._tokenize = self._word_tokenizer.model.tokenize
            self.table = WordTable(words, self._encode_words)

    def encode_documents(self, texts: list[str]) -> tuple[Ids, Lengths]:
        """See `DocumentEncoder.encode_documents`."""
        if self._boundaries is None or self.table is None:
            encodings = self._encode_whole(texts)
            lengths = np.fromiter(map(len, encodings), np.int64, len(encodings))
            return np.fromiter(chain.from_iterable(encodings), self._dtype, int(lengths.sum())), lengths
        parts = [self._encode_by_words(some_texts, self._boundaries) for some_texts in _limit_bytes(texts)]
        return np.concatenate([ids for ids, _ in parts]), np.concatenate([lengths for _, lengths in parts])

    def _encode_by_words(self, texts: list[str], boundaries: WordBoundaries) -> tuple[Ids, Lengths]:
        if boundaries.prefix_space:
            texts = [text if text.startswith(" ") or not text else f" {text}" for text in texts]
        joined = "".join(texts).encode()
        sizes = np.array([len(text) if text.isascii() else len(text.encode()) for text in texts], np.int64)
        ends = np.cumsum(sizes)
        nonempty = sizes > 0
        if not nonempty.any():
            return self._frame_documents(np.empty(0, self._dtype), np.zeros(len(texts), np.int64))
        joined, starts = boundaries.cut(joined, (ends - sizes)[nonempty])
        words, numbers = _find_distinct(joined, starts)
        ids, first, counts = self._look_up(words, len(numbers))
        lengths = counts[numbers]
        # The ids of a text end where those of its last word do.
        last_words = np.searchsorted(starts, ends[nonempty])
        id_ends = np.cumsum(lengths)[last_words - 1]
        text_lengths = np.zeros(len(texts), np.int64)
        text_lengths[nonempty] = np.diff(id_ends, prepend=0)
        return self._frame_documents(gather(ids, first[numbers], lengths), text_lengths)

    def _look_up(self, words: list[bytes], occurrences: int) -> tuple[Ids, Lengths, Lengths]:
        """The ids of distinct words, close together, which is faster to gather from than the whole table."""
        assert self.table is not None
        self.table.occurrences += occurrences
        ids, starts, lengths = self.table.look_up(words)
        return gather(ids, starts, lengths).astype(self._dtype), np.cumsum(lengths) - lengths, lengths

    def _frame_documents(self, ids: Ids, lengths: Lengths) -> tuple[Ids, Lengths]:
        """Put the frame around the ids of each document."""
        before = self.special.frame - 1
        framed_lengths = lengths + self.special.frame
        framed: Ids = np.empty(int(framed_lengths.sum()), self._dtype)
        end = framed_end = 0
        for length in lengths.tolist():
            start, text_start = end, framed_end + before
            end, framed_end = start + length, text_start + length + 1
            if self.special.cls is not None:
                framed[text_start - 1] = self.special.cls
            framed[text_start : framed_end - 1] = ids[start:end]
            framed[framed_end - 1] = self.special.sep
        return framed, framed_lengths

    def _framed(self, ids: list[int]) -> list[int]:
        return [*([] if self.special.cls is None else [self.special.cls]), *ids, self.special.sep]

    def _encode_words(self, words: list[bytes]) -> list[list[int]]:
        ids: list[list[int]] = []
        others: list[int] = []
        for i, word in enumerate(words):
            if self._is_plain(word):
                bare = word.lstrip(b" ")
                prefix = self._plain_prefix if len(bare) < len(word) else ""
                ids.append([token.id for token in self._tokenize(prefix + bare.decode())])
            else:
                ids.append([])
                others.append(i)
        texts = [words[i].decode() for i in others]
        encodings = self._word_tokenizer.encode_batch_fast(texts, add_special_tokens=False)
        for i, encoding in zip(others, encodings, strict=True):
            ids[i] = encoding.ids
        if not self._controls:
            return ids
        return [[number for number in one if number not in self._controls] for one in ids]

    def _encode_whole(self, texts: list[str]) -> list[list[int]]:
        encodings = self._tokenizer.encode_batch_fast(texts)
        if not self._controls:
            return [encoding.ids for encoding in encodings]
        return [self._select_text_ids(encoding) for encoding in encodings]

    def _select_text_ids(self, encoding: Encoding) -> list[int]:
        ids = encoding.ids  # read once, because it is a new list of the whole document whenever it is read
        return [ids[place] for place in select_text_tokens(encoding, self._controls)]


def _without_prefix_space(tokenizer: Tokenizer, boundaries: WordBoundaries) -> Tokenizer:
    """Return the tokenizer for single words: it writes no space before them, which belongs to whole texts."""
    if not boundaries.prefix_space:
        return tokenizer
    for_words = Tokenizer.from_str(tokenizer.to_str())
    for_words.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    for_words.encode_special_tokens = True
    return for_words


def _find_distinct(texts: bytes, starts: npt.NDArray[np.int64]) -> tuple[list[bytes], npt.NDArray[np.int32]]:
    """Return the distinct words, and for each word its number among them.

    Args:
        texts: one word after the other.
        starts: int64 [words], where the words begin.
    """
    offsets = np.append(starts, len(texts)).astype(np.int32)
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(texts)]
    encoded = pa.Array.from_buffers(pa.binary(), len(starts), buffers).dictionary_encode()
    return encoded.dictionary.to_numpy(zero_copy_only=False).tolist(), encoded.indices.to_numpy()


def _limit_bytes(texts: list[str]) -> list[list[str]]:
    """Split texts into lists that can be encoded at once."""
    parts: list[list[str]] = [[]]
    size = 0
    for text in texts:
        if size + 4 * len(text) > MOST_BYTES and parts[-1]:
            parts.append([])
            size = 0
        parts[-1].append(text)
        size += 4 * len(text)
    return parts
