"""The flow by exponential collocation: against the explicit method, closed quadrature, theory; stacks; bad cases."""

import subprocess
import sys

import mpmath as mp
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deepbures.flow.gradient_flow import gradient_flow, gradient_flows
from deepbures.flow.reduced_flow import RootFlow, pivoted
from deepbures.linalg.powers import geometric_sum
from deepbures.losses.registry import BuresWasserstein, Frobenius
from deepbures.model.starts import close_start, small_start
from deepbures.model.targets import draw_target
from deepbures.model.trajectory import StopReason
from deepbures.neighbours.barycenter import Barycenter
from deepbures.rates.measured import tail_slope
from deepbures.rates.predicted import sharp_rate
from deepbures.study.grid.seeds import generator

#: The study's settings of `convergence`.
STUDY = {"rtol": 1e-6, "excess_tolerance": 1e-14, "max_time": 1000.0, "max_steps": 500, "samples": 100}
SPECTRUM = np.array([3.0, 2.2, 1.3, 0.5])


def make_loss(kind, covariance):
    return Frobenius(covariance) if kind == "frobenius" else BuresWasserstein(covariance, kind)


def grid_point(epsilon, smin, seed=0, n=20):
    covariance = draw_target(generator(2303, "target", seed), n, smin)
    loss = BuresWasserstein(covariance, min(epsilon, float(BuresWasserstein(covariance).eigenvalues[-1])))
    return loss, close_start(generator(2303, "start", seed), loss, n).end_to_end


# --- The equation -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rank", [1, 2, 4])
@pytest.mark.parametrize("depth", [1, 2, 3, 8])
@pytest.mark.parametrize("kind", [0, 0.2, "frobenius"])
def test_jacobian_is_entrywise_and_exact_at_diagonal_states(kind, depth, rank):
    # Central differences of the field along every entry, at diag(x): J on that entry (and its mirror), 0 elsewhere.
    loss = make_loss(kind, np.diag(SPECTRUM))
    order = None if rank == 4 else np.array([[2, 0, 1, 3]])
    flow = RootFlow(loss, depth, order)
    P = np.zeros((1, 4, rank))
    P[0, range(rank), range(rank)] = [0.9, 1.2, 0.7, 1.1][:rank]
    J = flow.jacobian(P, np.arange(1))[0]
    for a, b in np.ndindex(4, rank):
        direction = np.zeros((4, rank))
        direction[a, b] = 1e-5
        if a < rank:
            direction[b, a] = 1e-5
        slope = (flow.field(P + direction)[0] - flow.field(P - direction)[0])[0] / 2e-5
        np.testing.assert_allclose(slope, J * direction / 1e-5, atol=2e-8 * np.abs(J).max())


@pytest.mark.parametrize("epsilon", [0, 0.2])
def test_curvature_at_the_minimum_gives_the_local_rates(epsilon):
    # 2 (s_a + s_b)/(λ_a + λ_b) (paper.md section 4), at s = λ − ε; and finite where eigenvalues vanish.
    loss = BuresWasserstein(np.diag(SPECTRUM), epsilon)
    s = SPECTRUM - epsilon
    expected = 2 * np.add.outer(s, s) / np.add.outer(SPECTRUM, SPECTRUM)
    np.testing.assert_allclose(loss.curvature(s), expected, rtol=1e-13)
    singular = BuresWasserstein(np.diag([2.0, 1.0, 0.0, 0.0]), epsilon)
    Q = singular.curvature(np.array([2.0, 1.0, 0.3, 0.0]))
    assert np.isfinite(Q).all()
    np.testing.assert_array_equal(Q[2:, 2:], 4)


def test_pivots_bound_the_coefficients_of_the_other_rows():
    rng = np.random.default_rng(0)
    for k in (1, 3, 6):
        Z = rng.standard_normal((9, k)) * np.geomspace(1, 1e-6, 9)[:, None]
        Z[:2] *= 1e-9
        order = pivoted(Z)
        assert sorted(order) == list(range(9))
        share = np.linalg.lstsq(Z[order[:k]].T, Z[order[k:]].T, rcond=None)[0]
        assert np.abs(share).max() <= 2 + 1e-6


