"""Scaled descent and Nyström starts: one step, tail factors, quadratic convergence, condition numbers."""

import numpy as np
import pytest

from deepbures.descent.gradient_descent import gradient_descent
from deepbures.descent.scaled_descent import natural_step, nystrom_start, scaled_descent
from deepbures.linalg import thin
from deepbures.linalg.psd import symmetrize
from deepbures.losses.registry import BuresWasserstein, Frobenius
from deepbures.model.network import DeepLinearNetwork
from deepbures.model.starts import random_frame, random_orthogonal
from deepbures.model.trajectory import StopReason
from deepbures.rates.predicted import descent_contraction, rates_at_minimum, stable_step
from deepbures.study.grid.seeds import generator

EPS = np.finfo(float).eps
KAPPAS = [1, 1e2, 1e4, 1e6]


def spectrum(kappa, rank, n=20):
    """λ from 1 to 1/κ in geometric steps, then zeros."""
    return np.concatenate([np.geomspace(1, 1 / kappa, rank), np.zeros(n - rank)])


def network(W, depth, width):
    """Balanced layers of a matrix of rank ≤ width; one layer is n × k."""
    if depth == 1:
        U, s, _ = np.linalg.svd(W, full_matrices=False)
        return DeepLinearNetwork([U[:, :width] * s[:width]])
    return DeepLinearNetwork.balanced(W, depth, width)


def nystrom_network(rng, loss, rank, depth, **options):
    return network(nystrom_start(rng, loss, rank, loss.dimension, **options).end_to_end, depth, rank)


def unit(loss):
    """What an excess is relative to: tr Σ0, or for the square loss ‖Σ0‖²."""
    return np.sum(loss.eigenvalues ** (2 if isinstance(loss, Frobenius) else 1))


def tail_factor(excess, high, low):
    """Geometric mean of the ratios of successive values between `low` and `high`."""
    window = excess[(excess < high) & (excess > low)]
    assert len(window) >= 5
    return np.exp(np.mean(np.diff(np.log(window))))


# --- Step ½ on one layer ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kappa", KAPPAS)
@pytest.mark.parametrize(("rank", "width"), [(5, 5), (5, 8), (5, 20), (20, 20)])
def test_one_step_from_a_gaussian_start_for_enough_columns(make_target, rng, kappa, rank, width):
    # k ≥ rank Σ0: exact after one step, at any condition number; the limit asked is 1e-13 tr Σ0.
    loss = BuresWasserstein(make_target(spectrum(kappa, rank)))
    run = scaled_descent(loss, [rng.standard_normal((20, width))], n_steps=1)
    assert run.excess[1] <= 1e-13 * unit(loss)
    assert run.excess[0] > 1e-3 * unit(loss)


def test_a_step_is_the_nystrom_approximation(make_target, rng):
    # S⁺ = Σ0 G (Gᵀ Σ0 G)^{-1} Gᵀ Σ0, for fewer columns than the rank.
    covariance = make_target(spectrum(10, 12))
    G = rng.standard_normal((20, 7))
    run = scaled_descent(BuresWasserstein(covariance), [G], n_steps=1)
    sketch = covariance @ G
    expected = sketch @ np.linalg.solve(G.T @ sketch, sketch.T)
    np.testing.assert_allclose(run.final, expected, atol=1e-12)


@pytest.mark.parametrize("kappa", [1e2, 1e4, 1e6])
def test_subspace_iteration_below_the_rank(make_target, rng, kappa):
    # k < rank: the excess shrinks by (λ_{k+1}/λ_k)² a step.
    loss = BuresWasserstein(make_target(spectrum(kappa, 20)))
    run = scaled_descent(loss, [rng.standard_normal((20, 5))], n_steps=80)
    expected = (loss.eigenvalues[5] / loss.eigenvalues[4]) ** 2
    assert tail_factor(run.excess, 1e-6, 1e-13) == pytest.approx(expected, rel=0.01)
    assert descent_contraction(rates_at_minimum(loss, 1, 5), 0.5) == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.8])
