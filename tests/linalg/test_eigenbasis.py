"""The eigenbasis of a target as an operator: dense, standard, or completed from its first columns."""

import numpy as np
import pytest

from deepbures.linalg import psd
from deepbures.linalg.eigenbasis import CompletedBasis, DenseBasis, StandardBasis, eigenbasis


def frame(rng, n, r):
    return np.linalg.qr(rng.standard_normal((n, r)))[0]


def special_frames(rng):
    """Columns whose top block is I, −I, 0, singular, or nearly a rotation."""
    n, r = 9, 3
    top, zero = np.eye(n, r), np.zeros((r, r))
    singular = frame(rng, n, r)
    singular[0] = 0
    return [top, -top, np.vstack([zero, frame(rng, n - r, r)]), np.linalg.qr(singular)[0], np.linalg.qr(top + 1e-9)[0]]


@pytest.mark.parametrize("case", range(7))
def test_completed_basis_is_orthogonal_and_begins_with_the_columns(rng, case):
    columns = [*special_frames(rng), frame(rng, 30, 1), frame(rng, 30, 29)][case]
    n, r = columns.shape
    basis = CompletedBasis(columns)
    Omega = basis.combine(np.eye(n))
    np.testing.assert_allclose(Omega[:, :r], columns, atol=1e-14)
    np.testing.assert_allclose(Omega.T @ Omega, np.eye(n), atol=1e-14)
    np.testing.assert_array_equal(basis.vectors(), Omega)
    W = rng.standard_normal((2, n, 4))
    np.testing.assert_allclose(basis.coordinates(W), Omega.T @ W, atol=1e-13)
    np.testing.assert_allclose(basis.combine(W), Omega @ W, atol=1e-13)


def test_operators_leave_their_input_alone(rng):
    W = rng.standard_normal((9, 2))
    kept = W.copy()
    for basis in (CompletedBasis(frame(rng, 9, 3)), StandardBasis(9), DenseBasis(frame(rng, 9, 9))):
        basis.combine(W)[...] = 0
        basis.coordinates(W)
        np.testing.assert_array_equal(W, kept)


def test_kind_of_basis(rng):
    assert isinstance(eigenbasis(5, None), StandardBasis)
    assert isinstance(eigenbasis(5, frame(rng, 5, 5)), DenseBasis)
    assert isinstance(eigenbasis(3, frame(rng, 5, 3)), CompletedBasis)
    np.testing.assert_array_equal(eigenbasis(4, None).vectors(), np.eye(4))


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (np.eye(4, 3), r"^eigenvectors must be one column for each of the 2 eigenvalues, not of shape \(4, 3\)$"),
        (np.eye(2, 2)[:1], r"^eigenvectors must be one column for each .* \(1, 2\)$"),
        (np.ones((4, 2)), r"^eigenvectors must be orthonormal columns, but ΩᵀΩ differs from I"),
        (np.eye(4, 2) * 1.001, r"^eigenvectors must be orthonormal columns"),
        (np.full((4, 2), np.nan), r"^eigenvectors must be finite"),
    ],
)
def test_eigenvectors_that_do_not_fit_are_refused(columns, message):
    with pytest.raises(ValueError, match=message):
        eigenbasis(2, columns)


def test_arrays_beyond_the_memory_are_refused_in_one_line():
    n = 10_000_000
    with pytest.raises(ValueError, match=r"^eigenvectors of dimension n = 10000000 would be an n × n array of .* GB"):
        StandardBasis(n).vectors()
    psd.check_square_fits("this", 100)
