"""The micro-batch of a CPU is the largest power of two that holds at most 4096 tokens, and is not above the update."""

from hypothesis import given
from hypothesis import strategies as st

from cram.planner.micro_batch import cpu_micro_rows, power_of_two


@given(rows=st.integers(1, 10**6), seq_len=st.integers(1, 10**5))
def test_it_is_the_largest_that_is_allowed(rows: int, seq_len: int) -> None:
    micro = cpu_micro_rows(rows, seq_len)
    assert micro.bit_count() == 1
    assert micro <= rows
    assert micro == 1 or micro * seq_len <= 4096
    assert 2 * micro > rows or 2 * micro * seq_len > 4096


def test_powers_of_two() -> None:
    assert [power_of_two(number) for number in (1, 2, 3, 4, 1023, 1024)] == [1, 2, 2, 4, 512, 1024]
