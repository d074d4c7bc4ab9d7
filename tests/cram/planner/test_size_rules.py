"""The rules of tokens per parameter give the figures of their papers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cram.planner.laws import count_weights
from cram.planner.size_rules import (
    CHINCHILLA_RATIO,
    ONE_EPOCH_WINDOW,
    PREDICTED_SHARE,
    adjust_one_epoch,
    divide_by_ratio,
    divide_compute,
    in_one_epoch_window,
    one_epoch_speedup,
)

A6000_DAY = 5.2e18  # floating-point operations of the crammed BERT
WORDS = 256 * 27  # of an update in One Epoch
SIZES = {256: 18e6, 512: 45e6, 1024: 128e6}  # parameters by width, table 2 of One Epoch


def test_a_day_of_an_a6000_is_divided_by_each_ratio() -> None:
    one_epoch = adjust_one_epoch(A6000_DAY / 6)
    assert one_epoch.parameters == pytest.approx(415e6, rel=0.01)
    assert one_epoch.tokens == pytest.approx(2.1e9, rel=0.01)
    assert divide_by_ratio(A6000_DAY / 6, CHINCHILLA_RATIO).parameters == pytest.approx(207e6, rel=0.01)


@given(product=st.floats(1e6, 1e24), ratio=st.floats(0.1, 1000))
def test_a_product_is_kept_and_the_ratio_reached(product: float, ratio: float) -> None:
    divided = divide_by_ratio(product, ratio)
    assert divided.parameters * divided.tokens == pytest.approx(product)
    assert divided.ratio == pytest.approx(ratio)


@given(product=st.floats(1e6, 1e24), factor=st.floats(0.01, 100))
def test_no_other_size_is_nearer_to_five(product: float, factor: float) -> None:
    best = adjust_one_epoch(product)
    other = product / (best.parameters * factor) / (best.parameters * factor)
    assert abs(best.ratio - 5) <= abs(other - 5) + 1e-9


@pytest.mark.parametrize(
    ("updates", "width", "ratio"),
    [(30_000, 256, 11.52), (12_000, 512, 1.843), (84_000, 512, 12.90), (28_000, 1024, 1.512)],
)
def test_the_ratios_of_one_epoch_follow_from_words_and_sizes(updates: int, width: int, ratio: float) -> None:
    assert updates * WORDS / SIZES[width] == pytest.approx(ratio, rel=1e-3)


def test_the_window_of_one_epoch() -> None:
    low, high = ONE_EPOCH_WINDOW
    assert (low * high) ** 0.5 == pytest.approx(4.55, abs=0.01)
    assert [in_one_epoch_window(ratio) for ratio in (1.7, 1.8, 5.0, 11.5, 11.6)] == [False, True, True, True, False]
    words = 65_000 * WORDS
    assert words == pytest.approx(449e6, rel=1e-3)


@pytest.mark.parametrize("width", SIZES)
def test_the_sizes_of_one_epoch_are_six_layers_and_a_tied_vocabulary(width: int) -> None:
    assert count_weights(6, width) + 50_257 * width == pytest.approx(SIZES[width], rel=0.025)


def test_a_speedup_is_the_ratio_of_updates() -> None:
    """Table 1 of One Epoch: 3.3 for d = 512 at ten epochs of 6500 updates."""
    assert one_epoch_speedup(65_000, 65_000 / 3.3) == pytest.approx(3.3)


@pytest.mark.parametrize(
    ("flops", "parameters", "tokens"),
    [
        (2.7e17, 27e6, 1.6e9),  # 10 minutes of an H100
        (1.6e18, 71e6, 3.7e9),  # an hour of an H100
        (2.3e18, 87e6, 4.4e9),  # a day of a 2080Ti
        (6.7e18, 155e6, 7.2e9),  # a day of an A6000
        (7.8e18, 168e6, 7.7e9),  # a day of a 4090
    ],
)
def test_compute_is_divided_for_masked_models_as_worked_out(flops: float, parameters: float, tokens: float) -> None:
    divided = divide_compute(flops, PREDICTED_SHARE)
    assert divided.parameters == pytest.approx(parameters, rel=0.02)
    assert divided.tokens == pytest.approx(tokens, rel=0.04)
    assert 40 <= divided.ratio <= 62


def test_a_causal_model_gets_the_size_of_the_isoflop_curves() -> None:
    assert divide_compute(1e18).parameters == 110.7e6
    assert divide_compute(1e19).parameters / 110.7e6 == pytest.approx(10**0.54)
    assert 6 * divide_compute(1e19).parameters * divide_compute(1e19).tokens == pytest.approx(1e19)
