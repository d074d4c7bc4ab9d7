"""Tokens, their cache, padding, and which rows share an update."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cram.glue.data import Rows
from cram.glue.tokens import Encoded, batches, encode, updates_per_epoch

CPU = torch.device("cpu")
PAIRS = Rows(
    [("the warm film", "a cold garden winter"), ("the letter", "the bridge"), ("bright", "dull")], np.arange(3)
)


@pytest.fixture
def tokenizer(checkpoint: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(checkpoint)


@given(
    st.lists(st.integers(1, 128), min_size=1, max_size=300), st.integers(1, 20), st.integers(0, 9), st.integers(0, 4)
)
def test_each_row_is_seen_once_an_epoch_in_full_batches(lengths: list[int], size: int, seed: int, epoch: int) -> None:
    made = list(batches(torch.tensor(lengths), size, seed, epoch))
    seen = torch.cat(made).tolist()
    assert len(seen) == len(set(seen))
    assert len(made) == updates_per_epoch(len(lengths), size)
    if len(lengths) >= size:
        assert {len(batch) for batch in made} == {size}
        assert len(seen) == len(lengths) // size * size
    else:
        assert sorted(seen) == list(range(len(lengths)))


def test_batches_are_of_like_length_shuffled_and_repeatable() -> None:
    lengths = torch.randint(5, 128, (4_000,), generator=torch.Generator().manual_seed(0))

    def order(seed: int, epoch: int) -> torch.Tensor:
        return torch.stack(list(batches(lengths, 16, seed, epoch)))

    first = order(0, 0)
    assert torch.equal(first, order(0, 0))
    assert not torch.equal(first, order(0, 1))
    assert not torch.equal(first, order(1, 0))
    widest = lengths[first].amax(1)
    at_random = lengths[torch.randperm(4_000).view(-1, 16)].amax(1)
    assert widest.sum() < 0.65 * at_random.sum()
    assert widest[1:].lt(widest[:-1]).float().mean() > 0.3  # batches do not come sorted


def test_encoding_is_the_tokenizers_own(tokenizer: Any, tmp_path: Path) -> None:
    encoded = encode(PAIRS, tokenizer, 9, tmp_path)
    assert len(encoded) == 3
    wanted = [tokenizer(*texts, truncation=True, max_length=9)["input_ids"] for texts in PAIRS.texts]
    batch = encoded.batch(torch.tensor([2, 0, 1]), 0, CPU)
    assert set(batch) == {"input_ids", "attention_mask"}
    for row, index in enumerate([2, 0, 1]):
        real = batch["attention_mask"][row].bool()
        assert batch["input_ids"][row][real].tolist() == wanted[index]
        assert real[: len(wanted[index])].all()
        assert batch["input_ids"][row][~real].eq(0).all()
    assert batch["input_ids"].shape == (3, 9)  # a multiple of 8, but no longer than rows may be
    assert encoded.labels is not None and encoded.labels.tolist() == [0, 1, 2]


def test_token_types_for_models_that_ask(tokenizer: Any, tmp_path: Path) -> None:
    tokenizer.model_input_names = ["input_ids", "token_type_ids", "attention_mask"]
    batch = encode(PAIRS, tokenizer, 16, tmp_path).batch(torch.tensor([0, 1]), 0, CPU)
    wanted = tokenizer(*PAIRS.texts[0], truncation=True, max_length=16, return_token_type_ids=True)["token_type_ids"]
    assert 1 in wanted
    assert batch["token_type_ids"][0][: len(wanted)].tolist() == wanted
    assert not (batch["token_type_ids"] * (1 - batch["attention_mask"])).any()


def test_cached_tokens_have_types_only_where_they_are_wanted(tokenizer: Any, tmp_path: Path) -> None:
    wanted = ["input_ids", "attention_mask"]
    for types in (False, True, False):
        tokenizer.model_input_names = [*wanted, "token_type_ids"] if types else wanted
        assert (encode(PAIRS, tokenizer, 16, tmp_path).types is not None) == types


def test_tokens_are_made_once(tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = encode(PAIRS, tokenizer, 9, tmp_path)
    files = sorted(tmp_path.iterdir())
    monkeypatch.setattr("cram.glue.tokens._tokenize", None)
    tokenizer(["whatever"], truncation=True, max_length=3)  # must not count as another tokenizer
    again = encode(PAIRS, tokenizer, 9, tmp_path)
    assert torch.equal(first.ids, again.ids)
    monkeypatch.undo()
    encode(PAIRS, tokenizer, 8, tmp_path)
    encode(Rows(PAIRS.texts[::-1], PAIRS.labels), tokenizer, 9, tmp_path)
    assert len(sorted(tmp_path.iterdir())) == len(files) + 2


def test_scores_are_float32_labels(tokenizer: Any, tmp_path: Path) -> None:
    encoded: Encoded = encode(Rows([("a",), ("b",)], np.array([0.5, 5.0])), tokenizer, 9, tmp_path)
    assert encoded.labels is not None
    assert encoded.labels.dtype == torch.float32
