"""What every step of deep descent removes: proved for aligned starts, a conjecture for the others."""

import numpy as np
import pytest

from deepbures.descent.gradient_descent import gradient_descent
from deepbures.losses.registry import BuresWasserstein
from deepbures.model.layer_starts import widened, without_balance
from deepbures.model.level_starts import level_start
from deepbures.model.network import DeepLinearNetwork
from deepbures.rates.below_full_rank import low_rank_descent_rate
from deepbures.rates.deep_descent import deep_descent_fraction, proved_descent_fraction
from deepbures.rates.predicted import descent_global_rate
from deepbures.rates.thresholds import critical_gap, proved_step

#: The share q of the largest step that the statement allows, η = q/(2 N M^{1−1/N}).
SHARES = [0.01, 0.5, 0.9, 1.0]


def step_of(q, loss, W, depth):
    M = np.maximum(np.linalg.norm(W, 2, axis=(-2, -1)) ** 2, loss.eigenvalues[0] - float(loss.epsilon))
    return q / (2 * depth * M ** (1 - 1 / depth))


def shares(loss, W, depth, q, steps=60):
    """Promised over measured fall of each step from a stack of starts, down to 1e-13 of tr Σ0."""
    eta = step_of(q, loss, W, depth)
    promised = [
        deep_descent_fraction(loss.eigenvalues, float(loss.epsilon), depth, sigma[-1], sigma[0], step * (1 - 1e-14))
        for sigma, step in zip(np.linalg.svd(W, compute_uv=False), eta, strict=True)
    ]
    run = gradient_descent(loss, DeepLinearNetwork.balanced(W, depth), eta, steps, np.arange(steps + 1))
    seen = run.excess[1:] > 1e-13 * loss.unit  # NaN after the end of a run
    used = np.broadcast_to(promised, seen.shape)[seen] / (1 - run.excess[1:][seen] / run.excess[:-1][seen])
    assert len(used) == 0 or np.isfinite(used).all()
    return used


def test_by_its_formula():
    # η (1 − q/2) 4 N m^{2−1/N}/(m + ε), q = 2 N η M^{1−1/N}; NaN for q > 1; 0 for ε ≥ λ_n.
    lam, sigma = np.array([2.0, 1.0]), (0.5, 1.2)
    for depth in (1, 2, 5):
        for epsilon in (0.0, 0.3):
            m, M = min(0.25, 1 - epsilon), max(1.44, 2 - epsilon)
            eta = 0.7 / (2 * depth * M ** (1 - 1 / depth))
            expected = eta * 0.65 * 4 * depth * m ** (2 - 1 / depth) / (m + epsilon)
            if depth == 1 and epsilon == 0:
                expected = eta * 0.65 * 4
            assert deep_descent_fraction(lam, epsilon, depth, *sigma, eta) == pytest.approx(expected, rel=1e-12)
            assert np.isnan(deep_descent_fraction(lam, epsilon, depth, *sigma, 1.5 * eta))
            assert np.isnan(deep_descent_fraction(lam, epsilon, depth, *sigma, 0.0))
        assert deep_descent_fraction(lam, 1.0, depth, *sigma, 0.01) == 0


@pytest.mark.parametrize("epsilon", [0, 0.3, 0.99])
def test_at_one_layer_it_is_the_theorem(epsilon):
    lam = np.array([2.0, 1.0])
    for eta in (0.01, 0.3, 0.5):
        expected = descent_global_rate(lam, epsilon, 1, 0.4, eta)
        assert deep_descent_fraction(lam, epsilon, 1, 0.4, 1.7, eta) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("depth", [1, 2, 3, 10, 100])
@pytest.mark.parametrize("q", SHARES)
@pytest.mark.parametrize("share", [0, 0.5, 0.99])
def test_one_dimension_in_every_step(share, q, depth):
    # Proved. λ = 1: starts far below, near and far above the optimum; from below at ε = 0 it is met at q → 0.
    loss = BuresWasserstein(np.eye(1), share)
    starts = np.array([0.05, 0.5, 0.9, 1.1, 2.0, 8.0])
    used = shares(loss, np.sqrt(1 - share) * starts[:, None, None], depth, q)
    if (depth, share, q) == (1, 0, 1.0):  # the first step arrives
        assert not len(used)
    else:
        assert max(used) <= 1 + 1e-6
        assert max(used) > 0.3


@pytest.mark.parametrize("depth", [2, 3, 10])
@pytest.mark.parametrize("share", [0, 0.4])
def test_aligned_starts_in_every_step(make_target, rng, share, depth):
    # Proved: W_0 = Ω diag(w) Vᵀ, some modes below their optimum and some above, condition 100.
    loss = BuresWasserstein(make_target([1.0, 0.3, 0.01]), 0.01 * share)
    used = []
    for q in SHARES:
        modes = np.sqrt(loss.minimum_spectrum(3)) * np.exp(rng.uniform(-1, 1, (5, 1, 3)))
        starts = (loss.eigenvectors * modes) @ np.linalg.qr(rng.standard_normal((5, 3, 3)))[0]
        used.extend(shares(loss, starts, depth, q))
    assert max(used) <= 1 + 1e-6


