"""The global rate below full rank (docs/paper.md section 8): pointwise, along runs, up to the saddle."""

import mpmath as mp
import numpy as np
import pytest
from exact import balanced_gradient_norm

from deepbures.descent.gradient_descent import gradient_descent
from deepbures.flow.gradient_flow import gradient_flow
from deepbures.losses.closed_form_rates import bures_wasserstein_dominance, kept_singular_value, raised
from deepbures.losses.registry import BuresWasserstein
from deepbures.model.network import DeepLinearNetwork
from deepbures.rates.below_full_rank import low_rank_descent_rate, low_rank_global_rate
from deepbures.rates.predicted import flow_bound, sharp_rate
from deepbures.rates.thresholds import critical_gap

SPECTRUM = np.array([3.0, 2.0, 1.2, 0.5])
#: ε as a share of λ_n.
SHARES = [0, 1e-6, 0.1, 0.9, 1]


def drawn(rng, n, share, condition=20.0):
    """Loss on a random target of n dimensions."""
    eigenvalues = np.sort(condition ** -rng.uniform(0, 1, n))[::-1]
    basis = np.linalg.qr(rng.standard_normal((n, n)))[0]
    return BuresWasserstein.from_spectrum(eigenvalues, basis, share * eigenvalues[-1])


def near_minimum(rng, loss, k, size):
    return loss.minimum_factor(k) + size * np.sqrt(loss.eigenvalues[k - 1]) * rng.standard_normal((loss.dimension, k))


def limit_of(loss, k):
    """From here on the theorem promises nothing: κ = λ_{k+1}, the excess that raises λ_n by λ_k − λ_{k+1}."""
    least, epsilon = loss.eigenvalues[-1], float(loss.epsilon)
    top = least + loss.eigenvalues[k - 1] - loss.eigenvalues[k]
    return (np.sqrt(top) - np.sqrt(epsilon)) ** 2 - (np.sqrt(least) - np.sqrt(epsilon)) ** 2


# --- By formula -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("depth", [1, 2, 3, 10, 100])
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_the_rate_without_smoothing_by_its_formula(depth, rank):
    # 4 (√λ_k − √E_0)^{2−2/N} (1 − λ_{k+1}/(λ_k − E_0)); as E_0 → 0 the sharp rate; 0 from λ_k − λ_{k+1} on.
    kept, leading = SPECTRUM[rank - 1 : rank + 1]
    gap = kept - leading
    for excess in (1e-3 * gap, 0.3 * gap, 0.999 * gap):
        expected = 4 * (np.sqrt(kept) - np.sqrt(excess)) ** (2 - 2 / depth) * (1 - leading / (kept - excess))
        assert low_rank_global_rate(SPECTRUM, 0.0, depth, rank, excess) == pytest.approx(expected, rel=1e-12)
    for excess in (gap, 1.1 * gap, 100.0):
        assert low_rank_global_rate(SPECTRUM, 0.0, depth, rank, excess) == 0
    sharp = sharp_rate(SPECTRUM, 0.0, depth, rank)
    assert low_rank_global_rate(SPECTRUM, 0.0, depth, rank, 0.0) == pytest.approx(sharp, rel=1e-12)


@pytest.mark.parametrize("share", SHARES)
@pytest.mark.parametrize("depth", [1, 2, 10])
def test_the_rate_tends_to_the_sharp_one(depth, share):
    # The exchange of k for k + 1 is the slowest: 4 (λ_k − ε)^{1−1/N} (λ_k − λ_{k+1})/(λ_k + √(ε λ_{k+1})).
    epsilon = 0.5 * share
    for rank in (1, 2, 3):
        found = low_rank_global_rate(SPECTRUM, epsilon, depth, rank, 1e-14)
        kept, leading = SPECTRUM[rank - 1 : rank + 1]
        exchange = 4 * (kept - epsilon) ** (1 - 1 / depth) * (kept - leading) / (kept + np.sqrt(epsilon * leading))
        assert found == pytest.approx(exchange, rel=1e-5)
        assert found == pytest.approx(sharp_rate(SPECTRUM, epsilon, depth, rank), rel=1e-5)