# --- Accuracy ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("epsilon", "smin", "depth"), [(0, -1, 40), (0, 3, 1), (0.1, 1, 10), (0.1, 1, 100), (0.5, 2, 50), (1, 4.5, 90)]
)
def test_excess_on_the_authors_grid(epsilon, smin, depth):
    # At the study's tolerance the recorded excess is right to 1e-4 down to 1e-12, where the explicit method at 1e-11 is
    # sampled at its own steps; and no flow takes more than 170 gradients.
    loss, W = grid_point(epsilon, smin)
    exact = gradient_flow(
        loss, W, depth, **{**STUDY, "rtol": 1e-11, "samples": 40, "max_steps": 20_000}, method="explicit"
    )
    kept = exact.excess > 1e-12
    flow = gradient_flow(loss, W, depth, exact.times[kept], rtol=1e-6)
    np.testing.assert_allclose(flow.excess, exact.excess[kept], rtol=1e-4)
    study = gradient_flow(loss, W, depth, **STUDY)
    assert (study.stop_reason, study.explicit_steps) == (StopReason.CONVERGED, 0)
    assert study.evaluations < 170
    assert (np.diff(study.excess) < 0).all()


@pytest.mark.parametrize(("epsilon", "smin", "depth"), [(0.1, -1, 1), (0.1, -1, 100), (1, 0.5, 50), (0.5, 0.5, 10)])
def test_singular_and_nearly_singular_optima_take_no_step_budget(epsilon, smin, depth):
    # ε = λ_n: L − L* = (1/(4λ_n)) ((4N−2) t/λ_n)^{−2N/(2N−1)} in the end (paper.md section 11), to 4 %.
    loss, W = grid_point(epsilon, smin)
    flow = gradient_flow(loss, W, depth, **STUDY)
    least, N = float(loss.eigenvalues[-1]), depth
    assert flow.evaluations < 520
    assert (np.diff(flow.excess) < 0).all()
    if loss.epsilon < least:
        assert flow.stop_reason == StopReason.CONVERGED
    else:
        assert flow.stop_reason == StopReason.END_TIME
        predicted = ((4 * N - 2) * 1000 / least) ** (-2 * N / (2 * N - 1)) / (4 * least)
        assert flow.excess[-1] == pytest.approx(predicted, rel=0.04)


@pytest.mark.parametrize("depth", [2, 10, 100])
@pytest.mark.parametrize("smin", [-1, 1])
def test_tails_have_the_sharp_rate(smin, depth):
    # k = n, N > 1. The slope from 1e-12 to 1e-14 is that of the explicit method at rtol 1e-10, to 1e-3. Where λ_n is
    # alone (smin −1) that is the sharp rate; where others are close (smin 1) the flow itself is 0.7 % off it there.
    loss, W = grid_point(0, smin)
    sharp = sharp_rate(loss.eigenvalues, 0, depth)

    def rate(**options):
        flow = gradient_flow(loss, W, depth, **{**STUDY, "samples": 400, "max_steps": 20_000, **options})
        return -tail_slope(flow.times, flow.excess, 2).slope * np.log(10)

    assert rate() == pytest.approx(rate(rtol=1e-10, method="explicit"), rel=1e-3)
    assert rate() == pytest.approx(sharp, rel=1e-3 if smin == -1 else 0.01)


def quadrature_error(depth, eigenvalue, epsilon, start, found, time):
    """Error of s(t) by ds/dt = 4 N s^{2−1/N} (√(λ/(s+ε)) − 1), one mode of a commuting start, in 50 digits."""
    with mp.workdps(50):
        N, lam, eps = mp.mpf(depth), mp.mpf(float(eigenvalue)), mp.mpf(float(epsilon))

        def speed(s):
            return 4 * N * s ** (2 - 1 / N) * (mp.sqrt(lam / (s + eps)) - 1)

        reached = mp.quad(lambda s: 1 / speed(s), mp.linspace(mp.mpf(float(start)), mp.mpf(float(found)), 6))
        return float((reached - mp.mpf(float(time))) * speed(mp.mpf(float(found))))


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize(("epsilon", "depth"), [(0.0, 1), (0.0, 3), (0.2, 2), (0.5, 1), (0.5, 10), (0.2, 100)])
def test_commuting_starts_in_closed_quadrature(epsilon, depth, rank):
    # λ = (2, 1.1, ½), ε = 0, > 0 and λ_n, ranks 1 to n: every mode to 1e-8 relative at rtol 1e-10.
    eigenvalues, start = np.array([2.0, 1.1, 0.5]), np.array([0.8, 1.9, 0.9])
    W = np.diag(np.sqrt(start))[:, :rank]
    times = np.array([0.05, 0.4]) / depth
    flow = gradient_flow(BuresWasserstein(np.diag(eigenvalues), epsilon), W, depth, times, rtol=1e-10)
    assert (flow.explicit_steps == 0) == (rank == 3)
    S = flow.factors @ flow.factors.mT
    for a in range(rank):
        for t, covariance in zip(flow.times, S, strict=True):
            s = covariance[a, a]
            assert abs(quadrature_error(depth, eigenvalues[a], epsilon, start[a], s, t)) < 1e-8 * s


