"""How low a start must be: the second lowest critical value, and steps that provably never raise the loss."""

import itertools

import numpy as np
import pytest

from deepbures.descent.gradient_descent import gradient_descent
from deepbures.flow.gradient_flow import gradient_flow
from deepbures.landscape import critical_points
from deepbures.losses.registry import BuresWasserstein, Frobenius
from deepbures.model.network import DeepLinearNetwork
from deepbures.model.trajectory import StopReason
from deepbures.rates.predicted import rates_at_minimum, stable_step
from deepbures.rates.thresholds import convergence_threshold, critical_gap, proved_step

SPECTRUM = np.array([3.0, 2.0, 1.0])


def make_loss(kind, covariance):
    return Frobenius(covariance) if kind == "frobenius" else BuresWasserstein(covariance, kind)


@pytest.mark.parametrize("kind", [0.1, 0.5, 1.0, 1.5, 2.5, "frobenius"])
@pytest.mark.parametrize(
    "eigenvalues", [(3.0, 2.0, 1.0), (3.0, 2.0, 2.0, 1.0), (2.0, 2.0, 2.0), (4.0, 1.0, 0.0)], ids=str
)
def test_the_gap_is_that_of_the_second_lowest_critical_value(make_target, kind, eigenvalues):
    # Against the values of all critical points of rank ≤ k.
    loss = make_loss(kind, make_target(eigenvalues))
    for rank in range(1, loss.dimension + 1):
        values = [point.value for point in critical_points.critical_points(loss, rank, lower_ranks=True)]
        above = [value - values[0] for value in values if value - values[0] > 1e-10]
        expected = min(above, default=np.inf)
        assert critical_gap(loss, rank) == pytest.approx(expected, rel=1e-9)
        if above:
            assert convergence_threshold(loss, rank) == pytest.approx(values[0] + expected, rel=1e-9)


def test_the_gap_by_its_formula():
    # g = (√λ_k − √ε)² − ((√λ_{k+1} − √ε)_+)²; at full rank it is the margin: L(0) < g is c > √ε.
    for epsilon in (0.1, 0.7, 1.0, 1.5):
        loss, e = BuresWasserstein(np.diag(SPECTRUM), epsilon), np.sqrt(epsilon)
        for rank in (1, 2, 3):
            kept = np.sqrt(SPECTRUM[rank - 1])
            following = np.sqrt(SPECTRUM[rank]) if rank < 3 else 0.0
            if kept > e:
                expected = (kept - e) ** 2 - max(following - e, 0) ** 2
                assert critical_gap(loss, rank) == pytest.approx(expected, rel=1e-12)
    assert critical_gap(BuresWasserstein(np.diag(SPECTRUM), 4.0), 2) == np.inf


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match="rank must lie between 1 and the dimension 3, not 4"):
        critical_gap(BuresWasserstein(np.diag(SPECTRUM), 0.1), 4)
    with pytest.raises(ValueError, match=r"loss must have one target, not a stack of shape \(2,\)"):
        critical_gap(Frobenius(np.stack([np.eye(2)] * 2)), 1)


# --- The margin does not suffice, the threshold does ------------------------------------------------------------


def test_a_margin_does_not_suffice():
    # λ = (3, 2, 1), ε = 0.1, k = 2, W = W_{1,3}: c = 0.316 > 0, no gradient, excess 0.738; and n = 1, W = 0.
    loss = BuresWasserstein(np.diag(SPECTRUM), 0.1)
    W = critical_points.factor(loss, (0, 2))
    assert np.sqrt(2) - np.sqrt(float(loss.value(W))) == pytest.approx(0.316, abs=5e-4)
    assert np.linalg.norm(loss.gradient(W)) < 1e-14
    assert float(loss.excess(W, 2)) == pytest.approx(0.738, abs=5e-4)
    one = BuresWasserstein(np.eye(1), 0.1)
    assert 1 - np.sqrt(float(one.value(np.zeros((1, 1))))) == pytest.approx(np.sqrt(0.1), rel=1e-12)
    assert one.gradient(np.zeros((1, 1))) == 0
    for found, rank, at in ((loss, 2, W), (one, 1, np.zeros((1, 1)))):
        assert found.value(at) == pytest.approx(convergence_threshold(found, rank), rel=1e-12)


def starts_below(rng, loss, rank, layers_of, number, low, high):
    """Random layers whose loss lies between two shares of the way from L* to the threshold."""
    gap, found = critical_gap(loss, rank), []
    while len(found) < number:
        layers = layers_of(rng)
        W = DeepLinearNetwork(layers).end_to_end()
        share = (float(loss.value(W)) - float(loss.minimum_value(rank))) / gap
        if low < share < high:
            found.append(layers)
    return found


