"""The forms that are linear in n beside the dense ones, 50 digits and derivatives; targets from spectra, samples."""

import exact
import mpmath as mp
import numpy as np
import pytest
from scipy.integrate import solve_ivp

from deepbures.descent.gradient_descent import gradient_descent
from deepbures.landscape import critical_points
from deepbures.landscape.curvature import extreme_eigenvalues, hessian, network_hessian
from deepbures.linalg import psd, thin
from deepbures.linalg.thin import is_thin
from deepbures.losses import linear_forms
from deepbures.losses.registry import BuresWasserstein, CovarianceLoss, Frobenius
from deepbures.model.network import DeepLinearNetwork
from deepbures.model.starts import random_frame, small_start
from deepbures.rates.predicted import rates_at_minimum

EPS = np.finfo(float).eps
KINDS = [0, 0.05, 0.5, 1e-6, 2.0, "frobenius"]


@pytest.fixture
def form(monkeypatch):
    """Switch: the linear form at every size, or the dense one; losses made before the switch follow it."""
    monkeypatch.setattr(CovarianceLoss, "form", lambda loss, d, k=None: loss.make_form(d, k or min(loss.dimension, d)))

    def switch(linear):
        monkeypatch.setattr(thin, "_LARGE", 1 if linear else 10**9)
        monkeypatch.setattr(thin, "_THIN", 1)

    return switch


def from_spectrum(kind, eigenvalues, eigenvectors=None):
    if kind == "frobenius":
        return Frobenius.from_spectrum(eigenvalues, eigenvectors)
    return BuresWasserstein.from_spectrum(eigenvalues, eigenvectors, kind)


def minimiser(loss, rank):
    """W* = Ω_1 diag(√s*), (n, k)."""
    return loss.eigenvector_columns(range(rank)) * np.sqrt(loss.minimum_spectrum(rank)[:rank])


def both(form, compute):
    found = []
    for linear in (True, False):
        form(linear)
        found.append(compute())
    return found


# --- Beside the dense forms -------------------------------------------------------------------------------------


@pytest.mark.parametrize("accuracy", [1e-4, 1e-8, 1e-11])
def test_gradient_with_fewer_nodes_is_as_accurate_as_asked_for(rng, accuracy):
    # ‖(T̃ − T) F‖ ≤ accuracy ‖R M^{-1/2}‖ ‖Y‖, and above rounding: nodes are left out. The form itself stays exact.
    loss = BuresWasserstein.from_spectrum(1 / np.arange(1, 301.0), epsilon=0.01)
    form, F = loss.form(5), rng.standard_normal((300, 5))
    exact = form.gradient(F)
    error = np.linalg.norm(form.to_accuracy(accuracy).gradient(F) - exact) / np.linalg.norm(exact - 2 * F)
    assert 1e-3 * accuracy < error < accuracy
    np.testing.assert_array_equal(form.gradient(F), exact)


def test_rule_takes_the_linear_form_where_the_rank_is_small():
    # The study's n = 20 and the digits' n = 64 stay with the dense kernels at every rank, large n at small k does not.
    assert not any(is_thin(n, k) for n in (20, 64, 127) for k in range(1, n + 1))
    assert is_thin(128, 21)
    assert not is_thin(128, 22)
    assert is_thin(4000, 64)


@pytest.mark.parametrize("zeros", [0, 7])
@pytest.mark.parametrize("columns", [1, 4])
@pytest.mark.parametrize("kind", KINDS)
def test_linear_forms_agree_with_the_dense_ones(form, rng, kind, columns, zeros):
    # Value, excess (over the own rank, a higher one, n), gradient, Hessian product of a stack; a singular target, too.
    eigenvalues = np.concatenate([np.geomspace(3, 1e-3, 33), np.zeros(zeros)])
    loss = from_spectrum(kind, eigenvalues)
    W, V = rng.standard_normal((2, 3, len(eigenvalues), columns))

    def everything():
        ranks = [loss.excess(W, rank) for rank in (columns, columns + 2, None)]
        return [loss.value(W), *ranks, loss.gradient(W), loss.hessian_product(W, V), loss.hessian_product(W[0], V)]

    for linear, dense in zip(*both(form, everything), strict=True):
        # The dense form loses eps √κ(M), at ε = 1e-6 some 1e-10.
        np.testing.assert_allclose(linear, dense, rtol=0, atol=1e-9 * np.abs(dense).max())


