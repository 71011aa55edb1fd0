"""Columns derived from runs: of exact exponentials and power laws they are what these are made of."""

import numpy as np
import pandas as pd
import pytest

from deepbures.rates.measured import tail_slope
from deepbures.study.results import derived


@pytest.fixture
def runs():
    """Three descents with L − L* = exp(−r t); one that did not converge; one without theory."""
    rates, eta = np.array([0.5, 2.0, 40.0]), np.array([0.1, 0.02, 1e-3])
    slopes = [tail_slope(t := np.linspace(0, 20 / r, 50), np.exp(-r * t)).slope for r in rates]
    return pd.DataFrame(
        {
            "rank": [2, 3, 3],
            "eigenvalues_target": [np.ones(3)] * 3,
            "tail_slope": [*slopes[:2], np.nan],
            "limit_rate": [np.nan, rates[1], np.nan],
            "sharp_rate": rates / 2,
            "eta": eta,
            "contraction": np.exp(-rates * eta),
            "settling_time": 6 * np.log(10) / rates,
            "margin": [1.0, -1.0, np.nan],
            "log10_eta_1": [-0.5, 0.0, np.nan],
            "log10_eta_2": [-400.0, 0.0, 1.0],
            "log10_eta_3": [0.0, 2.0, 1.0],
        }
    ).assign(rate=rates)


def test_rates_of_exponential_tails(runs):
    expected = runs["rate"].where([True, True, False])
    np.testing.assert_allclose(derived.tail_rate(runs), expected, rtol=1e-12)
    np.testing.assert_allclose(derived.tail_ratio(runs), [2, 2, np.nan], rtol=1e-12)
    np.testing.assert_allclose(derived.final_rate(runs), [np.nan, runs["rate"][1] * runs["eta"][1], np.nan], rtol=1e-12)
    np.testing.assert_allclose(derived.predicted_rate(runs), runs["rate"] * runs["eta"], rtol=1e-12)
    np.testing.assert_allclose(np.exp(-derived.settling_steps(runs) * runs["rate"] * runs["eta"]), 1e-6, rtol=1e-12)


def test_the_theorem_covers_runs_with_margin_and_a_small_step(runs):
    np.testing.assert_array_equal(derived.log10_theorem_step(runs), [-400, 0, np.nan])  # below the range of floats
    assert derived.certified(runs).tolist() == [False, False, False]
    assert derived.certified(runs.assign(log10_eta_2=-0.9)).tolist() == [True, False, False]
    assert derived.certified(runs.assign(log10_eta_2=-1.1)).tolist() == [False, False, False]
    assert derived.full_rank(runs).tolist() == [False, True, True]


@pytest.mark.parametrize("exponent", [-1, -0.5, 0, 2])
def test_exponents_of_exact_powers(exponent):
    # Near 0 over σ ≤ 0.02 σ_max alone. Another LAPACK solves the least squares to 2.4e-10.
    sigma = np.array([1, 0.5, 0.02, 1e-2, 1e-4])
    assert derived.exponent(sigma, 3 * sigma ** float(exponent)) == pytest.approx(exponent, abs=1e-9)
    size = np.where(sigma > 0.02, 7.0, 3 * sigma ** float(exponent))
    assert derived.exponent_at_zero(sigma, size) == pytest.approx(exponent, abs=1e-9)
    assert abs(derived.exponent(sigma, size) - exponent) > 0.05


def test_exponents_need_enough_values():
    sigma = np.array([1, 0.5, 0.01, 0.001])
    assert np.isnan(derived.exponent_at_zero(sigma, 1 / sigma))
    assert derived.exponent_at_zero([*sigma, 1e-4], 1 / np.array([*sigma, 1e-4])) == pytest.approx(-1)
    assert np.isnan(derived.exponent([2.0, 2.0], [1.0, 3.0]))
    assert derived.exponent([1.0, 2.0], [1.0, 8.0]) == pytest.approx(3)


def test_order_at_zero_removes_the_first_correction():
    eta = np.array([4e-3, 2e-3, 1e-3, 5e-4])
    runs = pd.DataFrame({"step_size": eta, "error": 7 * eta**1.5 * np.exp(20 * eta)})
    assert derived.order_at_zero(runs, "error") == pytest.approx(1.5, abs=1e-12)
    assert abs(derived.exponent(eta, runs["error"]) - 1.5) > 0.02
    assert np.isnan(derived.order_at_zero(runs[:2], "error"))
    assert np.isnan(derived.order_at_zero(runs.assign(error=[1.0, 1.0, 0.0, np.nan]), "error"))
