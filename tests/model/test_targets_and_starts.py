"""Random streams, targets and initial matrices, as paper.md section 6 defines them."""

import numpy as np
import pytest

from deepbures.losses.registry import BuresWasserstein
from deepbures.model.starts import (
    FIRST_SCALE,
    SHRINK,
    close_start,
    margin,
    random_frame,
    random_orthogonal,
    small_start,
)
from deepbures.model.targets import MODES, SPECTRA, draw_target, least_eigenvalue
from deepbures.study.grid.seeds import generator


def draw(seed, dimension=20, smin=-1.0, **options):
    return draw_target(generator(1, "target", seed), dimension, smin, **options)


def descending(covariance):
    return np.linalg.eigvalsh(covariance)[::-1]


# --- Streams ----------------------------------------------------------------------------------------------------


def test_same_key_same_numbers():
    first, second = (generator(5, "target", 3, dimension=4, spectrum="zipf").standard_normal(8) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    swapped = generator(5, "target", 3, spectrum="zipf", dimension=4).standard_normal(8)
    np.testing.assert_array_equal(first, swapped)


@pytest.mark.parametrize(
    "other",
    [
        lambda: generator(6, "target", 3, dimension=4),
        lambda: generator(5, "initialization", 3, dimension=4),
        lambda: generator(5, "target", 4, dimension=4),
        lambda: generator(5, "target", 3, dimension=5),
        lambda: generator(5, "target", 3),
        lambda: generator(6, "target", 2, dimension=4),
    ],
    ids=["study", "role", "seed", "setting", "no-setting", "same-sum"],
)
def test_other_key_other_numbers(other):
    numbers = generator(5, "target", 3, dimension=4).standard_normal(8)
    assert not np.any(numbers == other().standard_normal(8))


def test_streams_of_neighbouring_seeds_are_uncorrelated():
    # 200 seeds × 500 numbers: correlations of size 1/√500, none beyond 6 of those.
    numbers = np.array([generator(0, "target", seed).standard_normal(500) for seed in range(200)])
    correlation = np.corrcoef(numbers) - np.eye(200)
    assert np.abs(correlation).max() < 6 / np.sqrt(500)


def test_stream_is_pinned():
    # A stream must never change: published numbers hang on it.
    stream = generator(2303, "target", 0, dimension=20, spectrum="zipf")
    assert stream.bit_generator.random_raw(3).tolist() == [
        6635430150295232059,
        2718744694485991848,
        6342815713270676111,
    ]


# --- Targets ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("smin", [-1, 0, 0.5, 1, 5])
def test_smallest_eigenvalue_of_a_zipf_target(smin):
    # λ_n = smin + 1/n, and 1/n where nothing is shifted (smin < 0, or 1/n ≥ smin).
    expected = 1 / 20 if smin <= 0 else smin + 1 / 20
    for seed in range(5):
        assert descending(draw(seed, smin=smin))[-1] == pytest.approx(expected, rel=1e-11)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("smin", [-1, 0, 0.04, 0.05, 0.06, 0.5, 1, 5])
def test_least_eigenvalue_is_known_before_the_draw(smin, mode):
    # smin = 1/n = 0.05 shifts nothing yet.
    least = descending(draw(0, smin=smin, mode=mode))[-1]
    assert least_eigenvalue(20, smin, mode=mode) == pytest.approx(least, rel=1e-9)
    assert least_eigenvalue(20, smin, spectrum="random", mode=mode) is None


@pytest.mark.parametrize("spectrum", SPECTRA)
def test_targets_of_different_smin_differ_by_a_multiple_of_the_identity(spectrum):
    low, high = (draw(3, smin=smin, spectrum=spectrum) for smin in (1, 3))
    np.testing.assert_allclose(high - low, 2 * np.eye(20), atol=1e-12)
    assert np.abs(draw(4, smin=1, spectrum=spectrum) - low).max() > 0.1


def test_zipf_spectrum_by_its_definition():
    # S_i ← S_1 / i + N(0, 1), sorted descending, shifted so that min S = 1/n; Ω = U.
    n = 6
    numbers = generator(1, "target", 2)
    U, S, _ = np.linalg.svd(numbers.standard_normal((n, n)))
    S = np.sort(S[0] / np.arange(1, n + 1) + numbers.standard_normal(n))[::-1]
    S = S - S[-1] + 1 / n
    np.testing.assert_allclose(draw(2, n), U @ np.diag(S) @ U.T, atol=1e-13)


def test_random_spectrum_by_its_definition():
    # Λ = S, the singular values of a Gaussian matrix; with smin, S + smin − S_n + 1/n where S_n < smin.
    U, S, _ = np.linalg.svd(generator(1, "target", 2).standard_normal((6, 6)))
    np.testing.assert_allclose(draw(2, 6, spectrum="random"), U @ np.diag(S) @ U.T, atol=1e-13)
    shifted = S + 2 - S[-1] + 1 / 6
    np.testing.assert_allclose(draw(2, 6, 2.0, spectrum="random"), U @ np.diag(shifted) @ U.T, atol=1e-13)
    assert S[-1] > 0.001
    np.testing.assert_allclose(draw(2, 6, 0.001, spectrum="random"), U @ np.diag(S) @ U.T, atol=1e-13)


@pytest.mark.parametrize("spectrum", SPECTRA)
def test_singular_value_mode_squares_the_spectrum(spectrum):
    kept, squared = (draw(0, 8, 0.5, spectrum=spectrum, mode=mode) for mode in MODES)
    np.testing.assert_allclose(squared, kept @ kept, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("rank", [1, 5, 20])
def test_rank_cuts_the_spectrum(rank):
    # S_{r+1..n} ← 0, the rest as it was.
    eigenvalues, whole = descending(draw(0, smin=1, rank=rank)), descending(draw(0, smin=1))
    np.testing.assert_allclose(eigenvalues[:rank], whole[:rank], rtol=1e-12)
    np.testing.assert_allclose(eigenvalues[rank:], 0, atol=1e-13)


@pytest.mark.parametrize(
    ("smin", "lambda_1", "trace", "condition"), [(-1, 9.5, 53, 188), (1, 10.5, 72, 10), (5, 14.4, 151, 2.8)]
)
def test_statistics_over_forty_draws(smin, lambda_1, trace, condition):
    # The table of section 6 (n = 20, means over 40 draws). Both means are random: five standard errors of their
    # difference, √2 s / √40 each, plus the table's rounding.
    spectra = np.array([descending(draw(seed, smin=smin)) for seed in range(40)])
    for values, mean, rounding in (
        (spectra[:, 0], lambda_1, 0.05),
        (spectra.sum(axis=1), trace, 0.5),
        (spectra[:, 0] / spectra[:, -1], condition, 0.05 * condition),
    ):
        tolerance = 5 * np.sqrt(2 / 40) * values.std(ddof=1) + rounding
        assert tolerance < 0.3 * mean  # the test has teeth
        assert values.mean() == pytest.approx(mean, abs=tolerance)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dimension": 0}, "dimension must be at least 1, not 0"),
        ({"spectrum": "Zipf"}, "spectrum must be one of zipf, random, not 'Zipf'"),
        ({"mode": "both"}, "mode must be one of eigenvalues, singular values, not 'both'"),
        ({"rank": 0}, "rank must lie between 1 and the dimension 20, not 0"),
        ({"rank": 21}, "rank must lie between 1 and the dimension 20, not 21"),
    ],
)
def test_target_refuses_bad_settings(options, message):
    with pytest.raises(ValueError, match=message):
        draw(0, **options)


