"""Is a shard folder what its manifest says? Checksums first, then what must hold of its contents.

manifest.json       lists every file; its rows, documents and tokens add up, and are those of the files below
every file in it    is there with its sha256
shard-*             token ids of the vocabulary; documents numbered 0, 1, 2 ... along a row, a separator before each
                    border; padding at the ends of rows alone, a document of its own
counts.safetensors  is what the rows hold
held_out.jsonl      every hash is the sha256 of its text, in ascending order, none twice
rows                hold none of the held-out documents, nor 64 ids in a row of one but for known boilerplate; see
                    `leaks.check_rows` for what cannot be told where best fit has cut a document
orders/*            each with the sha256 in their list, of these shards, each row once
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError

from cram.data.preparation.held_out_search import BOILERPLATE_FILE, WINDOW, check_rows
from cram.data.preparation.second_pass import index_held_out
from cram.data.preparation.statistics import STATISTICS
from cram.data.shards.mapped_arrays import map_arrays
from cram.data.shards.order import ARRAY, FOLDER
from cram.data.shards.shards import COUNTS, HELD_OUT, MANIFEST, REMEDY, TOKENIZER, ShardSet
from cram.data.special import SpecialTokens, vocabulary_size
from cram.data.tokenizer import load_tokenizer
from cram.errors import CramError
from cram.files.atomic import sha256_file
from cram.files.sealed import read_checksums

ORDER_REMEDY = "delete the file, it is made again"


def verify_shards(folder: str | Path) -> ShardSet:
    """Check every file and every row of a shard folder, and return it open; nothing is written.

    Errors: CramError naming the first file that is not as it should be, and what is wrong with it.
    """
    try:
        shards = ShardSet.open(folder)
        _verify_manifest(shards)
        shards.verify()
        found = _verify_rows(shards)
        _verify_held_out(shards)
        _verify_unseen(shards)
        _verify_counts(shards, found)
        _verify_orders(shards)
    except OSError as error:
        raise CramError(f"{error.filename or folder}: cannot be read ({error.strerror}); {REMEDY}") from error
    return shards


def _verify_manifest(shards: ShardSet) -> None:
    """That it lists what it must, and that its figures fit each other."""
    manifest, path = shards.manifest, shards.folder / MANIFEST
    for name in (TOKENIZER, HELD_OUT, COUNTS, STATISTICS, BOILERPLATE_FILE):
        if name not in manifest["files"]:
            raise CramError(f"{path}: {name} is not among its files; {REMEDY}")
    with _reading(path):
        counts = manifest["counts"]
        taken = [counts[name] for name in ("documents", "held_out_documents", "not_needed_documents")]
        taken += [found["documents"] for found in manifest["dropped"].values()]
        sources = [source["documents"] for source in manifest["sources"]]
        sums = {
            "rows": (shards.rows, sum(shard["rows"] for shard in manifest["shards"])),
            "counts.documents_in": (counts["documents_in"], sum(taken)),
            "documents of the sources": (sum(sources), counts["documents_in"]),
            "tokenizer.sha256": (manifest["tokenizer"]["sha256"], manifest["files"][TOKENIZER]),
        }
    for name, (said, expected) in sums.items():
        if said != expected:
            raise CramError(f"{path}: {name}: {said}, but {expected} by its other figures; {REMEDY}")


@dataclass
class _Found:
    """What the rows hold."""

    counts: npt.NDArray[np.int64]  # [vocab], padding not counted
    documents: int = 0


def _verify_rows(shards: ShardSet) -> _Found:
    tokenizer = load_tokenizer(shards.tokenizer_path)
    if (size := vocabulary_size(tokenizer)) != shards.vocab_size:
        path = shards.folder / MANIFEST
        raise CramError(f"{path}: vocab_size: {shards.vocab_size}, but the tokenizer needs {size}; {REMEDY}")
    special = SpecialTokens.of(tokenizer)
    found = _Found(np.zeros(size, np.int64))
    for path, tokens, documents in shards.blocks():
        if problem := _problem(tokens, documents, special, size):
            raise CramError(f"{path}: {problem}; {REMEDY}")
        found.counts += np.bincount(tokens.ravel(), minlength=size)
        found.documents += int(np.count_nonzero(tokens == special.sep))  # it ends a document, and stands nowhere else
    found.counts[special.pad] = 0
    return found


def _problem(tokens: np.ndarray, documents: np.ndarray, special: SpecialTokens, size: int) -> str | None:
    """The first thing that cannot be so in rows that were packed, tokens and documents [rows, seq_len]."""
    for token in (tokens.min(), tokens.max()):
        if not 0 <= token < size:
            return f"it holds token {token}, the vocabulary has 0 to {size - 1}"
    borders = documents[:, 1:] != documents[:, :-1]
    if documents[:, 0].any() or (documents[:, 1:] - documents[:, :-1] != borders).any():
        return "documents are not numbered 0, 1, 2 ... along a row"
    padding = tokens == special.pad
    if padding[:, 0].any() or (padding[:, :-1] & ~padding[:, 1:]).any():
        return "padding lies before the end of a row"
    # Where padding begins, and there alone within it, a new document does.
    if (borders != ~padding[:, :-1])[padding[:, 1:]].any():
        return "padding is not a document of its own"
    if (tokens[:, :-1][borders] != special.sep).any():
        return "a document ends without a separator before the next one"
    return None


def _verify_counts(shards: ShardSet, found: _Found) -> None:
    """That the rows hold what the manifest and the counts say."""
    manifest, tokens = shards.manifest, int(found.counts.sum())
    fill = [packing["fill"] for packing in manifest["packing"].values() if packing["measured"]]
    for name, said, held in (
        ("tokens", shards.tokens, tokens),
        ("counts.documents", shards.documents, found.documents),
        ("packing", fill, [tokens / (shards.rows * shards.seq_len)]),
    ):
        if said != held:
            raise CramError(f"{shards.folder / MANIFEST}: {name}: {said}, but {held} in the rows; {REMEDY}")
    path = shards.folder / COUNTS
    with _reading(path):
        counts, lengths = shards.token_counts(), shards.lengths()
        documents, least = int(lengths.sum()), int(lengths @ np.arange(len(lengths)))
    if not np.array_equal(counts, found.counts):
        raise CramError(f"{path}: its counts of tokens are not those of the rows; {REMEDY}")
    # The last place stands for all longer documents.
    if documents != found.documents or least > tokens or (least < tokens and not lengths[-1]):
        raise CramError(f"{path}: its lengths of documents are not those of the rows; {REMEDY}")


def _verify_held_out(shards: ShardSet) -> None:
    path = shards.folder / HELD_OUT
    with _reading(path):
        documents = shards.held_out()
        hashes = [document.hash for document in documents]
        digests = [sha256(document.text.encode()).hexdigest() for document in documents]
    for line, (hash, digest) in enumerate(zip(hashes, digests, strict=True), start=1):
        if hash != digest:
            raise CramError(f"{path}:{line}: its hash is not the sha256 of its text; {REMEDY}")
    if hashes != sorted(set(hashes)):
        raise CramError(f"{path}: its documents are not in the order of their hashes, each once; {REMEDY}")
    if not 0 < len(hashes) <= shards.manifest["counts"]["held_out_documents"]:
        raise CramError(f"{path}: {len(hashes)} documents, not as many as the manifest says; {REMEDY}")


def _verify_unseen(shards: ShardSet) -> None:
    """That nothing of the held-out documents is in the rows, and that the manifest says what a search finds."""
    path = shards.folder / MANIFEST
    definition = shards.tokenizer_path.read_text(encoding="utf-8")
    with _reading(shards.folder / BOILERPLATE_FILE):
        found = check_rows(shards, index_held_out((one.text for one in shards.held_out()), definition))
    if found.sequences_found or found.windows_found:
        raise CramError(
            f"{shards.folder}: held-out text stands in its rows, {found.sequences_found} whole document(s) and "
            f"{found.windows_found} window(s) of {WINDOW} tokens; {REMEDY}"
        )
    if (said := shards.manifest.get("held_out_check")) != asdict(found):
        raise CramError(f"{path}: held_out_check: {said}, but {asdict(found)} in the rows; {REMEDY}")


def _verify_orders(shards: ShardSet) -> None:
    """That each order that is there gives each row once; one that is not is made when it is needed."""
    folder = shards.folder / FOLDER
    paths = sorted(folder.glob("*.safetensors"))
    try:
        files = read_checksums(folder) if paths else {}
    except CramError as error:
        raise CramError(f"{error} Delete {folder}, it is made again.") from None
    for path in paths:
        with _reading(path, ORDER_REMEDY):
            arrays, metadata = map_arrays(path)
            order, data = arrays[ARRAY], metadata["data"]
        if sha256_file(path) != files.get(path.name) or data != shards.hash:
            raise CramError(f"{path}: damaged, or the order of other shards; {ORDER_REMEDY}")
        if not _is_permutation(order, shards.rows):
            raise CramError(f"{path}: it does not give each of the {shards.rows} rows once; {ORDER_REMEDY}")


def _is_permutation(order: npt.NDArray[Any], rows: int) -> bool:
    if order.shape != (rows,) or order.max() >= rows or order.min() < 0:
        return False
    seen = np.zeros(rows, bool)
    seen[order] = True
    return bool(seen.all())


@contextmanager
def _reading(path: Path, remedy: str = REMEDY) -> Iterator[None]:
    """Turn what a file of wrong content raises into a CramError that names it."""
    try:
        yield
    except CramError:
        raise
    except (KeyError, TypeError, AttributeError, ValueError, SafetensorError) as error:
        raise CramError(f"{path}: damaged ({error!r}); {remedy}") from error
