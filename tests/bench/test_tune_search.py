"""The search for launch settings: it finds the best by small moves, and keeps only what is better beyond doubt."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from bench.kernel_timing import Timing
from bench.tune_search import MOST_MOVES, MOST_PER_THREAD, TURNS, climb, list_neighbours, search
from cram_kernels._settings import LaunchSettings
from cram_kernels._tuned import MOST_BLOCKS, Choice

SOFTMAX, NORM = Choice("softmax_forward", 1024, "bf16"), Choice("layer_norm_forward", 700, "bf16")
HEAD = Choice("rope", 700, "bf16")
RULE = LaunchSettings(4, 1024, 4)


def timing(median: float, spread: float = 0.01) -> Timing:
    return Timing(median, median * (1 - spread), median * (1 + spread), "fake")


def by_formula(seconds: Callable[[LaunchSettings], float]) -> Callable[[LaunchSettings], Timing]:
    return lambda settings: timing(seconds(settings))


def warps_and_rows(settings: LaunchSettings) -> float:
    """Fastest with 16 warps and 8 rows."""
    return 1.0 + abs(settings.warps - 16) / 16 + abs(settings.rows - 8) / 8


def test_neighbours_are_a_factor_of_two_away() -> None:
    found = list_neighbours(SOFTMAX, RULE, RULE)
    assert set(found) == {
        replace(RULE, rows=8),
        replace(RULE, rows=2),
        replace(RULE, block=512),
        replace(RULE, warps=8),
        replace(RULE, warps=2),
        replace(RULE, rows=8, warps=8),
        replace(RULE, rows=2, warps=2),
    }


def test_neighbours_can_be_launched() -> None:
    assert replace(RULE, block=512) not in list_neighbours(HEAD, RULE, RULE)  # a row of 700 must be held
    wide = LaunchSettings(1, 8192, 2)
    for neighbour in list_neighbours(replace_width(SOFTMAX, 50_000), wide, wide):
        assert neighbour.rows * neighbour.block <= 32 * neighbour.warps * MOST_PER_THREAD
    one = LaunchSettings(1, 32, 1)
    assert list_neighbours(replace_width(SOFTMAX, 20), one, one) == [
        LaunchSettings(2, 32, 1),
        LaunchSettings(2, 32, 2),
    ]


def test_all_blocks_of_a_held_row_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MOST_BLOCKS, "layer_norm_forward", 32)
    chunks = LaunchSettings(4, 256, 1)  # 4 rows of 3 blocks of 256 are 96 elements for each of 32 threads
    assert replace(chunks, rows=8) not in list_neighbours(NORM, chunks, chunks)
    assert replace(chunks, block=128) in list_neighbours(NORM, chunks, chunks)
    assert replace(chunks, rows=8) in list_neighbours(SOFTMAX, chunks, chunks)  # one block of which is held at a time


def replace_width(choice: Choice, width: int) -> Choice:
    return choice._replace(width=width)


def test_stages_are_tried_where_the_rule_has_several() -> None:
    pipelined = replace(RULE, stages=3)
    stages = {neighbour.stages for neighbour in list_neighbours(SOFTMAX, pipelined, pipelined)}
    assert stages == {2, 3, 4}


def test_the_search_moves_to_the_best() -> None:
    found = search(SOFTMAX, RULE, by_formula(warps_and_rows))
    assert found is not None
    assert (found.settings, found.better) == (LaunchSettings(8, 1024, 16), True)
    assert (found.seconds, found.rule_seconds) == (pytest.approx(1.0), pytest.approx(2.25))


def test_no_settings_are_measured_twice_while_the_search_moves_and_it_ends() -> None:
    measured = []

    def measure(settings: LaunchSettings) -> Timing:
        measured.append(settings)
        return timing(1.0 / (settings.rows * settings.warps))  # there is always something faster

    places = list(climb(replace_width(SOFTMAX, 4096), replace(RULE, rows=1, warps=1), measure))
    assert len(measured) == len(set(measured))
    assert len(places) == MOST_MOVES + 1


def test_what_cannot_be_launched_is_passed_over() -> None:
    def measure(settings: LaunchSettings) -> Timing | None:
        return None if settings.warps == 8 else timing(warps_and_rows(settings))

    found = search(SOFTMAX, RULE, measure)
    assert found is not None
    assert found.settings == replace(RULE, rows=8)
    assert search(SOFTMAX, RULE, lambda _: None) is None


@pytest.mark.parametrize(("spread", "better"), [(0.01, True), (0.03, False)])
def test_a_gain_within_the_spread_is_not_kept(spread: float, better: bool) -> None:
    def measure(settings: LaunchSettings) -> Timing:
        return timing(0.95 if settings.warps == 8 else 1.0, spread)

    found = search(SOFTMAX, RULE, measure)
    assert found is not None
    assert (found.settings, found.better) == (replace(RULE, warps=8), better)


def test_every_turn_counts() -> None:
    """The rule is slow in the first measurements only, as on a GPU that is still cold."""
    asked: list[LaunchSettings] = []

    def measure(settings: LaunchSettings) -> Timing:
        asked.append(settings)
        cold = settings == RULE and asked.count(RULE) <= 2
        return timing(2.0 if cold else 1.0)

    found = search(SOFTMAX, RULE, measure)
    assert found is not None and not found.better
    assert asked.count(RULE) == 1 + TURNS


def test_the_rule_is_never_better_than_itself_on_a_gpu_that_gets_faster() -> None:
    times = iter([1.0, *[9.0] * len(list_neighbours(SOFTMAX, RULE, RULE)), 8.0, 1.0])
    found = search(SOFTMAX, RULE, lambda _: timing(next(times)))
    assert found is not None and not found.better and found.settings == RULE


def test_equal_times_are_not_better() -> None:
    found = search(SOFTMAX, RULE, lambda _: timing(1.0, 0.0))
    assert found is not None and not found.better and found.settings == RULE
