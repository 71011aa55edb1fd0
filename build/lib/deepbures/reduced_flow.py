"""The flow of all N layers from a balanced start, in coordinates whose number does not grow with N.

`FactorFlow` follows the n×k matrix Z, for every loss. With G = Zᵀ Z and any C such that C Cᵀ = G^{N−1}, F = Z C is
a factor of the end-to-end covariance, S = F Fᵀ = Z G^{N−1} Zᵀ, and (paper.md section 4)

    dZ/dt = − ∇L(F) Cᵀ,    Z(0) = U_k diag(s^{1/N})  where  W(0) = U diag(s) Vᵀ,

for every loss whose gradient at W is B(S) W: ∇L(Z C) Cᵀ = B Z G^{N−1}. It costs one decomposition,
that in ∇L, and about 2 log₂ N products of k×k matrices.

`RootFlow` follows X = Z Zᵀ = S^{1/N}, or k columns of it, in the target's eigenbasis: dX/dt = −(B S + S B), where near
a diagonal X the Jacobian is a number for each entry (paper.md section 9): the form that `collocation` integrates.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Self

import numpy as np
from numpy.typing import NDArray

from .losses import BuresWasserstein, CovarianceLoss, Frobenius
from .psd import Array, geometric_sum, integer_power, symmetrize

#: A stage with a larger ‖F‖² is refused before LAPACK sees it: products with it may overflow.
_OVERSHOOT = 1e100
#: Coefficients of other coordinates in the chosen ones may be as large as this.
_LARGEST_SHARE = 2.0
#: Rows whose remainder is a smaller share of |Z| count as dependent.
_DEPENDENT = 1e-7


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
        """−∇L(F) Cᵀ, NaN for a stage that overshoots."""
        self.evaluations += 1
        Z = z.reshape(self.shape)
        C = self.half_power(Z)
        F = Z @ C
        # A stage that overshoots overflows in G^{N-1}: NaN makes the integrator shrink the step.
        if not np.vdot(F, F) < _OVERSHOOT:
            return np.full_like(z, np.nan)
        return -(self.gradient(F) @ C.T).ravel()


class RootFlow:
    """The reduced flow of a stack of starts of one rank k in X = S^{1/N}, in the eigenbases of the targets.

    For k = n the state is X. For k < n it is P = X_{:,J}, the columns of k coordinates J, which come first in the
    `order` of the coordinates: with A = P_{1..k} = L Lᵀ, Z = P L^{-T} has X = Z Zᵀ = P A^{-1} Pᵀ (Nyström), and
    dP/dt = −(∇L(F) F_Jᵀ + F ∇L(F)_Jᵀ) (paper.md section 9).

    Parameters
    ----------
    loss
        One target for all starts, or one for each. Its type must be among `CURVATURES`.
    depth
        N.
    order : (B, n), optional
        For k < n, the coordinates of each start, J first.

    Notes
    -----
    Rank and definiteness are kept: the exact flow keeps them, the state has room for rank k alone, and a step that ends
    where A is not positive definite is refused. A stage that is not has no L, hence no F, and is refused too;
    but for even N and k = n, where F = X^{N/2} is a factor of X^N all the same.
    """

    def __init__(self, loss: CovarianceLoss, depth: int, order: NDArray[np.intp] | None = None) -> None:
        self.loss, self.depth, self.order = loss, depth, order

    def take(self, members: NDArray[np.intp]) -> Self:
        """The flows of some members."""
        taken = copy.copy(self)
        taken.loss = self.loss.take(members)
        taken.order = None if self.order is None else self.order[members]
        return taken

    def field(self, P: Array) -> tuple[Array, Array]:
        """−(∇L(F) F_Jᵀ + F ∇L(F)_Jᵀ), for k = n −(B S + S B); and ‖∇L(F)‖²."""
        k = P.shape[-1]
        F = root_factor(P, self.depth)
        valid = np.sum(F * F, axis=(-2, -1)) < _OVERSHOOT
        refused = None if valid.all() else ~valid
        if refused is not None:
            F = np.where(refused[..., None, None], 0.0, F)
        gradient = _reordered(self.loss.gradient_in_eigenbasis(in_eigenbasis(F, self.order)), self.order)
        if self.order is None:
            half = gradient @ _transpose(F)
            field = -(half + _transpose(half))
        else:
            field = -(gradient @ _transpose(F[..., :k, :]) + F @ _transpose(gradient[..., :k, :]))
        if refused is not None:
            field[refused] = np.nan
        return field, np.sum(gradient * gradient, axis=(-2, -1))

    def jacobian(self, P: Array, members: NDArray[np.intp]) -> Array:
        """J_ab = −D_ab Q_ab: D the divided difference of x^N at x = diag X, Q the curvature of the loss.

        For k < n with x_b = 0 for b not in J, where D_ab = x_a^{N−1}.
        """
        k = P.shape[-1]
        x = np.zeros(P.shape[:-1])
        x[..., :k] = np.maximum(np.diagonal(P, axis1=-2, axis2=-1), 0.0)
        differences = geometric_sum(x[..., :, None], x[..., None, :k], self.depth)
        order = None if self.order is None else self.order[members]
        spectrum = x**self.depth
        Q = curvature(self.loss.take(members), in_eigenbasis(spectrum[..., None], order)[..., 0])
        if order is not None:
            Q = _transpose(_reordered(_transpose(_reordered(Q, order)), order))[..., :k]
        return -differences * Q

    def projected(self, P: Array) -> Array:
        """With its first k rows made symmetric."""
        k = P.shape[-1]
        if self.order is None:
            return (P + _transpose(P)) / 2
        top = P[..., :k, :]
        return np.concatenate([(top + _transpose(top)) / 2, P[..., k:, :]], axis=-2)

    def admissible(self, P: Array) -> NDArray[np.bool_]:
        """Whether X is positive definite on J."""
        return np.isfinite(_cholesky(P[..., : P.shape[-1], :])[..., -1, -1])

    def frame(self, member: int) -> NDArray[np.intp] | None:
        """The order of the coordinates of a member."""
        return None if self.order is None else self.order[member].copy()

    def moved(self, P: Array, members: NDArray[np.intp]) -> NDArray[np.bool_]:
        """Choose another J where X is badly determined by its columns in J; P is changed in place."""
        changed = np.zeros(len(members), dtype=bool)
        k = P.shape[-1]
        if self.order is not None:
            for i, member in enumerate(members):
                Z = root(P[i])
                order = pivoted(Z)
                if (order[:k] != np.arange(k)).any():
                    P[i] = Z[order] @ Z[order[:k]].T
                    self.order[member] = self.order[member][order]
                    changed[i] = True
        return changed


def pivoted(Z: Array) -> NDArray[np.intp]:
    """An order of the rows of Z, (n, k), the first k of which determine the others stably.

    Rows are exchanged while a coefficient of the others in the first k is larger than 2, which doubles the
    determinant of these each time (Gu and Eisenstat 1996, strong rank-revealing factorisation).
    """
    n, k = Z.shape
    order = np.arange(n)
    if k < n:
        if not np.linalg.svd(Z[:k], compute_uv=False)[-1] > _DEPENDENT * np.linalg.norm(Z):  # no start at all
            order = _greedy(Z)
        while True:
            rows = Z[order]
            share = np.linalg.solve(rows[:k].T, rows[k:].T)  # (k, n − k)
            a, b = np.unravel_index(np.argmax(np.abs(share)), share.shape)
            if not np.abs(share[a, b]) > _LARGEST_SHARE:
                break
            order[[a, k + b]] = order[[k + b, a]]
    return order


def _greedy(Z: Array) -> NDArray[np.intp]:
    """Rows by pivoted Gram-Schmidt: the longest remainder first."""
    n, k = Z.shape
    rest = Z.copy()
    picked: list[int] = []
    for _ in range(k):
        lengths = np.sum(rest**2, axis=1)
        lengths[picked] = -1.0
        p = int(np.argmax(lengths))
        picked.append(p)
        direction = rest[p] / np.linalg.norm(rest[p])
        rest = rest - np.outer(rest @ direction, direction)
    return np.array(picked + [p for p in range(n) if p not in picked])


def root(P: Array) -> Array:
    """Z = P L^{-T} with Z Zᵀ = X, A = P_{1..k} = L Lᵀ; for k = n Z = L. NaN where A is not positive definite."""
    n, k = P.shape[-2:]
    L = _cholesky(P[..., :k, :])
    return L if k == n else _transpose(np.linalg.solve(L, _transpose(P)))


def nearest_factor(P: Array, depth: int) -> Array:
    """`root_factor` of one state whose X is definite but for an error: its negative directions are left out."""
    k = P.shape[-1]
    x, V = np.linalg.eigh(symmetrize(P[:k]))
    positive = x > 0
    Z = np.zeros_like(P)
    Z[:, positive] = (P @ V[:, positive]) / np.sqrt(x[positive])
    U, sigma, _ = np.linalg.svd(Z, full_matrices=False)
    return U * sigma**depth


def root_factor(P: Array, depth: int) -> Array:
    """F with F Fᵀ = S = X^N, for the state P of a `RootFlow`; NaN where there is none.

    For k = n it is X^{N/2}, or X^{(N−1)/2} L with X = L Lᵀ; else Z C with C Cᵀ = (Zᵀ Z)^{N−1}.
    """
    half = depth // 2
    if P.shape[-2] == P.shape[-1]:
        if depth % 2 == 0:
            return integer_power(P, half)
        L = _cholesky(P)
        return integer_power(P, half) @ L if half else L
    Z = root(P)
    G = _transpose(Z) @ Z
    C = integer_power(G, (depth - 1) // 2)
    return Z @ (C if depth % 2 else C @ _cholesky(G))


def _reordered(rows: Array, order: NDArray[np.intp] | None) -> Array:
    """Rows (..., B, n, d) in the order of each member, (B, n)."""
    if order is None:
        return rows
    index = np.broadcast_to(order[..., None], rows.shape)
    return np.take_along_axis(rows, index, axis=-2)


def in_eigenbasis(rows: Array, order: NDArray[np.intp] | None) -> Array:
    """Rows (..., B, n, d) back from the order of each member."""
    return rows if order is None else _reordered(rows, np.argsort(order, axis=-1))


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
