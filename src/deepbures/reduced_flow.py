"""The flow of all N layers from a balanced start, in coordinates whose number does not grow with N.

`FactorFlow` follows the n×k matrix Z, for every loss. With G = Zᵀ Z and any C such that C Cᵀ = G^{N−1}, F = Z C is
a factor of the end-to-end covariance, S = F Fᵀ = Z G^{N−1} Zᵀ, and (paper.md section 4)

    dZ/dt = − ∇L(F) Cᵀ,    Z(0) = U_k diag(s^{1/N})  where  W(0) = U diag(s) Vᵀ,

for every loss whose gradient at W is B(S) W: ∇L(Z C) Cᵀ = B Z G^{N−1}. It costs one decomposition,
that in ∇L, and about 2 log₂ N products of k×k matrices.

`RootFlow` follows X = Z Zᵀ = S^{1/N} in the target's eigenbasis, dX/dt = −(B S + S B), where near a diagonal X the
Jacobian is a number for each entry (paper.md section 9): the form that `collocation` integrates.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Self

import numpy as np
from numpy.typing import NDArray

from .losses import BuresWasserstein, CovarianceLoss, Frobenius
from .psd import Array, geometric_sum, integer_power

#: A stage with a larger ‖F‖² is refused before LAPACK sees it: products with it may overflow.
_OVERSHOOT = 1e100


def _transpose(matrix: Array) -> Array:
    return matrix.swapaxes(-1, -2)


class FactorFlow:
    """Right-hand side of the reduced flow for one start, in the eigenbasis of the target, on flattened Z."""

    def __init__(self, loss: CovarianceLoss, depth: int, shape: tuple[int, int]) -> None:
        self.gradient = loss.gradient_in_eigenbasis
        self.depth = depth
        self.shape = shape
        self.evaluations = 0
        self._lower = np.tri(shape[1])

    def half_power(self, Z: Array) -> Array:
        """C with C Cᵀ = (Zᵀ Z)^{N−1}, (..., k, k).

        For even N the odd factor Zᵀ Z is that of Zᵀ itself where Z is square, and of R_Zᵀ from a QR where not.
        """
        half, transposed = (self.depth - 1) // 2, _transpose(Z)
        if self.depth % 2:
            return integer_power(transposed @ Z, half)
        root = transposed
        if self.shape[0] > self.shape[1]:
            root = np.linalg.qr(Z, mode="raw")[0][..., : self.shape[1]] * self._lower  # LAPACK's geqrf, transposed
        return integer_power(transposed @ Z, half) @ root if half else root

    def factor(self, Z: Array) -> Array:
        """F = Z C, a factor of the end-to-end covariance; (..., n, k)."""
        return Z @ self.half_power(Z)

    def __call__(self, _time: float, z: Array) -> Array:
        self.evaluations += 1
        Z = z.reshape(self.shape)
        C = self.half_power(Z)
        F = Z @ C
        # A stage that overshoots overflows in G^{N-1}: NaN makes the integrator shrink the step.
        if not np.vdot(F, F) < _OVERSHOOT:
            return np.full_like(z, np.nan)
        return -(self.gradient(F) @ C.T).ravel()


class RootFlow:
    """The reduced flow of a stack of starts of full rank in X = S^{1/N}, in the eigenbasis of the targets.

    Parameters
    ----------
    loss
        One target for all starts, or one for each. Its type must be among `CURVATURES`.
    depth
        N.

    Notes
    -----
    X stays positive definite under the flow, and here because a step that ends elsewhere is refused. A stage that
    is not has no F for odd N, and is refused too; for even N F = X^{N/2} is a factor all the same.
    """

    def __init__(self, loss: CovarianceLoss, depth: int) -> None:
        self.loss, self.depth = loss, depth

    def take(self, members: NDArray[np.intp]) -> Self:
        """The flows of some members."""
        taken = copy.copy(self)
        taken.loss = self.loss.take(members)
        return taken

    def factor(self, X: Array) -> Array:
        """F with F Fᵀ = X^N: X^{N/2}, or X^{(N−1)/2} L with X = L Lᵀ; NaN where that does not exist."""
        if self.depth % 2 == 0:
            return integer_power(X, self.depth // 2)
        L = _cholesky(X)
        return integer_power(X, self.depth // 2) @ L if self.depth > 1 else L

    def field(self, X: Array) -> tuple[Array, Array]:
        """−(B S + S B) = −(∇L(F) Fᵀ + F ∇L(F)ᵀ), and ‖∇L(F)‖²."""
        F = self.factor(X)
        valid = np.sum(F * F, axis=(-2, -1)) < _OVERSHOOT
        refused = None if valid.all() else ~valid
        if refused is not None:
            F = np.where(refused[..., None, None], 0.0, F)
        gradient = self.loss.gradient_in_eigenbasis(F)
        half = gradient @ _transpose(F)
        field = -(half + _transpose(half))
        if refused is not None:
            field[refused] = np.nan
        return field, np.sum(gradient * gradient, axis=(-2, -1))

    def jacobian(self, X: Array, members: NDArray[np.intp]) -> Array:
        """J_ab = −P_ab Q_ab: P the divided difference of x^N at x = diag X, Q the curvature of the loss."""
        x = np.maximum(np.diagonal(X, axis1=-2, axis2=-1), 0.0)
        rows, columns = x[..., :, None], x[..., None, :]
        return -geometric_sum(rows, columns, self.depth) * curvature(self.loss.take(members), x**self.depth)

    def projected(self, X: Array) -> Array:
        """Symmetric part."""
        return (X + _transpose(X)) / 2

    def admissible(self, X: Array) -> NDArray[np.bool_]:
        """Whether X is positive definite."""
        return np.isfinite(_cholesky(X)[..., 0, 0])

    def frame(self, member: int) -> None:
        """X has no frame but the eigenbasis."""


def curvature(loss: CovarianceLoss, spectrum: Array) -> Array:
    """Q with d(B S + S B)_ab = Q_ab dS_ab at S = diag(s), where ∇L = B(S) F; (..., n, n).

    Parameters
    ----------
    loss
        Of a type in `CURVATURES`.
    spectrum : (..., n)
        s ≥ 0.
    """
    return CURVATURES[type(loss)](loss, spectrum)


def _bures_curvature(loss: BuresWasserstein, spectrum: Array) -> Array:
    """Q_ab = 4 − 2 (λ_a + λ_b)/(m_a + m_b) − 4 ε λ_a λ_b/(m_a m_b (m_a + m_b)), m = √(λ (s + ε)).

    The formula of paper.md section 9, with λs = m² − ελ put in: finite wherever one of the two m is positive. Where
    λ_a = λ_b = 0 there is no transport and Q = 4.
    """
    epsilon = np.asarray(loss.epsilon)[..., None]
    root = np.sqrt(loss.eigenvalues)
    width = np.sqrt(spectrum + epsilon)

    def pairs(values: Array) -> tuple[Array, Array]:
        return values[..., :, None], values[..., None, :]

    (lam_a, lam_b), (root_a, root_b), (width_a, width_b) = pairs(loss.eigenvalues), pairs(root), pairs(width)
    m_sum = root_a * width_a + root_b * width_b
    transported = np.divide(lam_a + lam_b, m_sum, out=np.zeros_like(m_sum), where=m_sum > 0)
    Q = 4 - 2 * transported
    if loss.smoothed:
        blur = root_a * root_b / (width_a * width_b)
        Q -= 4 * epsilon[..., None] * np.divide(blur, m_sum, out=np.zeros_like(m_sum), where=m_sum > 0)
    return Q


def _square_curvature(loss: Frobenius, spectrum: Array) -> Array:
    """Q_ab = 8 (s_a + s_b) − 4 (λ_a + λ_b)."""
    term = 8 * spectrum - 4 * loss.eigenvalues
    return term[..., :, None] + term[..., None, :]


#: The losses whose flow has a Jacobian in closed form. Others are integrated explicitly.
CURVATURES: dict[type[CovarianceLoss], Callable[..., Array]] = {
    BuresWasserstein: _bures_curvature,
    Frobenius: _square_curvature,
}


def _cholesky(matrices: Array) -> Array:
    """L with L Lᵀ = A for each matrix of a stack, NaN where A is not positive definite."""
    try:
        return np.linalg.cholesky(matrices)
    except np.linalg.LinAlgError:
        found = np.full_like(matrices, np.nan)
        for i in np.ndindex(matrices.shape[:-2]):
            try:
                found[i] = np.linalg.cholesky(matrices[i])
            except np.linalg.LinAlgError:
                continue
        return found