@pytest.mark.parametrize("depth", [1, 3, pytest.param(10, marks=pytest.mark.slow)])
@pytest.mark.parametrize("epsilon", [0, 0.1])
@pytest.mark.parametrize("rank", [2, 5])
def test_collocation_near_the_minimum_of_a_lower_rank(rank, epsilon, depth):
    # From near the minimum: what the explicit method finds, with fewer gradients.
    rng = np.random.default_rng(10 * depth + rank)
    loss = BuresWasserstein(draw_target(rng, 10, 0.5), epsilon)
    best = loss.eigenvectors[:, :rank] * np.sqrt(loss.minimum_spectrum(rank)[:rank])
    W = best + 0.01 * rng.standard_normal((10, rank))
    options = {"rtol": 1e-6, "excess_tolerance": 1e-10, "max_time": 1e4}
    flow = gradient_flow(loss, W, depth, **options)
    explicit = gradient_flow(loss, W, depth, **options, method="explicit")
    assert flow.explicit_steps == 0 < explicit.explicit_steps
    assert flow.stop_reason == StopReason.CONVERGED
    assert flow.evaluations < 0.6 * explicit.evaluations
    exact = gradient_flow(loss, W, depth, flow.times[:60], rtol=1e-10, method="explicit")
    np.testing.assert_allclose(flow.excess[:60], exact.excess, rtol=1e-3)


def test_methods_hand_over_from_a_small_start():
    # Past the saddles explicitly, to the minimum by collocation; the samples do not tell where.
    rng = np.random.default_rng(3)
    loss = BuresWasserstein(draw_target(rng, 10, 0.5), 0.1)
    W = small_start(rng, 10, 5, 0.1).end_to_end
    flow = gradient_flow(loss, W, 2, max_time=1e3, excess_tolerance=1e-10, rtol=1e-7, samples=300)
    assert 0 < flow.explicit_steps < flow.n_steps
    assert (np.diff(flow.excess) < 0).all()
    exact = gradient_flow(loss, W, 2, flow.times[:250], rtol=1e-10, method="explicit")
    np.testing.assert_allclose(flow.excess[:250], exact.excess, rtol=1e-3)


# --- Theory -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("depth", [1, 2, 10])
@pytest.mark.parametrize("epsilon", [0, 0.1, 0.4])
def test_global_rate_is_never_violated(epsilon, depth, make_target):
    # L(t) ≤ L(0) exp(−4 N m^{2−1/N} t/(m + ε)), σ_n(W(t))² ≥ m, m = min(σ_n(W(0))², λ_n − ε) (paper.md section 11).
    loss = BuresWasserstein(make_target(SPECTRUM), epsilon)
    for seed in range(4):
        W = np.random.default_rng(seed).standard_normal((4, 4))
        flow = gradient_flow(loss, W, depth, max_time=50.0, excess_tolerance=1e-12)
        m = min(np.linalg.svd(W, compute_uv=False)[-1] ** 2, SPECTRUM[-1] - epsilon)
        bound = flow.excess[0] * np.exp(-4 * depth * m ** (2 - 1 / depth) * flow.times / (m + epsilon))
        assert (flow.excess <= bound * (1 + 1e-6)).all()
        least = np.linalg.svd(flow.factors, compute_uv=False)[:, -1] ** 2
        assert (least >= m * (1 - 1e-5)).all()


