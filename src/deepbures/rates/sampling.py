"""Expected error of a sample covariance."""

import numpy as np
from numpy.typing import ArrayLike


def expected_sampling_error(eigenvalues: ArrayLike, samples: int) -> float:
    """E B²(Σ̂, Σ0) of the covariance of m Gaussian samples with known mean, to first order in 1/m (paper.md section 9).

    (1/m) Σ_ij λ_i λ_j (1 + δ_ij)/(2 (λ_i + λ_j)). Directions without variance contribute nothing. If the mean is
    estimated, too, m − 1 replaces m.
    """
    if not samples >= 1:
        raise ValueError(f"samples must be at least 1, not {samples}")
    values = np.asarray(eigenvalues, dtype=float)
    values = values[values > 0]
    harmonic = values[:, None] * values / (2 * (values[:, None] + values))
    return float((harmonic.sum() + np.trace(harmonic)) / samples)
