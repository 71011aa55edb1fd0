"""Spectra, integer powers, divided differences."""

import mpmath as mp
import numpy as np
import pytest

from deepbures.linalg.powers import geometric_sum, integer_power
from deepbures.linalg.psd import finite_array, spectrum
from deepbures.linalg.roots import near_diagonal_inverse_root, well_conditioned_inverse_root


@pytest.mark.parametrize("terms", [1, 2, 3, 10, 100])
def test_geometric_sum_against_mpmath(terms):
    # Σ_{j=1}^{N} x^{N−j} y^{j−1} for y = x (1 + relative), to 2 N eps: it inherits the conditioning N of a power.
    x, relative = np.meshgrid([0.0, 1e-8, 0.3, 1.0, 2.5], [0.0, 1e-15, -1e-15, 1e-9, -1e-4, 0.5, -1.0])
    y = x * (1 + relative)
    with mp.workdps(50):
        exact = [
            float(mp.fsum(mp.mpf(a) ** (terms - j) * mp.mpf(b) ** (j - 1) for j in range(1, terms + 1)))
            for a, b in zip(x.flat, y.flat, strict=True)
        ]
    np.testing.assert_allclose(geometric_sum(x, y, terms), np.reshape(exact, x.shape), rtol=5e-16 * (terms + 2), atol=0)


def test_geometric_sum_closed_form_and_symmetry(rng):
    # (x^N − y^N)/(x − y) where x and y are well apart.
    x, y = rng.uniform(0.1, 1, 50), rng.uniform(1.2, 2, 50)
    np.testing.assert_allclose(geometric_sum(x, y, 7), (x**7 - y**7) / (x - y), rtol=1e-14)
    np.testing.assert_array_equal(geometric_sum(x, y, 7), geometric_sum(y, x, 7))


def test_geometric_sum_of_equal_arguments():
    # x = y: N x^{N−1}; 0⁰ = 1.
    assert geometric_sum(0.7, 0.7, 5) == pytest.approx(5 * 0.7**4, rel=1e-15)
    assert geometric_sum(0, 0, 1) == 1
    assert geometric_sum(0, 0, 4) == 0
    assert geometric_sum(2, 0, 4) == 8


def test_geometric_sum_broadcasts():
    x = np.array([0.5, 1.0, 2.0])
    table = geometric_sum(x[:, None], x, 3)  # x² + xy + y²
    np.testing.assert_allclose(table, x[:, None] ** 2 + np.outer(x, x) + x**2, rtol=1e-14)


@pytest.mark.parametrize("exponent", [0, 1, 2, 3, 7, 16, 99])
def test_integer_power_against_numpy(rng, exponent):
    matrices = rng.standard_normal((4, 3, 3)) / 2
    expected = np.linalg.matrix_power(matrices, exponent)
    np.testing.assert_allclose(integer_power(matrices, exponent), expected, rtol=1e-11, atol=1e-13)


def test_spectrum_is_sorted_and_reconstructs(make_target):
    covariance = make_target([1.0, 5.0, 0.0, 3.0])
    eigenvalues, basis = spectrum("covariance", covariance)
    np.testing.assert_allclose(eigenvalues, [5, 3, 1, 0], atol=1e-14)
    assert eigenvalues[-1] == 0  # rounding noise is set to zero
    np.testing.assert_allclose((basis * eigenvalues) @ basis.T, covariance, atol=1e-14)


def test_spectra_of_a_stack_are_those_of_its_members(make_target, rng):
    # Bit for bit; each has its own scale: 1e-20 beside 1 is not rounding noise, and a zero matrix may be among them.
    spectra = np.array([[3.0, 2, 1, 0], [1, 1, 1, 1], [5, 4, 3, 2], [9, 0, 0, 0], [2, 1, 0.5, 0.1], [0, 0, 0, 0]])
    scales = np.array([1, 1e-20, 1e20, 1, 1e-3, 1])
    covariances = np.stack([make_target(scales[i] * spectra[i], i) for i in range(6)])
    eigenvalues, bases = spectrum("covariance", covariances.reshape(2, 3, 4, 4))
    assert (eigenvalues.shape, bases.shape) == ((2, 3, 4), (2, 3, 4, 4))
    for i, covariance in enumerate(covariances):
        alone = spectrum("covariance", covariance)
        np.testing.assert_array_equal(eigenvalues.reshape(6, 4)[i], alone[0])
        np.testing.assert_array_equal(bases.reshape(6, 4, 4)[i], alone[1])
    np.testing.assert_allclose(eigenvalues.reshape(6, 4), spectra * scales[:, None], rtol=1e-13)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (1e-3 * np.array([[1.0, 0.1], [0, 1]]), "symmetric"),
        (1e-3 * np.diag([1.0, -0.1]), "positive semidefinite, but its smallest eigenvalue is -0.0001"),
        (np.diag([1.0, np.inf]), "finite, but it holds 1 NaN or infinite"),
    ],
)
def test_a_bad_member_of_a_stack_is_found_beside_a_large_one(bad, message):
    # Tolerances are relative to each matrix, not to the stack.
    with pytest.raises(ValueError, match=rf"^my matrix must be {message}"):
        spectrum("my matrix", np.stack([1e9 * np.eye(2), bad]))