@pytest.mark.parametrize("depth", [2, 3, 10, 100])
@pytest.mark.parametrize("condition", [1, 30, 1e4])
def test_the_conjecture_from_adversarial_starts(rng, condition, depth):
    # Not proved: n = 2 to 4, starts with reversed directions, large ones, ones near the optimum and random ones, q ≤ 1.
    used = []
    for n in (2, 3, 4):
        eigenvalues = np.geomspace(1, 1 / condition, n)
        for kind in range(4):
            loss = BuresWasserstein(np.diag(eigenvalues), eigenvalues[-1] * [0, 0.3, 0.9, 0.999][kind])
            root = np.sqrt(loss.minimum_spectrum(n))
            starts = [
                root[::-1, None] * np.eye(n) + 0.01 * rng.standard_normal((n, n)) * root[-1],
                2 * np.linalg.qr(rng.standard_normal((n, n)))[0],
                np.diag(root) + 0.5 * root[-1] * rng.standard_normal((n, n)),
                rng.standard_normal((n, n)),
            ]
            used.extend(shares(loss, np.array(starts), depth, rng.choice(SHARES, 4), 12))
    assert max(used) <= 1 + 1e-6


def test_the_share_near_the_optimum_at_condition_one():
    # Of η times the global rate a step takes the share 1 − q/2: 0.75 at q = 0.5 and 0.55 at q = 0.9, at every depth.
    loss = BuresWasserstein(np.eye(1))
    for depth in (2, 3, 10):
        for q, expected in ((0.5, 0.75), (0.9, 0.55)):
            eta = q / (2 * depth)
            start = DeepLinearNetwork.balanced((1 + 1e-5) * np.eye(1), depth)
            run = gradient_descent(loss, start, eta, 1, [0, 1])
            taken = 1 - run.excess[1] / run.excess[0]
            assert taken / (eta * 4 * depth) == pytest.approx(expected, rel=1e-4)


# --- Small steps, any start -------------------------------------------------------------------------------------


@pytest.mark.parametrize("widths", [(3, 3), (3, 3, 3), (4, 5, 3), (3, 3, 3, 3), (3, 3, 3, 3, 3)], ids=str)
@pytest.mark.parametrize("epsilon", [0, 0.1])
def test_small_steps_contract_at_full_rank(make_target, rng, widths, epsilon):
    # Every start with c > √ε, without balance: each of 300 steps removes at least the proved fraction.
    loss = BuresWasserstein(make_target([2.0, 1.5, 1.0]), epsilon)
    depth, found = len(widths) - 1, 0
    while found < 3:
        W = loss.minimum_factor(3) + 0.1 * rng.standard_normal((3, 3))
        layers = DeepLinearNetwork.balanced(W @ np.eye(3, widths[0]), depth, 3).layers
        layers = without_balance(rng, widened(layers, max([*widths[1:-1], 3])), {1: 0, 2: 0.3}.get(depth, 1e-4))
        step = proved_step(loss, layers) * {1: 1.0, 2: 1.0}.get(depth, 1e-3)  # δ = δ(0) + 2 η L(0) must be small
        fraction = proved_descent_fraction(loss, layers, step, 3)
        if not fraction > 0:
            continue
        found += 1
        run = gradient_descent(loss, DeepLinearNetwork(layers), step, 300, np.arange(301))
        seen = run.excess[1:] > 1e-13 * loss.unit
        measured = 1 - run.excess[1:] / run.excess[:-1]
        assert (measured[seen] >= fraction * (1 - 1e-6) - 1e-11).all()


@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize("epsilon", [0, 0.1, 0.5])
@pytest.mark.parametrize("rank", [1, 2])
def test_small_steps_contract_below_full_rank(make_target, rng, rank, epsilon, depth):
    loss = BuresWasserstein(make_target([3.0, 1.5, 0.5]), epsilon)
    start = level_start(rng, loss, rank, 0.02 * critical_gap(loss, rank), rank)
    layers = DeepLinearNetwork.balanced(start.end_to_end, depth, rank).layers
    step = proved_step(loss, layers) * (1e-4 if depth > 1 else 1)
    fraction = proved_descent_fraction(loss, layers, step, rank)
    assert fraction > 0
    run = gradient_descent(loss, DeepLinearNetwork(layers), step, 100, np.arange(101))
    seen = run.excess[1:] > 1e-13 * loss.unit
    measured = 1 - run.excess[1:][seen] / run.excess[:-1][seen]
    assert (measured >= fraction * (1 - 1e-6) - 1e-11).all()
    if depth == 1:
        expected = low_rank_descent_rate(loss.eigenvalues, epsilon, 1, rank, float(run.excess[0]), step)
        assert fraction == pytest.approx(expected / (2 * (1 - step)), rel=1e-9)


def test_where_small_steps_promise_nothing(make_target):
    loss = BuresWasserstein(make_target([2.0, 1.0]), 0.1)
    layers = DeepLinearNetwork.balanced(loss.minimum_factor(2) * 1.05, 3).layers
    step = proved_step(loss, layers)
    assert np.isnan(proved_descent_fraction(loss, layers, 1.01 * step, 2))
    assert np.isnan(proved_descent_fraction(loss, layers, 0.0, 2))
    far = DeepLinearNetwork.balanced(0.1 * np.eye(2), 3).layers  # no margin
    assert proved_descent_fraction(loss, far, 1e-6, 2) == 0