# --- Starts -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dimension", [1, 2, 3, 10])
def test_random_orthogonal_is_a_rotation(rng, dimension):
    for _ in range(20):
        Q = random_orthogonal(rng, dimension)
        np.testing.assert_allclose(Q.T @ Q, np.eye(dimension), atol=1e-14)
        assert np.linalg.det(Q) == pytest.approx(1, abs=1e-13)


def test_random_orthogonal_is_haar_distributed(rng):
    # E Q = 0, E Q_ij² = 1/n, and (tr Q, tr Q²) of SO(4) have means 0 and 1; 4000 draws, 6 standard errors.
    # A QR without the signs of R would give Q_11 < 0 always.
    Q = np.array([random_orthogonal(rng, 4) for _ in range(4000)])
    np.testing.assert_allclose(Q.mean(axis=0), 0, atol=6 * 0.5 / np.sqrt(4000))
    np.testing.assert_allclose((Q**2).mean(axis=0), 1 / 4, atol=6 * 0.21 / np.sqrt(4000))
    traces = np.trace(Q, axis1=1, axis2=2)
    squares = np.trace(Q @ Q, axis1=1, axis2=2)
    assert traces.mean() == pytest.approx(0, abs=6 / np.sqrt(4000))
    assert squares.mean() == pytest.approx(1, abs=6 * squares.std() / np.sqrt(4000))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("smin", "epsilon"), [(-1, 0), (-1, 0.05), (1, 0), (1, 0.1), (5, 1)])
