"""Forms of the Bures-Wasserstein loss that are linear in n, for F of k ≪ n columns, without n × n arrays.

All of them work in the eigenbasis of the target, on F = Ωᵀ W (n, k), with its eigenvalues λ_1 ≥ … ≥ λ_n. For ε > 0,
M = R (F Fᵀ + εI) R = D + Y Yᵀ with D = ε diag(λ) and Y = R F enters by its resolvents (`linalg.resolvents`; paper.md
section 11). Rows with λ_j = 0 are outside the range of M: the transport map T is 0 there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

import numpy as np

from ..linalg.psd import Array, soft_threshold
from ..linalg.resolvents import Resolvent, inverse_root_product, resolvents
from .form import Form, Minimum
from .polar import Polar, of_rank

#: Error of the quadrature for M^{-1/2}, in units of eps: less than the rounding errors.
_ACCURACY = 4


class ThinSmoothed(Form):
    """ε > 0 and k ≪ n: one member after the other, because the nodes of the quadrature depend on λ, ε and F."""

    def __init__(self, minimum: Minimum, columns: int, rank: int) -> None:
        self.minimum, self.rank = minimum, rank

    def value(self, F: Array) -> Array:
        """L* + (L − L*), two sums of squares."""
        return self.minimum.value + self.excess(F)

    def excess(self, F: Array) -> Array:
        """L − L*, see `smoothed_excess`."""
        F = of_rank(F, self.rank)
        return self._each(smoothed_excess, F) + self.minimum.lack(F.shape[-1])

    def gradient(self, F: Array) -> Array:
        """2 (F − T F), see `smoothed_gradient`."""
        return self._each(smoothed_gradient, F)

    def hessian_operator(self, F: Array) -> Callable[[Array], Array]:
        """V ↦ ∇²L[V]. At a single F it stores n k numbers per node."""
        if F.ndim > 2 or self.minimum.epsilon.ndim:
            return lambda V: self.hessian_product(F, V)
        return smoothed_hessian_operator(self.minimum.eigenvalues, float(self.minimum.epsilon), F)

    def hessian_product(self, F: Array, V: Array) -> Array:
        """∇²L[V], with one resolvent in memory at a time."""
        return self._each(smoothed_hessian_product, F, V)

    def transport(self, F: Array, V: Array) -> Array:
        """T V for a block V (..., n, p), see `smoothed_transport`."""
        return self._each(smoothed_transport, F, V)

    def _each(self, compute: Callable[..., Array | np.floating], F: Array, *directions: Array) -> Array:
        """compute(λ, ε, F, …) for each member of a stack."""
        eigenvalues, epsilon = self.minimum.eigenvalues, self.minimum.epsilon
        batch = np.broadcast_shapes(F.shape[:-2], *(V.shape[:-2] for V in directions), epsilon.shape)
        eigenvalues = np.broadcast_to(eigenvalues, (*batch, eigenvalues.shape[-1]))
        epsilon = np.broadcast_to(epsilon, batch)
        stacks = [np.broadcast_to(V, (*batch, *V.shape[-2:])) for V in (F, *directions)]
        results = [compute(eigenvalues[i], float(epsilon[i]), *(V[i] for V in stacks)) for i in np.ndindex(batch)]
        return np.reshape(results, (*batch, *np.shape(results[0])))


class ThinPolar(Polar):
    """ε = 0 and k ≪ n: the singular vectors of R F need no n × n array, and neither does the excess."""

    def excess(self, F: Array) -> Array:
        """L − L*, see `unsmoothed_excess`."""
        F = of_rank(F, self.rank)
        return unsmoothed_excess(self.minimum.eigenvalues, F) + self.minimum.lack(F.shape[-1])


def smoothed_gradient(eigenvalues: Array, epsilon: float, F: Array) -> Array:
    """2 (F − R M^{-1/2} Y), the gradient of L_ε (paper.md sections 2 and 11)."""
    root, D, Yt, accuracy = _form(eigenvalues, epsilon, F)
    gradient = 2 * F
    gradient[: len(root)] -= 2 * root[:, None] * inverse_root_product(D, Yt, accuracy).T
    return gradient


def smoothed_transport(eigenvalues: Array, epsilon: float, F: Array, V: Array) -> Array:
    """T V = √(Λ/ε) V − R Σ_j w_j A_j A_jᵀ R V for a block V (n, p): T is a diagonal less matrices of rank k."""
    root, parts = _root_and_resolvents(eigenvalues, epsilon, F)
    scaled = root[:, None] * V[: len(root)]
    transported = np.zeros(V.shape, dtype=np.result_type(F, V))
    transported[: len(root)] = scaled / np.sqrt(F.dtype.type(epsilon))
    for part in parts:
        transported[: len(root)] -= root[:, None] * (part.weight * part.outer.T @ (part.outer @ scaled))
    return transported


def smoothed_hessian_operator(eigenvalues: Array, epsilon: float, F: Array) -> Callable[[Array], Array]:
    """V ↦ ∇²L_ε[V] at one F. The resolvents are stored, n k numbers per node."""
    root, parts = _root_and_resolvents(eigenvalues, epsilon, F)
    stored = [replace(part, outer=part.outer.copy()) for part in parts]
    return lambda V: _hessian_product(root, stored, V)


def smoothed_hessian_product(eigenvalues: Array, epsilon: float, F: Array, V: Array) -> Array:
    """∇²L_ε[V], see `_hessian_product`, with one resolvent in memory at a time."""
    return _hessian_product(*_root_and_resolvents(eigenvalues, epsilon, F), V)


def _hessian_product(root: Array, parts: Iterable[Resolvent], V: Array) -> Array:
    """2 V − 2 R Σ_j w_j [e_j Z C_j − A_j (B_j + B_jᵀ)] C_jᵀ for V (..., n, k), Z = R V, B_j = A_jᵀ Z C_j.

    This is ∇²L_ε[V] = 2 (I − T) V − 2 R (dM^{-1/2}) Y (paper.md section 2) with
    dM^{-1/2} = −Σ_j w_j (M + τ_j)^{-1} (Z Yᵀ + Y Zᵀ) (M + τ_j)^{-1}. The term T V drops out, because
    Yᵀ (M + τ)^{-1} Y = I − C Cᵀ.
    """
    Zt = np.ascontiguousarray((root[:, None] * V[..., : len(root), :]).mT)
    total = np.zeros_like(Zt)
    for part in parts:
        B = (part.outer @ Zt.mT) @ part.inner
        C = part.weight * part.inner
        total += ((C @ part.inner.T) @ Zt) * part.diagonal - (C @ (B + B.mT)) @ part.outer
    result = 2 * V
    result[..., : len(root), :] -= 2 * root[:, None] * total.mT
    return result


def smoothed_excess(eigenvalues: Array, epsilon: float, F: Array) -> np.floating:
    """L_ε(F) − L*, L* the minimum over rank ≤ k, for F with k columns.

    With K the directions j ≤ k that the minimiser fills (λ_j > ε), O the others, and T = √(Λ/ε) − C, it is (ours)
    ‖(F − T F)_K‖² + ε ‖(I − T)_KK‖² + ε ‖C_KO‖² + Σ_{i in O} [ |F_i|² − 2 F_i·(T F)_i + 2 ε C_ii ]:
    the sum of squares of paper.md section 2, with the square of C_OO, whose cost is quadratic in the number of nodes,
    eliminated by T (S + εI) T = Σ0. Each term in the bracket is of second order in the distance from the minimum, so
    the relative accuracy is preserved.
    """
    k = F.shape[1]
    root, parts = _root_and_resolvents(eigenvalues, epsilon, F)
    support = len(root)
    filled = int(np.sum(soft_threshold(eigenvalues, epsilon)[:k] > 0))
    total = np.zeros((k, support), dtype=F.dtype)  # (M^{-1/2} Y)ᵀ
    rows = np.zeros((filled, support), dtype=F.dtype)  # of D^{-1/2} − M^{-1/2}, those in K
    diagonal = np.zeros(support, dtype=F.dtype)  # its diagonal
    for part in parts:
        total += (part.weight * part.inner) @ part.outer
        rows += (part.weight * part.outer[:, :filled].T) @ part.outer
        diagonal += part.weight * np.einsum("ij,ij->j", part.outer, part.outer)
    transported = root[:, None] * total.T
    C = root[:filled, None] * rows * root
    inside = np.sum((F[:filled] - transported[:filled]) ** 2)
    C_KK = C[:, :filled] + np.diag(1 - root[:filled] / np.sqrt(F.dtype.type(epsilon)))  # I − T there
    deformed = np.sum(C_KK**2) + np.sum(C[:, filled:] ** 2)
    others = F[filled:support]
    outside = np.sum(F[filled:] ** 2) - 2 * np.sum(others * transported[filled:])
    return inside + epsilon * deformed + outside + 2 * epsilon * np.sum(eigenvalues[filled:support] * diagonal[filled:])


def unsmoothed_excess(eigenvalues: Array, F: Array) -> Array:
    """L_0(F) − L*, L* the minimum over rank ≤ k, for F (..., n, k) with k < n columns, as a sum of squares.

    With R F = U σ Vᵀ it is ‖F − R U Vᵀ‖² + Σ_{j≤k} (λ_j − λ_k) (I − U Uᵀ)_jj + Σ_{j>k} (λ_k − λ_j) (U Uᵀ)_jj. The
    diagonal of I − U Uᵀ needs no complement of U: with U_1 = A cos θ Bᵀ its first k rows, and U_2 the others, whose
    columns U_2 B are orthogonal and of length sin θ, I − U_1 U_1ᵀ = A sin²θ Aᵀ = (U_2 B Aᵀ)ᵀ (U_2 B Aᵀ).
    """
    k = F.shape[-1]
    root = np.sqrt(eigenvalues)[..., :, None]
    U, _, Vt = np.linalg.svd(root * F, full_matrices=False)
    distance = np.sum((F - root * (U @ Vt)) ** 2, axis=(-2, -1))
    gap = eigenvalues - eigenvalues[..., k - 1 : k]
    A, _, Bt = np.linalg.svd(U[..., :k, :])
    others = U[..., k:, :]
    lost = np.sum((others @ (A @ Bt).mT) ** 2, axis=-2)
    leaked = np.sum(others**2, axis=-1)
    return distance + np.sum(lost * gap[..., :k], axis=-1) - np.sum(leaked * gap[..., k:], axis=-1)


def _root_and_resolvents(eigenvalues: Array, epsilon: float, F: Array) -> tuple[Array, Iterator[Resolvent]]:
    """diag(R) on the range of the target, and the resolvents of M there, one after the other."""
    root, D, Yt, accuracy = _form(eigenvalues, epsilon, F)
    return root, resolvents(D, Yt, accuracy)


def _form(eigenvalues: Array, epsilon: float, F: Array) -> tuple[Array, Array, Array, float]:
    """On the range of the target diag(R), diag(D) and Yᵀ of M = D + Y Yᵀ; and the accuracy of its M^{-1/2}."""
    support = int(np.sum(eigenvalues > 0))
    positive = eigenvalues[:support].astype(F.dtype, copy=False)
    root = np.sqrt(positive)
    Yt = np.ascontiguousarray((root[:, None] * F[:support]).T)
    return root, F.dtype.type(epsilon) * positive, Yt, _ACCURACY * float(np.finfo(F.dtype).eps)