def unbalanced_layers(loss, rank, widths):
    """A function that draws layers around a factorisation of the minimiser, without balance."""

    def draw(rng):
        W = loss.minimum_factor(rank) @ np.eye(rank, widths[0])
        W = W + rng.uniform(0.1, 1.2) * rng.standard_normal(W.shape) @ np.eye(widths[0])
        U, s, Vh = np.linalg.svd(W, full_matrices=False)
        U, s, Vh = U[:, :rank], s[:rank], Vh[:rank]
        mix = 0.3 * rng.standard_normal((rank, rank)) + np.eye(rank)
        first, last = mix @ (np.sqrt(s)[:, None] * Vh), (U * np.sqrt(s)) @ np.linalg.solve(mix, np.eye(rank))
        return [first, last]

    return draw


@pytest.mark.parametrize("kind", [0.1, 0.5, 1.2, "frobenius"])
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_descents_with_a_proved_step_end_at_the_minimum_from_below_the_threshold(make_target, rng, kind, rank):
    # Two layers without balance, k ≤ n, starts from half of the gap up to the saddle: L falls in every step, and
    # L − L* to 1e-3 of the gap.
    loss = make_loss(kind, make_target(SPECTRUM))
    draw = unbalanced_layers(loss, rank, (3, rank))
    for layers in starts_below(rng, loss, rank, draw, 2, 0.5, 1.0):
        if kind == "frobenius":
            step = 1e-3
        else:
            step = proved_step(loss, layers)
            assert 0 < step < stable_step(rates_at_minimum(loss, 2, rank))
            assert step > 1e-4
        tolerance = 1e-3 * critical_gap(loss, rank)
        run = gradient_descent(loss, DeepLinearNetwork(layers), step, 100_000, excess_tolerance=tolerance)
        assert (np.diff(run.excess) <= 1e-12).all()
        assert run.stop_reason == StopReason.CONVERGED


@pytest.mark.parametrize("depth", [1, 2, 5])
@pytest.mark.parametrize("rank", [1, 2])
def test_flows_turn_back_only_above_the_threshold(make_target, depth, rank):
    # From beside the lowest saddle, on its low side: the flow ends at the minimum, however near the start is.
    loss = BuresWasserstein(make_target(SPECTRUM), 0.1)
    saddle = tuple(sorted({*range(rank - 1), rank}))
    W = critical_points.factor(loss, saddle)
    for delta in (1e-2, 1e-4):
        start = W.copy()
        start[:, -1] = (
            np.sqrt(1 - delta**2) * W[:, -1] + delta * np.linalg.norm(W[:, -1]) * loss.eigenvectors[:, rank - 1]
        )
        assert float(loss.value(start)) < convergence_threshold(loss, rank)
        flow = gradient_flow(loss, start, depth, rank=rank, excess_tolerance=1e-10, max_time=500)
        assert flow.excess[-1] <= 1e-10
    # On the saddle, and on the stable side of it (in its own range), it does not.
    for start in (W, 1.1 * W):
        assert float(loss.value(start)) >= convergence_threshold(loss, rank) * (1 - 1e-12)
        assert gradient_flow(loss, start, depth, [0.0, 20.0], rank=rank).excess[-1] >= critical_gap(loss, rank) * 0.999


# --- Steps ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("depth", [1, 2, 3, 10])
def test_the_proved_step_next_to_a_balanced_minimum(make_target, depth):
    # 1/(2 N λ_1^{1−1/N}) at ε = 0: half of the largest stable step.
    loss = BuresWasserstein(make_target(SPECTRUM))
    layers = DeepLinearNetwork.balanced(loss.minimum_factor(3), depth).layers
    found = proved_step(loss, layers)
    assert found == pytest.approx(0.5 * stable_step(rates_at_minimum(loss, depth)), rel=1e-6)


@pytest.mark.parametrize("epsilon", [0, 0.3])
@pytest.mark.parametrize("widths", [(2, 2, 2), (4, 2, 5, 3), (3, 3, 3, 3, 3)], ids=str)
def test_the_loss_falls_in_every_proved_step(rng, widths, epsilon):
    # L_{i+1} ≤ L_i − (η/2) ‖∇L^N‖², from random layers far from balance.
    loss = BuresWasserstein(np.diag(np.linspace(2, 1, widths[-1])), epsilon)
    for _ in range(10):
        layers = [
            rng.uniform(0.2, 1.5) * rng.standard_normal((upper, lower)) / np.sqrt(lower)
            for lower, upper in itertools.pairwise(widths)
        ]
        step = proved_step(loss, layers)
        run = gradient_descent(loss, DeepLinearNetwork(layers), step, 300, np.arange(301))
        fall = run.loss[:-1] - run.loss[1:]
        assert (fall >= 0.5 * step * run.gradient_norm[:-1] ** 2 * (1 - 1e-9) - 1e-12).all()