def test_spectrum_accepts_rounding_errors():
    eigenvalues, _ = spectrum("covariance", [[1, 1e-9], [0, -1e-9]])
    np.testing.assert_allclose(eigenvalues, [1, 0], atol=1e-12)


@pytest.mark.parametrize(
    ("value", "fragments"),
    [
        (np.ones((2, 3)), ("square matrix", "(2, 3)")),
        (np.ones((2, 2, 3)), ("square matrix", "(2, 2, 3)")),
        (np.ones(3), ("at least 2 axes", "(3,)")),
        (np.ones((0, 0)), ("non-empty", "(0, 0)")),
        ([[1, 0.5], [0, 1]], ("symmetric", "0.5")),
        (np.diag([2.0, -0.25]), ("positive semidefinite", "-0.25")),
        (np.diag([1.0, np.nan]), ("finite", "1 NaN")),
        (np.diag([np.inf, np.inf]), ("finite", "2 NaN or infinite")),
        (np.eye(2, dtype=complex), ("real numbers", "complex128")),
        ([["a", "b"], ["c", "d"]], ("real numbers", "<U1")),
    ],
)
def test_spectrum_names_argument_value_and_what_is_allowed(value, fragments):
    with pytest.raises(ValueError, match=r"^my matrix must") as caught:
        spectrum("my matrix", value)
    for fragment in fragments:
        assert fragment in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("given", "kept"), [(np.float32, np.float32), (np.float64, np.float64), (np.int64, np.float64), (bool, np.float64)]
)
def test_finite_array_keeps_float32_only(given, kept):
    assert finite_array("x", np.ones((2, 2), dtype=given), 2).dtype == kept


def nearly_diagonal(rng, count, n, correlation, decades):
    """Positive definite matrices with correlations of this size between scales of so many decades."""
    E = rng.standard_normal((count, n, n))
    E = np.tril(E, -1)
    E = E + E.mT
    E *= correlation / np.linalg.norm(E, axis=(-2, -1), keepdims=True)
    d = 10 ** rng.uniform(-decades / 2, decades / 2, (count, n))
    return d[:, :, None] * (np.eye(n) + E) * d[:, None, :]


@pytest.mark.parametrize("decades", [1, 6])
def test_near_diagonal_inverse_root_against_fifty_digits(decades):
    # Entry by entry, relative to the scales of its row and column: an eigh has errors relative to the largest alone.
    M = nearly_diagonal(np.random.default_rng(0), 2, 8, 0.25, decades)
    Y, found = near_diagonal_inverse_root(M)
    assert found.all()
    with mp.workdps(50):
        for one, result in zip(M, Y, strict=True):
            mu, Q = mp.eigsy(mp.matrix(one.tolist()))
            exact = np.array((Q * mp.diag([1 / mp.sqrt(x) for x in mu]) * Q.T).tolist(), dtype=float)
            scale = np.diag(exact) ** 0.5
            assert np.abs((result - exact) / np.outer(scale, scale)).max() < 1e-14


def test_near_diagonal_inverse_root_is_found_where_correlations_are_small():
    rng = np.random.default_rng(1)
    for correlation, expected in ((0.0, True), (1e-8, True), (0.29, True), (0.31, False), (0.9, False)):
        _, found = near_diagonal_inverse_root(nearly_diagonal(rng, 50, 10, correlation, 8))
        assert (found == expected).all()
    singular = np.ones((3, 10, 10))
    singular[1] = 0
    singular[2] = np.nan
    assert not near_diagonal_inverse_root(singular)[1].any()


def test_near_diagonal_inverse_root_of_a_member_has_the_bits_that_it_has_alone():
    rng = np.random.default_rng(2)
    M = np.concatenate([nearly_diagonal(rng, 20, 12, size, 3) for size in (0.28, 1e-9, 0.1, 0.0, 1e-3, 0.5)])
    together, found = near_diagonal_inverse_root(M)
    for one, whole, is_found in zip(M, together, found, strict=True):
        alone, alone_found = near_diagonal_inverse_root(one)
        assert alone_found == is_found
        assert not is_found or np.array_equal(alone, whole)


def test_well_conditioned_inverse_root():
    rng = np.random.default_rng(3)
    M = np.concatenate([nearly_diagonal(rng, 5, 10, 0.1, 1), nearly_diagonal(rng, 5, 10, 0.6, 1)])
    M = np.concatenate([M, nearly_diagonal(rng, 5, 10, 0.1, 9), np.zeros((1, 10, 10))])
    Y, well = well_conditioned_inverse_root(M)
    assert well[:10].all()
    assert not well[10:].any()
    np.testing.assert_allclose(Y[:10] @ M[:10] @ Y[:10], np.broadcast_to(np.eye(10), (10, 10, 10)), atol=1e-12)