@pytest.mark.parametrize("kappa", [10, 1e3])
def test_tail_factor_with_smoothing(make_target, rng, share, kappa):
    # k = n: (ε/λ_n)² a step; k < n: what the local rates of paper.md section 4 give at η = ½. Within 1 %.
    eigenvalues = np.geomspace(1, 1 / kappa, 8)
    for rank in (8, 3):
        loss = BuresWasserstein(make_target(eigenvalues), share * eigenvalues[rank - 1])
        run = scaled_descent(loss, [rng.standard_normal((8, rank))], None, "none", n_steps=300)
        expected = share**2 if rank == 8 else descent_contraction(rates_at_minimum(loss, 1, 3), 0.5)
        low = 1e-26 if rank == 8 else 1e-14
        assert tail_factor(run.excess / unit(loss), 1e-2 * low**0.5, low) == pytest.approx(expected, rel=0.01)


@pytest.mark.parametrize("rank", [2, 5, 7])
def test_descent_lemma(make_target, rng, rank):
    # L(W − η∇) ≤ L − η (1 − η) ‖∇‖² for 0 < η < 1, any ε, rank and scale of W; slack 1e-12 of the terms.
    for epsilon in (0, 0.01, 0.3, 2):
        loss = BuresWasserstein(make_target([4, 2, 1, 0.1, 0]), epsilon)
        W = rng.standard_normal((200, 5, rank)) * np.exp(rng.uniform(-5, 2, (200, 1, 1)))
        eta = rng.uniform(0, 1, (200, 1, 1))
        gradient, before = loss.gradient(W), loss.value(W)
        after = loss.value(W - eta * gradient)
        promised = (eta * (1 - eta))[:, 0, 0] * np.sum(gradient**2, axis=(1, 2))
        assert np.all(after <= before - promised + 1e-12 * (before + promised))
        # It is tight: at η = 1 nothing is promised, and the loss may stay where it is.
        assert np.any(after > before - 2 * promised)


# --- Scaling on the right ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("loss_of", [lambda c: BuresWasserstein(c, 0.9 * 1e-2), Frobenius], ids=["bw", "square"])
def test_scaled_rates_are_equal_at_the_minimum(make_target, loss_of):
    # The scaled gradient has the derivative 2 (8) along every symmetric change of S, 0 along rotations.
    loss = loss_of(make_target([1, 0.3, 0.1, 1e-2], diagonal=True))
    s = loss.minimum_spectrum(4)
    W = np.diag(np.sqrt(s))

    def scaled(V):
        return loss.from_eigenbasis(loss.scaled_gradients(*map(loss.to_eigenbasis, (V, loss.gradient(V))))[0])

    jacobian = []
    for j in range(16):
        step = np.zeros(16)
        step[j] = 1e-6 * np.sqrt(s[-1])
        difference = scaled(W + step.reshape(4, 4)) - scaled(W - step.reshape(4, 4))
        jacobian.append(difference.ravel() / (2 * step[j]))
    rates = np.sort(np.linalg.eigvals(np.array(jacobian)).real)
    np.testing.assert_allclose(rates, [0] * 6 + [1 / natural_step(loss)] * 10, atol=1e-5)


def test_quadratic_with_the_smoothing_close_to_the_least_eigenvalue(make_target, rng):
    # ε = 0.9 λ_n: plain steps contract by 0.81, scaled ones square the error.
    eigenvalues = np.geomspace(1, 0.01, 8)
    loss = BuresWasserstein(make_target(eigenvalues), 0.9 * eigenvalues[-1])
    start = [rng.standard_normal((8, 8))]
    plain = scaled_descent(loss, start, None, "none", n_steps=300, excess_tolerance=1e-12)
    scaled = scaled_descent(loss, start, None, "right", n_steps=300, excess_tolerance=1e-12)
    assert plain.stop_reason == scaled.stop_reason == StopReason.CONVERGED
    assert plain.last_step > 60
    assert scaled.last_step < 15


