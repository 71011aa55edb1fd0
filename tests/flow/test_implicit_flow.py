"""Stiff flows: the Jacobian, LSODA against layers and quadrature, hand-over, and cases on which one method fails."""

import numpy as np
import pytest
from test_gradient_flow import covariances, flow_of_layers, make_loss, relative_error

from deepbures.flow import advance
from deepbures.flow.gradient_flow import gradient_flow
from deepbures.flow.options import FlowOptions
from deepbures.flow.reduced_flow import FactorFlow
from deepbures.flow.run import Run
from deepbures.losses import BuresWasserstein
from deepbures.model.trajectory import StopReason
from deepbures.rates.plateau_times import mode_times

SPECTRUM = np.array([3.0, 2.2, 1.3, 0.5])


@pytest.mark.parametrize("rank", [1, 2, 4])
@pytest.mark.parametrize("depth", [1, 2, 3, 8])
@pytest.mark.parametrize("kind", [0, 0.2, "frobenius"])
def test_jacobian_is_the_derivative_of_the_field(rng, kind, depth, rank):
    # Against central differences along every entry, to 1e-6 of the largest.
    loss = make_loss(kind, np.diag(SPECTRUM))
    flow, Z, h = FactorFlow(loss, depth), rng.standard_normal((4, rank)) / 2, 1e-5
    found = flow.jacobian(Z)
    for j, direction in enumerate(np.eye(Z.size).reshape(Z.size, *Z.shape)):
        slope = (flow.field(Z + h * direction) - flow.field(Z - h * direction)) / (2 * h)
        np.testing.assert_allclose(found[:, j], slope.ravel(), atol=1e-6 * np.abs(found).max())


def test_jacobian_where_the_loss_has_no_hessian(rng):
    # ε = 0 and σ_2(F) < eps σ_1(F): differences of the field, which agree with the closed form for one column alone.
    loss, Z = BuresWasserstein(np.diag(SPECTRUM)), rng.standard_normal((4, 2))
    Z = np.linalg.qr(Z)[0] * [1.0, 1e-3]
    with pytest.raises(ValueError, match=r"^W must have rank 2"):
        loss.form(2).hessian_operator(FactorFlow(loss, 10).factor(Z))
    found = FactorFlow(loss, 10).jacobian(Z).reshape(4, 2, 4, 2)
    one = FactorFlow(loss, 10).jacobian(Z[:, :1])
    np.testing.assert_allclose(found[:, 0, :, 0], one, atol=1e-5 * np.abs(one).max())


def implicitly(loss, W, depth, times, rtol):
    """The flow by LSODA alone."""
    run = Run(loss, W, times[-1], FlowOptions(depth, times, rtol=rtol))
    run.begin()
    advance._advance_implicitly(loss, [run], run.options)
    assert run.reason == StopReason.END_TIME
    return run.trajectory()


@pytest.mark.parametrize(("depth", "rank"), [(1, 2), (2, 1), (3, 2), (5, 4)])
@pytest.mark.parametrize("kind", [0, 0.2, "frobenius"])
def test_lsoda_is_the_flow_of_all_layers(make_target, rng, kind, depth, rank):
    # S of all layers, integrated by another method to 1e-11: within 10 rtol, between the steps too.
    loss, times = make_loss(kind, make_target(SPECTRUM)), np.linspace(0, 1, 5)
    W = rng.standard_normal((4, rank)) / 2
    flow = implicitly(loss, W, depth, times, 1e-8)
    assert relative_error(covariances(flow), flow_of_layers(loss, W, depth, rank, times)) < 1e-7


def check_modes(loss, flow, depth, start, rtol):
    """Times at which the modes s of an aligned flow are where they are, by quadrature, equal its times to `rtol`.

    Modes that are within 1e-6 of their limits have no time of their own.
    """
    modes = np.sum(flow.factors**2, axis=-1)
    limits = loss.eigenvalues - loss.epsilon
    for j in range(flow.factors.shape[-1]):
        for time, s in zip(flow.times, modes[:, j], strict=True):
            if time > 0 and abs(s / limits[j] - 1) > 1e-6:
                expected = mode_times(loss.eigenvalues[j], float(loss.epsilon), depth, start, s)
                assert time == pytest.approx(float(expected), rel=rtol)


@pytest.mark.parametrize("depth", [1, 2, 10])
def test_lsoda_against_closed_quadrature(depth):
    # Aligned start, k < n: every mode to 1e-5 of its time at rtol 1e-7, over rates that differ by a factor of 1,000.
    loss = BuresWasserstein.from_spectrum([1.0, 0.1, 0.01, 0.005], epsilon=0.0095)
    times = np.geomspace(0.03, 30, 6)
    check_modes(loss, implicitly(loss, 0.3 * np.eye(4, 3), depth, times, 1e-7), depth, 0.09, 1e-5)


