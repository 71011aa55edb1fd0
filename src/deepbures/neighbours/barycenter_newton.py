"""Newton's method for the Bures-Wasserstein barycenter of positive definite covariances.

S is the barycenter of the Σ_i with the weights w_i where Σ_i w_i K_i = S, K_i = (S^{1/2} Σ_i S^{1/2})^{1/2} (Agueh and
Carlier 2011). With K_i = Q_i diag(κ_i) Q_iᵀ, a change dS = S^{1/2} Y S^{1/2} changes the mean map Σ_i w_i T_i so that

    S^{1/2} (Σ_i w_i dT_i) S^{1/2} = −Σ_i w_i Q_i [κ_ia κ_ib/(κ_ia + κ_ib) (Q_iᵀ Y Q_i)_ab] Q_iᵀ =: −A(Y),

because T_i S T_i = Σ_i. Newton's step solves A(Y) = Σ_i w_i K_i − S by conjugate gradients: A is symmetric and
positive, and nearly diagonal in the eigenbasis of S, with the entries s_a s_b/(s_a + s_b). One product costs four
multiplications of matrices for each Σ_i, much less than its decomposition. Few decompositions remain, where the
fixed-point iteration S⁺ = T̄ S T̄, T̄ = Σ_i w_i T_i, needs one for each half digit to digit.
"""

from collections.abc import Callable

import numpy as np

from ..linalg.psd import Array, symmetrize

#: Steps and inner iterations at most, and the reduction of the residual by the latter, relative to that residual.
_MAX_STEPS, _MAX_PRODUCTS, _INNER = 50, 100, 0.1
#: The step from a residual |Σ_i w_i K_i − S| below this fraction of |S| is the last: it converges quadratically.
_LAST = 1e-8
#: A Newton step that reduces a direction of S to less than this gives way to a fixed-point step.
_LEAST = 0.1


def newton(covariances: Array, weights: Array, start: Array) -> Array | None:
    """Barycenter (n, n) of covariances (m, n, n) by steps from a start (n, n).

    None where a Σ_i or S is singular to rounding, and where the steps do not converge.
    """
    S, n, eps = start, len(start), float(np.finfo(float).eps)
    for _ in range(_MAX_STEPS):
        s, V = np.linalg.eigh(S)
        if not s[0] > n * eps * s[-1]:
            return None
        root = np.sqrt(s)
        squares, Q = np.linalg.eigh(root[:, None] * (V.T @ covariances @ V) * root)
        if not (squares[:, 0] > n * eps * squares[:, -1]).all():
            return None
        kappa = np.sqrt(squares)
        mean = np.einsum("i,iab->ab", weights, (Q * kappa[:, None, :]) @ Q.mT)
        residual = mean - np.diag(s)
        size = float(np.linalg.norm(residual)) / float(np.linalg.norm(s))
        diagonal = s[:, None] * s / (s[:, None] + s)
        Y = _solved(_derivative(kappa, Q, weights), residual, diagonal, _INNER * min(1.0, size))
        factor = np.eye(n) + Y
        if not np.linalg.eigvalsh(factor)[0] > _LEAST:
            step = mean / s  # the fixed-point step T̄ S T̄ = S^{-1/2} (Σ_i w_i K_i)² S^{-1/2}
            factor = step.T @ step
        S = symmetrize((V * root) @ factor @ (V * root).T)
        if size <= _LAST:
            return S
    return None


def _derivative(kappa: Array, Q: Array, weights: Array) -> Callable[[Array], Array]:
    """A(Y) = Σ_i w_i Q_i [κ_ia κ_ib/(κ_ia + κ_ib) (Q_iᵀ Y Q_i)_ab] Q_iᵀ."""
    rows, columns = kappa[:, :, None], kappa[:, None, :]
    entries = weights[:, None, None] * rows * columns / (rows + columns)
    return lambda Y: (Q @ (entries * (Q.mT @ Y @ Q)) @ Q.mT).sum(axis=0)


def _solved(product: Callable[[Array], Array], right: Array, diagonal: Array, tolerance: float) -> Array:
    """Y with |A(Y) − right| ≤ tolerance |right|, by conjugate gradients, preconditioned by the diagonal of A."""
    Y, remainder, direction, before = np.zeros_like(right), right, np.zeros_like(right), np.inf
    limit = tolerance * np.linalg.norm(right)
    for _ in range(_MAX_PRODUCTS):
        if np.linalg.norm(remainder) <= limit:
            break
        z = remainder / diagonal
        energy = float(np.sum(remainder * z))
        direction = z + energy / before * direction
        image = product(direction)
        step = energy / float(np.sum(direction * image))
        Y, remainder, before = Y + step * direction, remainder - step * image, energy
    return Y
