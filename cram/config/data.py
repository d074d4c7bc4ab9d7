"""The keys of the data: source, filters, deduplication, vocabulary, special tokens."""

from dataclasses import dataclass
from typing import Literal

from cram.config.schema import group, key
from cram.config.sources import normalize_sources

VOCAB_MULTIPLE = 64  # matrix products are faster with such a number of columns
WORD_TABLE = 2_000_000  # words; they take at most about 470 MB


@dataclass
class FilterConfig:
    """The keys `data.filters.*`: which documents are dropped, and what is cut out of them or repaired in them."""

    min_words: int = key(10, "drop documents with fewer words (0: keep short ones)", "words", least=0, most=10**9)
    max_words: int | None = key(
        None, "drop documents with more words (null: keep long ones)", "words", least=1, most=10**9
    )
    symbols: float | None = key(
        0.15,
        "drop documents with a larger share of characters that are not letters, digits, spaces or punctuation (null: "
        "off)",
        "share",
        least=0,
        most=1,
    )
    digits: float | None = key(
        0.2, "drop documents with a larger share of digits (null: off)", "share", least=0, most=1
    )
    repetition: bool = key(True, "drop documents that repeat lines, paragraphs or n-grams, by the rules of Gopher")
    boilerplate: bool = key(True, "cut lines about cookies, terms of use, privacy and JavaScript out of documents")
    fix_c1_controls: bool = key(
        True,
        "replace the controls U+0080 to U+009F by the characters that these bytes are in Windows-1252, because text "
        "with such controls was decoded wrongly",
    )
    compressibility: float | None = key(
        0.3,
        "drop documents with more tokens per character, the filter of Cramming; 0.3 suits a vocabulary of 32768, 0.4 "
        "one of 4096 (null: off)",
        "tokens per character",
        above=0,
    )


@dataclass
class DedupeConfig:
    """The keys `data.dedupe.*`: which documents are dropped because of other texts."""

    exact: bool = key(True, "drop documents with the same words in the same order as an earlier one")
    near: float | None = key(
        0.8,
        "drop documents whose 5-word shingles overlap with those of an earlier one by at least this much (null: off)",
        "Jaccard similarity",
        above=0,
        most=1,
    )
    decontaminate: str | None = key(
        None,
        "glob of .tsv files of GLUE: drop documents that share 13 words in a row with one of them (null: off)",
        path=True,
    )


@dataclass
class DataConfig:
    """The keys `data.*`: where the text comes from, and how rows are made of it."""

    source: str = key(
        "pydocs",
        "the text: a file, folder or glob of .txt, .md, .json, .jsonl, .csv, .tsv (.zst, .gz, .xz or .bz2 too), "
        ".parquet or .arrow; an address such as s3://BUCKET/FOLDER; a data set of the Hub as "
        "hf:NAME[:CONFIG[:SPLIT]]; pydocs, the documentation of the installed Python packages; or a list of these, "
        "[wiki.jsonl, {path: books/, weight: 0.7}], each with an optional share of the training tokens as weight",
        path=True,
        normalize=normalize_sources,
    )
    dir: str = key("shards", "folder in which the shard folders are made", path=True, identifies=False)
    text_field: str = key(
        "text",
        "field with the text in records of JSON, .csv, .parquet, .arrow and hf:; a dotted path for a nested field",
    )
    document: Literal["file", "blank_line", "line"] = key(
        "file", "what a document is in a .txt or .md file: the whole file, a block between blank lines, or a line"
    )
    encoding: str = key("utf-8", "encoding of .txt, .md, .csv, .tsv and JSON files, such as cp1252 or utf-16")
    tokens: int | None = key(
        None,
        "stop preparing after this many training tokens (null: prepare all of the text)",
        "tokens",
        least=1,
        most=10**15,
    )
    seq_len: int = key(128, "length of a row, which is packed with documents", "tokens", least=2, most=2**16)
    held_out: float = key(
        0.005,
        "share of the documents that are held out for evaluation, chosen by a hash of their text",
        "share",
        above=0,
        below=1,
    )
    epochs: int = key(
        1,
        "number of passes over the data, after which the run ends even if the budget is not spent",
        "epochs",
        least=1,
        most=10**6,
    )
    subset_tokens: int | None = key(
        None,
        "train on this many tokens of the shards only, random rows that are the same in each epoch; for experiments on "
        "repeated data, with the same held-out text as all rows have (null: train on all)",
        "tokens",
        least=1,
        most=10**15,
    )
    order: Literal["shuffled", "likely_first", "unlikely_first"] = key(
        "shuffled", "order of the rows: random, or by the mean unigram likelihood of their tokens"
    )
    packing: Literal["greedy", "best_fit"] = key(
        "greedy",
        "how documents fill rows; greedy puts one after the other and cuts at the end of a row, best_fit cuts only "
        "documents longer than a row",
    )
    on_error: Literal["stop", "skip"] = key(
        "stop", "what to do with broken records and files; skip counts and leaves them out"
    )
    processes: int | None = key(
        None, "processes that prepare the data (null: one per core)", "processes", least=1, most=1024, identifies=False
    )
    engine: Literal["local", "ray"] = key(
        "local", "where the data is prepared: processes on this machine, or tasks on a Ray cluster", identifies=False
    )
    address: str = key(
        "auto",
        "with data.engine=ray: HOST:PORT of the cluster's head; auto for the cluster that this machine belongs to; or "
        "local, which starts Ray on this machine",
        identifies=False,
    )
    word_table: int = key(
        WORD_TABLE,
        "words that each preparing process remembers with their tokens, so that it tokenizes them once (0: none)",
        "words",
        least=0,
        most=10**9,
        identifies=False,
    )
    filters: FilterConfig = group(FilterConfig)
    dedupe: DedupeConfig = group(DedupeConfig)


@dataclass
class WordPieceConfig:
    """The keys `wordpiece.*`: the tokenizer that is trained where `tokenizer` gives none."""

    vocab_size: int = key(
        32768, f"size of the vocabulary, a multiple of {VOCAB_MULTIPLE}", "tokens", least=VOCAB_MULTIPLE, most=2**22
    )
    lowercase: bool = key(True, "convert the text to lower case")
    strip_accents: bool = key(True, "remove accents")
    normalizer: Literal["bert", "cramming"] = key(
        "bert",
        "bert cleans the text and separates Chinese characters; cramming also writes quotation marks in ASCII and "
        "removes all other characters outside of ASCII",
    )
    sample_bytes: int = key(
        50_000_000,
        "size of the text that the tokenizer is trained on, taken from all parts of the source",
        "bytes",
        least=1,
        most=10**12,
    )


@dataclass
class SpecialConfig:
    """The keys `special.*`: names of the special tokens in the tokenizer that `tokenizer` gives.

    A name that the vocabulary lacks is added at its end.
    """

    cls: str | None = key(
        None, "with tokenizer=: token at the start of a document (null: a usual name such as [CLS], or none)"
    )
    sep: str | None = key(None, "with tokenizer=: token at the end of a document (null: a usual name such as [SEP])")
    pad: str | None = key(
        None, "with tokenizer=: token that fills rows (null: a usual name such as [PAD], added if missing)"
    )
    mask: str | None = key(
        None, "with tokenizer=: token in place of a hidden one (null: a usual name such as [MASK], or none)"
    )