@pytest.mark.parametrize("kind", [0.05, 0.5])
def test_transport_of_a_block_is_that_of_the_map(form, rng, kind):
    # T V, T the map as an n × n array; T is 0 off the range of the target.
    loss = from_spectrum(kind, np.concatenate([np.geomspace(3, 1e-2, 30), np.zeros(4)]))
    W, V = rng.standard_normal((34, 3)), rng.standard_normal((34, 6))
    linear, dense = both(form, lambda: loss.transport(W, V))
    np.testing.assert_allclose(linear, loss.transport_map(W) @ V, atol=1e-11)
    np.testing.assert_allclose(linear, dense, atol=1e-11)
    np.testing.assert_array_equal(linear[30:], 0)


def test_transport_pushes_the_smoothed_covariance_forward(rng):
    # T (S + εI) T = Σ0 at n = 300, where the rule itself takes the linear form.
    loss = BuresWasserstein.from_spectrum(np.geomspace(4, 1e-3, 300), epsilon=0.1)
    W = rng.standard_normal((300, 5))
    T = loss.transport(W, np.eye(300))
    np.testing.assert_allclose(T @ (W @ W.T + 0.1 * np.eye(300)) @ T, loss.covariance, atol=1e-11)
    np.testing.assert_allclose(T, T.T, atol=1e-12)


def test_stack_of_targets_in_the_linear_form(form, rng):
    # Each matrix meets its own target and ε, as the losses one by one do: bit for bit.
    form(True)
    covariances = np.stack([np.diag(np.geomspace(3 + i, 0.01, 12)) for i in range(6)]).reshape(2, 3, 12, 12)
    epsilon = np.linspace(0.05, 0.3, 6).reshape(2, 3)
    W, V = rng.standard_normal((2, 4, 2, 3, 12, 2))
    for loss, make in (
        (BuresWasserstein(covariances, epsilon), lambda i: BuresWasserstein(covariances[i], epsilon[i])),
        (BuresWasserstein(covariances), lambda i: BuresWasserstein(covariances[i])),
        (Frobenius(covariances), lambda i: Frobenius(covariances[i])),
    ):
        stacked = loss.value(W), loss.excess(W, 3), loss.gradient(W), loss.hessian_product(W, V)
        for i in np.ndindex(2, 3):
            one, at = make(i), (slice(None), *i)
            alone = one.value(W[at]), one.excess(W[at], 3), one.gradient(W[at]), one.hessian_product(W[at], V[at])
            for together, single in zip(stacked, alone, strict=True):
                np.testing.assert_array_equal(together[at], single)


def test_float32_stays_float32(form, rng):
    form(True)
    eigenvalues, W = np.geomspace(3, 0.1, 20), rng.standard_normal((20, 3))
    for kind in (0, 0.3, "frobenius"):
        single = from_spectrum(kind, eigenvalues.astype(np.float32))
        double = from_spectrum(kind, eigenvalues)
        w = W.astype(np.float32)
        assert single.gradient(w).dtype == np.float32
        assert single.hessian_product(w, w).dtype == np.float32
        np.testing.assert_allclose(single.gradient(w), double.gradient(W), rtol=1e-3, atol=1e-4)
        assert single.value(w) == pytest.approx(float(double.value(W)), rel=1e-4)


@pytest.mark.parametrize("unit", [1e-12, 1e12])
@pytest.mark.parametrize("kind", [0, 0.3, "frobenius"])
def test_linear_forms_in_other_units(form, rng, kind, unit):
    # Σ0 → c Σ0, ε → c ε, W → √c W: L → c L (BW), c² L (Frobenius).
    form(True)
    eigenvalues, W = np.geomspace(3, 0.01, 20), rng.standard_normal((20, 3))
    one = from_spectrum(kind, eigenvalues)
    other = from_spectrum(kind if kind == "frobenius" else kind * unit, eigenvalues * unit)
    power = 2 if kind == "frobenius" else 1
    assert other.value(W * np.sqrt(unit)) == pytest.approx(float(one.value(W)) * unit**power, rel=1e-12)
    assert other.excess(W * np.sqrt(unit), 3) == pytest.approx(float(one.excess(W, 3)) * unit**power, rel=1e-12)
    expected = one.gradient(W) * unit ** (power - 0.5)
    np.testing.assert_allclose(other.gradient(W * np.sqrt(unit)), expected, atol=1e-12 * np.abs(expected).max())


