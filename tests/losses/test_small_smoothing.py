"""The excess below full rank where ε is small against an eigenvalue that stays empty, in 50 digits."""

import exact
import mpmath as mp
import numpy as np
import pytest

from deepbures.losses.registry import BuresWasserstein
from deepbures.losses.small_smoothing import smoothed_excess

EPS = np.finfo(float).eps


def relative_error(found, W, covariance, epsilon, rank):
    """Of an excess, in units of the limit that the rounding of W sets, eps √(λ_1/(L − L*))."""
    with mp.workdps(50):
        expected = exact.bures_wasserstein(W, covariance, epsilon) - exact.bures_wasserstein_minimum(
            covariance, epsilon, rank
        )
        error = float(abs(mp.mpf(float(found)) - expected) / expected)
    return error / (EPS * np.sqrt(np.linalg.norm(covariance, 2) / float(expected)))


@pytest.mark.parametrize("epsilon", [1e-12, 1e-8, 1e-5])
@pytest.mark.parametrize(
    ("eigenvalues", "rank"),
    [
        ((4.0, 2.0, 1.0), 1),
        ((5.0, 4.0, 2.0, 1.0, 0.5), 2),
        ((3.0, 3.0, 1.0, 1.0), 2),
        ((4.0, 2.0, 1.0, 1e-3, 1e-9), 2),
        ((4.0, 2.0, 0.0), 1),
        (tuple(range(14, 0, -1)), 5),
    ],
    ids=str,
)
def test_the_excess_keeps_its_digits(rng, eigenvalues, rank, epsilon):
    # From far away to an excess of 1e-15; the form with T* loses a factor √(λ_{k+1}/ε), here up to 1e6.
    covariance = np.diag(eigenvalues)
    loss = BuresWasserstein(covariance, epsilon)
    direction = rng.standard_normal((len(eigenvalues), rank))
    for distance in (3.0, 0.1, 1e-3, 1e-5, 1e-7):
        W = loss.minimum_factor(rank) + distance * direction
        assert relative_error(loss.excess(W, rank), W, covariance, epsilon, rank) < 24


@pytest.mark.parametrize("epsilon", [0.1, 0.9, 1.5])
def test_the_form_holds_for_every_smoothing_below_the_kept_eigenvalues(rng, epsilon):
    # Also where some empty eigenvalues lie below ε, one equals it, or all do; and for a factor of lower rank.
    for eigenvalues, rank in (
        ((4.0, 2.0, 1.0), 1),
        ((4.0, 2.0, 1.0), 2),
        ((4.0, 1.5, 0.9, 0.1), 1),
        ((2.0, 1.8, 0.0), 1),
    ):
        covariance = np.diag(eigenvalues)
        loss = BuresWasserstein(covariance, epsilon)
        for columns in range(1, rank + 1):
            for distance in (1.0, 1e-2, 1e-5):
                W = loss.minimum_factor(rank)[:, :columns] + distance * rng.standard_normal((len(eigenvalues), columns))
                found = smoothed_excess(np.array(eigenvalues), epsilon, W, rank)
                assert relative_error(found, W, covariance, epsilon, rank) < 24


def test_a_stack_is_the_same_as_its_members(make_target, rng):
    # Rotated targets, each with its ε; gradient and excess at once; a factor of more columns than its rank.
    loss = BuresWasserstein(np.stack([make_target([4.0, 2.0, 1.0], seed=seed) for seed in (1, 2)]), [1e-12, 1e-6])
    W = rng.standard_normal((5, 2, 3, 1))
    stacked = loss.excess(W, 1)
    for i, j in np.ndindex(5, 2):
        one = loss.take(j)
        assert one.excess(W[i, j], 1) == pytest.approx(stacked[i, j], rel=1e-11)
        expected = float(one.value(W[i, j]) - one.minimum_value(1))
        assert stacked[i, j] == pytest.approx(expected, rel=1e-9)
        wide = W[i, j] @ np.array([[0.6, 0.8]])
        assert one.excess(wide, 1) == pytest.approx(stacked[i, j], rel=1e-11)