def test_the_scaling_of_the_square_loss_is_wrong_for_bures_wasserstein(make_target):
    # With ScaledGD's (Wᵀ W)^{-1} the rates are 2/λ_a: the condition number comes back; without it one step does.
    for kappa in (10, 100):
        loss = BuresWasserstein(make_target(np.geomspace(1, 1 / kappa, 6)))
        W = loss.eigenvectors * np.sqrt(loss.eigenvalues) * 1.1
        start = loss.excess(W)
        h = np.linalg.inv(W.T @ W)
        step = 0.5 / kappa  # beyond 1/κ it does not converge
        for _ in range(3 * kappa):
            W = W - step * loss.gradient(W) @ np.linalg.inv(W.T @ W)
        assert np.linalg.norm(h, 2) == pytest.approx(kappa / 1.21)
        assert loss.excess(W) > 1e-3 * start / kappa
        assert scaled_descent(loss, [1.1 * W], n_steps=1).excess[1] <= 1e-13


# --- Layer by layer ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["bw", "square"])
@pytest.mark.parametrize("kappa", KAPPAS)
@pytest.mark.parametrize("depth", [1, 2, 3, 5, 10])
def test_quadratic_from_the_nystrom_start(make_target, kind, kappa, depth):
    # Exact rank, k = 5 of n = 20 and k = n: at most 30 steps to the last digits, and e_{t+1} ≤ 0.1 e_t below 1e-2,
    # then the square of it. Steps are halved only at the beginning, where the start is far too small in some
    # direction. e is relative to tr Σ0 for BW, and to λ_r² for the square loss: relative to ‖Σ0‖² the start itself
    # is below 1e-2 already, its small eigenvalues still wrong by a multiple.
    for rank in (5, 20):
        covariance = make_target(spectrum(kappa, rank))
        loss = BuresWasserstein(covariance) if kind == "bw" else Frobenius(covariance)
        local = unit(loss) if kind == "bw" else loss.eigenvalues[rank - 1] ** 2
        start = nystrom_network(np.random.default_rng(5), loss, rank, depth)
        run = scaled_descent(loss, start, n_steps=30, excess_tolerance=1e-16 * local)
        assert run.stop_reason == StopReason.CONVERGED
        whole = np.isclose(np.diff(run.times), natural_step(loss) / depth)
        assert whole[np.argmax(whole) :].all()
        e = run.excess / local
        late = np.flatnonzero(e[:-1] < 1e-2)
        assert np.all(e[late + 1] <= 0.1 * e[late])
        rounding = (30 * EPS * kappa) ** 2  # of S, eps λ_1, relative to λ_r: all of 20 × 20 entries
        assert e[-1] <= max(1e-4 * e[-2], rounding)


@pytest.mark.parametrize("depth", [2, 5, 10])
def test_a_sketch_that_nearly_misses_a_direction_takes_steps(depth):
    # Seed 0 of study seed 1 at κ = 1e6: no step was taken.
    basis = random_orthogonal(generator(1, "target", 0, dimension=20, spectrum="geometric"), 20)
    loss = Frobenius(symmetrize((basis * spectrum(1e6, 5)) @ basis.T))
    start = nystrom_network(generator(1, "initialization", 0, dimension=20, kind="nystrom", rank=5), loss, 5, depth)
    run = scaled_descent(loss, start, n_steps=30, excess_tolerance=1e-12 * unit(loss))
    assert run.stop_reason == StopReason.CONVERGED


@pytest.mark.parametrize("depth", [1, 2, 3, 5, 10])
def test_a_start_that_is_far_too_small_in_one_direction_takes_steps(depth):
    # σ_min(W(0)) = 3e-10 along a direction that is not an eigenvector's: the first step needs up to 60 halvings.
    eigenvalues = np.array([1, 10**-1.5, 1e-3, 10**-4.5, 1e-6])
    loss = Frobenius(np.diag(np.pad(eigenvalues, (0, 15))))
    U = np.eye(20, 5)
    W = U * [1, 5e-2, 1.5e-3, 2.1e-5, 3e-10] @ np.linalg.qr(np.random.default_rng(0).standard_normal((20, 5)))[0].T
    W = np.linalg.qr(np.pad(np.random.default_rng(1).standard_normal((5, 5)), ((0, 15), (0, 0))))[0] @ U.T @ W
    run = scaled_descent(loss, network(W, depth, 5), n_steps=30, excess_tolerance=1e-12 * unit(loss))
    assert run.stop_reason == StopReason.CONVERGED


