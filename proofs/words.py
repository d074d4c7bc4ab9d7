"""`python -m proofs.words`: compare the ids from the table of words with the library's, document by document."""

import time
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers

from cram.command import run_door
from cram.config.data import WORD_TABLE, WordPieceConfig
from cram.config.recipe import read_words
from cram.config.schema import key
from cram.data.encoding.document_encoder import DocumentEncoder
from cram.data.encoding.word_boundaries import LLAMA3, QWEN2
from cram.data.preparation.chunks import split_into_chunks
from cram.data.special_tokens import write_roles
from cram.data.text.document import byte_size
from cram.data.text.sources import open_source
from cram.data.wordpiece import train_tokenizer

ABOUT = """Compare the ids from the table of words with those of the tokenizers library, document by document.

    python -m proofs.words source='texts/*.jsonl.zst' tokenizers=[wordpiece,gpt2]

Each tokenizer is trained on a sample of the source. Characters of all of Unicode are encoded between letters, signs
and spaces, then every document of the source. Seconds are CPU seconds of one process: of the library, of a table that
is empty at first, and of a table that knows the text. Exit status 1 if one document differs."""
SPECIAL = ["<pad>", "<unk>", "</s>"]
ROLES = {"pad": "<pad>", "unk": "<unk>", "cls": None, "sep": "</s>", "mask": None}
CONTEXTS = "The{0} a{0}b {0}.x'{0}s A{0},B {0}\n{0} {0}{0} x<{0}>\t12{0}3 '{0}' ``{0}"


@dataclass
class WordsConfig:
    """The keys of this proof."""

    source: str = key("pydocs", "text, as data.source= of a recipe", path=True)
    tokenizers: list[str] = key(
        ["wordpiece", "cased", "cramming", "nfkc", "gpt2", "llama3", "qwen2", "metaspace"], "tokenizers to check"
    )
    vocab_size: int = key(32_768, "entries of each vocabulary at most", "entries", least=512, most=2**20)
    sample_bytes: int = key(10_000_000, "text that the tokenizers are trained on", "bytes", least=1)
    step: int = key(32, "of ideographs and free places in Unicode, one in so many is taken (1: all)", least=1)
    word_table: int = key(WORD_TABLE, "words that are remembered", "words", least=1)


