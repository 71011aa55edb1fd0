"""Repeated eigenvalues, ε = λ_n, and ranks beyond that of the target: ordinary input, decided in one place."""

import numpy as np
import pytest

from deepbures.flow.gradient_flow import gradient_flow
from deepbures.landscape.critical_points import (
    count,
    critical_points,
    factor,
    index_sets,
    local_spectrum,
    nearest,
    value,
)
from deepbures.linalg.psd import equalized, soft_threshold
from deepbures.losses.closed_form_rates import tied_exchanges
from deepbures.losses.registry import BuresWasserstein, CovarianceLoss, Frobenius
from deepbures.rates.predicted import local_condition, local_rates, rates_at_minimum, sharp_rate, stable_step
from deepbures.rates.program_constants import program_constants

TIED = np.array([3.0, 3.0, 1.0, 1.0, 0.5])


def make_loss(kind, covariance):
    return Frobenius(covariance) if kind == "frobenius" else BuresWasserstein(covariance, kind)


# --- The one place ----------------------------------------------------------------------------------------------


def test_what_agrees_to_rounding_compares_equal():
    values = [3 + 1e-9, 3.0, 1.0, 1 - 1e-7, 0.5 + 1e-15, 0.5, 0.0, 0.0]
    found = equalized(values)
    assert found.tolist() == [3 + 1e-9, 3 + 1e-9, 1.0, 1 - 1e-7, 0.5 + 1e-15, 0.5 + 1e-15, 0.0, 0.0]
    assert equalized(values, 0.5 - 1e-9)[4:6].tolist() == [0.5 - 1e-9] * 2
    for scale in (1e-12, 1e12):
        assert (np.diff(equalized(np.multiply(values, scale))) == 0).tolist() == (np.diff(found) == 0).tolist()
    assert equalized([1.0, 1e-5, 1e-10, 1e-15]).tolist() == [1.0, 1e-5, 1e-10, 1e-15]
    assert equalized([2.0, 1e-15, 0.0]).tolist() == [2.0, 1e-15, 0.0]  # a zero is nobody's equal


def test_soft_threshold_is_zero_at_the_edge():
    values = np.array([[2.0, 1.0, 0.5], [4.0, 0.5, 0.5]])
    found = soft_threshold(values, [[0.5 * (1 + 1e-12)], [0.5 * (1 - 1e-12)]])
    np.testing.assert_allclose(found, [[1.5, 0.5, 0], [3.5, 0, 0]], rtol=1e-11)
    assert (found[:, -1] == 0).all()
    assert soft_threshold([1.0, 1e-15, 0.0], 0.0).tolist() == [1.0, 1e-15, 0.0]
    assert soft_threshold([1.0, 0.5], 0.5 * (1 - 1e-7))[1] > 0
    assert soft_threshold([2, 1], 1).tolist() == [1.0, 0.0]


# --- Repeated eigenvalues ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize(
    ("eigenvalues", "rank", "depth", "expected"),
    [
        (TIED, 3, 2, 1.5506),
        (TIED, 3, 1, 1.6345),
        ([2.0, 2.0, 2.0], 2, 1, 3.8),
        ([2.0, 2.0, 2.0], 2, 2, 10.476),
        ([2.0] * 5, 2, 2, 10.476),
        ([2 + 1e-9, 2.0, 2 - 1e-9], 2, 2, 10.476),
        ([3 + 1e-9, 3.0, 1 + 1e-9, 1.0, 0.5], 3, 2, 1.5506),
    ],
)
def test_sharp_rate_with_ties(make_target, eigenvalues, rank, depth, expected, seed):
    # ε = 0.1, in a random basis: the exchange of equal directions is no decay. To the digits given.
    loss = BuresWasserstein(make_target(eigenvalues, seed=seed), 0.1)
    found = sharp_rate(loss.eigenvalues, 0.1, depth, rank)
    assert found == pytest.approx(expected, abs=6e-5 if expected < 2 else 6e-4)
    assert 2 * rates_at_minimum(loss, depth, rank).min() == found
    assert np.isfinite(local_condition(loss, depth, rank))


