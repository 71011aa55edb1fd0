"""The covariance of samples that come in blocks, and the spectrum from a thin SVD."""

import tracemalloc

import numpy as np
import pytest

from deepbures.files import moments
from deepbures.files.moments import blocks_of, streamed_moments
from deepbures.linalg.sample_covariance import sample_spectrum


@pytest.mark.parametrize("rows", [1, 3, 7, 50, 1000])
@pytest.mark.parametrize("kind", [np.float64, np.float32, np.int16])
def test_moments_of_blocks_are_those_of_the_whole(rng, rows, kind):
    # Any blocks, one sample each as well as more rows than there are, give numpy's mean and covariance.
    X = (100 * rng.standard_normal((50, 6))).astype(kind)
    found = streamed_moments(blocks_of(X, rows))
    assert found.count == 50
    np.testing.assert_allclose(found.mean, X.mean(axis=0, dtype=float), rtol=1e-12, atol=1e-12)
    expected = np.cov(X.astype(float), rowvar=False, bias=True)
    np.testing.assert_allclose(found.covariance, expected, rtol=0, atol=1e-13 * np.abs(expected).max())
    np.testing.assert_array_equal(found.covariance, found.covariance.T)


def test_the_triangle_is_mirrored_across_the_blocks_of_a_large_matrix(rng, monkeypatch):
    monkeypatch.setattr(moments, "_BLOCK_BYTES", 8 * 37 * 5)  # 5 samples at a time
    monkeypatch.setattr(moments, "_MIRRORED", 8)
    X = rng.standard_normal((90, 37))
    found = streamed_moments(blocks_of(X)).covariance
    np.testing.assert_allclose(found, np.cov(X, rowvar=False, bias=True), atol=1e-14)
    np.testing.assert_array_equal(found, found.T)


def test_a_mean_far_from_zero_costs_no_digits(rng):
    # x = 1e7 + deviations of size 1: the mean of squares minus the square of the mean would leave 2 digits. What stays
    # is the rounding of the samples themselves, eps · 1e7.
    deviations = rng.standard_normal((1000, 4))
    X = deviations + 1e7
    found = streamed_moments(blocks_of(X, 64)).covariance
    np.testing.assert_allclose(found, np.cov(deviations, rowvar=False, bias=True), atol=1e-8)


def test_a_mean_that_drifts_from_block_to_block(rng):
    X = rng.standard_normal((300, 3)) + np.linspace(-50, 50, 300)[:, None]
    found = streamed_moments(blocks_of(X, 10))
    np.testing.assert_allclose(found.covariance, np.cov(X, rowvar=False, bias=True), rtol=1e-12)


def test_a_memory_mapped_file_is_read_block_by_block(tmp_path, rng):
    # 20,000 × 100 float32 on disk, 8 MB: what is taken is n² and one block of 1 MB with its copies.
    X = rng.standard_normal((20_000, 100), dtype=np.float32)
    np.save(tmp_path / "samples.npy", X)
    expected = np.cov(X.astype(float), rowvar=False, bias=True)
    del X
    streamed_moments([np.eye(3)])  # loads what it needs
    mapped = np.load(tmp_path / "samples.npy", mmap_mode="r")
    tracemalloc.start()
    found = streamed_moments(blocks_of(mapped, 1250))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 5e6
    np.testing.assert_allclose(found.covariance, expected, atol=1e-12)


def test_no_second_square_array_is_made(rng):
    # n = 1,500, blocks of 20 rows: 18 MB for the covariance, and no more than a third of it beside.
    blocks = [rng.standard_normal((20, 1500)) for _ in range(4)]
    streamed_moments([np.eye(3)])
    tracemalloc.start()
    streamed_moments(blocks)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1500**2 * 8 * 4 / 3


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_the_row_of_an_entry_that_is_not_finite_is_named(rng, bad):
    X = rng.standard_normal((50, 6))
    X[33, 4] = bad
    message = rf"^faces.npy must be finite, but row 34, column 5 is {bad}$"
    with pytest.raises(ValueError, match=message):
        streamed_moments(blocks_of(X, 10), "faces.npy")


@pytest.mark.parametrize(
    ("blocks", "message"),
    [
        ([], r"^samples: an estimate needs at least 2 samples \(rows\), not 0$"),
        ([np.ones((1, 3))], r"^samples: an estimate needs at least 2 samples \(rows\), not 1$"),
        ([np.ones((4, 3)), np.ones((4, 2))], r"^samples: block 2 has 2 columns, the ones before have 3$"),
        ([np.ones(3)], r"^samples: block 1 must be a matrix with rows and columns, not of shape \(3,\)$"),
        ([np.ones((0, 3))], r"^samples: block 1 must be a matrix with rows and columns"),
        ([np.array([["a", "b"]])], r"^samples: block 1 must hold real numbers, not <U1$"),
    ],
)
def test_bad_blocks_are_refused_in_one_line(blocks, message):
    with pytest.raises(ValueError, match=message):
        streamed_moments(blocks)


@pytest.mark.parametrize(
    ("shape", "rows", "message"), [((4,), None, "must be a matrix"), ((4, 2), 0, "at least 1 row")]
)
def test_blocks_that_make_no_sense_are_refused(shape, rows, message):
    with pytest.raises(ValueError, match=message):
        blocks_of(np.ones(shape), rows)


@pytest.mark.parametrize("m", [4, 9, 30])
def test_sample_spectrum_is_that_of_the_covariance(rng, m):
    X = rng.standard_normal((m, 9)) + 5
    eigenvalues, vectors = sample_spectrum(X)
    rank = min(m - 1, 9)
    assert vectors.shape == (9, rank)
    expected = np.linalg.eigvalsh(np.cov(X, rowvar=False, bias=True))[::-1][:rank]
    np.testing.assert_allclose(eigenvalues, expected, rtol=1e-12)
    np.testing.assert_allclose(vectors * eigenvalues @ vectors.T, np.cov(X, rowvar=False, bias=True), atol=1e-13)
