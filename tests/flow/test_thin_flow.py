"""Flows of k ≪ n: the method that their small columns need, what they cost, and λ_n < ε < λ_k."""

import tracemalloc

import numpy as np
import pytest

from deepbures import BuresWasserstein, Frobenius, gradient_flow
from deepbures.flow.reduced_flow import RootFlow, half_power, pivoted, symmetric_top
from deepbures.model.diagnostics import alignment, covariance_distance, distance_to_diagonal
from deepbures.model.starts import aligned_start, small_start
from deepbures.model.trajectory import StopReason
from deepbures.rates.predicted import rates_at_minimum
from deepbures.study.run import run_cell

#: Falls by four orders, as the covariance of an image; ε = 0.02 lies between λ_n and λ_k.
SPECTRUM = np.concatenate([[100.0, 20.0, 5.0, 1.0, 0.4, 0.2], np.geomspace(0.1, 0.01, 144)])
EPSILON = 0.02
N, K = len(SPECTRUM), 4


def thin(epsilon=EPSILON):
    return BuresWasserstein.from_spectrum(SPECTRUM, epsilon=epsilon)


@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize("loss", [thin(), Frobenius.from_spectrum(SPECTRUM)], ids=["BW", "Frobenius"])
def test_past_the_plateaus_beside_the_explicit_method(rng, loss, depth):
    # The same states as DOP853 at a hundredth of the tolerance, plateaus and all.
    W = small_start(rng, N, K, 0.1, K).end_to_end
    unit = 1.0 if isinstance(loss, BuresWasserstein) else 0.05
    times = unit * np.array([0.01, 0.1, 0.5])
    flow = gradient_flow(loss, W, depth, times, rtol=1e-8)
    other = gradient_flow(loss, W, depth, times, rtol=1e-10, method="explicit")
    assert flow.explicit_steps == 0 < other.explicit_steps
    np.testing.assert_allclose(flow.excess, other.excess, rtol=1e-5)


def test_gradients_where_the_spectrum_falls_by_orders(rng):
    # To 1e-6 of the start: the largest rate is thousands of times the least, which an explicit step cannot ignore.
    loss, W = thin(), small_start(rng, N, K, 0.1, K).end_to_end
    tolerance = 1e-6 * float(loss.excess(W, K))
    flow = gradient_flow(loss, W, 3, max_time=1e4, max_steps=400, rtol=1e-6, excess_tolerance=tolerance)
    assert flow.stop_reason == StopReason.CONVERGED
    explicit = gradient_flow(loss, W, 3, flow.times[-1:] / 20, rtol=1e-6, method="explicit")
    assert flow.evaluations < 20 * explicit.evaluations / 5


def test_no_array_is_as_large_as_n_by_n(rng):
    n, k = 4000, 4
    loss = BuresWasserstein.from_spectrum(np.geomspace(1, 1e-3, n), epsilon=0.01)
    W = small_start(rng, n, k, 0.3, k).end_to_end
    tracemalloc.start()
    try:
        gradient_flow(loss, W, 2, [0.0, 1e-3], rtol=1e-4)
        F = W + 0.0
        alignment(F, loss.to_eigenbasis)
        loss.excess_by_direction(F, k)
        distance_to_diagonal(F, loss.minimum_spectrum(k))
        aligned_start(rng, loss, k, 0.1, k)
        largest = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert largest < 8 * n * n / 4


@pytest.mark.parametrize("depth", [1, 2, 3, 4])
def test_the_chosen_rows_stay_symmetric_along_the_exact_flow(rng, depth):
    # dX/dt = Z' Zᵀ + Z Z'ᵀ is that of the gauge-free flow, and Z'_J is symmetric.
    loss = thin()
    Z = 0.3 * rng.standard_normal((N, K)) + np.eye(N, K)
    order = pivoted(Z)
    Z = symmetric_top(Z[order])
    np.testing.assert_allclose(Z[:K], Z[:K].T, atol=1e-14)
    flow = RootFlow(loss, depth, order[None])
    (field,), _ = flow.field(Z[None])
    np.testing.assert_allclose(field[:K], field[:K].T, atol=1e-12 * np.abs(field).max())
    C = half_power(Z, depth)
    np.testing.assert_allclose(C @ C.T, np.linalg.matrix_power(Z.T @ Z, depth - 1), rtol=1e-10, atol=1e-12)
    plain = np.empty_like(Z)
    plain[order] = Z @ C
    plain = -loss.gradient(plain)[order] @ C.T
    expected = plain @ Z.T + Z @ plain.T
    np.testing.assert_allclose(field @ Z.T + Z @ field.T, expected, atol=1e-11 * np.abs(expected).max())


