"""Python values become the words that a user would type."""

import pytest

from cram.config.recipe import read_config
from cram.config.words import to_words
from cram.errors import CramError


def test_groups_and_full_names_are_the_same() -> None:
    nested = to_words({"recipe": "bert_demo", "model": {"layers": 2}, "optimizer": {"muon": {"lr": 0.01}}})
    named = to_words({"recipe": "bert_demo", "model.layers": 2, "optimizer.muon.lr": 0.01})
    assert nested == named == ["recipe=bert_demo", "model.layers=2", "optimizer.muon.lr=0.01"]


def test_values_have_the_spelling_of_the_command_line() -> None:
    values = {"a": None, "b": True, "c": [3e-5, "x"], "d": 1e-30, "e": "a b", "f": ("g",)}
    assert to_words(values) == ["a=null", "b=true", "c=[3e-05,x]", "d=1e-30", "e=a b", "f=[g]"]


def test_a_config_is_made_of_them() -> None:
    values = {"recipe": "bert_demo", "threads": 1, "schedule": {"warmup": 0.25}, "averaging.start": None}
    config = read_config(to_words(values))
    assert (config.threads, config.schedule.warmup, config.averaging.start) == (1, 0.25, None)
    assert read_config(to_words({"recipe": "bert_demo", "objective": {"final_mask_rate": None}})) == read_config(
        ["recipe=bert_demo", "objective.final_mask_rate=null"]
    )


def test_a_key_that_is_given_twice_is_refused() -> None:
    with pytest.raises(CramError, match=r"^model.layers= is given twice. Give it once.$"):
        to_words({"model": {"layers": 2}, "model.layers": 3})