@pytest.mark.parametrize("share", SHARES)
def test_the_rate_falls_with_the_excess_of_the_start_and_keeps_its_unit(share):
    epsilon = 0.5 * share
    excesses = np.concatenate([[0.0], np.geomspace(1e-8, 2, 60)])
    for rank in (1, 2, 3):
        for depth in (1, 3):
            rates = [low_rank_global_rate(SPECTRUM, epsilon, depth, rank, excess) for excess in excesses]
            assert (np.diff(rates) <= 1e-15).all()
            for unit in (1e-9, 1e9):
                other = low_rank_global_rate(SPECTRUM * unit, epsilon * unit, depth, rank, excesses[20] * unit)
                assert other == pytest.approx(rates[20] * unit ** (1 - 1 / depth), rel=1e-9)


def test_where_nothing_is_promised():
    assert np.isnan(low_rank_global_rate(SPECTRUM, 0.6, 2, 1, 0.01))  # ε > λ_n
    assert np.isnan(low_rank_descent_rate(SPECTRUM, 0.6, 1, 1, 0.01, 0.3))
    assert low_rank_global_rate([2.0, 2.0, 1.0], 0.0, 2, 1, 0.01) == 0  # λ_k = λ_{k+1}
    for depth, step in ((2, 0.3), (1, 0.0), (1, 1.0), (1, -0.1)):
        assert np.isnan(low_rank_descent_rate(SPECTRUM, 0.0, depth, 1, 0.01, step))


@pytest.mark.parametrize("call", [low_rank_global_rate, lambda *given: low_rank_descent_rate(*given, 0.3)])
def test_bad_arguments_are_refused(call):
    with pytest.raises(ValueError, match="rank must lie between 1 and n − 1 = 3, not 4"):
        call(SPECTRUM, 0.0, 1, 4, 0.1)
    with pytest.raises(ValueError, match="rank must lie between 1 and n − 1 = 3, not 0"):
        call(SPECTRUM, 0.0, 1, 0, 0.1)
    with pytest.raises(ValueError, match="excess_initial must be a number ≥ 0, not nan"):
        call(SPECTRUM, 0.0, 1, 1, float("nan"))
    with pytest.raises(ValueError, match="depth must be an integer ≥ 1, not 0"):
        call(SPECTRUM, 0.0, 0, 1, 0.1)


def test_raised_keeps_its_digits():
    # (√h − √ε)² − (√λ − √ε)² = E, in 50 digits, from E = 1e-20 to 1e3.
    with mp.workdps(50):
        for value, epsilon, excess in ((1.0, 0.3, 1e-20), (1.0, 1.0, 1e-20), (2.0, 0.0, 1e-3), (1e-6, 1e-7, 1e3)):
            h = (mp.sqrt(epsilon) + mp.sqrt(excess + (mp.sqrt(value) - mp.sqrt(epsilon)) ** 2)) ** 2
            assert float(raised(value, epsilon, excess)) == pytest.approx(float(h), rel=1e-15)
            if excess < 1e-2:
                assert raised(value, epsilon, excess) >= value
    assert raised(0.5, 0.5, 0.0) == 0.5


# --- Pointwise --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", SHARES)
def test_the_gradient_dominates_the_excess(rng, share):
    # ‖∇L‖² ≥ 4 γ(E) E at the excess E of the matrix itself; 1,000 matrices near and far; some use nearly all of it.
    used = []
    for _ in range(1000):
        n = int(rng.integers(2, 6))
        k = int(rng.integers(1, n))
        loss = drawn(rng, n, share)
        W = near_minimum(rng, loss, k, 10 ** rng.uniform(-3, 0))
        excess = float(loss.excess(W, k))
        if excess >= limit_of(loss, k):
            continue
        dominance = bures_wasserstein_dominance(loss.eigenvalues, float(loss.epsilon), k, excess)
        assert dominance > 0
        used.append(4 * dominance * excess / np.sum(loss.gradient(W) ** 2))
        least = np.linalg.svd(W, compute_uv=False)[-1]
        assert least >= kept_singular_value(loss.eigenvalues, float(loss.epsilon), k, excess) * (1 - 1e-9)
    assert len(used) > 300
    assert max(used) <= 1 + 1e-9
    assert max(used) > 0.9


