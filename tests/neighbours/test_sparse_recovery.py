"""Low rank plus sparse: thresholding, draws, fixed points, and which steps recover."""

import numpy as np
import pytest

from deepbures.losses.registry import BuresWasserstein, Frobenius
from deepbures.neighbours.sparse_recovery import METHODS, _step, double_threshold, draw_corrupted, recover_low_rank


def recovered(seed, rank, share, method, **options):
    drawn = draw_corrupted(np.random.default_rng(seed), 50, rank, 10, share)
    run = recover_low_rank(drawn.low_rank + drawn.sparse, rank, share, method, **options)
    error = np.linalg.norm(run.factor @ run.factor.T - drawn.low_rank) / np.linalg.norm(drawn.low_rank)
    return error, run, drawn


def test_double_threshold_by_its_definition(rng):
    A = rng.standard_normal((6, 9))
    found = double_threshold(A, 3)
    for i in range(6):
        for j in range(9):
            in_row = np.sum(np.abs(A[i]) > abs(A[i, j])) < 3
            in_column = np.sum(np.abs(A[:, j]) > abs(A[i, j])) < 3
            assert found[i, j] == (A[i, j] if in_row and in_column else 0)
    assert not double_threshold(A, 0).any()
    np.testing.assert_array_equal(
        double_threshold(A, 6)[:, np.argmax(np.abs(A), axis=1)].diagonal(),
        np.abs(A).max(1) * np.sign(A[range(6), np.argmax(np.abs(A), axis=1)]),
    )


def test_the_draw_is_what_it_says():
    drawn = draw_corrupted(np.random.default_rng(0), 50, 3, 10, 0.1, magnitude=2)
    eigenvalues = np.linalg.eigvalsh(drawn.low_rank)[::-1]
    np.testing.assert_allclose(eigenvalues[:3], [1, 10**-0.5, 0.1], rtol=1e-12)
    assert np.abs(eigenvalues[3:]).max() < 1e-15
    np.testing.assert_array_equal(drawn.sparse, drawn.sparse.T)
    assert np.sum(drawn.sparse != 0, axis=0).max() <= 5
    assert np.sum(drawn.sparse != 0) > 50
    assert np.abs(drawn.sparse).max() <= 2 * np.abs(drawn.low_rank).max()


@pytest.mark.parametrize("method", METHODS)
def test_steps_are_those_of_the_losses(make_target, rng, method):
    # Square: η/4 of ∇ = 4 (S − Σ) W at η = 1/(2 λ_1); scaled ½ (W + Σ W (WᵀW)^{-1}); BW W − ½ ∇L_0.
    covariance, W = make_target([2, 1, 0.5, 0.1]), rng.standard_normal((4, 2))
    if method == "frobenius":
        expected = W - Frobenius(covariance).gradient(W) / (8 * 3.0)
    elif method == "scaled":
        expected = W - Frobenius(covariance).gradient(W) @ np.linalg.inv(W.T @ W) / 8
    else:
        expected = W - BuresWasserstein(covariance).gradient(W) / 2
    np.testing.assert_allclose(_step(W, covariance, method, 3.0), expected, atol=1e-13)


@pytest.mark.parametrize("method", ["scaled", "bures-wasserstein"])
@pytest.mark.parametrize("rank", [3, 10])
def test_few_corruptions_are_undone(rank, method):
    # At 4 % and κ = 10 both recover all seeds to 1e-6; E with it.
    for seed in range(5):
        error, run, drawn = recovered(seed, rank, 0.04, method)
        assert run.converged
        assert error <= 1e-6
        np.testing.assert_allclose(run.sparse, drawn.sparse, atol=1e-6 * np.abs(drawn.low_rank).max())


def test_the_plain_step_suffers_from_the_condition_number():
    # Within the steps that the other two need, gradient descent on the square loss recovers fewer, if any.
    plain = [recovered(seed, 10, 0.04, "frobenius", n_steps=200)[0] for seed in range(5)]
    scaled = [recovered(seed, 10, 0.04, "scaled", n_steps=200)[0] for seed in range(5)]
    bures = [recovered(seed, 10, 0.04, "bures-wasserstein", n_steps=200)[0] for seed in range(5)]
    assert sum(e <= 1e-6 for e in plain) <= 1
    assert sum(e <= 1e-6 for e in scaled) == sum(e <= 1e-6 for e in bures) == 5


def test_bures_wasserstein_needs_fewer_steps_than_scaled():
    counts = {m: [len(recovered(s, 3, 0.04, m)[1].changes) for s in range(5)] for m in ("scaled", "bures-wasserstein")}
    assert np.median(counts["bures-wasserstein"]) < 0.7 * np.median(counts["scaled"])


def test_too_many_corruptions_are_not_undone():
    for method in METHODS:
        assert recovered(0, 10, 0.3, method, n_steps=200)[0] > 1e-2


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("scale", [1e-12, 1e12])
def test_unit_does_not_matter(method, scale):
    drawn = draw_corrupted(np.random.default_rng(0), 20, 2, 5, 0.05)
    Y = drawn.low_rank + drawn.sparse
    one, scaled = (recover_low_rank(s * Y, 2, 0.05, method, n_steps=20) for s in (1, scale))
    np.testing.assert_allclose(scaled.changes, one.changes, rtol=1e-6)


def test_without_corruption_the_spectral_start_is_the_answer():
    for method in METHODS:
        error, run, _ = recovered(0, 3, 0.0, method)
        assert error < 1e-12
        assert len(run.changes) == 1
        assert not run.sparse.any()


def test_a_zero_matrix_gives_zero():
    for method in METHODS:
        run = recover_low_rank(np.zeros((4, 4)), 2, 0.1, method)
        assert run.converged
        assert not run.factor.any()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((np.triu(np.ones((3, 3))), 1, 0.1), "symmetric"),
        ((np.eye(3), 4, 0.1), "rank must lie between 1 and the dimension 3, not 4"),
        ((np.eye(3), 1, 1.1), "share must lie between 0 and 1, not 1.1"),
        ((np.eye(3), 1, 0.1, "newton"), "method must be one of frobenius, scaled, bures-wasserstein, not 'newton'"),
        ((np.array([[np.nan]]), 1, 0.1), "observed must be finite"),
    ],
)
def test_bad_input_gives_one_line(arguments, message):
    with pytest.raises(ValueError, match=r"^[^\n]*$") as error:
        recover_low_rank(*arguments)
    assert message in str(error.value)


@pytest.mark.parametrize("options", [{"overshoot": 0.5}, {"n_steps": 0}, {"tolerance": -1}])
def test_bad_options_are_named(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        recover_low_rank(np.eye(3), 1, 0.1, **options)


def test_bad_draws_are_named(rng):
    with pytest.raises(ValueError, match="condition must be"):
        draw_corrupted(rng, 5, 2, 0.5, 0.1)
    with pytest.raises(ValueError, match="magnitude must be"):
        draw_corrupted(rng, 5, 2, 5, 0.1, -1)
    with pytest.raises(ValueError, match="count must lie between 0 and 3"):
        double_threshold(np.eye(3), 4)