@pytest.mark.parametrize("depth", [2, 5, 10])
def test_without_the_repair_a_bottleneck_costs_a_factor(make_target, depth):
    # From a Gaussian start, what lies off the range of W_N decays by (1 − 1/N)² a step; with the repair at once.
    loss = BuresWasserstein(make_target(spectrum(100, 5)))
    W = np.random.default_rng(1).standard_normal((20, 20))
    start = network(W, depth, 5)
    plain = scaled_descent(loss, start, n_steps=400, repair=False, excess_tolerance=1e-13)
    assert tail_factor(plain.excess, 1e-4, 1e-12) == pytest.approx((1 - 1 / depth) ** 2, rel=0.02)
    repaired = scaled_descent(loss, start, n_steps=400, excess_tolerance=1e-13)
    assert repaired.stop_reason == StopReason.CONVERGED
    assert repaired.last_step <= 13


@pytest.mark.parametrize("depth", [2, 3, 10])
def test_layers_move_the_product_as_one_layer(make_target, rng, depth):
    # To first order in η the product moves by −N η ∇L(W) C; the rest is O(η²).
    loss = BuresWasserstein(make_target([3, 2, 1, 0.5]), 0.2)
    W = 0.1 * rng.standard_normal((4, 4)) + np.diag([2, 1.5, 1, 0.8])
    start = DeepLinearNetwork.balanced(W, depth)
    F, gradient = loss.to_eigenbasis(W), loss.to_eigenbasis(loss.gradient(W))
    direction = loss.from_eigenbasis(loss.scaled_gradients(F, gradient)[0])
    remainders = []
    for eta in (1e-3, 1e-4):
        moved = DeepLinearNetwork(scaled_descent(loss, start, eta, n_steps=1).layers).end_to_end()
        remainders.append(np.linalg.norm(moved - W + depth * eta * direction))
    assert remainders[0] < 1e-2 * 1e-3 * depth * np.linalg.norm(direction) * depth
    assert np.log10(remainders[0] / remainders[1]) == pytest.approx(2, abs=0.05)


@pytest.mark.parametrize("kind", ["bw", "square"])
def test_depth_worsens_the_condition_number_and_scaling_takes_it_away(kind):
    # Tail factors of plain descent at η = ½ · 2/λ_max: 1 − √factor = η r_min, so that κ^{1−1/N} (BW) and
    # κ^{2−1/N} (square) show as powers. Started on the slowest mode: the tail begins at once.
    kappas = np.array([1e1, 1e2, 1e3])
    for depth in (1, 2, 3, 10):
        if kind == "bw" and depth == 1:
            continue  # its rates are all equal: step ½ ends at once
        conditions = []
        for kappa in kappas:
            covariance = np.diag([1.0, 1 / kappa])
            loss = BuresWasserstein(covariance) if kind == "bw" else Frobenius(covariance)
            W = np.sqrt(covariance) * np.array([1, 1 + 1e-3])
            eta = stable_step(rates_at_minimum(loss, depth)) / 2
            run = gradient_descent(loss, DeepLinearNetwork.balanced(W, depth), eta, 2)
            factor = run.excess[2] / run.excess[1]
            conditions.append(1 / (1 - np.sqrt(factor)))
        exponent = np.polyfit(np.log(kappas), np.log(conditions), 1)[0]
        assert exponent == pytest.approx((1 if kind == "bw" else 2) - 1 / depth, abs=0.01)


@pytest.mark.parametrize("depth", [1, 3])
@pytest.mark.parametrize("kind", [0, 0.5, "square"])
def test_unit_and_basis_do_not_matter(make_target, kind, depth):
    # Σ0 × 1e±12 and a turned basis: the same steps, the same relative excess.
    eigenvalues = np.geomspace(1, 1e-3, 6)
    runs = []
    for scale, seed in ((1, 0), (1e12, 0), (1e-12, 0), (1, 3)):
        covariance = make_target(scale * eigenvalues, seed=seed)
        loss = Frobenius(covariance) if kind == "square" else BuresWasserstein(covariance, kind * scale * 1e-3)
        basis = loss.eigenvectors
        W = basis @ np.diag(np.sqrt(scale * eigenvalues[::-1])) @ np.linalg.qr(np.vander(range(1, 7)))[0]
        run = scaled_descent(loss, DeepLinearNetwork.balanced(W, depth), n_steps=4)
        runs.append(run.excess / unit(loss))
    for other in runs[1:]:
        np.testing.assert_allclose(other, runs[0], rtol=1e-6, atol=1e-14)


