"""The Bures-Wasserstein and Frobenius losses in mpmath, straight from their definitions, as the tests' yardstick.

120 working digits leave at least 50 correct ones: rank-deficient matrices halve the digits of a root.
"""

import mpmath as mp
import numpy as np

from deepbures.model.diagnostics import norm_over_layers

DIGITS = 120


def _matrix(array):
    return array if isinstance(array, mp.matrix) else mp.matrix(np.asarray(array, dtype=float).tolist())


def _root(matrix):
    eigenvalues, basis = mp.eigsy(matrix)
    return basis * mp.diag([mp.sqrt(max(value, 0)) for value in eigenvalues]) * basis.T


def _trace(matrix):
    return mp.fsum(matrix[i, i] for i in range(matrix.rows))


def eigenvalues(covariance):
    """λ_1 ≥ … ≥ λ_n."""
    with mp.workdps(DIGITS):
        return sorted((+value for value in mp.eigsy(_matrix(covariance), eigvals_only=True)), reverse=True)


def bures_wasserstein(W, covariance, epsilon=0.0):
    """tr(S + εI) + tr Σ0 − 2 tr (R (S + εI) R)^{1/2}, R = Σ0^{1/2}, S = W Wᵀ."""
    with mp.workdps(DIGITS):
        W, target = _matrix(W), _matrix(covariance)
        smoothed = W * W.T + mp.mpf(float(epsilon)) * mp.eye(W.rows)
        R = _root(target)
        roots = [mp.sqrt(max(value, 0)) for value in mp.eigsy(R * smoothed * R, eigvals_only=True)]
        return _trace(smoothed) + _trace(target) - 2 * mp.fsum(roots)


def frobenius(W, covariance):
    """‖W Wᵀ − Σ0‖²_F."""
    with mp.workdps(DIGITS):
        W = _matrix(W)
        return mp.fsum(entry**2 for entry in W * W.T - _matrix(covariance))


def bures_wasserstein_minimum(covariance, epsilon, rank):
    """Σ (√λ_j − √ε)² over j > rank and over λ_j < ε (paper.md section 3)."""
    with mp.workdps(DIGITS):
        epsilon = mp.mpf(float(epsilon))
        return mp.fsum(
            (mp.sqrt(value) - mp.sqrt(epsilon)) ** 2
            for j, value in enumerate(eigenvalues(covariance))
            if j >= rank or value < epsilon
        )


def frobenius_minimum(covariance, rank):
    """Σ_{j>rank} λ_j²."""
    with mp.workdps(DIGITS):
        return mp.fsum(value**2 for value in eigenvalues(covariance)[rank:])


def balanced_gradient_norm(loss, F, depth):
    """(Σ_j ‖∂L/∂W_j‖²)^{1/2} over all N layers of the balanced network with factor F = P diag(s) Vᵀ."""
    P, s, Vh = np.linalg.svd(F, full_matrices=False)
    return norm_over_layers(P, s, loss.gradient(F) @ Vh.mT, depth)


def squared_distance(A, B):
    """tr A + tr B − 2 tr (R B R)^{1/2}, R = A^{1/2}, of arrays or mpmath's matrices."""
    with mp.workdps(DIGITS):
        A, B = _matrix(A), _matrix(B)
        return _trace(A) + _trace(B) - 2 * _trace(_root(_root(A) * B * _root(A)))


def transport_map(A, B):
    """R (R A R)^{-1/2} R, R = B^{1/2}, with the pseudo-inverse where R A R is singular."""
    with mp.workdps(DIGITS):
        R = _root(_matrix(B))
        values, basis = mp.eigsy(R * _matrix(A) * R)
        largest = max(values)
        inverse = [1 / mp.sqrt(v) if v > largest * mp.mpf(10) ** -40 else mp.mpf(0) for v in values]
        return R * basis * mp.diag(inverse) * basis.T * R


def geodesic(A, B, t):
    """M A M, M = (1 − t) I + t T, with the `transport_map` T."""
    with mp.workdps(DIGITS):
        t = mp.mpf(float(t))
        M = (1 - t) * mp.eye(len(A)) + t * transport_map(A, B)
        return M * _matrix(A) * M


def low_rank(F, floor):
    """F Fᵀ + σ² I."""
    with mp.workdps(DIGITS):
        F = _matrix(F)
        return F * F.T + mp.mpf(float(floor)) * mp.eye(F.rows)


def rounded(matrix):
    """An mpmath matrix in double precision."""
    return np.array([[float(matrix[i, j]) for j in range(matrix.cols)] for i in range(matrix.rows)])