@pytest.mark.parametrize("scale", [1e-12, 1e12])
@pytest.mark.parametrize("rank", [3, 6])
@pytest.mark.parametrize("kind", ["bures", "frobenius"])
def test_units_change_nothing(kind, rank, scale):
    # Σ0, S and ε times c, with L times c or c²: the same steps and gradients. N = 2, t times c^{−1/2} or c^{−3/2}.
    rng = np.random.default_rng(5)
    covariance = draw_target(rng, 6, 0.5)
    W = rng.standard_normal((6, rank))
    power, time = (2, -1.5) if kind == "frobenius" else (1, -0.5)

    def run(c):
        loss = Frobenius(c * covariance) if kind == "frobenius" else BuresWasserstein(c * covariance, c * 0.2)
        end = {"max_time": 50 * c**time, "excess_tolerance": 1e-9 * c**power}
        return gradient_flow(loss, np.sqrt(c) * W, 2, **end, rtol=1e-6)

    one, other = run(1.0), run(scale)
    assert (other.n_steps, other.explicit_steps, other.evaluations) == (
        one.n_steps,
        one.explicit_steps,
        one.evaluations,
    )
    assert other.stop_reason == one.stop_reason
    np.testing.assert_allclose(other.excess / scale**power, one.excess, rtol=1e-4)


@st.composite
def problems(draw):
    n = draw(st.integers(1, 30))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    eigenvalues = np.exp(rng.uniform(-draw(st.sampled_from([0.0, 3.0, 27.6])), 0, n))
    basis = np.linalg.qr(rng.standard_normal((n, n)))[0]
    covariance = (basis * eigenvalues) @ basis.T
    kind = draw(st.sampled_from(["frobenius", 0.0, 0.3, 1.0]))
    if isinstance(kind, float):
        kind *= float(eigenvalues.min())
    W = rng.standard_normal((n, n)) * np.sqrt(eigenvalues.max() / n)
    return make_loss(kind, (covariance + covariance.T) / 2), W


@settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(problems(), st.sampled_from([1, 2, 3, 10, 100, 1000]))
def test_flow_falls_whatever_the_problem(problem, depth):
    # n ≤ 30, N ≤ 1000, condition up to 1e12, ε from 0 to λ_n: over 40 steps finite, of full rank, and down.
    loss, W = problem
    flow = gradient_flow(loss, W, depth, max_time=1e3 / float(loss.eigenvalues[0]), max_steps=40, samples=30)
    assert np.isfinite(flow.factors).all()
    rounding = 1e-12 * float(loss.value(np.zeros_like(W)))
    assert (np.diff(flow.excess) <= rounding).all()
    assert (flow.excess >= -rounding).all()


# --- Stacks -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("rank", "depth"), [(6, 2), (3, 5)])
@pytest.mark.parametrize("kind", [0.0, 0.1, "frobenius"])
@pytest.mark.parametrize("method", ["auto", "explicit"])
def test_members_of_a_stack_get_the_bits_they_get_alone(method, kind, rank, depth):
    # Five targets, starts and horizons, at an even and an odd depth: every sample, step and gradient.
    covariances = np.array([draw_target(np.random.default_rng(seed), 6, 0.5) for seed in range(5)])
    W = np.array([np.random.default_rng(seed).standard_normal((6, rank)) for seed in range(5)])
    losses = [make_loss(kind, covariance) for covariance in covariances]
    stack = make_loss(kind, covariances) if kind == "frobenius" else BuresWasserstein(covariances, [kind] * 5)
    options = {"excess_tolerance": 1e-10, "max_steps": 300, "method": method}
    ends = [30.0, 0.1, 30.0, 3.0, 0.01]
    together = gradient_flows(stack, W, depth, max_time=ends, **options)
    assert len({flow.n_steps for flow in together}) > 1
    for loss, start, end, flow in zip(losses, W, ends, together, strict=True):
        alone = gradient_flow(loss, start, depth, max_time=end, **options)
        for name in ("times", "loss", "excess", "factors"):
            np.testing.assert_array_equal(getattr(flow, name), getattr(alone, name))
        for name in ("stop_reason", "n_steps", "explicit_steps", "evaluations"):
            assert getattr(flow, name) == getattr(alone, name)