@pytest.mark.parametrize("kind", [0, 0.1, "frobenius"])
@pytest.mark.parametrize(("depth", "rank"), [(1, 3), (2, 3), (3, 1), (2, 2)])
def test_flow_decays_at_the_sharp_rate_in_spite_of_ties(make_target, rng, kind, depth, rank):
    loss = make_loss(kind, make_target(TIED, seed=2))
    W = factor(loss, tuple(range(rank)), rank) + 0.02 * rng.standard_normal((5, rank))
    sharp = 2 * rates_at_minimum(loss, depth, rank).min()
    flow = gradient_flow(loss, W, depth, np.array([14.0, 18.0]) / sharp, rank=rank, rtol=1e-9)
    assert np.log(flow.excess[0] / flow.excess[1]) / 4 == pytest.approx(1, abs=0.03)


@pytest.mark.parametrize("kind", [0, 0.1, "frobenius"])
@pytest.mark.parametrize("seed", range(3))
def test_tied_points_are_equal_in_everything(make_target, kind, seed):
    # Order by J among equals, one value, one count of escapes; tied minima are no saddles.
    loss = make_loss(kind, make_target(TIED, seed=seed))
    ideal = make_loss(kind, np.diag(TIED))
    for rank in range(1, 6):
        assert list(index_sets(loss, rank)) == list(index_sets(ideal, rank))
        for lower in (False, True):
            points = list(critical_points(loss, rank, lower_ranks=lower))
            assert [p.kept for p in points] == [p.kept for p in critical_points(ideal, rank, lower_ranks=lower)]
            assert len(points) == count(loss, rank, lower_ranks=lower)
        for point in critical_points(loss, rank):
            kept, outside = point.kept, set(range(5)) - set(point.kept)
            pairs = sum(TIED[b] > TIED[a] for a in kept for b in outside)
            for depth in (1, 3):
                spectrum = local_spectrum(loss, kept, depth, rank)
                assert spectrum.escapes == pairs
                assert spectrum.off_block.size == rank * (5 - rank)
            assert (pairs == 0) == (abs(point.value - loss.minimum_value(rank)) < 1e-12)


def test_the_mask_of_tied_exchanges():
    # J = {1, 3} of (3, 3, 1, 1, ½): off-block row by row over b = 2, 4, 5.
    assert tied_exchanges(TIED, 0.1, [0, 2]).tolist() == [True, False, False, False, True, False]
    in_block, off_block = local_rates(TIED, 0.1, 2, kept=[0, 2])
    assert (in_block.size, off_block.size) == (3, 6)
    assert (off_block == 0).tolist() == [True, False, False, False, True, False]
    assert not tied_exchanges([2.0, 1.0, 1.0], 1.0, [0, 1]).any()  # s = 0: an empty column, not a tie


@pytest.mark.parametrize("kind", [0, 0.1, "frobenius"])
def test_nearest_matches_the_manifold_of_tied_points(make_target, rng, kind):
    # Any frame of a tied group is one of eigenvectors: distance 0, and the first indices stand for it.
    loss = make_loss(kind, make_target(TIED, seed=1))
    s = loss.minimum_spectrum(5)

    def frame(angle, first):
        return loss.eigenvectors[:, first : first + 2] @ np.array([np.cos(angle), np.sin(angle)])

    for angle in rng.uniform(0, 2 * np.pi, 5):
        W = np.column_stack([np.sqrt(s[0]) * frame(angle, 0), np.sqrt(s[2]) * frame(3 * angle, 2)])
        assert np.abs(loss.gradient(W)).max() < 1e-13
        kept, distance = nearest(loss, W, 2)
        assert kept == (0, 2)
        assert distance < 1e-13
        assert value(loss, kept) == pytest.approx(float(loss.value(W)), rel=1e-12)
        moved = W + 1e-3 * rng.standard_normal((5, 2))
        kept, distance = nearest(loss, moved, 2)
        assert kept == (0, 2)
        # The nearest point of the manifold is not farther than the one that it was moved from.
        assert distance <= np.linalg.norm(moved @ moved.T - W @ W.T)
    both = factor(loss, (0, 1, 3))
    assert nearest(loss, both, 3) == ((0, 1, 2), pytest.approx(0, abs=1e-13))


