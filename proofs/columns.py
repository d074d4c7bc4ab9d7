"""`python -m proofs.columns`: the first pass over columns of texts beside one that looks at each document alone."""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np

from cram.command import run_door
from cram.config.data import DataConfig, FilterConfig, WordPieceConfig
from cram.config.recipe import read_words
from cram.config.schema import key
from cram.data.cleaning.cleaner import EMPTY, Judgement
from cram.data.cleaning.dedupe import sign_texts
from cram.data.cleaning.filters import FILTERS, CleanedText, LineFilter, TextFilter
from cram.data.cleaning.windows_1252 import fix_c1_controls
from cram.data.cleaning.word_hashes import Words, WordSplitter, serialize_normalizer
from cram.data.preparation.chunks import split_into_chunks
from cram.data.preparation.fates import Fate
from cram.data.preparation.scan import Scanner
from cram.data.text.document import LocatedDocument, Location
from cram.data.text.sources import open_source
from cram.data.wordpiece import make_normalizer

ABOUT = """Compare the first pass with one that splits, judges and signs each document alone.

    python -m proofs.columns source='texts/*.jsonl.zst'

The plain pass finds words with a regular expression, folds each, and asks each filter about each text; it shares no
column, table or bound with the first pass. Exit status 1 if a fate or a signature of a document differs."""

_BEYOND_ASCII = re.compile(r"[^\w\x00-\x7f]")
_WORD = re.compile(r"[^\W_]+")
_MOST_FOLDED = 1_000_000  # words


@dataclass
class ColumnsConfig:
    """The keys of this proof."""

    source: str = key("pydocs", "text, as data.source= of a recipe", path=True)
    documents: int | None = key(None, "at most so many of each file (null: all)", "documents", least=1)


def make_words(texts: Sequence[list[str]]) -> list[Words]:
    """Hash the words of each text, given as strings."""
    from rensa import RMinHash

    return [
        Words(
            np.array(hashes, np.uint64),
            np.array([len(word) for word in words], np.int64),
            memoryview("".join(words).encode()),
        )
        for words, hashes in zip(texts, RMinHash.hash_token_sets(texts), strict=True)
    ]


class PlainSplitter:
    """Finds the runs of letters and digits without marks and format characters, and folds each alone.

    Args:
        split: folds a word.
    """

    def __init__(self, split: WordSplitter) -> None:
        self._split = split
        self._folded: dict[str, str] = {}

    def __call__(self, text: str) -> list[str]:
        """Return the folded words of a text."""
        words = _WORD.findall(_BEYOND_ASCII.sub(_drop_joint, text.lower()))
        if len(self._folded) > _MOST_FOLDED:
            self._folded.clear()
        for word in words:
            if word not in self._folded:
                self._folded[word] = self._split.fold_word(word)
        return list(filter(None, map(self._folded.__getitem__, words)))


def _drop_joint(match: re.Match[str]) -> str:
    return "" if unicodedata.category(match[0]) in ("Mn", "Mc", "Me", "Cf") else match[0]


def judge_plainly(text: str, config: FilterConfig, split: PlainSplitter) -> Judgement:
    """Ask each filter about a text: what is left of it, its words, and why it is dropped."""
    if config.fix_c1_controls:
        text = fix_c1_controls(text)
    rules = [(rule, getattr(config, rule.name)) for rule in FILTERS]
    for rule, value in rules:
        if isinstance(rule, LineFilter) and value:
            text = rule.cut(text)
    (words,) = make_words([split(text)])
    if not len(words):
        return Judgement(text, words, EMPTY)
    cleaned = CleanedText(text, words)
    for rule, value in rules:
        if isinstance(rule, TextFilter) and value is not None and value is not False and rule.drops(value, cleaned):
            return Judgement(text, words, rule.name)
    return Judgement(text, words, None)


def compare(
    documents: list[LocatedDocument], scanner: Scanner, config: DataConfig, split: PlainSplitter
) -> Counter[str]:
    """Scan a chunk, and count its documents by fate. Those that the plain pass judges otherwise count as `differs`."""
    arrays = {name: array for name, (array,) in scanner(documents).arrays.items()}
    counts: Counter[str] = Counter()
    for i, (_, document) in enumerate(documents):
        fate = Fate(int(arrays["fate"][i]))
        if fate in (Fate.HELD_OUT, Fate.BROKEN):
            continue
        judgement = judge_plainly(document.text, config.filters, split)
        exact, minhash = sign_texts([judgement.words] if judgement.reason is None else [])
        assert minhash is not None
        same = (
            fate.reason == (judgement.reason or Fate.KEPT.reason)
            and arrays["exact"][i].tobytes() == (exact.tobytes() or bytes(16))
            and arrays["minhash"][i].tobytes() == (minhash.tobytes() or bytes(arrays["minhash"][i].nbytes))
        )
        counts[fate.reason if same else "differs"] += 1
        if not same:
            print(f"{document.origin}: {fate.reason}, but alone {judgement.reason or 'kept'}", flush=True)
    return counts


def _read(source: str, most: int | None) -> Iterator[LocatedDocument]:
    for number, part in enumerate(open_source(source).parts):
        for record, document in enumerate(islice(part.documents(), most)):
            yield LocatedDocument(Location(number, record), document)


def main(words: list[str]) -> int:
    """Compare the passes over all documents of a source."""
    config = read_words(ColumnsConfig, words)
    split = WordSplitter(serialize_normalizer(make_normalizer(WordPieceConfig())))
    data = DataConfig()
    scanner, plain = Scanner(data, split), PlainSplitter(split)
    total: Counter[str] = Counter()
    documents = _read(config.source, config.documents)
    for chunk in split_into_chunks((located.document.text, located) for located in documents):
        total += compare(chunk, scanner, data, plain)
    print(f"{total.total():,} documents: {dict(total)}")
    return int(bool(total["differs"]))


if __name__ == "__main__":
    run_door(main, ColumnsConfig, ABOUT)
