"""Twins of held-out documents of every kind, with tokenizers of every kind: none of their ids is in a row.

    python -m proofs.unseen

For each tokenizer a corpus of sentences in three languages with a twin of each is prepared, a tenth of it held out.
Then a held-out document is planted in the rows, and `verify` must find it. Exit status 1 when anything is left over.
"""

import random
import shutil
import sys
import tempfile
import unicodedata
from collections.abc import Callable
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from cram.config.data import DataConfig, DedupeConfig, FilterConfig, WordPieceConfig
from cram.data.inspect.verify import verify_shards
from cram.data.preparation.prepare import prepare_shards
from cram.data.preparation.second_pass import DocumentTokenizer
from cram.data.preparation.vocabulary import TokenizerSource
from cram.data.shards.shards import ShardSet
from cram.data.special import SpecialTokens
from cram.errors import CramError
from cram.files.atomic import sha256_file, to_json
from cram.files.sealed import read_sealed, write_sealed
from cram.terminal.progress import Progress

FILTERS = FilterConfig(min_words=0, symbols=None, digits=None, repetition=False, compressibility=None)
DOCUMENTS = 600
LANGUAGES = (
    "the river walks over stone and every morning first office staff carries water from market square toward houses",
    "été où déjà forêt élève après très père même être français garçon où âge île hôtel château élan",
    "straße über grün schön früh wörter müssen äpfel größe löwe tür könig bäume fähre höhle",
)


def inside(mark: str) -> Callable[[str], str]:
    """A function that puts a mark into each longer word."""
    return lambda text: " ".join(word[:3] + mark + word[3:] if len(word) > 4 else word for word in text.split())


def form(name: str) -> Callable[[str], str]:
    """A function that gives a Unicode normalization form."""
    return lambda text: unicodedata.normalize(name, text)  # type: ignore[arg-type]


def plain(text: str) -> str:
    """Without accents."""
    return "".join(sign for sign in unicodedata.normalize("NFD", text) if not unicodedata.combining(sign))


def wide(text: str) -> str:
    """In full width."""
    return "".join(chr(ord(sign) + 0xFEE0) if "!" <= sign <= "~" else sign for sign in text)


KINDS: dict[str, Callable[[str], str]] = {
    "soft hyphen": inside("\u00ad"),
    "zero-width space": inside("\u200b"),
    "zero-width joiner": inside("\u200d"),
    "word joiner": inside("\u2060"),
    "mark of direction": inside("\u200f"),
    "byte order mark": inside("\ufeff"),
    "NFD": form("NFD"),
    "NFKD": form("NFKD"),
    "NFKC": lambda text: form("NFKC")(text) + " ",
    "ligatures": lambda text: text.replace("ffi", "\ufb03").replace("fi", "\ufb01"),
    "full width": wide,
    "no accents": plain,
    "upper case": str.upper,
    "white space": lambda text: text.replace(" ", " \u00a0\t"),
    "line ends": lambda text: text.replace(" ", "\r\n"),
    "punctuation": lambda text: text.replace(" ", " ... "),
    "itself": str,
}