@pytest.mark.parametrize("rtol", [1e-6, 1e-8])
@pytest.mark.parametrize("depth", [1, 2])
@pytest.mark.parametrize(("start", "ratio"), [(4e-2, 0.99), (4e-8, 0.99), (4e-2, 0.99999)])
def test_small_modes_of_a_graded_flow(start, ratio, depth, rtol):
    # λ_n = 1e-6 and s*_n down to 1e-11, k = n: collocation integrates the small modes to about 10 rtol, too.
    loss = BuresWasserstein.from_spectrum([1.0, 1e-2, 1e-6], epsilon=ratio * 1e-6)
    limit = (1 - ratio) * 1e-6
    rate = 4 * depth * limit ** (2 - 1 / depth) / 1e-6
    times = np.concatenate([[0.1, 1.0, 10.0, 100.0], np.array([0.1, 0.5, 1.0]) / rate])
    flow = gradient_flow(loss, np.sqrt(start) * np.eye(3), depth, np.unique(times), rtol=rtol)
    assert flow.stop_reason == StopReason.END_TIME
    check_modes(loss, flow, depth, start, 20 * rtol)


def test_modes_without_digits_in_the_entries_of_the_state():
    # s*_n = 1e-14 beside 1: collocation, which follows X = S, is not used; Z has the digits of 1e-7.
    loss = BuresWasserstein.from_spectrum([1.0, 1e-4, 1e-8], epsilon=(1 - 1e-6) * 1e-8)
    times = np.array([1.0, 100.0, 1e5])
    flow = gradient_flow(loss, 0.5 * np.eye(3), 1, times, rtol=1e-6)
    assert flow.explicit_steps + flow.implicit_steps == flow.n_steps
    assert flow.implicit_steps > 0
    check_modes(loss, flow, 1, 0.25, 1e-4)


@pytest.mark.parametrize("least", [1e-5, 1e-9, 1e-14])
def test_a_mode_far_below_the_others_is_not_lost(make_target, least):
    # N = 1, ε = 0 in closed form: √s − √λ decays as exp(−2t), from 1e-14 beside 1; no step is lost in rounding.
    loss = BuresWasserstein(make_target([1.0, 0.5, 0.2]))
    start, root = np.array([1.0, 0.3, least]), np.sqrt(loss.eigenvalues)
    times = np.array([0.01, 0.1, 1.0])
    flow = gradient_flow(loss, loss.eigenvectors * start, 1, times, rtol=1e-8)
    expected = root + (start - root) * np.exp(-2 * times[:, None])
    found = np.linalg.svd(flow.factors, compute_uv=False)
    np.testing.assert_allclose(found, np.sort(expected)[:, ::-1], rtol=1e-7)


def named(spectrum, n, k, ratio, start, depth):
    """Loss and start of a case: ε = ratio · λ_k."""
    rng, i = np.random.default_rng(0), np.arange(n)
    eigenvalues = {
        "zipf": 1 / (i + 1),
        "exponential": np.exp(-i / 2),
        "fast exponential": np.exp(-1.0 * i),
        "power 2": 1 / (i + 1) ** 2,
        "clustered": np.array([1.0, 0.3, 0.05])[3 * i // n] * (1 - 1e-3 * i / n),
    }[spectrum]
    loss = BuresWasserstein.from_spectrum(eigenvalues, epsilon=ratio * eigenvalues[k - 1])
    G = rng.standard_normal((n, k)) / np.sqrt(n)
    if start == "close":
        return loss, np.eye(n, k) * np.sqrt(eigenvalues[:k] - loss.epsilon) + 0.1 * G
    return loss, {"gaussian": 1, "large": 10, "small": 1e-2}[start] * (np.linalg.qr(G)[0] if start == "small" else G)


def check_convergence(case, most_gradients):
    """The flow ends at the tolerance, decreases, and needs few gradients; the trajectory."""
    loss, W = named(*case)
    options = {"rtol": 1e-6, "excess_tolerance": 1e-10 * loss.unit, "max_time": 1e12}
    flow = gradient_flow(loss, W, case[-1], **options)
    assert flow.stop_reason == StopReason.CONVERGED
    assert flow.excess[-1] <= options["excess_tolerance"]
    assert (np.diff(flow.excess) < 0).all()
    assert 0 < flow.implicit_steps <= flow.n_steps - flow.explicit_steps
    assert flow.evaluations < most_gradients
    return flow


@pytest.mark.parametrize(
    ("case", "most_gradients"),
    [
        (("zipf", 5, 4, 0.5, "gaussian", 100), 6000),
        (("clustered", 5, 4, 0.5, "close", 1000), 3000),
        (("power 2", 10, 5, 1.0, "close", 10), 5000),  # ε = λ_k: an algebraic tail
    ],
)
def test_stiff_plateaus_end(case, most_gradients):
    # The explicit method alone takes more than 20,000 gradients for each of these, and does not end.
    check_convergence(case, most_gradients)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("case", "most_gradients"),
    [
        (("exponential", 20, 19, 0.99, "large", 2), 5000),
        (("fast exponential", 20, 19, 0.9, "large", 10), 6000),
        (("exponential", 10, 9, 0.5, "small", 100), 12_000),
    ],
)
def test_more_stiff_plateaus_end(case, most_gradients):
    check_convergence(case, most_gradients)


def test_a_loss_without_a_known_linear_part_is_integrated_implicitly_too():
    class Plain(BuresWasserstein):
        has_linear_part = False

    loss, W = named("clustered", 5, 4, 0.5, "close", 1000)
    plain = Plain.from_spectrum(loss.eigenvalues, epsilon=loss.epsilon)
    flow = gradient_flow(plain, W, 1000, rtol=1e-6, excess_tolerance=1e-8 * loss.unit, max_time=1e12)
    assert flow.stop_reason == StopReason.CONVERGED
    assert flow.explicit_steps + flow.implicit_steps == flow.n_steps
