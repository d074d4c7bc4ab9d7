"""Checks that a shard folder is what its manifest says: first the checksums, then these rules for its contents.

manifest.json       It lists every file. Its rows, documents and tokens add up and agree with the other files.
every listed file   It exists and has its sha256.
shard-*             Token ids are in the vocabulary. Documents are numbered 0, 1, 2 ... along a row, and each ends with
                    a separator. Padding is only at the end of a row and counts as a document.
counts.safetensors  It agrees with the rows.
held_out.jsonl      Every hash is the sha256 of its text. Hashes are ascending, and none is there twice.
rows                They contain no held-out document, nor 64 consecutive ids of one, except known boilerplate.
                    `held_out_search.check_rows` says what is not found if best-fit packing has cut a document.
orders/*            Each has the sha256 in their list, belongs to these shards, and gives each row once.
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
from cram.data.special_tokens import SpecialTokens, padded_vocabulary_size
from cram.data.tokenizer import load_tokenizer
from cram.errors import CramError
from cram.files.atomic import sha256_file
from cram.files.sealed import read_checksums

ORDER_REMEDY = "delete the file, it will be made again."


def verify_shards(folder: str | Path) -> ShardSet:
    """Check every file and every row of a shard folder. It writes nothing.

    Returns:
        The shard folder, open for reading.

    Raises:
        CramError: a file is missing, damaged or contradicts another; the message names the first such file.
    """
    try:
        shards = ShardSet.open(folder)
        _verify_manifest(shards)
        shards.verify()
        totals = _verify_rows(shards)
        _verify_held_out(shards)
        _verify_unseen(shards)
        _verify_counts(shards, totals)
        _verify_orders(shards)
    except OSError as error:
        raise CramError(f"{error.filename or folder}: cannot be read ({error.strerror}); {REMEDY}") from error
    return shards


def _verify_manifest(shards: ShardSet) -> None:
    """Check that the manifest lists the files that every folder has, and that its figures agree."""
    manifest, path = shards.manifest, shards.folder / MANIFEST
    for name in (TOKENIZER, HELD_OUT, COUNTS, STATISTICS, BOILERPLATE_FILE):
        if name not in manifest["files"]:
            raise CramError(f"{path}: {name} is not among its files; {REMEDY}")
    with _damage_reported(path):
        counts = manifest["counts"]
        documents = [counts[name] for name in ("documents", "held_out_documents", "not_needed_documents")]
        documents += [dropped["documents"] for dropped in manifest["dropped"].values()]
        sources = [source["documents"] for source in manifest["sources"]]
        figures = {
            "rows": (shards.rows, sum(shard["rows"] for shard in manifest["shards"])),
            "counts.documents_in": (counts["documents_in"], sum(documents)),
            "documents of the sources": (sum(sources), counts["documents_in"]),
            "tokenizer.sha256": (manifest["tokenizer"]["sha256"], manifest["files"][TOKENIZER]),
        }
    for name, (value, expected) in figures.items():
        if value != expected:
            raise CramError(f"{path}: {name}: {value}, but its other figures give {expected}; {REMEDY}")


@dataclass
class _RowTotals:
    """Counted in the rows.

    Attributes:
        token_counts: int64 [vocab_size], padding not counted.
        documents: how many end in the rows.
    """

    token_counts: npt.NDArray[np.int64]
    documents: int = 0


def _verify_rows(shards: ShardSet) -> _RowTotals:
    """Check every row and count its tokens and documents."""
    tokenizer = load_tokenizer(shards.tokenizer_path)
    if (size := padded_vocabulary_size(tokenizer)) != shards.vocab_size:
        path = shards.folder / MANIFEST
        raise CramError(f"{path}: vocab_size: {shards.vocab_size}, but the tokenizer needs {size}; {REMEDY}")
    special = SpecialTokens.of(tokenizer)
    totals = _RowTotals(np.zeros(size, np.int64))
    for path, tokens, documents in shards.blocks():
        if problem := _find_problem(tokens, documents, special, size):
            raise CramError(f"{path}: {problem}; {REMEDY}")
        totals.token_counts += np.bincount(tokens.ravel(), minlength=size)
        totals.documents += int(np.count_nonzero(tokens == special.sep))  # a separator only ends documents
    totals.token_counts[special.pad] = 0
    return totals


def _find_problem(tokens: np.ndarray, documents: np.ndarray, special: SpecialTokens, size: int) -> str | None:
    """Return the first rule that rows break, as a message; None if they keep all.

    Args:
        tokens: int [rows, seq_len], as stored.
        documents: int [rows, seq_len], as stored.
        special: the special tokens of the tokenizer.
        size: of the vocabulary.
    """
    for token in (tokens.min(), tokens.max()):
        if not 0 <= token < size:
            return f"it contains token {token}, but the vocabulary has 0 to {size - 1}"
    borders = documents[:, 1:] != documents[:, :-1]
    if documents[:, 0].any() or (documents[:, 1:] - documents[:, :-1] != borders).any():
        return "documents are not numbered 0, 1, 2 ... along a row"
    padding = tokens == special.pad
    if padding[:, 0].any() or (padding[:, :-1] & ~padding[:, 1:]).any():
        return "padding is followed by other tokens"
    # A new document must begin where padding begins, and nowhere within it.
    if (borders != ~padding[:, :-1])[padding[:, 1:]].any():
        return "padding is not a separate document"
    if (tokens[:, :-1][borders] != special.sep).any():
        return "a document ends without a separator before the next one"
    return None


def _verify_counts(shards: ShardSet, totals: _RowTotals) -> None:
    """Check that the manifest and counts.safetensors agree with the rows."""
    manifest, tokens = shards.manifest, int(totals.token_counts.sum())
    fill = [packing["fill"] for packing in manifest["packing"].values() if packing["measured"]]
    for name, value, counted in (
        ("tokens", shards.tokens, tokens),
        ("counts.documents", shards.documents, totals.documents),
        ("packing", fill, [tokens / (shards.rows * shards.seq_len)]),
    ):
        if value != counted:
            raise CramError(f"{shards.folder / MANIFEST}: {name}: {value}, but {counted} in the rows; {REMEDY}")
    path = shards.folder / COUNTS
    with _damage_reported(path):
        token_counts, lengths = shards.token_counts(), shards.lengths()
        documents, least_tokens = int(lengths.sum()), int(lengths @ np.arange(len(lengths)))
    if not np.array_equal(token_counts, totals.token_counts):
        raise CramError(f"{path}: its counts of tokens are not those of the rows; {REMEDY}")
    # The last element counts all longer documents too, so with it the lengths give only a lower bound of the tokens.
    lengths_agree = least_tokens == tokens or (least_tokens < tokens and lengths[-1] > 0)
    if documents != totals.documents or not lengths_agree:
        raise CramError(f"{path}: its lengths of documents are not those of the rows; {REMEDY}")


def _verify_held_out(shards: ShardSet) -> None:
    """Check the hashes of the stored held-out documents and their number."""
    path = shards.folder / HELD_OUT
    with _damage_reported(path):
        documents = shards.held_out()
        hashes = [document.hash for document in documents]
        digests = [sha256(document.text.encode()).hexdigest() for document in documents]
    for line, (hash, digest) in enumerate(zip(hashes, digests, strict=True), start=1):
        if hash != digest:
            raise CramError(f"{path}:{line}: its hash is not the sha256 of its text; {REMEDY}")
    if hashes != sorted(set(hashes)):
        raise CramError(f"{path}: its documents are repeated or not in the order of their hashes; {REMEDY}")
    counted = shards.manifest["counts"]["held_out_documents"]
    if not 0 < len(hashes) <= counted:
        raise CramError(f"{path}: {len(hashes)} documents, but the manifest counts {counted}; {REMEDY}")


def _verify_unseen(shards: ShardSet) -> None:
    """Check that no held-out text is in the rows, and that the manifest has the result of this search."""
    path = shards.folder / MANIFEST
    definition = shards.tokenizer_path.read_text(encoding="utf-8")
    with _damage_reported(shards.folder / BOILERPLATE_FILE):
        check = check_rows(shards, index_held_out((document.text for document in shards.held_out()), definition))
    if check.leaks:
        raise CramError(
            f"{shards.folder}: its rows contain held-out text, {check.sequences_found} whole document(s) and "
            f"{check.windows_found} window(s) of {WINDOW} tokens; {REMEDY}"
        )
    if (listed := shards.manifest.get("held_out_check")) != asdict(check):
        raise CramError(f"{path}: held_out_check: {listed}, but {asdict(check)} in the rows; {REMEDY}")


def _verify_orders(shards: ShardSet) -> None:
    """Check that each existing order gives each row once. Missing orders are made when they are needed."""
    folder = shards.folder / FOLDER
    paths = sorted(folder.glob("*.safetensors"))
    try:
        files = read_checksums(folder) if paths else {}
    except CramError as error:
        raise CramError(f"{error} Delete {folder}, it will be made again.") from None
    for path in paths:
        with _damage_reported(path, ORDER_REMEDY):
            arrays, metadata = map_arrays(path)
            order, data = arrays[ARRAY], metadata["data"]
        if sha256_file(path) != files.get(path.name) or data != shards.hash:
            raise CramError(f"{path}: damaged, or it belongs to other shards; {ORDER_REMEDY}")
        if not _is_permutation(order, shards.rows):
            raise CramError(f"{path}: it does not give each of the {shards.rows} rows once; {ORDER_REMEDY}")


def _is_permutation(order: npt.NDArray[Any], rows: int) -> bool:
    if order.shape != (rows,) or order.max() >= rows or order.min() < 0:
        return False
    seen = np.zeros(rows, bool)
    seen[order] = True
    return bool(seen.all())


@contextmanager
def _damage_reported(path: Path, remedy: str = REMEDY) -> Iterator[None]:
    """Turn the errors that wrong content of a file raises in the `with` block into a CramError that names the file."""
    try:
        yield
    except CramError:
        raise
    except (KeyError, TypeError, AttributeError, ValueError, SafetensorError) as error:
        raise CramError(f"{path}: damaged ({error!r}); {remedy}") from error