@pytest.mark.parametrize("depth", [1, 2, 5])
@pytest.mark.parametrize("kind", [0, "cut off", "last", "square"])
def test_ordinary_degenerate_targets(make_target, rng, kind, depth):
    # Repeated eigenvalues, a singular target, more columns than its rank, ε = λ_n and ε above some λ.
    covariance = make_target([3, 3, 1, 1, 0.5, 0])
    epsilon = {0: 0, "cut off": 0.7, "last": 0.5}.get(kind)
    loss = Frobenius(covariance) if epsilon is None else BuresWasserstein(covariance, epsilon)
    start = DeepLinearNetwork.balanced(rng.standard_normal((6, 6)), depth)
    run = scaled_descent(loss, start, n_steps=150)
    assert np.all(np.isfinite(run.excess))
    assert np.all(np.diff(run.excess) < 0)
    # Where ε = λ_n the last mode is algebraic: what is left is of fourth order in W.
    assert run.excess[-1] < (1e-3 if kind == "last" else 1e-12) * unit(loss)


def test_the_start_of_a_run_that_overshoots_is_halved(make_target):
    # Ten layers far too small in some directions: whole steps multiply the product by e^{x/N · N}.
    loss = BuresWasserstein(make_target(spectrum(1e6, 20)))
    start = nystrom_network(np.random.default_rng(0), loss, 20, 10)
    run = scaled_descent(loss, start, n_steps=30, excess_tolerance=1e-12)
    taken = np.diff(run.times)
    assert taken.min() < 0.05 / 2 < taken[-1] == pytest.approx(0.05)
    assert run.stop_reason == StopReason.CONVERGED


def test_stops_and_records(make_target, rng):
    loss = BuresWasserstein(make_target([3, 2, 1]))
    W = rng.standard_normal((3, 3))
    run = scaled_descent(loss, DeepLinearNetwork.balanced(W, 2), n_steps=3)
    assert run.stop_reason == StopReason.STEP_BUDGET
    assert (run.last_step, len(run.times), run.factors.shape) == (3, 4, (4, 3, 3))
    np.testing.assert_allclose(run.factors[-1] @ run.factors[-1].T, run.final, atol=1e-13)
    np.testing.assert_allclose(run.loss, loss.value(run.factors), rtol=1e-10, atol=1e-13)
    gradients = DeepLinearNetwork(run.layers).layer_gradients(loss.gradient(DeepLinearNetwork(run.layers).end_to_end()))
    assert run.gradient_norm[-1] == pytest.approx(np.sqrt(sum(np.sum(g**2) for g in gradients)), abs=1e-13)
    assert run.balancedness[0] < 1e-13
    assert scaled_descent(loss, [W], n_steps=100).stop_reason == StopReason.STATIONARY
    assert scaled_descent(loss, [W], n_steps=0).last_step == 0
    assert scaled_descent(loss, [np.zeros((3, 3))]).stop_reason == StopReason.STATIONARY


# --- Nyström starts ---------------------------------------------------------------------------------------------


def test_nystrom_start_is_a_sketch(make_target):
    covariance = make_target(spectrum(50, 6, n=9))
    for unit_of in (1, 1e12):
        loss = BuresWasserstein(unit_of * covariance)
        start = nystrom_start(np.random.default_rng(0), loss, 4, 7)
        assert start.end_to_end.shape == (9, 7)
        assert np.linalg.norm(start.end_to_end, 2) == pytest.approx(np.sqrt(loss.eigenvalues[0]))
        G = loss.eigenvectors @ np.random.default_rng(0).standard_normal((9, 4))
        np.testing.assert_allclose(
            start.end_to_end[:, :4], start.scale * loss.covariance @ G, atol=1e-13 * np.sqrt(unit_of)
        )
        assert not start.end_to_end[:, 4:].any()