# --- Fifty digits -----------------------------------------------------------------------------------------------


def exact_gradient(W, eigenvalues, epsilon):
    """2 (I − T) W for a diagonal target, in mpmath."""
    with mp.workdps(exact.DIGITS):
        W_, R = mp.matrix(W.tolist()), mp.diag([mp.sqrt(mp.mpf(x)) for x in eigenvalues.tolist()])
        mu, Q = mp.eigsy(R * (W_ * W_.T + mp.mpf(epsilon) * mp.eye(len(W))) * R)
        T = R * Q * mp.diag([1 / mp.sqrt(x) for x in mu]) * Q.T * R
        return np.array((2 * (W_ - T * W_)).tolist(), dtype=float)


@pytest.mark.parametrize(
    ("least", "epsilon", "scales"),
    [
        (1e-5, 0.1, 1.0),
        (1e-10, 0.1, 1.0),
        (1e-3, 1e-7, 1.0),
        (1e-2, 1e-13, 1.0),
        (1e-2, 0.1, 1e-6),
        (1e-8, 1e-9, [1.0, 1e-3, 1e-6]),
    ],
)
def test_gradient_in_fifty_digits(form, rng, least, epsilon, scales):
    # Conditions of M from 1e2 to 6e16: a relative 1e-12, where the dense form has 1e-9 at worst.
    eigenvalues = np.geomspace(1, least, 10)
    W = rng.standard_normal((10, 3)) * scales @ np.linalg.qr(rng.standard_normal((3, 3)))[0]
    loss = BuresWasserstein.from_spectrum(eigenvalues, epsilon=epsilon)
    expected = exact_gradient(W, eigenvalues, epsilon)
    linear, dense = both(form, lambda: np.abs(loss.gradient(W) - expected).max() / np.abs(expected).max())
    assert linear < 1e-12
    assert linear <= dense + 10 * EPS


@pytest.mark.parametrize("rank", [1, 3])
@pytest.mark.parametrize("epsilon", [0, 0.02, 0.4, 1.2])
def test_excess_keeps_relative_accuracy(form, rng, epsilon, rank):
    # In 50 digits, to an excess of 1e-14 tr Σ0 and below: 1e-6 relative is the limit, 100 eps √(λ_1/(L − L*)) holds.
    # With ε = 0.4 below λ_3 only, and with 1.2 above it: a direction is cut off.
    form(True)
    eigenvalues = np.array([3.0, 2.0, 1.0, 0.3, 0.05, 1e-3])
    loss = BuresWasserstein.from_spectrum(eigenvalues, epsilon=epsilon)
    best = minimiser(loss, rank)
    direction = rng.standard_normal(best.shape)
    minimum = exact.bures_wasserstein_minimum(loss.covariance, epsilon, rank)
    excesses = []
    for distance in (1.0, 1e-2, 1e-5, 1e-7, 1e-8):
        W = best + distance * direction
        expected = exact.bures_wasserstein(W, loss.covariance, epsilon) - minimum
        error = float(abs(mp.mpf(float(loss.excess(W, rank))) - expected) / expected)
        assert error <= 100 * EPS * float(mp.sqrt(eigenvalues[0] / expected)) + 100 * EPS
        assert expected < 1e-14 * eigenvalues.sum() or error < 1e-6
        excesses.append(float(expected))
    assert min(excesses) < 1e-14 * eigenvalues.sum()