def test_stacked_products_and_decompositions_are_those_of_their_members():
    # What the bits of a stack rest on: numpy calls BLAS and LAPACK once a matrix.
    A = np.random.default_rng(0).standard_normal((40, 20, 20))
    M = A @ A.mT
    for function in (
        np.linalg.eigh,
        np.linalg.svd,
        np.linalg.cholesky,
        lambda A: A @ A,
        lambda A: geometric_sum(A**2, 1, 7),
    ):
        for i in (0, 17, 39):
            for stacked, alone in zip(
                *(map(np.atleast_3d, function(X)) for X in (M[i : i + 1], M[i : i + 1].copy())), strict=True
            ):
                np.testing.assert_array_equal(stacked, alone)
    np.testing.assert_array_equal(np.linalg.eigh(M)[1][17], np.linalg.eigh(M[17])[1])
    np.testing.assert_array_equal((M @ A)[17], M[17] @ A[17])
    np.testing.assert_array_equal(np.linalg.cholesky(M)[17], np.linalg.cholesky(M[17]))


def test_one_target_for_many_starts():
    loss = BuresWasserstein(np.diag(SPECTRUM), 0.1)
    W = np.random.default_rng(0).standard_normal((3, 4, 4))
    for start, flow in zip(W, gradient_flows(loss, W, 3, [0.1, 1.0]), strict=True):
        np.testing.assert_array_equal(flow.factors, gradient_flow(loss, start, 3, [0.1, 1.0]).factors)


def test_ranks_may_differ_in_a_stack():
    loss = BuresWasserstein(np.diag(SPECTRUM), 0.1)
    W = np.random.default_rng(0).standard_normal((3, 4, 4))
    W[1, :, 2:] = 0
    flows = gradient_flows(loss, W, 3, max_time=1.0)
    assert [flow.factors.shape[-1] for flow in flows] == [4, 2, 4]


# --- Input ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("W", "options", "message"),
    [
        (np.eye(4), {}, "initials must be .* at least 3 axes"),
        (np.ones((2, 3, 4)), {}, r"initials must be a stack of matrices with 4 rows, not of shape \(2, 3, 4\)"),
        (np.ones((3, 4, 4)), {}, r"loss must have one target, or one for each of 3 starts, not shape \(2,\)"),
        (np.ones((2, 4, 4)), {"method": "euler"}, "method must be one of auto, explicit, not 'euler'"),
    ],
)
def test_bad_stacks_are_refused(W, options, message):
    loss = Frobenius(np.array([np.diag(SPECTRUM)] * 2))
    with pytest.raises(ValueError, match=message):
        gradient_flows(loss, W, 2, max_time=1.0, **options)


class Plugged(Frobenius):
    """A loss of one's own: no Jacobian is known for it."""

    has_linear_part = False


def test_a_loss_without_jacobian_is_integrated_explicitly():
    flow = gradient_flow(Plugged(np.diag(SPECTRUM)), np.eye(4), 2, max_time=0.5)
    assert flow.explicit_steps == flow.n_steps > 0


def test_a_loss_without_a_linear_part_says_so():
    loss = Barycenter(np.array([np.eye(3), np.diag([3.0, 2.0, 1.0])]))
    assert not loss.has_linear_part
    for ask in (loss.multiplier, loss.curvature):
        with pytest.raises(ValueError, match="'barycenter' has no linear part in closed form"):
            ask(np.ones(3))


def test_a_flow_of_full_rank_loads_no_scipy_integrator():
    # It takes longer to import than such a flow to run.
    work = (
        "import sys, numpy as np; from deepbures import Frobenius, gradient_flow; "
        "flow = gradient_flow(Frobenius(np.diag([2.0, 1.0])), np.eye(2), 3, max_time=1.0); "
        "assert flow.explicit_steps == 0 < flow.n_steps; print('scipy.integrate' in sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", work], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"


@pytest.mark.parametrize(("epsilon", "smin", "depth"), [(0, 5, 70), (0, 5, 85), (0.5, 4.5, 55), (0.5, 4.5, 90)])
def test_a_flow_ends_at_its_tolerance_and_not_in_rounding(epsilon, smin, depth):
    # Settings of the study whose last step but one ends just below the tolerance: the next one leads to 1e-27, where
    # L − L* is rounding and may rise from sample to sample.
    covariance = draw_target(generator(2303, "target", 0, dimension=20, spectrum="zipf"), 20, smin)
    loss = BuresWasserstein(covariance, epsilon)
    start = close_start(generator(2303, "initialization", 0, dimension=20, kind="close"), loss, 20)
    flow = gradient_flow(loss, start.end_to_end, depth, **STUDY)
    assert flow.stop_reason == StopReason.CONVERGED
    assert 0.5e-14 < flow.excess[-1] <= 1e-14
    assert (np.diff(flow.excess) < 0).all()