@pytest.mark.parametrize("share", [0, 0.5, 1])
@pytest.mark.parametrize(
    ("eigenvalues", "k"), [((2.0, 2.0, 1.0, 1.0), 2), ((3.0, 1.0, 1.0, 1.0), 1), ((2.0, 2.0, 2.0, 1.0), 3)], ids=str
)
def test_tied_eigenvalues_are_covered(make_target, rng, eigenvalues, k, share):
    # Ties among the kept and among the empty directions; across the edge k nothing is promised.
    loss = BuresWasserstein(make_target(eigenvalues), share)
    used = []
    for _ in range(200):
        W = near_minimum(rng, loss, k, 10 ** rng.uniform(-3, -0.3))
        excess = float(loss.excess(W, k))
        if excess < limit_of(loss, k):
            dominance = bures_wasserstein_dominance(loss.eigenvalues, share, k, excess)
            used.append(4 * dominance * excess / np.sum(loss.gradient(W) ** 2))
    assert len(used) > 50
    assert 0 < max(used) <= 1 + 1e-9
    assert bures_wasserstein_dominance(loss.eigenvalues, share, 1 if eigenvalues[1] == 2 else 2, 1e-3) == 0


@pytest.mark.parametrize("share", [0, 0.5])
def test_the_dominance_is_attained_on_the_way_to_the_saddle(share):
    # n = 2, k = 1, ε = 0: with W the best matrix on its range the inequality is an equality, at any excess.
    # For ε > 0 it is one as the excess vanishes.
    loss = BuresWasserstein(np.diag([3.0, 1.0]), share)
    for angle in (1e-4, 0.3, 0.8, 1.2) if share == 0 else (1e-3,):
        x = np.array([[np.cos(angle)], [np.sin(angle)]])
        length = np.sqrt(float(x[:, 0] @ loss.covariance @ x[:, 0]))  # K = xᵀ Σ0 x, for ε = 0
        if share:
            lengths = np.linspace(0.5, 1.5, 20001) * length
            length = lengths[int(np.argmin(loss.value(lengths[:, None, None] * x)))]
        W = length * x
        excess = float(loss.excess(W, 1))
        dominance = bures_wasserstein_dominance(loss.eigenvalues, share, 1, excess)
        ratio = np.sum(loss.gradient(W) ** 2) / (4 * dominance * excess)
        assert ratio == pytest.approx(1, rel=1e-9 if share == 0 else 2e-2)
        assert ratio > 1 - 1e-9


@pytest.mark.parametrize("depth", [1, 2, 10, 100])
@pytest.mark.parametrize("share", [0, 0.3])
def test_the_deep_gradient_dominates_too(rng, share, depth):
    # −dE/dt = ‖∇L^N‖² ≥ rate · E on balanced layers, of which the top one alone was used.
    shares = []
    for _ in range(200):
        loss = drawn(rng, 4, share)
        W = near_minimum(rng, loss, 2, 10 ** rng.uniform(-3, -0.5))
        excess = float(loss.excess(W, 2))
        rate = low_rank_global_rate(loss.eigenvalues, float(loss.epsilon), depth, 2, excess)
        if rate > 0:
            shares.append(rate * excess / balanced_gradient_norm(loss, W, depth) ** 2)
    assert len(shares) > 50
    assert max(shares) <= 1 + 1e-9


# --- Along runs -------------------------------------------------------------------------------------------------


def turned(loss, k, excess):
    """The minimiser with Ω_k turned towards Ω_{k+1} so far that L − L* is the given excess."""
    W, next_ = loss.minimum_factor(k), loss.eigenvector_columns([k])[:, 0]
    column, low, high = W[:, k - 1].copy(), 0.0, np.pi / 2
    for _ in range(60):
        angle = (low + high) / 2
        W[:, k - 1] = np.cos(angle) * column + np.sin(angle) * np.linalg.norm(column) * next_
        low, high = (angle, high) if loss.excess(W, k) < excess else (low, angle)
    return W