@pytest.mark.parametrize("epsilon", [0, 0.02, 0.4])
def test_value_in_fifty_digits(form, rng, epsilon):
    form(True)
    eigenvalues, W = np.array([3.0, 2.0, 1.0, 0.3, 0.05, 0.0]), rng.standard_normal((6, 2))
    loss = BuresWasserstein.from_spectrum(eigenvalues, epsilon=epsilon)
    expected = float(exact.bures_wasserstein(W, loss.covariance, epsilon))
    assert loss.value(W) == pytest.approx(expected, rel=1e-14 * 50)


# --- Derivatives, at a size where the rule takes the linear form -------------------------------------------------


@pytest.mark.parametrize("kind", [0, 0.05, "frobenius"])
def test_derivatives_by_taylor_remainders(rng, kind):
    # n = 200, k = 3: L, ∇L and ∇²L[V] belong together, remainders of order 2 and 3.
    loss = from_spectrum(kind, np.geomspace(3, 1e-2, 200))
    W, V = rng.standard_normal((200, 3)), rng.standard_normal((200, 3)) / 10
    slope, curvature = np.vdot(loss.gradient(W), V), np.vdot(loss.hessian_product(W, V), V)
    h = np.logspace(-2, -1, 6)
    change = loss.value(W + h[:, None, None] * V) - loss.value(W)
    for remainder, order in ((change - h * slope, 2), (change - h * slope - h**2 / 2 * curvature, 3)):
        assert np.polyfit(np.log(h), np.log(np.abs(remainder)), 1)[0] == pytest.approx(order, abs=0.1)


@pytest.mark.parametrize("columns", [2, 5])
@pytest.mark.parametrize("linear", [True, False])
@pytest.mark.parametrize("kind", [0, 0.05, "frobenius"])
def test_hessian_operator_is_the_product_at_one_matrix(form, rng, kind, linear, columns):
    # Many directions at one W, one by one and stacked, bit for bit; and a stack of W, each with its own direction.
    form(linear)
    loss = from_spectrum(kind, np.geomspace(3, 0.01, 12), np.linalg.qr(rng.standard_normal((12, 12)))[0])
    W, V = rng.standard_normal((2, 4, 12, columns))
    operator = loss.hessian_operator(W[0])
    for v in V:
        np.testing.assert_array_equal(operator(v), loss.hessian_product(W[0], v))
    np.testing.assert_array_equal(operator(V), loss.hessian_product(W[0], V))
    np.testing.assert_array_equal(loss.hessian_operator(W)(V), loss.hessian_product(W, V))


def test_hessian_operator_decomposes_once(form, rng, monkeypatch):
    form(True)
    calls = []
    original = linear_forms.resolvents
    monkeypatch.setattr(linear_forms, "resolvents", lambda *arguments: calls.append(0) or original(*arguments))
    loss, W = BuresWasserstein.from_spectrum(np.geomspace(3, 0.1, 12), epsilon=0.05), rng.standard_normal((12, 2))
    operator = loss.hessian_operator(W)
    for _ in range(3):
        operator(W)
    assert len(calls) == 1


# --- Targets from a spectrum and from samples -------------------------------------------------------------------


@pytest.mark.parametrize("kind", [0, 0.05, "frobenius"])
@pytest.mark.parametrize("rank", [8, 3])
def test_loss_from_a_spectrum_is_that_of_the_covariance(form, rng, kind, rank):
    # Ω of 8 or of 3 columns in dimension 8; W has a part outside their range.
    Omega = np.linalg.qr(rng.standard_normal((8, rank)))[0]
    eigenvalues = np.geomspace(3, 0.2, rank)
    covariance = Omega * eigenvalues @ Omega.T
    dense = Frobenius(covariance) if kind == "frobenius" else BuresWasserstein(covariance, kind)
    loss = from_spectrum(kind, eigenvalues, Omega)
    assert loss.dimension == 8
    W, V = rng.standard_normal((2, 8, 2))
    for linear in (True, False):
        form(linear)
        np.testing.assert_allclose(loss.value(W), dense.value(W), rtol=1e-12)
        np.testing.assert_allclose(loss.excess(W, 2), dense.excess(W, 2), rtol=1e-12)
        np.testing.assert_allclose(loss.gradient(W), dense.gradient(W), atol=1e-12)
        np.testing.assert_allclose(loss.hessian_product(W, V), dense.hessian_product(W, V), atol=1e-11)
    np.testing.assert_allclose(loss.covariance, covariance, atol=1e-14)
    np.testing.assert_allclose(loss.eigenvectors[:, :rank], Omega, atol=1e-14)
    np.testing.assert_allclose(loss.eigenvector_columns([2, 0]), Omega[:, [2, 0]], atol=1e-14)
    np.testing.assert_allclose(loss.from_eigenbasis(loss.to_eigenbasis(W)), W, atol=1e-13)


