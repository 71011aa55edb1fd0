"""Matrices cut to the rank that they have to the precision of their entries."""

from __future__ import annotations

import numpy as np

from .psd import Array

#: Singular values of a product of layers below this multiple of max(n, d) · eps · σ_1 count as its rounding.
_PRODUCT_ROUNDING = 1e2


def of_rank(W: Array, rank: int | None, eps: float) -> Array:
    """W without the singular values that the rounding of its entries adds to a matrix of rank k.

    Parameters
    ----------
    W : (..., n, d)
    rank
        k; None leaves W as it is.
    eps
        Precision in which W was computed: σ_{k+1}, … are removed where σ_{k+1} ≤ 100 max(n, d) eps σ_1. A matrix of
        higher rank is left as it is.
    """
    if rank is None or rank >= min(W.shape[-2:]) or not np.isfinite(W).all():
        return W
    U, sigma, Vh = np.linalg.svd(W, full_matrices=False)
    rounding = sigma[..., rank] <= _PRODUCT_ROUNDING * max(W.shape[-2:]) * eps * sigma[..., 0]
    kept = (U[..., :rank] * sigma[..., None, :rank]) @ Vh[..., :rank, :]
    return np.where(rounding[..., None, None], kept, W)