# --- ε = λ_n ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("depth", [1, 2])
def test_rounding_does_not_decide_on_the_last_direction(make_target, depth):
    # Ten seeds, ε = λ_n as eigvalsh, as eigh, and as given: 9 of 10 directions everywhere.
    eigenvalues = np.sort(np.random.default_rng(1).uniform(0.5, 5, 10))[::-1]
    for seed in range(10):
        covariance = make_target(eigenvalues, seed=seed)
        for epsilon in (
            float(np.linalg.eigvalsh(covariance)[0]),
            float(BuresWasserstein(covariance).eigenvalues[-1]),
            float(eigenvalues[-1]),
        ):
            loss = BuresWasserstein(covariance, epsilon)
            assert np.sum(loss.minimum_spectrum(10) > 0) == 9
            assert next(critical_points(loss, 10)).kept == tuple(range(9))
            assert count(loss, 9) == 1
            assert sharp_rate(loss.eigenvalues, epsilon, depth) == 0
            assert rates_at_minimum(loss, depth).min() == 0
            assert local_condition(loss, depth) == np.inf
            in_block, _ = local_rates(loss.eigenvalues, epsilon, depth)
            assert in_block[-1] == 0
            spectrum = local_spectrum(loss, tuple(range(9)), depth, 10)
            assert spectrum.empty.tolist() == [0.0]
            assert spectrum.escapes == 0
            assert loss.minimum_value(10) == pytest.approx(0, abs=1e-16)
            with pytest.raises(ValueError, match="λ_j above epsilon: index 9"):
                factor(loss, (9,))


# --- Rank beyond the target's, and condition 1e15 ---------------------------------------------------------------


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("depth", [1, 2, 5])
@pytest.mark.parametrize("rank", [3, 4, 5])
@pytest.mark.parametrize("kind", [0, 0.1, "frobenius"])
def test_ranks_beyond_the_target(make_target, kind, rank, depth):
    # Σ0 of rank 3 in five dimensions: the minimum has rank 3, and what an empty column costs is its square.
    loss = make_loss(kind, make_target([3.0, 2.0, 1.0, 0.0, 0.0], seed=3))
    assert next(critical_points(loss, rank)).kept == (0, 1, 2)
    expected = 2 * kind if kind == 0.1 else 0.0  # the empty directions hold ε in place of 0
    assert loss.minimum_value(rank) == pytest.approx(expected, abs=1e-14)
    rates = rates_at_minimum(loss, depth, rank)
    assert (rates >= 0).all()
    assert rates.size == 6 + 6 + (rank - 3) * 2
    assert np.isfinite(stable_step(rates))
    spectrum = local_spectrum(loss, (0, 1, 2), depth, rank)
    assert spectrum.escapes == 0
    beyond = rank > 3
    if depth == 1:
        filling = 0.0 if kind == "frobenius" else 2.0
        assert spectrum.empty.tolist() == [filling] * (2 * (rank - 3))
        assert (rates.min() == 0) == (beyond and kind == "frobenius")
    else:
        assert (rates.min() == 0) == beyond
    if kind != "frobenius":
        assert sharp_rate(loss.eigenvalues, loss.epsilon, depth, rank) == 2 * rates.min()
    W = factor(loss, (0, 1, 2), rank)
    assert nearest(loss, W, rank) == ((0, 1, 2), pytest.approx(0, abs=1e-13))


@pytest.mark.parametrize("depth", [1, 3])
def test_flow_of_a_rank_beyond_the_target(make_target, rng, depth):
    # ε = 0, N = 1: L falls at rate 4; N ≥ 2: the empty directions decay like t^{−N/(N−1)}.
    loss = BuresWasserstein(make_target([3.0, 2.0, 0.0], seed=3))
    W = np.eye(3) + 0.1 * rng.standard_normal((3, 3))
    if depth == 1:
        flow = gradient_flow(loss, W, 1, [1.0, 3.0])
        assert np.log(flow.excess[0] / flow.excess[1]) / 2 == pytest.approx(4, rel=1e-6)
    else:
        flow = gradient_flow(loss, W, depth, [100.0, 200.0])
        assert np.log(flow.excess[0] / flow.excess[1]) / np.log(2) == pytest.approx(1.5, rel=0.02)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("kind", [0, 1e-16, 1e-11, "frobenius"])
def test_condition_1e15_breaks_nothing(make_target, kind):
    eigenvalues = np.array([1.0, 1e-5, 1e-10, 2e-15])
    loss = make_loss(kind, np.diag(eigenvalues))
    available = 3 if kind == 1e-11 else 4
    assert count(loss, available) == 1
    assert [p.kept for p in critical_points(loss, 1)][:3] == [(0,), (1,), (2,)]
    for depth in (1, 2, 10):
        assert np.isfinite(rates_at_minimum(loss, depth)).all()
        assert (rates_at_minimum(loss, depth) >= 0).all()
        for point in critical_points(loss, 2):
            spectrum = local_spectrum(loss, point.kept, depth, 2)
            assert np.isfinite(spectrum.rates).all()
            pairs = sum(b < a for a in point.kept for b in set(range(4)) - set(point.kept))
            assert spectrum.escapes == pairs


