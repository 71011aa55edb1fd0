"""Sentences of docs/paper.md that once said too much, each with the numbers that show it: flows and descents."""

import numpy as np
import pytest

from deepbures.descent.gradient_descent import gradient_descent
from deepbures.flow.gradient_flow import gradient_flow
from deepbures.losses.registry import BuresWasserstein, Frobenius
from deepbures.model.network import DeepLinearNetwork
from deepbures.model.starts import aligned_start
from deepbures.model.trajectory import StopReason
from deepbures.rates.plateau_times import aligned_sharp_rate
from deepbures.rates.predicted import local_condition, rates_at_minimum, sharp_rate, stable_step


def descend(loss, W, depth, share, steps):
    """Descent from balanced layers of W at a share of the largest stable step at the minimum."""
    step = share * stable_step(rates_at_minimum(loss, depth))
    return gradient_descent(loss, DeepLinearNetwork.balanced(W, depth), step, steps, np.arange(steps + 1))


# --- The largest stable step is a local statement ---------------------------------------------------------------


def test_a_large_start_diverges_below_the_largest_stable_step():
    # N = 2, λ = 1, ε = 0, W_0 = 3.3, share 0.9; from W_0 = 1.5 the same step converges.
    loss = BuresWasserstein(np.eye(1))
    assert descend(loss, np.array([[3.3]]), 2, 0.9, 500).stop_reason == StopReason.DIVERGED
    assert descend(loss, np.array([[1.5]]), 2, 0.9, 500).excess[-1] < 1e-20


def test_a_start_without_the_fastest_mode_converges_above_the_largest_stable_step():
    # λ = (4, 1), N = 2, W_0 = diag(2, 0.5), share 1.2: the first mode starts at its optimum and stays there.
    loss = BuresWasserstein(np.diag([4.0, 1.0]))
    run = descend(loss, np.diag([2.0, 0.5]), 2, 1.2, 200)
    assert run.excess[-1] < 1e-20
    moved = descend(loss, np.diag([2.0001, 0.5]), 2, 1.2, 200)  # a generic start near it does not
    assert not moved.excess[-1] < 1e-4


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_generic_starts_near_the_minimum_obey_it(make_target, rng, depth):
    loss = BuresWasserstein(make_target([3.0, 1.0]), 0.1)
    W = loss.minimum_factor(2) + 1e-3 * rng.standard_normal((2, 2))
    assert descend(loss, W, depth, 0.97, 3000).excess[-1] < 1e-9 * float(loss.excess(W))
    # Above it the excess grows away from the minimum, whatever becomes of it later.
    assert descend(loss, W, depth, 1.03, 300).excess[-1] > float(loss.excess(W))


# --- Steps of one loss and of the other -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("share", "expected"), [(0.95, (66, 42)), (0.99, (342, 221)), (0.25, (10, 21))], ids=["0.95", "0.99", "0.25"]
)
def test_which_loss_needs_fewer_steps_depends_on_the_share(share, expected):
    # n = 1, λ = 1, N = 1, start 0.1, to an excess of 1e-6 of that of the start: BW against the square loss.
    found = []
    for loss in (BuresWasserstein(np.eye(1)), Frobenius(np.eye(1))):
        run = descend(loss, np.array([[0.1]]), 1, share, 400)
        found.append(int(np.argmax(run.excess <= 1e-6 * run.excess[0])))
        assert local_condition(loss, 1) == 1
    assert tuple(found) == expected


# --- Which rate a flow ends with --------------------------------------------------------------------------------


@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize("epsilon", [0, 0.1])
def test_an_aligned_start_ends_at_the_rate_of_the_slowest_mode_that_it_has(make_target, epsilon, depth):
    # k < n: the exchange of k for k + 1 is the slowest local rate, and an aligned start never has it.
    loss = BuresWasserstein(make_target([3.0, 2.0, 1.0, 0.5]), epsilon)
    start = aligned_start(np.random.default_rng(0), loss, 2, 0.1).end_to_end
    flow = gradient_flow(loss, start, depth, rank=2, excess_tolerance=1e-12, max_time=1e4, rtol=1e-9)
    measured = flow.gradient_norm[-1] ** 2 / flow.excess[-1]
    expected = 4 * depth * (2 - epsilon) ** (2 - 1 / depth) / 2  # 4 N s_k^{2−1/N}/λ_k
    assert aligned_sharp_rate(loss, depth, 2) == pytest.approx(expected, rel=1e-12)
    assert measured == pytest.approx(expected, rel=0.01)
    assert measured > 1.1 * sharp_rate(loss.eigenvalues, epsilon, depth, 2)


def test_the_rate_of_aligned_starts_at_full_rank_and_where_a_mode_is_not_learnt():
    # k = n: the least diagonal rate is the sharp one. ε ≥ λ_k: 0. The square loss has 16 N λ_k^{2−1/N}.
    eigenvalues = np.array([3.0, 1.0])
    for epsilon in (0, 0.3):
        loss = BuresWasserstein(np.diag(eigenvalues), epsilon)
        assert aligned_sharp_rate(loss, 2, 2) == pytest.approx(sharp_rate(eigenvalues, epsilon, 2), rel=1e-12)
    assert aligned_sharp_rate(BuresWasserstein(np.diag(eigenvalues), 1.0), 2, 2) == 0
    assert aligned_sharp_rate(Frobenius(np.diag(eigenvalues)), 3, 2) == pytest.approx(48, rel=1e-12)


# --- Descent on a singular target -------------------------------------------------------------------------------


@pytest.mark.parametrize("step_size", [0.1, 0.4, 0.5])
def test_descent_on_a_singular_target_keeps_the_rank_of_the_product(make_target, rng, step_size):
    # λ_n = 0, ε = 0, N = 1: R W⁺ = ((1 − 2η) (R S R)^{1/2} + 2η Σ0) U Vᵀ keeps its rank, and L⁺ = (1 − 2η)² L.
    loss = BuresWasserstein(make_target([2.0, 1.0, 0.0]))
    W = 0.2 * rng.standard_normal((3, 3))
    root = np.sqrt(loss.eigenvalues)[:, None] * loss.eigenvectors.T
    for _ in range(10):
        before = float(loss.value(W))
        W = W - step_size * loss.gradient(W)
        assert np.linalg.svd(root @ W, compute_uv=False)[1] > 1e-3
        if before > 1e-20:
            assert float(loss.value(W)) == pytest.approx((1 - 2 * step_size) ** 2 * before, rel=1e-5, abs=1e-20)