@dataclass
class Comparison:
    """What was counted for one tokenizer.

    Attributes:
        documents, bytes: that were encoded both ways.
        different: documents with other ids.
        seconds: CPU seconds of the library, and of the table when it is cold and when it is warm.
    """

    documents: int = 0
    bytes: int = 0
    different: int = 0
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(("library", "cold", "warm"), 0.0))

    def encode(self, name: str, encoder: DocumentEncoder, texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
        """Encode texts and count the seconds under a name."""
        before = time.process_time()
        encoded = encoder.encode_documents(texts)
        self.seconds[name] += time.process_time() - before
        return encoded

    def compare(self, table: DocumentEncoder, library: DocumentEncoder, texts: list[str]) -> None:
        """Encode texts both ways and count the documents that differ."""
        (ids, lengths), (expected, expected_lengths) = (
            self.encode(name, encoder, texts) for name, encoder in (("cold", table), ("library", library))
        )
        self.documents += len(texts)
        self.bytes += sum(map(byte_size, texts))
        if np.array_equal(ids, expected) and np.array_equal(lengths, expected_lengths):
            return
        mine, others = (
            np.split(all_ids, np.cumsum(all_lengths)[:-1])
            for all_ids, all_lengths in ((ids, lengths), (expected, expected_lengths))
        )
        differ = [text for text, a, b in zip(texts, mine, others, strict=True) if not np.array_equal(a, b)]
        self.different += len(differ)
        print(f"differs: {min(differ, key=len)[:200]!r}", flush=True)


def train_byte_level(
    texts: list[str], size: int, pattern: str | None = None, normalizer: normalizers.Normalizer | None = None
) -> Tokenizer:
    """Train byte-level BPE with the pattern of GPT-2, or with another one."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    if pattern:
        split = pre_tokenizers.Split(Regex(pattern), "isolated")
        byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, byte_level])
    if normalizer:
        tokenizer.normalizer = normalizer
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=size, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    write_roles(tokenizer, ROLES | {"unk": None})
    return tokenizer


def train_metaspace(texts: list[str], size: int) -> Tokenizer:
    """Train a Unigram model with the pre-tokenizer of SentencePiece, on a fifth of the texts because it is slow."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.UnigramTrainer(vocab_size=size, unk_token="<unk>", special_tokens=SPECIAL, show_progress=False)
    tokenizer.train_from_iterator(texts[::5], trainer)
    write_roles(tokenizer, ROLES)
    return tokenizer


def train_composing(texts: list[str], size: int) -> Tokenizer:
    """Train WordPiece, and give it a normalizer that composes characters."""
    tokenizer = train_tokenizer(texts, WordPieceConfig(vocab_size=size))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    return tokenizer


TRAINERS: dict[str, Callable[[list[str], int], Tokenizer]] = {
    "wordpiece": lambda texts, size: train_tokenizer(texts, WordPieceConfig(vocab_size=size)),
    "cased": lambda texts, size: train_tokenizer(
        texts, WordPieceConfig(vocab_size=size, lowercase=False, strip_accents=False)
    ),
    "cramming": lambda texts, size: train_tokenizer(texts, WordPieceConfig(vocab_size=size, normalizer="cramming")),
    "nfkc": train_composing,
    "gpt2": train_byte_level,
    "llama3": lambda texts, size: train_byte_level(texts, size, LLAMA3),
    "qwen2": lambda texts, size: train_byte_level(texts, size, QWEN2, normalizers.NFC()),
    "metaspace": train_metaspace,
}


def character_texts(step: int) -> Iterator[str]:
    """Yield a text for each character of Unicode; of alike ones, for one in `step`."""
    alike = 0
    for code in range(0x110000):
        if 0xD800 <= code < 0xE000:
            continue
        # Ideographs, syllables, characters of private use and free places are alike, and are most of Unicode.
        alike += unicodedata.category(chr(code)) in ("Lo", "Co", "Cn")
        if unicodedata.category(chr(code)) not in ("Lo", "Co", "Cn") or alike % step == 0:
            yield CONTEXTS.format(chr(code))


def read_texts(config: WordsConfig) -> Iterator[str]:
    """Yield the texts of the source."""
    for part in open_source(config.source).parts:
        for document in part.documents():
            yield document.text


def sample_texts(config: WordsConfig) -> list[str]:
    """Take the texts that lie a step of bytes apart, so that the sample is from all parts of the source."""
    texts = [text for text in read_texts(config) if text]
    return texts[:: max(1, sum(map(len, texts)) // config.sample_bytes)]


def prove(name: str, config: WordsConfig, sample: list[str]) -> bool:
    """Compare one tokenizer and print a row of the table. Returns whether no document differs."""
    definition = TRAINERS[name](sample, config.vocab_size).to_str()
    library = DocumentEncoder(definition, words=0)
    characters, documents = Comparison(), Comparison()
    on_characters = DocumentEncoder(definition, config.word_table)
    for chunk in split_into_chunks((text, text) for text in character_texts(config.step)):
        characters.compare(on_characters, library, chunk)
    encoder = DocumentEncoder(definition, config.word_table)
    for chunk in split_into_chunks((text, text) for text in read_texts(config)):
        documents.compare(encoder, library, chunk)
    for chunk in split_into_chunks((text, text) for text in read_texts(config)):
        documents.encode("warm", encoder, chunk)
    table = encoder.table
    assert table is not None, f"{name} is not served"
    known = 1 - table.encoded / table.occurrences
    library_seconds, cold, warm = documents.seconds.values()
    print(
        f"| {name} | {characters.documents:,} | {documents.documents:,} | {documents.bytes / 1e6:.0f} | "
        f"{characters.different + documents.different} | {len(table):,} | {known:.2%} | {library_seconds:.1f} | "
        f"{cold:.1f} ({library_seconds / cold:.1f} times) | {warm:.1f} ({library_seconds / warm:.1f} times) |",
        flush=True,
    )
    return not characters.different and not documents.different


def main(words: list[str]) -> int:
    """Compare every chosen tokenizer and print the table."""
    config = read_words(WordsConfig, words)
    sample = sample_texts(config)
    print("| tokenizer | characters | documents | MB | different | words | known | library s | cold s | warm s |")
    print("|---|---|---|---|---|---|---|---|---|---|", flush=True)
    passed = [prove(name, config, sample) for name in config.tokenizers]
    return 0 if all(passed) else 1


if __name__ == "__main__":
    run_door(main, WordsConfig, ABOUT)
