"""The keys of the data: source, filters, deduplication, vocabulary, special tokens."""

from dataclasses import dataclass
from typing import Literal

from cram.config.schema import group, key


@dataclass
class FilterConfig:
    """Which documents are dropped for their content."""

    min_words: int = key(10, "shortest document kept (0: any)", "words", least=0, most=10**9)
    max_words: int | None = key(None, "longest document kept (null: any)", "words", least=1, most=10**9)
    symbols: float | None = key(
        0.15,
        "drop documents with a larger share of unusual signs: no letter, digit, space or punctuation (null: off)",
        "share",
        least=0,
        most=1,
    )
    digits: float | None = key(
        0.2, "drop documents with a larger share of digits (null: off)", "share", least=0, most=1
    )
    repetition: bool = key(True, "drop documents that repeat lines, paragraphs or n-grams as Gopher's rules say")
    boilerplate: bool = key(True, "cut lines of cookie, terms-of-use and script notices out of documents")
    compressibility: float | None = key(
        0.3,
        "most tokens, Cramming's filter; 0.3 suits 32768 pieces, 0.4 suits 4096 (null: off)",
        "tokens a character",
        above=0,
    )


@dataclass
class DedupeConfig:
    """Which documents are dropped because another one is equal or similar."""

    exact: bool = key(True, "drop documents whose words have occurred in the same order before")
    near: float | None = key(
        0.8,
        "drop documents whose 5-word shingles overlap an earlier document's by as much (null: off)",
        "Jaccard",
        above=0,
        most=1,
    )
    decontaminate: str | None = key(
        None, "glob of GLUE .tsv files; documents that share 13 words in a row with one are dropped", path=True
    )


@dataclass
class DataConfig:
    """Where the text comes from, and how it becomes shards."""

    source: str = key(
        "pydocs",
        "file, folder or glob of text, JSON lines (packed or not) or .parquet; hf:NAME[:CONFIG[:SPLIT]]; or pydocs",
        path=True,
    )
    dir: str = key("shards", "folder that holds the prepared shard folders", path=True, identifies=False)
    text_field: str = key("text", "field that holds the text in .jsonl, .parquet and hf: records")
    document: Literal["file", "blank_line", "line"] = key("file", "what one document is in a .txt file")
    tokens: int | None = key(
        None, "stop preparing after so many training tokens (all when null)", "tokens", least=1, most=10**15
    )
    seq_len: int = key(128, "length of a packed row", "tokens", least=2, most=2**16)
    held_out: float = key(
        0.005, "share of the documents held out, chosen by a hash of their text", "share", above=0, below=1
    )
    epochs: int = key(1, "passes over the data that are allowed before the run ends", "epochs", least=1, most=10**6)
    order: Literal["shuffled", "likely_first", "unlikely_first"] = key(
        "shuffled", "rows at random, or sorted by the mean unigram likelihood of their tokens"
    )
    packing: Literal["greedy", "best_fit"] = key(
        "greedy", "greedy: documents one after the other, cut at the ends of rows; best_fit: none cut that fits a row"
    )
    on_error: Literal["stop", "skip"] = key("stop", "what to do with broken records and files; skip counts them")
    processes: int | None = key(
        None, "processes that prepare (null: one a core)", "processes", least=1, most=1024, identifies=False
    )
    filters: FilterConfig = group(FilterConfig)
    dedupe: DedupeConfig = group(DedupeConfig)


@dataclass
class WordPieceConfig:
    """The WordPiece tokenizer that is trained when no tokenizer is given."""

    vocab_size: int = key(32768, "vocabulary, a multiple of 64", "tokens", least=64, most=2**22)
    lowercase: bool = key(True, "lower-case the text")
    strip_accents: bool = key(True, "drop accents")
    normalizer: Literal["bert", "cramming"] = key(
        "bert", "bert: clean and split CJK; cramming: also quotes to ASCII and all else non-ASCII removed"
    )
    sample_bytes: int = key(
        50_000_000, "text that the tokenizer is trained on, spread over the files", "bytes", least=1, most=10**12
    )


@dataclass
class SpecialConfig:
    """Names of special tokens in a given tokenizer; one that its vocabulary lacks is added behind it."""

    cls: str | None = key(None, "with tokenizer=, the token that begins a document (null: found by its name, or none)")
    sep: str | None = key(None, "the token that ends a document (null: found by its name)")
    pad: str | None = key(None, "the token that fills rows (null: found by its name, or added)")
    mask: str | None = key(None, "the token shown instead of a hidden one (null: found by its name, or none)")
