"""The spectrum of the covariance of samples, from a thin SVD."""

import numpy as np
from numpy.typing import ArrayLike

from .psd import Array, finite_array


def sample_spectrum(X: ArrayLike) -> tuple[Array, Array]:
    """Positive eigenvalues and eigenvectors of the covariance of samples, the mean of (x − x̄)(x − x̄)ᵀ.

    Parameters
    ----------
    X : (m, n)
        One sample per row, m ≥ 2.

    Returns
    -------
    eigenvalues : (r,)
        λ = σ²/m from the singular values σ > max(m, n) · eps · σ_1 of the centred samples, decreasing;
        r ≤ min(m − 1, n).
    eigenvectors : (n, r)

    Raises
    ------
    ValueError
        On fewer samples, entries that are not finite, or samples that are all the same.
    """
    samples = finite_array("samples", X, 2)
    if samples.ndim != 2 or len(samples) < 2:
        raise ValueError(f"samples must be a matrix of at least 2 rows, one sample each, not of shape {samples.shape}")
    m = len(samples)
    centred = samples - samples.mean(axis=0)
    _, sigma, Vt = np.linalg.svd(centred, full_matrices=False)
    floor = max(samples.shape) * float(np.finfo(samples.dtype).eps)
    # Constant columns leave the rounding error of their mean.
    if sigma[0] <= floor * np.abs(samples).max() * np.sqrt(m):
        raise ValueError(f"samples must differ: all {m} are the same")
    rank = int(np.sum(sigma > floor * sigma[0]))
    return sigma[:rank] ** 2 / m, Vt[:rank].T.copy()