@pytest.mark.parametrize("loss", [thin(), Frobenius.from_spectrum(SPECTRUM)], ids=["BW", "Frobenius"])
@pytest.mark.parametrize("depth", [1, 3])
def test_jacobian_of_diagonal_states(loss, depth):
    # At Z = [diag z; 0] the Jacobian is a number for each entry: against central differences in symmetric directions.
    z = np.array([1.3, 1.1, 0.7, 0.2]) ** (1 / depth)
    Z = np.eye(N, K) * z
    flow = RootFlow(loss, depth, np.arange(N)[None])
    J = flow.jacobian(Z[None], np.array([0]))[0]
    h = 1e-5
    for a, b in [(0, 0), (1, 3), (3, 2), (K, 0), (20, 1), (N - 1, 3)]:
        V = np.zeros_like(Z)
        V[a, b] = 1
        if a < K:
            V[b, a] = 1
        fields, _ = flow.field(np.stack([Z + h * V, Z - h * V])[:, None])
        change = (fields[0, 0] - fields[1, 0]) / (2 * h)
        assert change[a, b] == pytest.approx(J[a, b], rel=1e-5, abs=1e-6 * np.abs(J).max())
        np.testing.assert_allclose(change, J[a, b] * V, atol=1e-5 * np.abs(J).max())


def test_tail_at_the_closed_form_rate_with_smoothing_above_the_least_eigenvalue():
    # λ_n < ε < λ_k: the excess decays at 2 min r, r of paper.md section 4, and L* = Σ_{j>k} (√λ_j − √ε)².
    loss, depth = thin(), 2
    best = np.eye(N, K) * np.sqrt(loss.minimum_spectrum(K)[:K])
    rate = 2 * rates_at_minimum(loss, depth, K).min()
    times = np.array([0.0, 2.0, 4.0]) * np.log(10) / rate
    best[K, K - 1] = 1e-3  # the kept direction k leans towards k + 1: the slowest
    flow = gradient_flow(loss, best, depth, times, rtol=1e-8)
    measured = -np.log(flow.excess[2] / flow.excess[1]) / (times[2] - times[1])
    assert measured == pytest.approx(rate, rel=1e-3)
    lacking = np.sum((np.sqrt(SPECTRUM[K:]) - np.sqrt(EPSILON)) ** 2)
    assert flow.loss[-1] == pytest.approx(lacking, rel=1e-6)


def test_distance_in_blocks(rng):
    F, spectrum = rng.standard_normal((3, N, K)), np.where(np.arange(N) < K, SPECTRUM, 0)
    expected = covariance_distance(F, np.diag(spectrum))
    np.testing.assert_allclose(distance_to_diagonal(F, spectrum), expected, rtol=1e-12)


def test_a_cell_of_patches_limits_epsilon_by_the_kept_directions():
    # n = 192, k = 3: ε = 0.05 is above λ_n and below λ_3, and stays; ε = 100 becomes λ_3.
    pytest.importorskip("sklearn")
    settings = {
        "study_seed": 1,
        "kind": "flow",
        "loss": "bures-wasserstein",
        "dimension": 192,
        "target": {"dataset": "patches"},
        "initialization": {"kind": "small", "scale": 0.1},
        "integration": {"rtol": 1e-5, "excess_tolerance": 1e-3, "max_time": 100, "max_steps": 400, "samples": 10},
        "smin": -1,
        "rank": 3,
        "depth": 1,
    }
    found = {}
    for epsilon in (0.05, 100):
        row = run_cell({**settings, "epsilon": epsilon}, [0])["runs"].to_pylist()[0]
        found[epsilon] = row["epsilon_effective"]
        assert len(row["alignment"]) == 3 * 192
        if epsilon < 1:
            assert row["lambda_min"] < epsilon < row["eigenvalues_target"][2]
            assert row["stop_reason"] == "converged"
    assert found == {0.05: 0.05, 100: pytest.approx(row["eigenvalues_target"][2])}
