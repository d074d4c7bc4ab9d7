import math

from hypothesis import example, given
from hypothesis import strategies as st

from cram.reporting.page.thinning import thin

HEIGHTS = st.lists(st.none() | st.floats(-1e6, 1e6) | st.sampled_from([math.nan, math.inf]), max_size=300)


def finite(y: list[float | None], indices: list[int]) -> list[float]:
    return [value for value in (y[index] for index in indices) if value is not None and math.isfinite(value)]


@given(HEIGHTS, st.integers(5, 60))
def test_ends_and_extremes_survive_in_order(y: list[float | None], most: int) -> None:
    kept = thin(y, most)
    assert len(kept) <= max(most, 0)
    assert kept == sorted(set(kept))
    if y:
        assert {kept[0], kept[-1]} == {0, len(y) - 1}
    every = finite(y, list(range(len(y))))
    if every:
        assert {min(every), max(every)} <= set(finite(y, kept))


@given(HEIGHTS, st.integers(5, 60))
@example([1.0] * 50 + [None] + [2.0] * 50, 10)
def test_a_gap_between_points_stays_a_gap(y: list[float | None], most: int) -> None:
    kept = thin(y, most)
    absent = [value is None or not math.isfinite(value) for value in y]
    assert any(absent) == any(absent[index] for index in kept)


def test_few_points_stay_as_they_are() -> None:
    assert thin([1.0, None, 3.0], most=5) == [0, 1, 2]
    assert thin([]) == []


def test_the_extremes_of_each_stretch_survive() -> None:
    y = [float(number % 100) for number in range(10_000)]
    kept = thin(y, most=202)
    assert len(kept) <= 202
    assert [y[index] for index in kept].count(99.0) == 100