def test_loss_on_a_singular_target_far_from_its_range(rng):
    # W orthogonal to the range of Σ0: T W = 0, so ∇L = 2 W and L = tr Σ0 + ‖W‖² + n ε − 2 Σ √(ε λ).
    n, epsilon = 400, 0.1
    Omega = np.linalg.qr(rng.standard_normal((n, 5)))[0]
    eigenvalues = np.geomspace(3, 0.2, 5)
    loss = BuresWasserstein.from_spectrum(eigenvalues, Omega, epsilon)
    W = rng.standard_normal((n, 3))
    W -= Omega @ (Omega.T @ W)
    np.testing.assert_allclose(loss.gradient(W), 2 * W, atol=1e-13)
    expected = eigenvalues.sum() + np.sum(W**2) + n * epsilon - 2 * np.sqrt(epsilon * eigenvalues).sum()
    assert loss.value(W) == pytest.approx(expected, rel=1e-13)


@pytest.mark.parametrize("m", [5, 12, 40])
def test_loss_from_samples_is_that_of_their_covariance(rng, m):
    # The mean of (x − x̄)(x − x̄)ᵀ; fewer samples than dimensions give a target of rank m − 1; a shift changes nothing.
    X = rng.standard_normal((m, 12)) * np.linspace(2, 0.5, 12) + 7
    loss = BuresWasserstein.from_samples(X, 0.3)
    covariance = np.cov(X, rowvar=False, bias=True)
    np.testing.assert_allclose(loss.covariance, covariance, atol=1e-13)
    assert np.sum(loss.eigenvalues > 0) == min(m - 1, 12)
    W = rng.standard_normal((12, 3))
    assert loss.value(W) == pytest.approx(float(BuresWasserstein(covariance, 0.3).value(W)), rel=1e-10)
    moved = BuresWasserstein.from_samples(X - 7, 0.3)
    np.testing.assert_allclose(moved.eigenvalues, loss.eigenvalues, atol=1e-12)


def test_constant_columns_are_directions_without_variance(rng):
    X = rng.standard_normal((50, 6))
    X[:, 2] = 3.7
    X[:, 4] = -1e5
    loss = BuresWasserstein.from_samples(X, 0.1)
    assert np.sum(loss.eigenvalues > 0) == 4
    W = np.zeros((6, 2))
    W[[2, 4], [0, 1]] = 1
    np.testing.assert_allclose(loss.gradient(W), 2 * W, atol=1e-12)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: BuresWasserstein.from_spectrum([1.0, 2.0]), r"^eigenvalues must be one falling list"),
        (lambda: BuresWasserstein.from_spectrum([[1.0]]), r"^eigenvalues must be one falling list"),
        (lambda: Frobenius.from_spectrum([1.0, -0.1]), r"^eigenvalues must not be negative, but the least is -0.1$"),
        (lambda: Frobenius.from_spectrum([1.0, np.nan]), r"^eigenvalues must be finite"),
        (lambda: BuresWasserstein.from_spectrum([1.0], epsilon=-1), r"^epsilon must be a finite number ≥ 0, not -1$"),
        (lambda: BuresWasserstein.from_samples(np.ones((1, 4))), r"^samples must be a matrix of at least 2 rows"),
        (lambda: BuresWasserstein.from_samples(np.full((5, 4), 0.1)), r"^samples must differ: all 5 are the same$"),
        (lambda: BuresWasserstein.from_samples([[1.0, np.inf], [0, 1]]), r"^samples must be finite"),
    ],
)
def test_bad_targets_are_refused_in_one_line(make, message):
    with pytest.raises(ValueError, match=message) as caught:
        make()
    assert "\n" not in str(caught.value)


