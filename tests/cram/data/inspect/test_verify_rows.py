from pathlib import Path

import numpy as np
import pytest

from cram.data.inspect import verify
from tests.cram.data.inspect.damage import LAST_SHARD, PAD, Change, fails, rewrite, signed


def token_beyond_the_vocabulary(arrays: dict[str, np.ndarray]) -> None:
    arrays["tokens"][5, 3] = 192


def negative_token(arrays: dict[str, np.ndarray]) -> None:
    arrays["tokens"] = arrays["tokens"].astype(np.int32)
    arrays["tokens"][5, 3] = -1


def first_document_is_not_0(arrays: dict[str, np.ndarray]) -> None:
    arrays["documents"][2] += 1


def document_left_out(arrays: dict[str, np.ndarray]) -> None:
    arrays["documents"][2, 17:] += 2


def documents_backwards(arrays: dict[str, np.ndarray]) -> None:
    arrays["documents"][4] = np.sort(arrays["documents"][4])[::-1]
    arrays["documents"][4, 0], arrays["documents"][4, -2:] = 0, [1, 0]


def documents_backwards_with_a_sign(arrays: dict[str, np.ndarray]) -> None:
    arrays["documents"] = arrays["documents"].astype(np.int32)
    documents_backwards(arrays)


def padding_in_mid_row(arrays: dict[str, np.ndarray]) -> None:
    arrays["tokens"][4, 3] = PAD


def row_of_padding(arrays: dict[str, np.ndarray]) -> None:
    arrays["tokens"][4], arrays["documents"][4] = PAD, 0


def padding_in_a_document(arrays: dict[str, np.ndarray]) -> None:
    row = int(np.flatnonzero((arrays["tokens"] != PAD).all(axis=1))[0])
    arrays["tokens"][row, -1] = PAD
    arrays["documents"][row, -1] = arrays["documents"][row, -2]


def padding_of_two_documents(arrays: dict[str, np.ndarray]) -> None:
    row = int(np.flatnonzero((arrays["tokens"] != PAD).all(axis=1))[0])
    arrays["tokens"][row, -2:] = PAD
    arrays["documents"][row, -2:] = arrays["documents"][row, -3] + np.array([1, 2])


def border_in_mid_document(arrays: dict[str, np.ndarray]) -> None:
    row = int(np.flatnonzero((arrays["documents"] == 0).all(axis=1))[0])
    arrays["documents"][row, 9:] = 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (token_beyond_the_vocabulary, "it contains token 192, but the vocabulary has 0 to 191"),
        (negative_token, "it contains token -1, but the vocabulary has 0 to 191"),
        (first_document_is_not_0, "documents are not numbered 0, 1, 2 ... along a row"),
        (document_left_out, "documents are not numbered 0, 1, 2 ... along a row"),
        (documents_backwards, "documents are not numbered 0, 1, 2 ... along a row"),
        (documents_backwards_with_a_sign, "documents are not numbered 0, 1, 2 ... along a row"),
        (padding_in_mid_row, "padding is followed by other tokens"),
        (row_of_padding, "padding is followed by other tokens"),
        (padding_in_a_document, "padding is not a separate document"),
        (padding_of_two_documents, "padding is not a separate document"),
        (border_in_mid_document, r"a document ends without a separator before the next one"),
    ],
)
def test_rows_that_break_a_rule_of_packing(folder: Path, change: Change, message: str) -> None:
    rewrite(folder, "shard-00001.safetensors", change)
    fails(folder, rf"set/shard-00001.safetensors: {message}; delete the folder")


def test_a_changed_token_is_found_by_the_counts(folder: Path) -> None:
    def change(arrays: dict[str, np.ndarray]) -> None:
        place = tuple(np.argwhere(arrays["tokens"] > 10)[0])
        arrays["tokens"][place] -= 1

    rewrite(folder, LAST_SHARD, change)
    fails(folder, r"counts.safetensors: its counts of tokens are not those of the rows")


def test_counts_that_are_not_those_of_the_rows(folder: Path) -> None:
    def counts(arrays: dict[str, np.ndarray]) -> None:
        arrays["counts"][50] += 1

    rewrite(folder, "counts.safetensors", counts)
    fails(folder, r"counts.safetensors: its counts of tokens are not those of the rows")
    rewrite(folder, "counts.safetensors", lambda arrays: arrays.pop("counts"))  # type: ignore[arg-type,return-value]
    fails(folder, r"counts.safetensors: damaged \(KeyError\('counts'\)\)")
    (folder / "counts.safetensors").write_bytes(b"nothing")
    signed(folder, "counts.safetensors")
    fails(folder, r"counts.safetensors: damaged \(SafetensorError")


@pytest.mark.parametrize("step", [1, -1, None])
def test_lengths_that_are_not_those_of_the_documents(folder: Path, step: int | None) -> None:
    def change(arrays: dict[str, np.ndarray]) -> None:
        lengths = arrays["lengths"]
        most = int(lengths.argmax())
        if step:
            lengths[[most, most + step]] += np.array([-1, 1])
        else:
            lengths[0] += 1

    rewrite(folder, "counts.safetensors", change)
    fails(folder, r"counts.safetensors: its lengths of documents are not those of the rows")


def test_very_long_documents_are_counted_in_the_last_element(folder: Path) -> None:
    def cut(arrays: dict[str, np.ndarray]) -> None:
        lengths = arrays["lengths"]
        arrays["lengths"] = np.append(lengths[:30], lengths[30:].sum())

    rewrite(folder, "counts.safetensors", cut)
    verify.verify_shards(folder)