def test_close_start_lies_just_inside_the_ball(smin, epsilon, seed):
    # Margin c = √λ_n − √L(0) in (0, 10 %], that is L(0) just below λ_n; scale = 10.95 · 0.95^(draws − 1).
    loss = BuresWasserstein(draw(seed, smin=smin), epsilon)
    start = close_start(generator(1, "initialization", seed), loss, 20)
    c, least = margin(loss, start.end_to_end, 20), loss.eigenvalues[-1]
    assert 0 < c < 0.1 * np.sqrt(least)
    assert 0.8 * least < loss.value(start.end_to_end) < least
    assert c == pytest.approx(np.sqrt(least) - np.sqrt(loss.value(start.end_to_end)), abs=1e-14)
    assert start.scale == pytest.approx(FIRST_SCALE * SHRINK ** (start.draws - 1), rel=1e-12)
    assert (FIRST_SCALE, SHRINK) == (10.95, 0.95)
    assert 0.3 < start.scale < 2


@pytest.mark.parametrize(("smin", "epsilon"), [(-1.0, 0), (-1.0, 0.05), (0.5, 0.3), (5.0, 1.0)])
def test_close_start_is_the_one_of_a_search_draw_by_draw(smin, epsilon):
    # Draws that are refused unseen, or looked at together, would have been refused: same start, same stream after it.
    loss = BuresWasserstein(draw(2, smin=smin), epsilon)
    rng, n, scale, draws = generator(1, "start", 2), 20, FIRST_SCALE, 0
    while True:
        draws += 1
        Gamma = random_orthogonal(rng, n)
        widths = scale * loss.eigenvalues[-1] * (2 - np.arange(1, n + 1) / n)
        S = np.diag(np.maximum(loss.eigenvalues - epsilon, 0)) + (Gamma * widths) @ Gamma.T
        s, U = np.linalg.eigh(S)
        factor = loss.eigenvectors @ (U * np.sqrt(np.maximum(s, 0)))
        if margin(loss, factor, n) > 0:
            break
        scale *= SHRINK
    other = generator(1, "start", 2)
    start = close_start(other, loss, n)
    assert draws > 20
    assert (start.draws, start.scale) == (draws, scale)
    np.testing.assert_allclose(start.end_to_end @ start.end_to_end.T, factor @ factor.T, rtol=1e-11, atol=1e-12)
    random_orthogonal(rng, n)  # V
    assert other.standard_normal() == rng.standard_normal()


def test_close_start_by_its_definition():
    # S(0) = Σ0 − εI + Γ diag(D) Γᵀ: its offset has the eigenvalues D_i = scale · λ_n (2 − i/n).
    loss = BuresWasserstein(draw(0, smin=1), 0.1)
    start = close_start(generator(1, "initialization", 0), loss, 20)
    offset = start.end_to_end @ start.end_to_end.T - loss.covariance + 0.1 * np.eye(20)
    expected = start.scale * loss.eigenvalues[-1] * (2 - np.arange(1, 21) / 20)
    np.testing.assert_allclose(descending(offset), expected, rtol=1e-10)


def test_close_start_of_low_rank_and_wide_input(make_target):
    # Cut to the k largest directions; W(0) is n × d_0.
    loss = BuresWasserstein(make_target([5, 4, 3, 0.3, 0.2, 0.1]), 0.05)
    start = close_start(generator(1, "initialization", 0), loss, 3, 9)
    assert start.end_to_end.shape == (6, 9)
    assert np.linalg.matrix_rank(start.end_to_end) == 3
    c = margin(loss, start.end_to_end, 3)
    assert c > 0
    assert c == pytest.approx(np.sqrt(3) - np.sqrt(loss.value(start.end_to_end)), abs=1e-14)


