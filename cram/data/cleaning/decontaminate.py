"""Which documents hold text of the tests that a model will be judged by.

Source: Brown et al. 2020, arXiv:2005.14165, appendix C (overlap of n-grams of words with the benchmarks). Changed:
always 13 words, not 8 to 13 by data set; the whole document is dropped, not 200 characters around the overlap; files
are cut at tabs into fields, so that no n-gram crosses from one sentence of a pair into the other.
"""

from hashlib import sha256
from pathlib import Path

import numpy as np

from cram.data.cleaning.word_hashes import Hashes, Words, WordSplitter, hash_words, ngram_hashes, split_words
from cram.data.text.paths import find_files, open_file
from cram.errors import CramError

WORDS = 13
BLOCK = (WORDS + 1) // 2  # wherever 13 words in a row begin, they hold 7 that begin at a multiple of 7


class BenchmarkNgrams:
    """The 13-word n-grams in the fields of GLUE's .tsv files, as hashes of 64 bits.

    That is enough: among a million n-grams, 10 billion words meet a false hit with a probability of 1 in 1800.
    Fields are plain text between tabs, for GLUE's files are not quoted; `split` makes their words, as it makes those of
    the texts that are compared with them. `fingerprint` is a sha256 in hex of the
    files' contents, whatever their names. Memory: 8 bytes for each n-gram of 13 words and of 7. Picklable.

    Raises CramError when `pattern` matches no file, a file cannot be read or is not UTF-8, or no field has 13 words.
    """

    def __init__(self, pattern: str, split: WordSplitter = split_words) -> None:
        paths = [path for path in find_files(pattern, (".tsv",)) if path.is_file()]
        if not paths:
            raise CramError(
                f"data.dedupe.decontaminate={pattern!r} matches no file (in {Path.cwd()}); "
                "give a glob of GLUE .tsv files, such as 'glue/*/dev.tsv'"
            )
        contents = [_read(path) for path in paths]
        self.fingerprint = sha256(b"".join(sorted(sha256(content).digest() for content in contents))).hexdigest()
        fields = [_long_fields(content, path, split) for content, path in zip(contents, paths, strict=True)]
        self._blocks = _sorted_ngrams(fields, BLOCK)
        self._ngrams = _sorted_ngrams(fields, WORDS)
        if not len(self._ngrams):
            raise CramError(
                f"data.dedupe.decontaminate={pattern!r}: no field of {WORDS} words in {len(paths)} file(s); "
                "give tab-separated files of GLUE, such as 'glue/*/dev.tsv'"
            )

    def occur_in(self, words: Words) -> bool:
        """Whether a text shares 13 words in a row with a field of these files."""
        # Few texts share even one of their blocks, and these are a seventh of the n-grams there would be to look up.
        return _any_in(ngram_hashes(words.hashes, BLOCK, step=BLOCK), self._blocks) and _any_in(
            ngram_hashes(words.hashes, WORDS), self._ngrams
        )


def _read(path: Path) -> bytes:
    try:
        with open_file(path) as file:
            return file.read()
    except OSError as error:
        raise CramError(
            f"data.dedupe.decontaminate: {path} cannot be read ({error.strerror}); make it readable"
        ) from error


def _long_fields(content: bytes, path: Path, split: WordSplitter) -> list[Words]:
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise CramError(
            f"data.dedupe.decontaminate: {path} is not UTF-8 (byte 0x{content[error.start]:02x} at byte offset "
            f"{error.start}); convert it, or leave it out of the glob"
        ) from error
    fields = (split(field) for line in text.split("\n") for field in line.split("\t"))
    return hash_words([words for words in fields if len(words) >= WORDS])


def _sorted_ngrams(files: list[list[Words]], n: int) -> Hashes:
    found = [ngram_hashes(field.hashes, n) for fields in files for field in fields]
    return np.unique(np.concatenate([np.empty(0, np.uint64), *found]))


def _any_in(hashes: Hashes, sorted_hashes: Hashes) -> bool:
    places = np.searchsorted(sorted_hashes, hashes)
    return bool((sorted_hashes.take(places, mode="clip") == hashes).any())
