"""Semi-random sensing: losses and gradients, projections, and who minds repeated measurements."""

import numpy as np
import ot
import pytest

from deepbures.neighbours.sensing import (
    SENSING_LOSSES,
    Measurements,
    descend,
    reweighted,
    sliced_loss,
    spectral_start,
    square_loss,
)


def problem(seed, copies=0, rank=1, n=10, m=30):
    rng = np.random.default_rng(seed)
    U = rng.standard_normal((n, rank)) / np.sqrt(n)
    return U @ U.T, Measurements.of(U @ U.T, rng.standard_normal((m, n)), copies)


def relative(X, covariance):
    return np.linalg.norm(X - covariance) / np.linalg.norm(covariance)


@pytest.mark.parametrize("name", SENSING_LOSSES)
def test_gradients_by_taylor_remainder(rng, name):
    _, measured = problem(0, copies=3, rank=2)
    W, V = rng.standard_normal((2, 10, 2))
    value, gradient = SENSING_LOSSES[name](measured, W)
    h = np.array([1e-2, 1e-3])
    remainders = [abs(SENSING_LOSSES[name](measured, W + x * V)[0] - value - x * np.sum(gradient * V)) for x in h]
    assert np.log10(remainders[0] / remainders[1]) == pytest.approx(2, abs=0.1)


def test_sliced_loss_is_the_distance_along_each_vector(rng):
    covariance, measured = problem(1, copies=4, rank=2)
    W = rng.standard_normal((10, 2))
    zero = np.zeros(1)
    distances = [
        ot.gaussian.bures_wasserstein_distance(
            zero, zero, np.array([[a @ W @ W.T @ a]]), np.array([[a @ covariance @ a]])
        )
        for a in measured.vectors
    ]
    assert sliced_loss(measured, W)[0] == pytest.approx(np.sum(measured.weights * np.square(distances)), rel=1e-10)


def test_copies_are_weights(rng):
    # A measurement that counts four times is four equal measurements.
    covariance, measured = problem(2, copies=3)
    vectors = np.concatenate([measured.vectors, np.repeat(measured.vectors[:1], 3, axis=0)])
    listed = Measurements.of(covariance, vectors)
    W = rng.standard_normal((10, 1))
    for loss in (square_loss, sliced_loss):
        value, gradient = loss(measured, W)
        assert loss(listed, W)[0] == pytest.approx(value, rel=1e-13)
        np.testing.assert_allclose(loss(listed, W)[1], gradient, atol=1e-13)


def test_the_weights_make_a_projection_that_does_not_lose_the_truth():
    # Before P_k a step never increases the distance to Σ*; the distance falls by 1/‖G‖² in its square.
    covariance, measured = problem(3)
    errors = [relative(reweighted(measured, 10, n_steps=t)[0], covariance) for t in range(1, 30)]
    assert np.all(np.diff(errors) <= 1e-12)  # P_10, onto the cone that Σ* lies in, does not increase it either
    assert errors[-1] < 0.9 * errors[0]


def test_the_reweighted_step_is_the_best_one():
    # First step, from X = 0: no other weights on the simplex Σ w r² = 1 give a shorter G.
    _, measured = problem(4)
    X, steps = reweighted(measured, 10, n_steps=1)
    assert steps == 1
    r = -measured.values / measured.values.max()
    rng = np.random.default_rng(0)
    # for k = n the step is cut to the cone alone: undo nothing, compare lengths
    best = np.inf
    for _ in range(300):
        w = rng.exponential(size=len(r)) ** 3
        w /= np.sum(w * r**2)
        G = measured.vectors.T @ ((w * r)[:, None] * measured.vectors)
        best = min(best, np.sum(G**2))
    assert measured.values.max() ** 2 / np.sum(X**2) <= best * (1 + 1e-9)


def test_the_rank_falls_to_k():
    _, measured = problem(0, rank=2)
    assert np.linalg.matrix_rank(reweighted(measured, 2, n_steps=300)[0], tol=1e-9) == 2
    assert np.linalg.matrix_rank(reweighted(measured, 2, n_steps=20)[0], tol=1e-9) > 2


@pytest.mark.parametrize("copies", [0, 10_000])
def test_reweighting_does_not_mind_copies(copies):
    for seed in range(4):
        covariance, measured = problem(seed, copies)
        X, steps = reweighted(measured, 1)
        assert steps < 2000
        assert relative(X, covariance) < 1e-6
        np.testing.assert_array_equal(X, reweighted(problem(seed)[1], 1)[0])


def test_plain_descent_minds_copies():
    # Of eight seeds the plain sum recovers most without copies and few with 10,000, in as many steps.
    found = {}
    for copies in (0, 10_000):
        runs = [problem(seed, copies) for seed in range(8)]
        errors = [relative((W := descend(m, spectral_start(m, 1), n_steps=1000)) @ W.T, S) for S, m in runs]
        found[copies] = sum(error < 1e-4 for error in errors)
    assert found[0] >= 4
    assert found[10_000] <= 2


@pytest.mark.parametrize("scale", [1e-12, 1e12])
def test_unit_does_not_matter(scale):
    covariance, measured = problem(5)
    scaled = Measurements.of(scale * covariance, measured.vectors)
    np.testing.assert_allclose(spectral_start(scaled, 1), np.sqrt(scale) * spectral_start(measured, 1), rtol=1e-10)
    first, other = (reweighted(m, 1, n_steps=1)[0] for m in (measured, scaled))
    np.testing.assert_allclose(other, scale * first, atol=1e-12 * scale)
    assert relative(reweighted(scaled, 1)[0], scale * covariance) < 1e-6
    for loss in SENSING_LOSSES:
        one, other = (descend(m, spectral_start(m, 1), loss, n_steps=30) for m in (measured, scaled))
        assert relative(other @ other.T, scale * covariance) == pytest.approx(
            relative(one @ one.T, covariance), rel=0.5
        )


def test_descent_keeps_what_is_right():
    covariance, measured = problem(6, rank=2)
    eigenvalues, basis = np.linalg.eigh(covariance)
    W = basis[:, -2:] * np.sqrt(eigenvalues[-2:])
    for loss in SENSING_LOSSES:
        np.testing.assert_array_equal(descend(measured, W, loss), W)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Measurements(np.eye(3), np.ones(2), np.ones(3)), "shapes (m, n), (m,) and (m,)"),
        (lambda: Measurements(np.eye(2), np.array([1.0, -1]), np.ones(2)), "must not be negative"),
        (lambda: Measurements(np.eye(2), np.zeros(2), np.ones(2)), "nor all zero"),
        (lambda: Measurements(np.eye(2), np.ones(2), np.array([1.0, 0])), "counts must be positive, not 0"),
        (lambda: Measurements.of(np.eye(2), np.eye(2), -1), "copies must not be negative"),
        (lambda: descend(problem(0)[1], np.ones((10, 1)), "cubic"), "loss must be one of square, sliced, not 'cubic'"),
        (lambda: descend(problem(0)[1], np.ones((9, 1))), "start must have 10 rows, not 9"),
        (lambda: reweighted(problem(0)[1], 11), "rank must lie between 1 and the dimension 10, not 11"),
        (lambda: spectral_start(problem(0)[1], 0), "rank must lie between 1"),
    ],
)
def test_bad_input_gives_one_line(call, message):
    with pytest.raises(ValueError, match=r"^[^\n]*$") as error:
        call()
    assert message in str(error.value)
