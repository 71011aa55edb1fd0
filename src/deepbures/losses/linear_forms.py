"""The losses in forms that are linear in n, for factors F of k ≪ n columns: Gram matrices, and no n × n array.

All of them work in the target's eigenbasis, on F = Ωᵀ W (n, k), with its eigenvalues λ_1 ≥ … ≥ λ_n. The smoothed loss
takes M = R (F Fᵀ + εI) R = D + Y Yᵀ, D = ε diag(λ), Y = R F, through the resolvents of `inverse_root` (paper.md section
11). Rows with λ_j = 0 are outside the range of M: the transport map T is 0 there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

import numpy as np

from ..linalg.psd import Array, soft_threshold
from ..linalg.resolvents import Resolvent, inverse_root_product, resolvents
from ..linalg.thin import squared_distance_to_diagonal

#: Error of the quadrature for M^{-1/2}, in units of eps: less than what rounding adds.
_ACCURACY = 4


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


def smoothed_hessian_product(eigenvalues: Array, epsilon: float, F: Array, V: Array) -> Array:
    """∇²L_ε[V] = 2 V − 2 R Σ_j w_j [e_j Z C_j − A_j (B_j + B_jᵀ)] C_jᵀ for V (..., n, k), Z = R V, B_j = A_jᵀ Z C_j.

    It is 2 (I − T) V − 2 R (dM^{-1/2}) Y (paper.md section 2) with
    dM^{-1/2} = −Σ_j w_j (M + τ_j)^{-1} (Z Yᵀ + Y Zᵀ) (M + τ_j)^{-1}, and Yᵀ (M + τ)^{-1} Y = I − C Cᵀ: T V drops out.
    """
    root, parts = _root_and_resolvents(eigenvalues, epsilon, F)
    return _smoothed_hessian_product(root, parts, V)


def smoothed_hessian_operator(eigenvalues: Array, epsilon: float, F: Array) -> Callable[[Array], Array]:
    """`smoothed_hessian_product` as a function of V; it keeps the resolvents, n k numbers per node."""
    root, parts = _root_and_resolvents(eigenvalues, epsilon, F)
    kept = [replace(part, outer=part.outer.copy()) for part in parts]
    return lambda V: _smoothed_hessian_product(root, kept, V)


def _smoothed_hessian_product(root: Array, parts: Iterable[Resolvent], V: Array) -> Array:
    Zt = np.ascontiguousarray((root[:, None] * V[..., : len(root), :]).mT)
    total = np.zeros_like(Zt)
    for part in parts:
        B = (part.outer @ Zt.mT) @ part.inner
        C = part.weight * part.inner
        total += ((C @ part.inner.T) @ Zt) * part.diagonal - (C @ (B + B.mT)) @ part.outer
    product = 2 * V
    product[..., : len(root), :] -= 2 * root[:, None] * total.mT
    return product


def smoothed_excess(eigenvalues: Array, epsilon: float, F: Array) -> np.floating:
    """L_ε(F) − L*, L* the minimum over rank ≤ k, for F with k columns.

    With K the directions j ≤ k that the minimiser fills (λ_j > ε), O the others, and T = √(Λ/ε) − C, it is (ours)
    ‖(F − T F)_K‖² + ε ‖(I − T)_KK‖² + ε ‖C_KO‖² + Σ_{i in O} [ |F_i|² − 2 F_i·(T F)_i + 2 ε C_ii ]:
    the sum of squares of paper.md section 2, with the square of C_OO, whose cost is quadratic in the number of nodes,
    eliminated by T (S + εI) T = Σ0. Each term in the bracket is of second order in the distance from the minimum, so
    the relative accuracy is kept.
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


def frobenius_gradient(eigenvalues: Array, F: Array) -> Array:
    """4 (F (Fᵀ F) − Λ F)."""
    return 4 * (F @ (F.mT @ F) - eigenvalues[..., :, None] * F)


def frobenius_hessian_product(eigenvalues: Array, F: Array, V: Array) -> Array:
    """4 (S − Λ) V + 4 (V Fᵀ + F Vᵀ) F, by k × k products."""
    Ft, Vt = F.mT, V.mT
    return 4 * (F @ (Ft @ V + Vt @ F) + V @ (Ft @ F) - eigenvalues[..., :, None] * V)


def frobenius_excess(eigenvalues: Array, F: Array, rank: int) -> Array:
    """‖S − S*‖² − 2 Σ_{j>k} λ_j S_jj for S* of rank k, by blocks: the first k rows and columns, and the others."""
    others = F[..., rank:, :]
    cross = np.sum(np.sum(others**2, axis=-1) * eigenvalues[..., rank:], axis=-1)
    return squared_distance_to_diagonal(F[..., :rank, :], others, eigenvalues[..., :rank]) - 2 * cross


def _root_and_resolvents(eigenvalues: Array, epsilon: float, F: Array) -> tuple[Array, Iterator[Resolvent]]:
    """diag(R) on the range of the target, and the resolvents of M there, one after the other."""
    root, D, Yt, accuracy = _form(eigenvalues, epsilon, F)
    return root, resolvents(D, Yt, accuracy)


def _form(eigenvalues: Array, epsilon: float, F: Array) -> tuple[Array, Array, Array, float]:
    """diag(R) on the range of the target; there diag(D) and Yᵀ of M = D + Y Yᵀ; and the accuracy of its M^{-1/2}."""
    support = int(np.sum(eigenvalues > 0))
    kept = eigenvalues[:support].astype(F.dtype, copy=False)
    root = np.sqrt(kept)
    Yt = np.ascontiguousarray((root[:, None] * F[:support]).T)
    return root, F.dtype.type(epsilon) * kept, Yt, _ACCURACY * float(np.finfo(F.dtype).eps)
