"""The gradients of an update over micro-batches, with fake parts."""

from pathlib import Path

import numpy as np
import pytest
import torch

from cram.errors import CramError
from cram.training.gradients import accumulate
from tests.cram.training.fake_session import FakeRows, make_session


def test_the_gradient_is_the_sum_over_predicted_tokens_divided_by_their_count(tmp_path: Path) -> None:
    rows = FakeRows(np.arange(8, dtype=np.float32))
    count = (rows.tokens % 3).sum()
    expected = (rows.tokens * (rows.tokens % 3)).sum() / count
    for micro in (1, 2, 4, 8):  # a mean of micro-batch means would differ
        session = make_session(tmp_path / str(micro), micro_rows=micro)
        predicted, nats = accumulate(session, rows, 0.5)
        assert predicted == count
        assert float(session.parts.model.weight.grad) == pytest.approx(expected)  # type: ignore[arg-type, union-attr]
        assert float(nats) == pytest.approx(float(session.parts.model.weight.detach()) * expected * count, rel=1e-5)  # type: ignore[arg-type]


def test_an_update_without_a_predicted_token_is_no_division_by_zero(tmp_path: Path) -> None:
    session = make_session(tmp_path)
    predicted, nats = accumulate(session, FakeRows(np.zeros(4, np.float32)), 0.5)
    assert (predicted, float(nats)) == (0, 0.0)
    assert float(session.parts.model.weight.grad) == 0.0  # type: ignore[arg-type, union-attr]


def test_out_of_memory_halves_the_micro_batch_and_changes_no_gradient(tmp_path: Path) -> None:
    session = make_session(tmp_path / "a", micro_rows=8)
    session.parts.objective.largest = 3  # type: ignore[attr-defined]
    roomy = make_session(tmp_path / "b", micro_rows=8)
    roomy.parts.model.load_state_dict(session.parts.model.state_dict())
    rows = FakeRows(np.arange(8, dtype=np.float32))
    accumulate(session, rows, 0.5)
    accumulate(roomy, rows, 0.5)
    assert (session.state.micro_rows, session.state.out_of_memory) == (2, 2)
    assert torch.equal(session.parts.model.weight.grad, roomy.parts.model.weight.grad)  # type: ignore[arg-type]


def test_a_row_that_does_not_fit_is_told_to_the_user(tmp_path: Path) -> None:
    session = make_session(tmp_path)
    session.parts.objective.largest = 0  # type: ignore[attr-defined]
    with pytest.raises(CramError, match=r"one row of 4 tokens does not fit.*data\.seq_len"):
        accumulate(session, FakeRows(np.ones(2, np.float32)), 0.5)


def test_other_errors_are_not_swallowed(tmp_path: Path) -> None:
    session = make_session(tmp_path)
    session.parts.objective.loss = lambda *_: (_ for _ in ()).throw(RuntimeError("shapes differ"))  # type: ignore[method-assign]
    with pytest.raises(RuntimeError, match="shapes differ"):
        accumulate(session, FakeRows(np.ones(2, np.float32)), 0.5)
