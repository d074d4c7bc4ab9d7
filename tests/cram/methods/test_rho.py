"""RHO-loss: which rows are held out, which are kept, and whose losses are remembered."""

import numpy as np
import pytest
import torch

from cram.config.methods import RhoConfig
from cram.errors import CramError
from cram.methods.rho import Rho
from tests.cram.methods.fake_rows import FakeBeginning, Reference, Source

CONFIG = RhoConfig(keep=0.25, hold_out=0.2, reference_share=0.1)
MODEL = torch.nn.Linear(1, 1)
RANDOM = np.random.default_rng(0)
LOSSES, IRREDUCIBLE = RANDOM.normal(size=100), RANDOM.normal(size=100)


class FakeLoader:
    kept: list[int]

    def numbers(self) -> np.ndarray:
        return np.arange(100)

    def keep(self, numbers: np.ndarray) -> None:
        self.kept = numbers.tolist()


def begun() -> tuple[Rho, Reference]:
    method, reference = Rho(CONFIG, 5), Reference(IRREDUCIBLE)
    FakeBeginning(reference, np.arange(100)).run(method)
    return method, reference


def test_the_reference_model_sees_the_held_out_rows_alone_for_its_share() -> None:
    method, reference = begun()
    loader = FakeLoader()
    method.order(loader)
    seen = {number for update in reference.trained for number in update}
    assert len(seen) == 20
    assert seen.isdisjoint(loader.kept)
    assert seen | set(loader.kept) == set(range(100))
    assert len(reference.trained) == 10
    assert reference.begins == pytest.approx([update / 10 for update in range(10)])
    assert reference.progress == pytest.approx([(update + 1) / 10 for update in range(10)])
    assert reference.forgotten
    assert all(len(set(update)) == 4 for update in reference.trained)


def test_the_rows_with_the_largest_difference_are_kept() -> None:
    method, reference = begun()
    source = Source(LOSSES)
    rows = method.select(source, 5, 0.5)
    best = sorted(np.argsort(IRREDUCIBLE[:20] - LOSSES[:20])[:5].tolist())
    assert rows.index.tolist() == best
    assert source.taken == 20
    assert method.reads_ahead == 4.0
    assert reference.asked == list(range(20))


def test_irreducible_losses_are_kept_by_row_for_later_epochs_and_processes() -> None:
    method, reference = begun()
    method.select(Source(LOSSES), 5, 0.5)
    resumed, again = Rho(CONFIG, 5), Reference(IRREDUCIBLE)
    resumed.load_state_tensors(method.state_tensors(), MODEL)
    FakeBeginning(again, np.arange(100)).run(resumed)
    assert again.trained == []
    np.testing.assert_array_equal(resumed.state_tensors()["irreducible"], method.state_tensors()["irreducible"])
    source = Source(LOSSES, taken=10)
    assert (
        resumed.select(source, 5, 0.5).index.tolist() == method.select(Source(LOSSES, taken=10), 5, 0.5).index.tolist()
    )
    assert again.asked == list(range(20, 30))  # the others are known
    assert reference.asked == list(range(30))
    known = method.state_tensors()["irreducible"].numpy()
    np.testing.assert_allclose(known[:30], IRREDUCIBLE[:30], rtol=1e-6)
    assert np.isnan(known[30:]).all()


def test_the_rows_of_each_epoch_of_the_reference_model_have_another_order() -> None:
    reference = Reference(IRREDUCIBLE)
    FakeBeginning(reference, np.arange(100)).run(Rho(CONFIG, 5))
    first, second = reference.trained[:5], reference.trained[5:]
    assert sorted(np.concatenate(first)) == sorted(np.concatenate(second))
    assert first != second


@pytest.mark.parametrize(("hold_out", "update"), [(0.2, 21), (0.05, 6), (0.5, 13), (0.8, 6)])
def test_too_few_rows_are_refused(hold_out: float, update: int) -> None:
    method = Rho(RhoConfig(keep=0.25, hold_out=hold_out, reference_share=0.1), 0)
    with pytest.raises(
        CramError, match=rf"^rho.hold_out={hold_out}: of 100 rows, .* Give more text, or lower batch.tokens"
    ):
        method.check(100, update)
    method.check(100, update - 1)
