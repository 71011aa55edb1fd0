"""Matrices cut to the rank that they have to rounding."""

import numpy as np
import pytest

from deepbures.linalg.truncation import of_rank


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_rounding_of_a_product_is_removed_and_nothing_else(rng, dtype):
    A, B = (rng.standard_normal(shape).astype(dtype) for shape in ((3, 6, 2), (3, 2, 5)))
    product, eps = (A @ B).astype(float), np.finfo(dtype).eps
    cut = of_rank(product, 2, eps)
    assert np.all(np.linalg.svd(cut, compute_uv=False)[:, 2:] < 1e-14)
    np.testing.assert_allclose(cut, product, atol=100 * eps)
    np.testing.assert_array_equal(of_rank(product, 1, eps), product)  # its rank is 2
    assert of_rank(product, None, eps) is product
    assert of_rank(product, 5, eps) is product
