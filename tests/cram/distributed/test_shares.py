"""Each row of an update is computed by exactly one rank, whatever the sizes."""

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cram.distributed.shares import check_shares, places_of, places_of_parts
from cram.errors import CramError

ROWS, MICRO_ROWS, SIZES, PARTS = st.integers(0, 300), st.integers(1, 40), st.integers(1, 9), st.integers(1, 5)


@given(ROWS, MICRO_ROWS, SIZES)
def test_every_place_belongs_to_one_rank_in_rising_order(rows: int, micro_rows: int, size: int) -> None:
    shares = [places_of(rows, micro_rows, rank, size) for rank in range(size)]
    assert np.array_equal(np.sort(np.concatenate(shares)), np.arange(rows))
    assert all((np.diff(share) > 0).all() for share in shares)


@given(st.integers(0, 12), MICRO_ROWS, SIZES)
def test_a_micro_batch_of_all_ranks_is_that_of_one_rank(steps: int, micro_rows: int, size: int) -> None:
    step = micro_rows * size
    shares = [places_of(steps * step, micro_rows, rank, size) for rank in range(size)]
    assert {len(share) for share in shares} == {steps * micro_rows}
    for number in range(steps):
        own = [share[number * micro_rows : (number + 1) * micro_rows] for share in shares]
        assert np.array_equal(np.concatenate(own), number * step + np.arange(step))


@given(ROWS, PARTS, MICRO_ROWS, SIZES)
def test_rows_that_are_joined_stay_together(rows: int, parts: int, micro_rows: int, size: int) -> None:
    shares = [places_of_parts(rows, parts, micro_rows, rank, size) for rank in range(size)]
    assert np.array_equal(np.sort(np.concatenate(shares)), np.arange(rows))
    owners = np.empty(rows, int)
    for rank, share in enumerate(shares):
        owners[share] = rank
    of_model = [places_of(-(-rows // parts), micro_rows, rank, size) for rank in range(size)]
    assert all(set(share // parts) == set(places) for share, places in zip(shares, of_model, strict=True))
    assert all(len(set(owners[begin : begin + parts])) == 1 for begin in range(0, rows, parts))


@given(st.integers(1, 400), st.integers(1, 64), st.integers(1, 12))
def test_a_size_is_refused_unless_it_can_be_shared_evenly(rows: int, seq_len: int, size: int) -> None:
    tokens = rows * seq_len
    if rows % size == 0:
        check_shares(tokens, seq_len, size, "batch.tokens")
        return
    with pytest.raises(CramError, match=rf"^batch\.tokens={tokens}: {size} ranks") as error:
        check_shares(tokens, seq_len, size, "batch.tokens")
    assert len(str(error.value).splitlines()) <= 2
    found = re.search(r"Use batch\.tokens=(\d+), or --nproc-per-node=(\d+)", str(error.value))
    assert found  # and both ways out lead out
    check_shares(int(found[1]), seq_len, size, "batch.tokens")
    check_shares(tokens, seq_len, int(found[2]), "batch.tokens")