@pytest.mark.parametrize("scale", [1e-12, 1e12])
def test_the_unit_of_the_target_changes_no_verdict(make_target, scale):
    one = BuresWasserstein(make_target(TIED, seed=4), 0.5)
    other = BuresWasserstein(scale * make_target(TIED, seed=4), 0.5 * scale)
    assert [p.kept for p in critical_points(one, 3)] == [p.kept for p in critical_points(other, 3)]
    for depth in (1, 3):
        unit = scale ** (1 - 1 / depth)
        expected = rates_at_minimum(one, depth, 3) * unit
        np.testing.assert_allclose(rates_at_minimum(other, depth, 3), expected, rtol=1e-9)


# --- What the losses say of themselves --------------------------------------------------------------------------


def test_members_of_the_losses():
    covariance = np.diag([2.0, 1.0])
    assert (Frobenius(covariance).epsilon, Frobenius.label) == (0.0, "Frobenius")
    assert (BuresWasserstein(covariance, 0.3).epsilon, BuresWasserstein.label) == (0.3, "Bures-Wasserstein")
    stack = BuresWasserstein(np.stack([covariance] * 2), [0.1, 0.2])
    np.testing.assert_array_equal(stack.epsilon, [0.1, 0.2])
    assert stack.take(1).epsilon == 0.2


def test_a_loss_without_closed_forms(monkeypatch):
    # It inherits None, and the functions say so: NaN, or one clear line.
    for name in ("local_rates", "filling_rates", "global_rate"):
        monkeypatch.setattr(Frobenius, name, getattr(CovarianceLoss, name))
    loss = Frobenius(np.diag([2.0, 1.0]))
    assert np.isnan(rates_at_minimum(loss, 2, 1)).tolist() == [True] * 2
    assert np.isnan(local_condition(loss, 2))
    with pytest.raises(ValueError, match="local spectrum of the loss 'frobenius' is not known in closed form"):
        local_spectrum(loss, (0,), 2, 1)


# --- Condition of descent ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("depth", [1, 2, 3, 10])
def test_condition_exponents(make_target, depth):
    # ε = 0, k = n: (λ_1/λ_n)^{1−1/N} against (λ_1/λ_n)^{2−1/N}.
    eigenvalues = np.array([5.0, 2.0, 0.7, 0.02])
    covariance = make_target(eigenvalues, seed=6)
    ratio = 5.0 / 0.02
    assert local_condition(BuresWasserstein(covariance), depth) == pytest.approx(ratio ** (1 - 1 / depth), rel=1e-11)
    assert local_condition(Frobenius(covariance), depth) == pytest.approx(ratio ** (2 - 1 / depth), rel=1e-11)


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_where_the_comparison_turns(depth):
    # λ = (3, 2, 1.5, 1): from ε = (q − 1)/(q/λ_n − 1/λ_1), q = (λ_1/λ_n)^{N/(2N−1)}, the square loss is the better one.
    eigenvalues = np.array([3.0, 2.0, 1.5, 1.0])
    q = 3 ** (depth / (2 * depth - 1))
    turn = (q - 1) / (q - 1 / 3)
    square = local_condition(Frobenius(np.diag(eigenvalues)), depth)
    for epsilon in (0, 0.9 * turn, 0.999 * turn):
        assert local_condition(BuresWasserstein(np.diag(eigenvalues), epsilon), depth) < square
    for epsilon in (1.001 * turn, 0.9):
        assert local_condition(BuresWasserstein(np.diag(eigenvalues), epsilon), depth) > square
    if depth == 1:
        assert turn == pytest.approx(0.75, rel=1e-14)
        assert local_condition(BuresWasserstein(np.diag(eigenvalues), 0.9), 1) == pytest.approx(7, rel=1e-12)
        assert square == pytest.approx(3, rel=1e-12)


def test_constants_of_a_singular_target_have_no_smoothing_left():
    assert program_constants(np.array([2.0, 0.0]), 0.0, 2, 0.1, rank=1).bound_rate == 0
