"""What the first pass does with a chunk of documents: it cleans, judges, hashes and signs them."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from cram.config.data import DataConfig
from cram.data.cleaning.cleaner import Cleaner, Judgement
from cram.data.cleaning.decontaminate import BenchmarkNgrams
from cram.data.cleaning.dedupe import HASHES, sign_texts
from cram.data.cleaning.held_out_split import HeldOutTexts, hash_content, lies_below_share
from cram.data.cleaning.windows_1252 import find_first_difference
from cram.data.cleaning.word_hashes import Words, WordSplitter, split_words
from cram.data.preparation.fates import Fate, FateArray, find_dropped
from cram.data.preparation.samples import FIXED, Samples, add_samples, make_sample
from cram.data.preparation.stopwatch import Stopwatch, add_seconds
from cram.data.text.document import Document, LocatedDocument, byte_size

Arrays = dict[str, np.ndarray[Any, Any]]

BEFORE_FIXED = 60  # characters of a sample before the first C1 control that was replaced


@dataclass
class ScanResult:
    """The results of the first pass for some documents; `add` adds those for further documents.

    Attributes:
        arrays: for each name in `Scanner` a list of arrays, which together have one element for each document.
        samples: of dropped documents, and of lines that were cut.
        held_out: the texts that may be held out.
        cut_documents: documents with lines that were cut as boilerplate.
        cut_bytes: bytes of these lines.
        fixed_documents: documents with C1 controls that were replaced by characters of Windows-1252.
        fixed_characters: the number of these controls.
        seconds: by activity.
    """

    arrays: dict[str, list[np.ndarray[Any, Any]]] = field(default_factory=dict)
    samples: Samples = field(default_factory=dict)
    held_out: HeldOutTexts = field(default_factory=HeldOutTexts)
    cut_documents: int = 0
    cut_bytes: int = 0
    fixed_documents: int = 0
    fixed_characters: int = 0
    seconds: dict[str, float] = field(default_factory=dict)

    def add(self, other: "ScanResult") -> None:
        """Add the results for further documents."""
        for name, arrays in other.arrays.items():
            self.arrays.setdefault(name, []).extend(arrays)
        add_samples(self.samples, other.samples)
        self.held_out.add(other.held_out)
        self.cut_documents += other.cut_documents
        self.cut_bytes += other.cut_bytes
        self.fixed_documents += other.fixed_documents
        self.fixed_characters += other.fixed_characters
        add_seconds(self.seconds, other.seconds)


class Scanner:
    """Scans chunks of documents. It is cheap to pickle: what takes memory is made at the first call in each process.

    The arrays of its results, one element for each document:

    part     int32             the location: index of the part
    record   int64             the location: index in the part
    fate     uint8             a `Fate`; held out by the hash alone, and not yet a duplicate
    hash     uint64            of the text, for the held-out rule
    bytes    int64             of the text
    exact    uint64 [2]        signature of equal documents; zero for dropped documents; only with deduplication
    minhash  uint32 [HASHES]   signature of similar documents; zero for dropped documents; only with near deduplication

    Args:
        config: filters, deduplication, decontamination and the held-out share.
        split: makes the words by which texts are judged and compared.
    """

    def __init__(self, config: DataConfig, split: WordSplitter = split_words) -> None:
        self._config = config
        self._split = split
        self._cleaner = Cleaner(config.filters, split)
        self._benchmarks: BenchmarkNgrams | None = None

    def __call__(self, documents: list[LocatedDocument]) -> ScanResult:
        """Scan a chunk of documents."""
        result, stopwatch = ScanResult(), Stopwatch()
        texts = [document.text for _, document in documents]
        contents = [text.encode() for text in texts]
        hashes = np.array([hash_content(content) for content in contents], np.uint64)
        sizes = np.array([len(content) for content in contents], np.int64)
        del contents  # as large as the texts
        fates = np.where(lies_below_share(hashes, self._config.held_out), Fate.HELD_OUT, Fate.KEPT).astype(np.uint8)
        stopwatch.lap("hashing")
        judgements = self._cleaner.judge(texts, exempt=set(np.flatnonzero(fates == Fate.HELD_OUT).tolist()))
        for i, ((_, document), judgement) in enumerate(zip(documents, judgements, strict=True)):
            if document.fault:
                fates[i] = Fate.BROKEN
            elif judgement.reason:
                fates[i] = Fate.of(judgement.reason)
            fixed_text = self._cleaner.fix(document.text) if judgement.fixed else document.text
            _count_fixed(document, fixed_text, judgement, result)
            _count_cut_lines(document, fixed_text, judgement, result)
        stopwatch.lap("filters")
        self._decontaminate(fates, judgements)
        stopwatch.lap("decontamination")
        words = {i: judgements[i].words for i in np.flatnonzero(~find_dropped(fates)).tolist()}
        arrays: Arrays = {
            "part": np.array([location.part for location, _ in documents], np.int32),
            "record": np.array([location.record for location, _ in documents], np.int64),
            "fate": fates,
            "hash": hashes,
            "bytes": sizes,
            **self._sign(len(documents), {i: some for i, some in words.items() if len(some)}),
        }
        result.arrays = {name: [array] for name, array in arrays.items()}
        stopwatch.lap("signatures")
        for i in np.flatnonzero(find_dropped(fates)).tolist():
            sample = make_sample(documents[i].document, judgements[i].text)
            add_samples(result.samples, {Fate(int(fates[i])).reason: [sample]})
        below = {int(hashes[i]): self._cleaner.fix(texts[i]) for i in np.flatnonzero(fates == Fate.HELD_OUT).tolist()}
        kept = np.flatnonzero(fates == Fate.KEPT)
        lowest = {int(hashes[i]): self._cleaner.fix(texts[i]) for i in kept[np.argsort(hashes[kept])[:1]].tolist()}
        result.held_out = HeldOutTexts(below, lowest)
        result.seconds = stopwatch.seconds
        return result

    def load_benchmarks(self) -> None:
        """Read the benchmark files now, so that processes that get a copy of this scanner need not see them."""
        if self._config.dedupe.decontaminate and not self._benchmarks:
            self._benchmarks = BenchmarkNgrams(self._config.dedupe.decontaminate, self._split)

    def _decontaminate(self, fates: FateArray, judgements: list[Judgement]) -> None:
        """Drop kept documents that share words with the benchmark files of `data.dedupe.decontaminate`."""
        if not self._config.dedupe.decontaminate:
            return
        self.load_benchmarks()
        assert self._benchmarks
        for i in np.flatnonzero(fates == Fate.KEPT).tolist():
            if self._benchmarks.occur_in(judgements[i].words):
                fates[i] = Fate.DECONTAMINATE

    def _sign(self, documents: int, words: dict[int, Words]) -> Arrays:
        """Compute the signatures of the documents whose words are given; those of the others are zero."""
        dedupe, arrays = self._config.dedupe, Arrays()
        if dedupe.exact or dedupe.near is not None:
            exact, minhash = sign_texts(list(words.values()), near=dedupe.near is not None)
            arrays["exact"] = np.zeros((documents, 2), np.uint64)
            arrays["exact"][list(words)] = exact
            if minhash is not None:
                arrays["minhash"] = np.zeros((documents, HASHES), np.uint32)
                arrays["minhash"][list(words)] = minhash
        return arrays


def _count_fixed(document: Document, fixed_text: str, judgement: Judgement, result: ScanResult) -> None:
    """Count the C1 controls that were replaced in a document, and keep the text around the first one as a sample."""
    if judgement.fixed:
        result.fixed_documents += 1
        result.fixed_characters += judgement.fixed
        start = max(0, find_first_difference(document.text, fixed_text) - BEFORE_FIXED)
        add_samples(result.samples, {FIXED: [make_sample(document, fixed_text[start:])]})


def _count_cut_lines(document: Document, text: str, judgement: Judgement, result: ScanResult) -> None:
    """Count the lines that were cut out of the text of a document, and keep them as a sample."""
    if len(judgement.text) == len(text):
        return
    result.cut_documents += 1
    result.cut_bytes += byte_size(text) - byte_size(judgement.text)
    lines_kept = set(judgement.text.splitlines())
    lines_cut = "\n".join(line for line in text.splitlines() if line not in lines_kept)
    add_samples(result.samples, {"boilerplate": [make_sample(document, lines_cut)]})
