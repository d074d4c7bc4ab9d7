"""The benchmark of fine-tuning: its batches, its counts, and what it refuses."""

import pytest
import torch

from bench.glue_step import collate, main, padding_of_cram
from cram.errors import CramError
from cram.glue.tokens import TokenizedSplit


def test_rows_are_padded_to_a_multiple_of_8_and_counted() -> None:
    rows = [{"input_ids": torch.arange(5, 5 + length), "labels": torch.tensor(length % 2)} for length in (3, 9)]
    counts = [1, 1]
    batch = collate(rows, 0, counts)
    assert batch["input_ids"].tolist() == [[5, 6, 7, *[0] * 13], [*range(5, 14), *[0] * 7]]
    assert batch["attention_mask"].sum(1).tolist() == [3, 9]
    assert batch["labels"].tolist() == [1, 1]
    assert counts == [1 + 12, 1 + 32]


def test_padding_of_cram_is_that_of_an_epoch() -> None:
    lengths = torch.tensor([3] * 16 + [20] * 16)
    offsets = torch.cat([torch.zeros(1, dtype=torch.long), lengths.cumsum(0)])
    split = TokenizedSplit(torch.ones(int(lengths.sum()), dtype=torch.int32), None, offsets, None, 128)
    assert padding_of_cram(split, 0) == [16 * 23, 16 * (8 + 24)]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], r"run= is missing\. Give run=DIR"),
        (["run=x"], r"data= is missing\. Give run=DIR"),
        (["run=x", "data=y", "rows=3"], "rows=3 is out of range"),
        (["run=x", "data=y", "rounds=1"], "rounds=1 is out of range"),
        (["run=x", "data=y", "precision=fp64"], "precision=fp64"),
    ],
)
def test_wrong_words_are_refused(words: list[str], message: str) -> None:
    with pytest.raises(CramError, match=message):
        main(words)


def test_a_missing_trainer_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(CramError, match="needs the package accelerate"):
        main(["run=x", "data=y"])
