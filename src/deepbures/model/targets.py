"""Target covariances Σ0 = Ω diag(λ) Ωᵀ, drawn as the authors draw them (paper.md section 6)."""

import numpy as np

from ..linalg.psd import Array, symmetrize

#: Spectra: decaying like 1/i, or the singular values of a Gaussian matrix.
SPECTRA = ("zipf", "random")
#: Whether these numbers are the eigenvalues of Σ0, or the singular values of its root Σ0^{1/2}.
MODES = ("eigenvalues", "singular values")


def least_eigenvalue(dimension: int, smin: float, *, spectrum: str = "zipf", mode: str = "eigenvalues") -> float | None:
    """λ_n of a target from `draw_target` if it does not depend on the draw: 1/n or smin + 1/n for `zipf`; else None."""
    if spectrum != "zipf":
        return None
    least = 1 / dimension if smin <= 1 / dimension else smin + 1 / dimension
    return least if mode == "eigenvalues" else least**2


def draw_target(
    rng: np.random.Generator,
    dimension: int,
    smin: float = -1.0,
    *,
    spectrum: str = "zipf",
    mode: str = "eigenvalues",
    rank: int | None = None,
) -> Array:
    """Random target covariance Σ0 = Ω Λ Ωᵀ.

    A Gaussian n × n matrix A = U diag(S) Vᵀ gives Ω = U and, for `random`, the spectrum S. For `zipf` the spectrum is
    S_1 / i + N(0, 1), sorted, and shifted so that its minimum is 1/n. If smin ≥ 0 and the minimum is below smin, the
    whole spectrum is shifted, S ← S + smin − S_n + 1/n, so that λ_n = smin + 1/n.

    Parameters
    ----------
    rng
        Stream of the draw. The Gaussian numbers do not depend on smin, mode or rank: with the same
        stream, targets that differ in smin differ by a multiple of the identity.
    dimension
        n.
    smin
        Lower end of the spectrum; a negative value leaves the spectrum as drawn.
    spectrum, mode
        One of `SPECTRA`; one of `MODES` (Λ = S or S²).
    rank
        Rank r of Σ0: S_{r+1..n} ← 0. Default n.

    Returns
    -------
    (n, n)
        Symmetric positive semidefinite.

    Raises
    ------
    ValueError
        On a dimension or rank out of range, or an unknown spectrum or mode.
    """
    if dimension < 1:
        raise ValueError(f"dimension must be at least 1, not {dimension}")
    if spectrum not in SPECTRA:
        raise ValueError(f"spectrum must be one of {', '.join(SPECTRA)}, not {spectrum!r}")
    if mode not in MODES:
        raise ValueError(f"mode must be one of {', '.join(MODES)}, not {mode!r}")
    if rank is not None and not 1 <= rank <= dimension:
        raise ValueError(f"rank must lie between 1 and the dimension {dimension}, not {rank}")
    U, S, _ = np.linalg.svd(rng.standard_normal((dimension, dimension)))
    if spectrum == "zipf":
        S = S[0] / np.arange(1, dimension + 1) + rng.standard_normal(dimension)
        S = np.sort(S)[::-1]
        S = S - S[-1] + 1 / dimension
    if smin >= 0 and S[-1] < smin:
        S = S + (smin - S[-1] + 1 / dimension)
    if rank is not None:
        S = np.where(np.arange(dimension) < rank, S, 0.0)
    eigenvalues = S if mode == "eigenvalues" else S**2
    return symmetrize((U * eigenvalues) @ U.T)