def test_no_rank_above_the_samples(rng):
    # Rank 9 of a target of rank 4 is ordinary input: the minimum is there at rank 4, the excess refers to it.
    X = rng.standard_normal((5, 200))
    loss = BuresWasserstein.from_samples(X, 1e-3)
    W = rng.standard_normal((200, 9))
    assert loss.excess(W, 9) == pytest.approx(float(loss.value(W) - loss.minimum_value(9)), rel=1e-12)
    assert loss.excess(minimiser(loss, 9), 9) == pytest.approx(0, abs=1e-24)


@pytest.mark.parametrize("name", ["covariance", "eigenvectors", "minimum", "transport_map", "hessian"])
def test_dense_arrays_at_a_huge_dimension_are_refused_in_one_line(monkeypatch, name):
    # 1 GB of memory, n = 20,000: 3.2 GB.
    monkeypatch.setattr(psd.os, "sysconf", {"SC_PHYS_PAGES": 250_000, "SC_PAGE_SIZE": 4000}.get)
    loss = BuresWasserstein.from_spectrum(np.geomspace(1, 0.1, 20_000), epsilon=0.05)
    W = np.zeros((20_000, 1))
    calls = {"minimum": lambda: loss.minimum(3), "transport_map": lambda: loss.transport_map(W)}
    calls["hessian"] = lambda: hessian(loss, W)
    with pytest.raises(ValueError, match=r"n = 20000 would be an n × n array of 3\.2 GB, more than the 1 GB") as caught:
        calls.get(name, lambda: getattr(loss, name))()
    assert "\n" not in str(caught.value)
    assert np.isfinite(loss.value(W))
    assert minimiser(loss, 2).shape == (20_000, 2)


# --- ε between λ_n and λ_k --------------------------------------------------------------------------------------


@pytest.mark.parametrize("epsilon", [0.2, 0.6])
@pytest.mark.parametrize("linear", [True, False])
def test_smoothing_above_the_empty_directions(form, rng, epsilon, linear):
    # λ_n < ε < λ_k: L* and s* in closed form (paper.md section 3), the excess in 50 digits, the gradient 0 at the
    # minimum, and the local rates of the closed form against the Hessian.
    form(linear)
    eigenvalues = np.array([3.0, 2.0, 1.0, 0.5, 0.1, 1e-6])
    loss = BuresWasserstein.from_spectrum(eigenvalues, epsilon=epsilon)
    np.testing.assert_allclose(loss.minimum_spectrum(3), [3 - epsilon, 2 - epsilon, 1 - epsilon, 0, 0, 0])
    expected = exact.bures_wasserstein_minimum(loss.covariance, epsilon, 3)
    assert loss.minimum_value(3) == pytest.approx(float(expected), rel=1e-13)
    best = minimiser(loss, 3)
    np.testing.assert_allclose(loss.gradient(best), 0, atol=1e-14)
    for distance in (1e-1, 1e-4):
        W = best + distance * rng.standard_normal(best.shape)
        excess = exact.bures_wasserstein(W, loss.covariance, epsilon) - expected
        assert loss.excess(W, 3) == pytest.approx(float(excess), rel=1e-9)
    rates = np.sort(rates_at_minimum(loss, 1, 3))
    eigs = np.linalg.eigvalsh(hessian(loss, best))
    np.testing.assert_allclose(eigs[-len(rates) :], rates, atol=1e-10)
    np.testing.assert_allclose(eigs[: -len(rates)], 0, atol=1e-10)
    for depth in (2, 3):
        network = critical_points.network(loss, (0, 1, 2), depth, 3)
        found = np.linalg.eigvalsh(network_hessian(loss, network.layers))
        deep = rates_at_minimum(loss, depth, 3)
        assert found[-1] == pytest.approx(deep.max(), rel=1e-9)
        assert found[found > 1e-6].min() == pytest.approx(deep.min(), rel=1e-6)


