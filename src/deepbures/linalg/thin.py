"""When a factor is thin, and distances of thin factors without n × n arrays."""

import numpy as np

from .psd import Array

#: From this dimension on, with at most n/_THIN columns, the linear forms are faster. Time of a gradient with ε > 0,
#: dense over linear: 1.1 to 2.6 at k = n/6, 1.5 at n = 128 and k = n/8, 55 at n = 512 and k = 8.
_LARGE, _THIN = 128, 6


def is_thin(dimension: int, columns: int) -> bool:
    """Whether n × k matrices use the forms that are linear in n; the only place that decides this."""
    return dimension >= _LARGE and columns * _THIN <= dimension


def squared_distance_to_diagonal(first: Array, others: Array, diagonal: Array) -> Array:
    """‖F Fᵀ − diag(d, 0)‖²_F with F_1 (..., r, k) the rows that meet d (..., r), and F_2 the others.

    ‖F_1 F_1ᵀ − diag d‖² + 2 ⟨F_1ᵀ F_1, F_2ᵀ F_2⟩ + ‖F_2ᵀ F_2‖²: squares, and products of positive Gram matrices.
    """
    head = first @ first.mT - np.eye(first.shape[-2], dtype=first.dtype) * diagonal[..., None, :]
    inner, outer = first.mT @ first, others.mT @ others
    return np.sum(head**2, axis=(-2, -1)) + np.sum(2 * inner * outer + outer**2, axis=(-2, -1))
