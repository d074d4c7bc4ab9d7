"""Pruning: the easy, middle, hard or random part of the rows that were scored."""

import numpy as np
import pytest
import torch

from cram.config.methods import PruningConfig
from cram.errors import CramError
from cram.methods.pruning import Pruning
from tests.cram.methods.fake_rows import FakeBeginning, Reference

LOSSES = np.random.default_rng(0).permutation(100).astype(float)
NUMBERS = np.arange(100)


def config(which: str, **changes: float) -> PruningConfig:
    return PruningConfig(keep=0.4, which=which, **{"reference_share": 0.1, "scoring_share": 0.5, **changes})  # type: ignore


@pytest.mark.parametrize(("which", "low", "high"), [("easy", 0, 40), ("middle", 30, 70), ("hard", 60, 100)])
def test_rows_are_chosen_by_their_loss(which: str, low: int, high: int) -> None:
    method, reference = Pruning(config(which), 3), Reference(LOSSES)
    FakeBeginning(reference, NUMBERS).run(method)
    kept = method.choose(NUMBERS)
    assert sorted(LOSSES[kept].tolist()) == list(range(low, high))
    assert kept.tolist() == sorted(kept.tolist())
    assert sorted(reference.asked) == list(range(100))
    assert method.figures() == {"scored_rows": 100}
    assert len(reference.trained) == 10


def test_rows_without_a_loss_at_the_end_of_the_share_are_left_out() -> None:
    method, reference = Pruning(config("easy", scoring_share=0.1), 3), Reference(LOSSES)
    FakeBeginning(reference, NUMBERS).run(method)
    assert method.figures() == {"scored_rows": 40}
    assert set(method.choose(NUMBERS).tolist()) <= set(reference.asked)
    assert len(method.choose(NUMBERS)) == 16


@pytest.mark.parametrize(("scoring_share", "scored", "kept"), [(0.005, 4, 2), (0.015, 8, 3)])
def test_too_few_rows_with_a_loss_are_refused(scoring_share: float, scored: int, kept: int) -> None:
    method = Pruning(config("easy", scoring_share=scoring_share), 3)
    with pytest.raises(
        CramError,
        match=rf"^pruning.scoring_share={scoring_share}: {scored} rows were .* {kept} of them are kept, .* needs 4\.",
    ):
        FakeBeginning(Reference(LOSSES), NUMBERS).run(method)


def test_a_reference_model_that_spends_both_shares_leaves_no_row_to_choose_from() -> None:
    method, beginning = Pruning(config("easy"), 3), FakeBeginning(Reference(LOSSES), NUMBERS)
    assert not method.start(beginning)
    beginning.spent = 0.7
    with pytest.raises(CramError, match=r"^pruning.scoring_share=0.5: 0 rows were scored .* Raise .* larger budget\.$"):
        method.start(beginning)


def test_a_random_part_needs_no_reference_model() -> None:
    method, reference = Pruning(config("random"), 3), Reference(LOSSES)
    assert method.start(FakeBeginning(reference, NUMBERS))
    assert len(set(method.choose(NUMBERS).tolist())) == 40
    assert method.passes(4) == [] and method.state_tensors() == {}


@pytest.mark.parametrize("pieces", [1, 5, 10, 11, 20])
def test_a_stop_anywhere_changes_nothing(pieces: int) -> None:
    whole = Pruning(config("middle"), 3)
    FakeBeginning(Reference(LOSSES), NUMBERS).run(whole)
    first, resumed = Pruning(config("middle"), 3), Pruning(config("middle"), 3)
    beginning = FakeBeginning(Reference(LOSSES), NUMBERS)
    for _ in range(pieces):
        first.start(beginning)
        beginning.spend()
    resumed.load_state_tensors(first.state_tensors(), torch.nn.Linear(1, 1))
    rest = FakeBeginning(Reference(LOSSES), NUMBERS, spent=beginning.spent)
    rest.run(resumed)
    assert resumed.choose(NUMBERS).tolist() == whole.choose(NUMBERS).tolist()
    assert len(beginning.model.trained) + len(rest.model.trained) == 10


def test_too_few_rows_are_refused() -> None:
    with pytest.raises(CramError, match=r"^pruning.keep=0.4: 40 of 100 rows are kept, and an update needs 41"):
        Pruning(config("easy"), 0).check(100, 41)