def test_orthonormal_nystrom_start_has_the_same_range(make_target):
    loss = BuresWasserstein(make_target(spectrum(1e4, 6, n=9)))
    sketch, flat = (nystrom_start(np.random.default_rng(0), loss, 8, orthonormal=o).end_to_end for o in (False, True))
    np.testing.assert_allclose(np.linalg.svd(flat, compute_uv=False), [1] * 6 + [0, 0], atol=1e-13)
    np.testing.assert_allclose(flat @ flat.T @ sketch, sketch, atol=1e-10)


# --- Bad input --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"preconditioner": "left"}, "preconditioner must be one of layerwise, right, none, not 'left'"),
        ({"preconditioner": "right"}, "for one layer, not for 2"),
        ({"preconditioner": "none"}, "step_size must be given"),
        ({"step_size": -1.0}, "step_size must be a finite number > 0, not -1.0"),
        ({"step_size": np.inf}, "step_size must be"),
        ({"n_steps": 1.5}, "n_steps must be an integer ≥ 0, not 1.5"),
        ({"excess_tolerance": -1}, "excess_tolerance must be a finite number ≥ 0"),
        ({"layers": [np.eye(4), np.eye(4)]}, "the last of the layers must have 3 rows"),
        ({"layers": [np.ones((2, 3, 3))]}, "layer 1 must be a matrix"),
        ({"layers": [1e200 * np.eye(3), 1e200 * np.eye(3)]}, "its loss is a square"),
        ({"loss": BuresWasserstein(np.stack([np.eye(3)] * 2))}, "loss must have one target"),
    ],
)
def test_bad_input_gives_one_line(change, message):
    arguments = {"loss": BuresWasserstein(np.eye(3)), "layers": [np.eye(3), np.eye(3)], **change}
    with pytest.raises(ValueError, match=r"^[^\n]*$") as error:
        scaled_descent(**arguments)
    assert message in str(error.value)


def test_bad_start_gives_one_line(rng):
    with pytest.raises(ValueError, match="rank must lie between 1 and min"):
        nystrom_start(rng, BuresWasserstein(np.eye(3)), 4)
    with pytest.raises(ValueError, match="one target that is not zero"):
        nystrom_start(rng, BuresWasserstein(np.stack([np.eye(3)] * 2)), 2)


# --- Large dimensions -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize("kind", [0, 0.02, "square"])
def test_thin_layers_move_as_in_the_dense_form(monkeypatch, rng, kind, depth):
    # n = d_0 = 130 and k = 3, W_1 in its row space: the same excess, layers and norms as without the linear forms.
    covariance = symmetrize(random_orthogonal(rng, 130) * np.geomspace(2, 0.05, 130) @ random_orthogonal(rng, 130).T)
    covariance = covariance @ covariance.T
    loss = Frobenius(covariance) if kind == "square" else BuresWasserstein(covariance, kind)
    layers = network(rng.standard_normal((130, 3)) @ rng.standard_normal((3, 130)) / 20, depth, 3).layers
    linear = scaled_descent(loss, layers, n_steps=4)
    monkeypatch.setattr(thin, "_LARGE", 10**9)
    dense = scaled_descent(loss.with_epsilon(loss.epsilon), layers, n_steps=4)
    np.testing.assert_allclose(linear.excess, dense.excess, rtol=1e-9)
    np.testing.assert_allclose(linear.gradient_norm, dense.gradient_norm, rtol=1e-8)
    np.testing.assert_allclose(linear.balancedness, dense.balancedness, atol=1e-10)
    for ours, other in zip(linear.layers, dense.layers, strict=True):
        np.testing.assert_allclose(ours, other, atol=1e-9 * np.abs(other).max())


def test_scaled_descent_and_its_start_are_linear_in_the_dimension(rng, traced):
    # n = d_0 = 3,000, k = 8: below 40 n k doubles, a sixteenth of an n × n array.
    n, k = 3000, 8
    loss = BuresWasserstein.from_spectrum(1 / np.arange(1, n + 1), epsilon=1e-3)
    first = random_frame(rng, n, k).T
    with traced(40 * 8 * n * k):
        start = nystrom_start(rng, loss, k).end_to_end
        trajectory = scaled_descent(loss, [first, start], n_steps=3)
    assert (np.diff(trajectory.excess) < 0).all()
