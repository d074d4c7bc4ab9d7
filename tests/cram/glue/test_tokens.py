"""Tokens, their cache, padding, and the batches of an epoch."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cram.glue.splits import Split
from cram.glue.tokens import TokenizedSplit, epoch_batches, tokenize_split, updates_per_epoch

CPU = torch.device("cpu")
PAIRS = Split(
    [("the warm film", "a cold garden winter"), ("the letter", "the bridge"), ("bright", "dull")], np.arange(3)
)


@pytest.fixture
def tokenizer(checkpoint: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(checkpoint)


@given(
    st.lists(st.integers(1, 128), min_size=1, max_size=300), st.integers(1, 20), st.integers(0, 9), st.integers(0, 4)
)
def test_each_example_is_seen_once_an_epoch_in_full_batches(
    lengths: list[int], size: int, seed: int, epoch: int
) -> None:
    batches = list(epoch_batches(torch.tensor(lengths), size, seed, epoch))
    seen = torch.cat(batches).tolist()
    assert len(seen) == len(set(seen))
    assert len(batches) == updates_per_epoch(len(lengths), size)
    if len(lengths) >= size:
        assert {len(batch) for batch in batches} == {size}
        assert len(seen) == len(lengths) // size * size
    else:
        assert sorted(seen) == list(range(len(lengths)))


def test_batches_are_of_like_length_shuffled_and_repeatable() -> None:
    lengths = torch.randint(5, 128, (4_000,), generator=torch.Generator().manual_seed(0))

    def order(seed: int, epoch: int) -> torch.Tensor:
        return torch.stack(list(epoch_batches(lengths, 16, seed, epoch)))

    first = order(0, 0)
    assert torch.equal(first, order(0, 0))
    assert not torch.equal(first, order(0, 1))
    assert not torch.equal(first, order(1, 0))
    widest = lengths[first].amax(1)
    at_random = lengths[torch.randperm(4_000).view(-1, 16)].amax(1)
    assert widest.sum() < 0.65 * at_random.sum()
    assert widest[1:].lt(widest[:-1]).float().mean() > 0.3  # batches do not come sorted


def test_tokens_are_those_of_the_tokenizer(tokenizer: Any, tmp_path: Path) -> None:
    split = tokenize_split(PAIRS, tokenizer, 9, tmp_path)
    assert len(split) == 3
    expected = [tokenizer(*texts, truncation=True, max_length=9)["input_ids"] for texts in PAIRS.texts]
    batch = split.batch(torch.tensor([2, 0, 1]), 0, CPU)
    assert set(batch) == {"input_ids", "attention_mask"}
    for row, index in enumerate([2, 0, 1]):
        is_token = batch["attention_mask"][row].bool()
        assert batch["input_ids"][row][is_token].tolist() == expected[index]
        assert is_token[: len(expected[index])].all()
        assert batch["input_ids"][row][~is_token].eq(0).all()
    assert batch["input_ids"].shape == (3, 9)  # a multiple of 8, but not longer than an example may be
    assert split.labels is not None and split.labels.tolist() == [0, 1, 2]


def test_models_that_read_token_types_get_them(tokenizer: Any, tmp_path: Path) -> None:
    tokenizer.model_input_names = ["input_ids", "token_type_ids", "attention_mask"]
    batch = tokenize_split(PAIRS, tokenizer, 16, tmp_path).batch(torch.tensor([0, 1]), 0, CPU)
    expected = tokenizer(*PAIRS.texts[0], truncation=True, max_length=16, return_token_type_ids=True)["token_type_ids"]
    assert 1 in expected
    assert batch["token_type_ids"][0][: len(expected)].tolist() == expected
    assert not (batch["token_type_ids"] * (1 - batch["attention_mask"])).any()


def test_cached_tokens_have_types_only_for_models_that_read_them(tokenizer: Any, tmp_path: Path) -> None:
    names = ["input_ids", "attention_mask"]
    for types in (False, True, False):
        tokenizer.model_input_names = [*names, "token_type_ids"] if types else names
        assert (tokenize_split(PAIRS, tokenizer, 16, tmp_path).types is not None) == types


def test_tokens_are_computed_once(tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = tokenize_split(PAIRS, tokenizer, 9, tmp_path)
    files = sorted(tmp_path.iterdir())
    monkeypatch.setattr("cram.glue.tokens._tokenize", None)
    tokenizer(["whatever"], truncation=True, max_length=3)  # must not count as another tokenizer
    again = tokenize_split(PAIRS, tokenizer, 9, tmp_path)
    assert torch.equal(first.ids, again.ids)
    monkeypatch.undo()
    tokenize_split(PAIRS, tokenizer, 8, tmp_path)
    tokenize_split(Split(PAIRS.texts[::-1], PAIRS.labels), tokenizer, 9, tmp_path)
    assert len(sorted(tmp_path.iterdir())) == len(files) + 2


def test_scores_are_float32_labels(tokenizer: Any, tmp_path: Path) -> None:
    split: TokenizedSplit = tokenize_split(Split([("a",), ("b",)], np.array([0.5, 5.0])), tokenizer, 9, tmp_path)
    assert split.labels is not None
    assert split.labels.dtype == torch.float32
