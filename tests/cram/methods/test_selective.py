"""Selective backpropagation: percentiles, probabilities, the pool, and the end of the data."""

import numpy as np
import pytest
import torch
from scipy import stats

from cram.config.methods import SelectiveConfig
from cram.errors import CramError
from cram.methods.selective import Selective
from tests.cram.methods.fake_rows import Source

MODEL = torch.nn.Linear(1, 1)


def selective(beta: float = 1.0, history: int = 5000) -> Selective:
    return Selective(SelectiveConfig(beta=beta, history=history), 0)


def test_percentiles_count_the_latest_losses_with_the_own_one() -> None:
    method, losses = selective(history=50), np.random.default_rng(0).normal(size=90).astype(np.float32)
    for begin in range(0, 90, 10):
        part = losses[begin : begin + 10]
        history = losses[: begin + 10][-50:]
        expected = [stats.percentileofscore(history, loss, "weak") / 100 for loss in part]
        assert method._rank(part) == pytest.approx(expected)


@pytest.mark.parametrize("beta", [0.5, 1.0, 3.0])
def test_rows_are_kept_with_the_power_of_their_percentile(beta: float) -> None:
    losses = np.random.default_rng(1).permutation(40_000) / 40_000
    method, source = selective(beta, 40_000), Source(losses, micro_rows=2000)
    method._rank(losses)  # the history is known, so that the percentile of a row is its loss
    kept = np.concatenate([method.select(source, 2000, 0.5).index for _ in range(5)])
    waiting = method.state_tensors().get("pool/index", torch.empty(0))
    kept = np.concatenate([kept, waiting.numpy()])
    read = losses[: source.taken]
    shares = [np.isin(kept, np.flatnonzero((read >= low) & (read < low + 0.2))).sum() for low in (0.0, 0.4, 0.8)]
    counts = [((read >= low) & (read < low + 0.2)).sum() for low in (0.0, 0.4, 0.8)]
    expected = [(((low + 0.2) ** (beta + 1)) - low ** (beta + 1)) / (beta + 1) / 0.2 for low in (0.0, 0.4, 0.8)]
    assert np.divide(shares, counts) == pytest.approx(expected, abs=0.05)
    assert method.reads_ahead == 1.0 + beta


def test_what_an_update_does_not_need_waits_for_the_next_one_also_across_a_resume() -> None:
    losses = np.random.default_rng(2).normal(size=400)
    first, source = selective(), Source(losses, micro_rows=16)
    updates = [first.select(source, 6, 0.5) for _ in range(3)]
    second = selective()
    second.load_state_tensors(first.state_tensors(), MODEL)
    assert {name: t.tolist() for name, t in second.state_tensors().items()} == {
        name: t.tolist() for name, t in first.state_tensors().items()
    }
    again = Source(losses, micro_rows=16, taken=source.taken)
    assert first.select(source, 6, 0.5).index.tolist() == second.select(again, 6, 0.5).index.tolist()
    trained = np.concatenate([update.index for update in updates])
    assert len(np.unique(trained)) == len(trained) == 18


def test_the_end_of_the_data_gives_what_is_there() -> None:
    source = Source(np.arange(10.0), micro_rows=4)
    rows = selective().select(source, 100, 0.5)
    assert source.rows_left == 0
    assert 0 < len(rows.index) <= 10


def test_the_end_of_the_data_trains_on_its_last_rows_if_none_was_kept() -> None:
    method = selective(beta=50.0, history=100)
    method._rank(np.full(90, 9.0))  # the rows to come have percentiles of at most a tenth
    source = Source(np.arange(8.0), micro_rows=4)
    assert method.select(source, 4, 0.5).index.tolist() == [4, 5, 6, 7]
    assert source.rows_left == 0


def test_tensors_of_another_method_are_refused() -> None:
    with pytest.raises(CramError, match="are not those of selective backpropagation"):
        selective().load_state_tensors({"drawn": torch.zeros(1)}, MODEL)
