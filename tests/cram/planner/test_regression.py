"""Fits in the logarithm: known constants, honest intervals, bounds that are named."""

import numpy as np
import pytest

from cram.planner.regression import Regression, Unknown, Values, fit_logarithm

POINTS = np.array([1.0, 2.0, 4.0, 8.0, 16.0, 32.0])
UNKNOWNS = (Unknown("scale", 0.1, 100.0), Unknown("exponent", 0.05, 3.0))


def power(values: Values) -> np.ndarray:
    return values["scale"] * POINTS ** -values["exponent"]


def fit_noisy(seed: int, noise: float, resamples: int = 100) -> Regression:
    draws = np.random.default_rng(seed).standard_normal(len(POINTS))
    observed = power({"scale": 3.0, "exponent": 0.5}) * np.exp(noise * draws)
    return fit_logarithm(power, observed, UNKNOWNS, resamples)


def test_exact_points_give_exact_constants() -> None:
    fit = fit_noisy(0, noise=0.0, resamples=3)
    assert fit.values == pytest.approx({"scale": 3.0, "exponent": 0.5}, rel=1e-4)
    assert fit.residual == pytest.approx(0.0, abs=1e-5)
    assert fit.at_bound == ()


def test_the_fit_is_least_squares_where_residuals_are_small() -> None:
    """numpy's polynomial fit of the logarithms is the yardstick."""
    observed = 3.0 * POINTS**-0.5 * np.exp(0.004 * np.array([1, -1, 0.5, 0, -0.5, 1]))
    slope, offset = np.polyfit(np.log(POINTS), np.log(observed), 1)
    values = fit_logarithm(power, observed, UNKNOWNS, 1).values
    assert values == pytest.approx({"scale": np.exp(offset), "exponent": -slope}, rel=1e-4)


def test_intervals_hold_the_truth_about_as_often_as_they_say() -> None:
    fits = [fit_noisy(seed, noise=0.01, resamples=25) for seed in range(8)]
    hits = sum(low <= 0.5 <= high for low, high in (fit.intervals["exponent"] for fit in fits))
    assert hits >= 6  # of 8 intervals of 90%


def test_one_wild_point_hardly_matters() -> None:
    observed = power({"scale": 3.0, "exponent": 0.5})
    observed[3] *= 2.0
    slope = np.polyfit(np.log(POINTS), np.log(observed), 1)[0]
    robust = fit_logarithm(power, observed, UNKNOWNS, 1).values["exponent"]
    assert abs(robust - 0.5) < 0.01 < abs(-slope - 0.5)


def test_an_unknown_at_its_bound_is_named() -> None:
    observed = power({"scale": 3.0, "exponent": 0.001})
    assert fit_logarithm(power, observed, UNKNOWNS, 1).at_bound == ("exponent",)


def test_a_linear_unknown_may_be_zero() -> None:
    unknowns = (*UNKNOWNS, Unknown("floor", 0.0, 0.5, linear=True))
    fit = fit_logarithm(
        lambda values: power(values) + values["floor"], power({"scale": 3, "exponent": 0.5}), unknowns, 1
    )
    assert fit.values["floor"] == pytest.approx(0.0, abs=1e-3)


def test_intervals_of_derived_quantities_follow_the_samples() -> None:
    fit = fit_noisy(0, noise=0.01, resamples=20)
    values, intervals = fit.derive(lambda values: {"double": 2 * values["exponent"]})
    assert values["double"] == 2 * fit.values["exponent"]
    assert intervals["double"] == pytest.approx([2 * end for end in fit.intervals["exponent"]])


def test_a_fit_starts_where_the_predictions_are_near() -> None:
    """Most of the ranges give predictions that are capped, so that a start there has no slope to follow."""

    def capped(values: Values) -> np.ndarray:
        return np.minimum(1.0, power(values))

    unknowns = (Unknown("scale", 1e-3, 1e9), Unknown("exponent", 0.05, 3.0))
    fit = fit_logarithm(capped, capped({"scale": 0.9, "exponent": 0.5}), unknowns, 1)
    assert fit.values == pytest.approx({"scale": 0.9, "exponent": 0.5}, rel=1e-3)
