"""Starts with a given excess loss, and layers of one end-to-end matrix."""

import numpy as np
import pytest

from deepbures.descent.gradient_descent import gradient_descent
from deepbures.losses.registry import BuresWasserstein, Frobenius
from deepbures.model.layer_starts import widened, without_balance
from deepbures.model.level_starts import level_start, saddle_start
from deepbures.model.network import DeepLinearNetwork, balancedness

EIGENVALUES = [3.0, 2.0, 1.0, 0.4]


def make_loss(kind, covariance):
    return Frobenius(covariance) if kind == "frobenius" else BuresWasserstein(covariance, kind)


@pytest.mark.parametrize("make", [level_start, saddle_start])
@pytest.mark.parametrize("kind", [0, 0.2, "frobenius"])
@pytest.mark.parametrize("rank", [1, 3, 4])
def test_a_start_has_its_excess_and_its_rank(make_target, rng, make, kind, rank):
    loss = make_loss(kind, make_target(EIGENVALUES))
    costs = loss.empty_costs()
    gap = costs[rank - 1] - (costs[rank] if rank < 4 else 0)
    for share in (1e-6, 0.01, 0.5, 0.999):
        start = make(rng, loss, rank, share * gap)
        assert start.end_to_end.shape == (4, 4)
        assert np.linalg.matrix_rank(start.end_to_end) == rank
        assert float(loss.excess(start.end_to_end, rank)) == pytest.approx(share * gap, rel=1e-9)
    narrow = make(rng, loss, rank, 0.1 * gap, input_dimension=rank)
    assert narrow.end_to_end.shape == (4, rank)
    assert float(loss.excess(narrow.end_to_end, rank)) == pytest.approx(0.1 * gap, rel=1e-9)


@pytest.mark.parametrize("kind", [0, 0.2, "frobenius"])
def test_the_saddle_itself_is_a_start(make_target, rng, kind):
    # At the excess of the saddle, and above it: its gradient vanishes.
    loss = make_loss(kind, make_target(EIGENVALUES))
    costs = loss.empty_costs()
    for rank in (1, 2, 3):
        gap = costs[rank - 1] - costs[rank]
        for share in (1.0, 1.5):
            W = saddle_start(rng, loss, rank, share * gap).end_to_end
            assert float(loss.excess(W, rank)) == pytest.approx(gap, rel=1e-10)
            assert np.linalg.norm(loss.gradient(W)) < 1e-12


def test_above_the_saddle_a_start_in_any_direction_still_exists(make_target, rng):
    loss = BuresWasserstein(make_target(EIGENVALUES), 0.2)
    for excess in (5.0, 500.0):
        W = level_start(rng, loss, 2, excess).end_to_end
        assert float(loss.excess(W, 2)) == pytest.approx(excess, rel=1e-9)


@pytest.mark.parametrize("make", [level_start, saddle_start])
def test_no_start_without_excess(rng, make):
    with pytest.raises(ValueError, match="the excess loss of a start must be positive, not 0"):
        make(rng, BuresWasserstein(np.eye(2)), 1, 0.0)


# --- Layers -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("depth", [1, 2, 5])
def test_layers_without_balance_have_the_same_product(rng, depth):
    W = rng.standard_normal((3, 3))
    layers = DeepLinearNetwork.balanced(W, depth).layers
    previous = -1.0
    for size in (0.0, 0.1, 1.0):
        changed = without_balance(rng, layers, size)
        np.testing.assert_allclose(DeepLinearNetwork(changed).end_to_end(), W, rtol=1e-10, atol=1e-12)
        found = float(balancedness(changed))
        assert found < 1e-12 if size == 0 or depth == 1 else found > previous + 1e-3
        previous = found


@pytest.mark.parametrize("depth", [2, 4])
@pytest.mark.parametrize("kind", [0, 0.1, "frobenius"])
def test_descent_from_balanced_layers_does_not_depend_on_the_width(make_target, rng, kind, depth):
    # S after each of 100 steps, to 1e-10, at k = n and k < n.
    loss = make_loss(kind, make_target(EIGENVALUES))
    for rank in (2, 4):
        W = loss.minimum_factor(rank) + 0.3 * rng.standard_normal((4, rank))
        layers = DeepLinearNetwork.balanced(W, depth, rank).layers
        ends = []
        for width in (rank, rank + 1, 9):
            wide = widened(layers, width)
            assert [layer.shape[0] for layer in wide[:-1]] == [width] * (depth - 1)
            run = gradient_descent(loss, DeepLinearNetwork(wide), 5e-3, 100, [0, 10, 100])
            ends.append(run.factors @ run.factors.mT)
        for end in ends[1:]:
            np.testing.assert_allclose(end, ends[0], atol=1e-10 * EIGENVALUES[0])


def test_layers_are_not_narrowed():
    with pytest.raises(ValueError, match="width must be at least the hidden width 3, not 2"):
        widened([np.eye(3), np.eye(3)], 2)
