"""Find documents that contain text of the benchmarks that a model will be judged by.

Source: Brown et al. 2020, arXiv:2005.14165, appendix C (overlap of n-grams of words with the benchmarks). Changed:
always 13 words, not 8 to 13 by data set; the whole document is dropped, not 200 characters around the overlap; files
are cut at tabs into fields, so that no n-gram crosses from one sentence of a pair into the other.
"""

from hashlib import sha256
from pathlib import Path

import numpy as np

from cram.data.cleaning.columns import TextColumn
from cram.data.cleaning.word_hashes import Hashes, Words, WordSplitter, look_up, ngram_hashes, split_words
from cram.data.text.paths import find_files, open_file
from cram.errors import CramError

WORDS = 13
BLOCK = (WORDS + 1) // 2  # wherever a run of 13 words begins, it holds 7 words that begin at a multiple of 7


class BenchmarkNgrams:
    """The 13-word n-grams in the fields of GLUE's .tsv files, as hashes of 64 bits. It can be pickled.

    64 bits are enough: among a million n-grams, 10 billion words meet a false hit with a probability of 1 in 1800. A
    field is the plain text between two tabs, because GLUE's files are not quoted. Memory: 8 bytes for each n-gram of
    13 words and of 7.

    Args:
        pattern: `data.dedupe.decontaminate`, a glob of .tsv files.
        split: makes the words of the fields; the documents must be split by the same splitter.

    Attributes:
        fingerprint: a sha256 in hex of the files' contents, whatever their names.

    Raises:
        CramError: if the pattern matches no file, a file cannot be read or is not UTF-8, or no field has 13 words.
    """

    def __init__(self, pattern: str, split: WordSplitter = split_words) -> None:
        paths = [path for path in find_files(pattern, (".tsv",)) if path.is_file()]
        if not paths:
            raise CramError(
                f"data.dedupe.decontaminate={pattern!r} matches no file (in {Path.cwd()}); "
                "give a glob of GLUE .tsv files, such as 'glue/*/dev.tsv'."
            )
        contents = [_read_file(path) for path in paths]
        self.fingerprint = sha256(b"".join(sorted(sha256(content).digest() for content in contents))).hexdigest()
        fields = [_split_long_fields(content, path, split) for content, path in zip(contents, paths, strict=True)]
        self._blocks = _sort_ngrams(fields, BLOCK)
        self._ngrams = _sort_ngrams(fields, WORDS)
        if not len(self._ngrams):
            raise CramError(
                f"data.dedupe.decontaminate={pattern!r}: no field of {WORDS} words in {len(paths)} file(s); "
                "give tab-separated files of GLUE, such as 'glue/*/dev.tsv'."
            )

    def occur_in(self, words: Words) -> bool:
        """Whether a text shares 13 words in a row with a field of the files."""
        # Looking up the blocks first saves time: there are a seventh as many, and few texts share even one of them.
        blocks = ngram_hashes(words.hashes, BLOCK, step=BLOCK)
        return _any_in(blocks, self._blocks) and _any_in(ngram_hashes(words.hashes, WORDS), self._ngrams)


def _read_file(path: Path) -> bytes:
    try:
        with open_file(path) as file:
            return file.read()
    except OSError as error:
        raise CramError(
            f"data.dedupe.decontaminate: {path} cannot be read ({error.strerror}); make it readable."
        ) from error


def _split_long_fields(content: bytes, path: Path, split: WordSplitter) -> list[Words]:
    """Return the words of the fields that have at least 13 of them."""
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise CramError(
            f"data.dedupe.decontaminate: {path} is not UTF-8 (byte 0x{content[error.start]:02x} at byte offset "
            f"{error.start}); convert it, or leave it out of the glob."
        ) from error
    fields = TextColumn([field for line in text.split("\n") for field in line.split("\t")], split)
    return [fields.words[i] for i in np.flatnonzero(fields.words.counts >= WORDS).tolist()]


def _sort_ngrams(files: list[list[Words]], n: int) -> Hashes:
    hashes = [ngram_hashes(field.hashes, n) for fields in files for field in fields]
    return np.unique(np.concatenate([np.empty(0, np.uint64), *hashes]))


def _any_in(hashes: Hashes, sorted_hashes: Hashes) -> bool:
    return bool(look_up(hashes, sorted_hashes)[0].any())