@pytest.mark.parametrize("depth", [1, 2, 10])
@pytest.mark.parametrize("k", [1, 2])
@pytest.mark.parametrize("share", [0, 0.1, 1])
def test_flows_stay_below_the_bound(make_target, rng, share, k, depth):
    # Starts that turn the kept range towards the next direction, up to 95 % of what the theorem covers.
    loss = BuresWasserstein(make_target([3.0, 1.5, 0.5]), 0.5 * share)
    used = []
    for target in (0.02, 0.5, 0.95):
        start = turned(loss, k, target * limit_of(loss, k)) + 1e-4 * rng.standard_normal((3, k))
        excess = float(loss.excess(start, k))
        rate = low_rank_global_rate(loss.eigenvalues, float(loss.epsilon), depth, k, excess)
        assert rate > 0
        flow = gradient_flow(loss, start, depth, np.linspace(0, min(3 / rate, 5), 20), rank=k, rtol=1e-9)
        seen = flow.excess > 1e-14 * loss.unit
        bound = flow_bound(flow.times, excess, rate)
        assert (flow.excess[seen] <= bound[seen] * (1 + 1e-6)).all()
        least = np.linalg.svd(flow.factors, compute_uv=False)[:, k - 1]
        assert (least >= kept_singular_value(loss.eigenvalues, float(loss.epsilon), k, excess) * (1 - 1e-6)).all()
        later = seen & (flow.times > 0)
        used.append(np.max(rate * flow.times[later] / np.log(excess / flow.excess[later])))
    assert max(used) > 0.3


def test_the_threshold_without_smoothing_is_sharp():
    # The saddle that exchanges k for k + 1 has the excess λ_k − λ_{k+1} and rests. Beside it the fall is as slow as one
    # likes, and the promise is slower still.
    loss = BuresWasserstein(np.diag(SPECTRUM))
    rates = []
    for delta in (1e-1, 1e-2, 1e-3):
        W = np.zeros((4, 2))
        W[0, 0] = np.sqrt(3.0)
        W[2, 1], W[1, 1] = np.sqrt(1.2) * np.cos(delta), np.sqrt(1.2) * np.sin(delta)
        excess = float(loss.excess(W, 2))
        assert excess < critical_gap(loss, 2)
        promised = low_rank_global_rate(SPECTRUM, 0.0, 2, 2, excess)
        measured = balanced_gradient_norm(loss, W, 2) ** 2 / excess
        assert 0 < promised <= measured
        rates.append(measured)
    assert rates[2] < 1e-1 * rates[1] < 1e-2 * rates[0]


@pytest.mark.parametrize("step_size", [0.05, 0.5, 0.9])
@pytest.mark.parametrize("share", [0, 0.1, 1])
def test_descents_of_one_layer_contract_in_every_step(rng, share, step_size):
    # E_{i+1} ≤ (1 − 4 η (1 − η) γ(E_0)) E_i for 0 < η < 1, to 1e-13 tr Σ0.
    used = []
    for _ in range(12):
        loss = drawn(rng, 4, share, condition=5.0)
        k = int(rng.integers(1, 4))
        W = near_minimum(rng, loss, k, 10 ** rng.uniform(-2, -0.3))
        first = float(loss.excess(W, k))
        fraction = low_rank_descent_rate(loss.eigenvalues, float(loss.epsilon), 1, k, first, step_size)
        if not fraction > 0:
            continue
        run = gradient_descent(loss, DeepLinearNetwork([W]), step_size, 200, np.arange(201))
        seen = run.excess[1:] > 1e-13 * loss.unit
        measured = 1 - run.excess[1:] / run.excess[:-1]
        assert (measured[seen] >= fraction * (1 - 1e-6)).all()
        used.extend(fraction / measured[seen])
    assert len(used) > 20
    assert max(used) > {0.05: 0.7, 0.5: 0.3, 0.9: 0.05}[step_size]