def test_flow_at_smoothing_above_the_empty_directions(rng):
    # The gradient flow of W itself, by scipy: the excess falls at twice the least local rate, though λ_n < ε.
    loss = BuresWasserstein.from_spectrum([3.0, 2.0, 1.0, 0.5, 0.1, 1e-6], epsilon=0.6)
    start = minimiser(loss, 3) + 1e-2 * rng.standard_normal((6, 3))
    times = np.linspace(0, 30, 7)
    solution = solve_ivp(
        lambda _, w: -loss.gradient(w.reshape(6, 3)).ravel(),
        (0, 30),
        start.ravel(),
        t_eval=times,
        rtol=1e-10,
        atol=1e-12,
    )
    excess = [float(loss.excess(w.reshape(6, 3), 3)) for w in solution.y.T]
    slope = np.log(excess[-1] / excess[-3]) / (times[-1] - times[-3])
    assert slope == pytest.approx(-2 * rates_at_minimum(loss, 1, 3).min(), rel=1e-2)


# --- Around the losses ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [0.05, "frobenius"])
def test_descent_of_a_wide_first_layer_is_that_of_its_row_space(form, rng, kind):
    # d_0 = 40, d_1 = 3: the whole first layer, or R of W_1 = Rᵀ Qᵀ in its place, give the same run.
    loss = from_spectrum(kind, np.geomspace(3, 0.5, 12))
    layers = [rng.standard_normal(shape) / 3 for shape in ((3, 40), (3, 3), (12, 3))]
    runs = both(form, lambda: gradient_descent(loss, layers, 0.01, 200, [0, 200], excess_tolerance=0))
    assert runs[0].layers[0].shape == (3, 40)
    for reduced, whole in zip(runs[0].layers, runs[1].layers, strict=True):
        np.testing.assert_allclose(reduced, whole, atol=1e-11)
    for name in ("loss", "excess", "gradient_norm", "balancedness"):
        np.testing.assert_allclose(getattr(runs[0], name), getattr(runs[1], name), rtol=1e-9, atol=1e-12)
    S = [run.factors @ run.factors.swapaxes(1, 2) for run in runs]
    np.testing.assert_allclose(S[0], S[1], atol=1e-11)


def test_random_frame_is_orthonormal_and_keeps_the_streams_of_small_dimensions():
    small = random_frame(np.random.default_rng(3), 20, 3)
    from deepbures.model.starts import random_orthogonal

    np.testing.assert_array_equal(small, random_orthogonal(np.random.default_rng(3), 20)[:, :3])
    large = random_frame(np.random.default_rng(3), 500, 3)
    np.testing.assert_allclose(large.T @ large, np.eye(3), atol=1e-14)


def test_no_square_array_at_a_large_dimension(traced, rng):
    # n = 4,000, k = 8, N = 10, ε ≥ 0: at no time more than a twentieth of one n × n array (128 MB).
    n, k = 4000, 8
    eigenvalues = 10 / np.arange(1, n + 1)
    frame = np.linalg.qr(rng.standard_normal((n, 40)))[0]
    for kind in (0, 1e-3, "frobenius"):
        for loss in (from_spectrum(kind, eigenvalues), from_spectrum(kind, eigenvalues[:40], frame)):
            with traced(n * n * 8 / 20):
                start = small_start(np.random.default_rng(0), n, k, 0.5, k).end_to_end
                kept = tuple(range(k))
                network = critical_points.network(loss, kept, 10, k, k)
                assert loss.excess(network.end_to_end(), k) == pytest.approx(0, abs=1e-20)
                assert np.abs(loss.gradient(network.end_to_end())).max() < 1e-11
                rates = critical_points.local_spectrum(loss, kept, 10, k).rates
                gradient_descent(loss, DeepLinearNetwork.balanced(start, 3, k), 1e-4, 5, [5])
                loss.hessian_product(start, start)
            assert np.isfinite(rates).all()


def test_extreme_eigenvalues_at_a_large_dimension():
    # n = 2,000, N = 3, matrix-free: λ_max is the largest local rate in closed form.
    loss = BuresWasserstein.from_spectrum(10 / np.arange(1, 2001), epsilon=1e-2)
    network = critical_points.network(loss, (0, 1, 2), 3, 3, 3)
    _, largest = extreme_eigenvalues(loss, network.layers)
    assert largest == pytest.approx(rates_at_minimum(loss, 3, 3).max(), rel=1e-9)
