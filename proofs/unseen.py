"""`python -m proofs.unseen`: look for twins of held-out documents in the training rows."""

import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from cram.command import run_door
from cram.config.data import DataConfig, DedupeConfig, FilterConfig, WordPieceConfig
from cram.config.recipe import read_words
from cram.data.encoding.document_encoder import DocumentEncoder
from cram.data.inspect.verify import verify_shards
from cram.data.preparation.prepare import prepare_shards
from cram.data.preparation.vocabulary import TokenizerSource
from cram.data.shards.shards import ShardSet
from cram.data.special_tokens import SpecialTokens
from cram.errors import CramError
from cram.files.atomic import sha256_file, to_json
from cram.files.sealed import read_sealed, write_sealed
from cram.terminal.progress import Progress
from proofs.twins import make_twins

ABOUT = """Look for twins of held-out documents in the training rows, for tokenizers of every kind.

    python -m proofs.unseen

For each tokenizer, a corpus of sentences in three languages with a twin of each is prepared, a tenth of it held out. No
row may hold the ids of a held-out document. Then a held-out document is planted in the rows, and
`cram.prepare verify=` must find it. Exit status 1 if one of these fails."""
FILTERS = FilterConfig(min_words=0, symbols=None, digits=None, repetition=False, compressibility=None)
REFUSAL = "its rows contain held-out text, 1 whole"


@dataclass
class UnseenConfig:
    """This proof has no keys."""


def train_byte_level(texts: list[str], path: Path) -> str:
    """Train a byte-level BPE like GPT-2's and write it to a file. Returns the path as text."""
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


def count_leaks(shards: ShardSet) -> int:
    """Count the held-out documents whose ids stand in the rows, without the hashes that the preparation uses."""
    rows, _ = shards.read(np.arange(shards.rows))
    stream = rows.astype(np.int32).tobytes()
    return sum(np.array(ids, np.int32).tobytes() in stream for ids in encode_held_out(shards) if len(ids) > 2)


def encode_held_out(shards: ShardSet) -> list[list[int]]:
    """Return the ids of the held-out documents, with the special tokens around each."""
    encoder = DocumentEncoder(shards.tokenizer_path.read_text(encoding="utf-8"), words=0)  # by the library alone
    ids, lengths = encoder.encode_documents([document.text for document in shards.held_out()])
    return [document.tolist() for document in np.split(ids, np.cumsum(lengths)[:-1])]


def plant_document(folder: Path, ids: list[int], first_token: int = 0) -> None:
    """Overwrite documents of the first shard with a document, in rows that stay as a packer makes them.

    The checksums in the manifest are renewed, because otherwise they would find the change first.

    Args:
        folder: the shard folder.
        ids: of the document, with its special tokens.
        first_token: the earliest position of the document.
    """
    special = SpecialTokens.of(Tokenizer.from_file(str(folder / "tokenizer.json")))
    manifest = read_sealed(folder / "manifest.json")
    name = manifest["shards"][0]["file"]
    arrays = {key: array.copy() for key, array in load_file(folder / name).items()}
    tokens, stream = arrays["tokens"], arrays["tokens"].reshape(-1)
    ends = np.flatnonzero(stream == special.sep)
    start = int(ends[ends >= first_token][0]) + 1
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


def _tokenizers(texts: list[str], folder: Path) -> Iterator[tuple[str, TokenizerSource]]:
    """The tokenizers by name."""
    cased = WordPieceConfig(vocab_size=192, lowercase=False, strip_accents=False)
    yield "WordPiece", TokenizerSource(None, WordPieceConfig(vocab_size=192))
    yield "WordPiece, cased, with accents", TokenizerSource(None, cased)
    yield "WordPiece, cramming", TokenizerSource(None, WordPieceConfig(vocab_size=192, normalizer="cramming"))
    yield "byte-level BPE", TokenizerSource(train_byte_level(texts, folder / "bpe.json"), WordPieceConfig())


def prove(name: str, tokenizer: TokenizerSource, source: Path, dedupe: DedupeConfig) -> int:
    """Prepare the corpus, count leaks, and plant a held-out document. Returns the number of failures."""
    data = DataConfig(
        source=str(source),
        dir=str(source.parent / "shards"),
        seq_len=64,
        held_out=0.1,
        filters=FILTERS,
        dedupe=dedupe,
        processes=1,
    )
    shards = prepare_shards(data, tokenizer, Progress(terminal=False))
    leaks = count_leaks(verify_shards(shards.folder))
    dropped = {reason: counts["documents"] for reason, counts in shards.manifest["dropped"].items()}
    kind = "with deduplication" if dedupe.exact else "by ids alone"
    print(f"{name}, {kind}: {shards.documents} documents kept, dropped: {dropped};")
    print(f"  of {len(shards.held_out())} held-out documents {leaks} stand in the rows", flush=True)
    plant_document(shards.folder, max(encode_held_out(shards), key=len), 500)
    try:
        verify_shards(shards.folder)
        message = "NOT FOUND"
    except CramError as error:
        message = str(error).splitlines()[0].partition(": ")[2]
    print(f"  a planted one: {message}", flush=True)
    shutil.rmtree(shards.folder)
    return leaks + (not message.startswith(REFUSAL))


def main(words: list[str]) -> int:
    """Prepare the corpus with every tokenizer."""
    read_words(UnseenConfig, words)
    texts, failures = make_twins(), 0
    with tempfile.TemporaryDirectory() as name:
        source = Path(name) / "corpus.jsonl"
        source.write_text("".join(to_json({"text": text}) + "\n" for text in texts))
        for about, tokenizer in _tokenizers(texts, source.parent):
            for dedupe in (DedupeConfig(), DedupeConfig(exact=False, near=None)):
                failures += prove(about, tokenizer, source, dedupe)
    return 1 if failures else 0


if __name__ == "__main__":
    run_door(main, UnseenConfig, ABOUT)