@pytest.mark.parametrize("first_scale", [FIRST_SCALE, -0.5])
def test_close_start_of_a_thin_factor_by_its_definition(first_scale):
    # n = 130, k = 3, draw by draw on n × n arrays: the k largest directions of (Σ0 − εI)_k + Γ diag(D) Γᵀ.
    n, k, epsilon = 130, 3, 0.9
    eigenvalues = np.concatenate([[6.0, 5, 4], np.linspace(1.2, 1, n - 3)])
    loss = BuresWasserstein.from_spectrum(eigenvalues, epsilon=epsilon)
    start = close_start(generator(1, "start", 0), loss, k, k, first_scale=first_scale)
    rng, optimum, scale, draws = generator(1, "start", 0), eigenvalues[:k] - epsilon, first_scale, 0
    spread, c = 2 - np.arange(1, k + 1) / k, -1.0
    while c <= 0:
        S = np.zeros((n, n))
        if first_scale > 0:
            S[:k, :k] = np.diag(optimum)
            Gamma = random_frame(rng, n, k)
            S += (Gamma * (scale * eigenvalues[-1] * spread)) @ Gamma.T
        else:
            half = np.sqrt(optimum)[:, None] * random_orthogonal(rng, k)
            S[:k, :k] = (half * (1 + scale / 2 * spread)) @ half.T
        s, U = np.linalg.eigh(S)
        factor = U[:, -k:] * np.sqrt(s[-k:])
        c, scale, draws = margin(loss, factor, k), scale * SHRINK, draws + 1
    assert (start.draws, start.scale) == (draws, pytest.approx(scale / SHRINK))
    assert draws > 1 or first_scale < 0
    np.testing.assert_allclose(start.end_to_end @ start.end_to_end.T, factor @ factor.T, atol=1e-12)


def test_close_start_of_a_thin_factor_is_linear_in_the_dimension(traced):
    # n = 3,000, k = 8: below 30 n k doubles, a twelfth of an n × n array.
    n, k = 3000, 8
    eigenvalues = np.append(np.linspace(9, 5, k), np.linspace(1.05, 1, n - k))
    loss = BuresWasserstein.from_spectrum(eigenvalues, epsilon=1.0)
    with traced(30 * 8 * n * k):
        start = close_start(generator(1, "start", 0), loss, k, k)
    assert start.end_to_end.shape == (n, k)
    assert margin(loss, start.end_to_end, k) > 0


def test_right_factor_of_a_close_start_is_random():
    # W(0) = U diag(√eig) Vᵀ with a random V: its columns are not orthogonal.
    W = close_start(generator(1, "initialization", 0), BuresWasserstein(draw(0, smin=1)), 20).end_to_end
    gram = W.T @ W
    assert np.abs(gram - np.diag(np.diag(gram))).max() > 0.1


def test_close_start_raises_where_there_is_no_margin(make_target):
    # L* = 1 + 1 + 0.5 ≥ λ_3 = 1.5: the authors' program never returns.
    loss = BuresWasserstein(make_target([3, 2, 1.5, 1, 1, 0.5]))
    with pytest.raises(ValueError, match=r"minimal loss over rank 3 is 2\.5, not below λ_3 = 1\.5.*higher rank"):
        close_start(generator(1, "initialization", 0), loss, 3)
    at_the_edge = BuresWasserstein(np.diag([9.0, 4.0, 4.0]))  # L* = λ_2, without rounding
    with pytest.raises(ValueError, match="not below λ_2 = 4"):
        close_start(generator(1, "initialization", 0), at_the_edge, 2)


def test_close_start_raises_on_epsilon_above_the_spectrum(make_target):
    loss = BuresWasserstein(make_target([3, 2, 1]), 1.1)
    with pytest.raises(ValueError, match=r"epsilon must be at most λ_n = 1 for a close start, not 1\.1"):
        close_start(generator(1, "initialization", 0), loss, 3)


@pytest.mark.parametrize(("rank", "columns"), [(1, None), (3, None), (5, 8), (2, 3)])
def test_small_start_has_equal_singular_values(rng, rank, columns):
    start = small_start(rng, 5, rank, 1e-3, columns)
    assert start.end_to_end.shape == (5, columns or 5)
    expected = 1e-3 * (np.arange(min(start.end_to_end.shape)) < rank)
    np.testing.assert_allclose(np.linalg.svd(start.end_to_end, compute_uv=False), expected, rtol=1e-12, atol=1e-18)
    assert (start.scale, start.draws) == (1e-3, 1)


@pytest.mark.parametrize("scale", [0, -1, np.nan])
def test_small_start_needs_a_positive_scale(rng, scale):
    with pytest.raises(ValueError, match="scale must be positive"):
        small_start(rng, 5, 2, scale)