def corpus(documents: int = DOCUMENTS) -> list[str]:
    """So many documents and a twin of each, of all kinds in turn."""
    source = random.Random(0)
    kinds = list(KINDS.values())
    texts = []
    for number in range(documents):
        words = LANGUAGES[number % len(LANGUAGES)].split()
        text = " ".join(source.choices(words, k=source.randint(20, 150)))
        texts += [text, kinds[number // len(LANGUAGES) % len(kinds)](text)]
    return texts


def byte_level(texts: list[str], path: Path) -> str:
    """A byte-level BPE as GPT-2 has it, in a file."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=512, special_tokens=["<|endoftext|>"], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.save(str(path))
    return str(path)


def leaked(shards: ShardSet) -> int:
    """How many held-out documents stand in the rows id by id, told without the hashes of the preparation."""
    rows, _ = shards.read(np.arange(shards.rows))
    stream = rows.astype(np.int32).tobytes()
    return sum(np.array(ids, np.int32).tobytes() in stream for ids in encoded(shards) if len(ids) > 2)


def encoded(shards: ShardSet) -> list[list[int]]:
    """The ids of the held-out documents, framed."""
    encoder = DocumentTokenizer(shards.tokenizer_path.read_text(encoding="utf-8"), FILTERS)
    return encoder.encode([one.text for one in shards.held_out()])


def plant(folder: Path, ids: list[int], least: int = 0) -> None:
    """Write a document, framed, over those of the first shard from token `least` on; rows stay as a packer makes them.

    The manifest is made to say that the shard is as it is: a checksum would find it first.
    """
    special = SpecialTokens.of(Tokenizer.from_file(str(folder / "tokenizer.json")))
    manifest = read_sealed(folder / "manifest.json")
    name = manifest["shards"][0]["file"]
    arrays = {key: array.copy() for key, array in load_file(folder / name).items()}
    tokens, stream = arrays["tokens"], arrays["tokens"].reshape(-1)
    ends = np.flatnonzero(stream == special.sep)
    start = int(ends[ends >= least][0]) + 1
    end = int(ends[ends >= start + len(ids) + 3][0]) + 1
    assert special.pad not in stream[start:end]
    filler = [*([] if special.cls is None else [special.cls]), *[ids[1]] * end]
    stream[start:end] = [*ids, *filler[: end - start - len(ids) - 1], special.sep]
    numbers = np.zeros(tokens.shape, np.int64)
    numbers[:, 1:] = np.cumsum(tokens[:, :-1] == special.sep, axis=1)
    arrays["documents"] = numbers.astype(arrays["documents"].dtype)
    save_file(arrays, folder / name)
    manifest["files"][name] = sha256_file(folder / name)
    write_sealed(folder / "manifest.json", manifest)


def main() -> int:
    texts, wrong = corpus(), 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source = folder / "corpus.jsonl"
        source.write_text("".join(to_json({"text": text}) + "\n" for text in texts))
        cased = {"lowercase": False, "strip_accents": False}
        tokenizers: dict[str, tuple[WordPieceConfig, str | None]] = {
            "WordPiece": (WordPieceConfig(vocab_size=192), None),
            "WordPiece, cased, with accents": (WordPieceConfig(vocab_size=192, **cased), None),
            "WordPiece, cramming": (WordPieceConfig(vocab_size=192, normalizer="cramming"), None),
            "byte-level BPE": (WordPieceConfig(), byte_level(texts, folder / "bpe.json")),
        }
        for about, (wordpiece, path) in tokenizers.items():
            for dedupe in (DedupeConfig(), DedupeConfig(exact=False, near=None)):
                kind = "with deduplication" if dedupe.exact else "by ids alone"
                data = DataConfig(
                    source=str(source), dir=str(folder / "shards"), seq_len=64, held_out=0.1,
                    filters=FILTERS, dedupe=dedupe, processes=1,
                )  # fmt: skip
                shards = prepare_shards(data, TokenizerSource(path, wordpiece), Progress(terminal=False))
                found = leaked(verify_shards(shards.folder))
                dropped = {reason: figures["documents"] for reason, figures in shards.manifest["dropped"].items()}
                print(f"{about}, {kind}: {shards.documents} of {len(texts)} documents kept, dropped: {dropped};")
                print(f"  of {len(shards.held_out())} held-out documents {found} stand in the rows", flush=True)
                plant(shards.folder, max(encoded(shards), key=len), 500)
                try:
                    verify_shards(shards.folder)
                    refused = "NOTHING"
                except CramError as error:
                    refused = str(error).splitlines()[0].partition(": ")[2]
                print(f"  a planted one: {refused}", flush=True)
                wrong += found + (not refused.startswith("held-out text stands in its rows, 1 whole"))
                shutil.rmtree(shards.folder)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
