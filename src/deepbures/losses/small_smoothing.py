"""The excess loss below full rank where ε is small against an eigenvalue that stays empty, without cancellation.

With the transport map T* of the minimiser, L_ε − L* has the term tr (I − T*)(S − S*), negative where λ_{k+1} > ε:
the other term is √(λ_{k+1}/ε) times larger than the excess, and so many digits are lost. A map that follows W has no
such term.
"""

import numpy as np

from ..linalg.psd import Array, soft_threshold


def smoothed_excess(eigenvalues: Array, epsilon: float, F: Array, rank: int) -> np.floating:
    """L_ε(F) − L*, L* the minimum over rank ≤ k, where λ_k > ε: a sum of terms ≥ 0 (paper.md section 2, ours).

    For every T > 0, L = ‖T^{1/2} A − T^{-1/2} R Q‖² + tr (I − T)(S + εI) + tr (I − T^{-1}) Σ0. In the directions with
    λ_j > ε take T = I on the range X of F and (G/ε)^{1/2} on its complement Y, G = Yᵀ Σ0 Y; for the others take
    t_j = √(λ_j/ε). With g the eigenvalues of G and Λ_o = diag(λ_j > ε, j > k),
    L − L* = ‖T^{1/2} A − T^{-1/2} R Q‖² + Σ_{λ_j ≤ ε} (1 − t_j) S_jj + tr (G^{1/2} − √ε)² − tr (Λ_o^{1/2} − √ε)².
    For G^{1/2} Z = Z diag(√g) the last difference is Σ_ij Z_ij ((G − Λ_o) Z)_ij (1 − 2 √ε/(√λ_i + √g_j)).

    Parameters
    ----------
    eigenvalues : (n,)
    epsilon
        ε > 0, below λ_k.
    F : (n, p)
        Factor in the eigenbasis of the target, with p ≤ k columns.
    rank
        k.
    """
    above = int(np.sum(soft_threshold(eigenvalues, epsilon) > 0))
    smoothing = np.sqrt(epsilon)
    X, Y, gain = _complement(eigenvalues[:above], F[:above], rank)
    empty = eigenvalues[rank:above]
    g, Z = np.linalg.eigh(np.diag(empty) + gain)
    turned = np.concatenate([X, Y @ Z], axis=1)  # the eigenvectors of T in the directions with λ_j > ε
    t = np.concatenate([np.ones(rank), np.sqrt(g / epsilon), np.sqrt(eigenvalues[above:] / epsilon)])
    root = np.sqrt(eigenvalues)[:, None]
    A = np.concatenate([F, smoothing * np.eye(len(F), dtype=F.dtype)], axis=1)
    U, _, Vh = np.linalg.svd(root * A, full_matrices=False)
    transported = root * (U @ Vh)
    turned_A, turned_image = A.copy(), transported.copy()
    turned_A[:above], turned_image[:above] = turned.T @ A[:above], turned.T @ transported[:above]
    scale = np.sqrt(t)[:, None]
    distance = np.sum((scale * turned_A - np.divide(turned_image, scale, out=np.zeros_like(A), where=scale > 0)) ** 2)
    weights = 1 - 2 * smoothing / (np.sqrt(empty)[:, None] + np.sqrt(g))
    raised = np.sum(Z * (gain @ Z) * weights)
    return distance + np.sum(np.sum(F[above:] ** 2, axis=1) * (1 - t[above:])) + raised


def _complement(eigenvalues: Array, F: Array, rank: int) -> tuple[Array, Array, Array]:
    """Orthonormal X (m, k) around the range of F, its complement Y (m, m − k), and Yᵀ Λ Y − diag(λ_{k+1}, …, λ_m).

    Y is turned so that its last m − k rows are symmetric positive semidefinite, (I − C)^{1/2} with C = Y_1ᵀ Y_1 of the
    first k rows. With D = I − (I − C)^{1/2} = C (I + (I − C)^{1/2})^{-1} and Γ = λ_k − diag(λ_{k+1}, …, λ_m) the
    difference is Y_1ᵀ (Λ_1 − λ_k) Y_1 + D Γ + Γ D − D Γ D: all of the order of C, and of relative accuracy.
    """
    basis, _, _ = np.linalg.svd(F, full_matrices=True)
    X, Y = basis[:, :rank], basis[:, rank:]
    left, _, right = np.linalg.svd(Y[rank:])
    Y = Y @ (left @ right).T
    c, Q = np.linalg.eigh(Y[:rank].T @ Y[:rank])
    c = np.clip(c, 0, 1)
    D = (Q * (c / (1 + np.sqrt(1 - c)))) @ Q.T
    gap = eigenvalues[rank - 1] - eigenvalues[rank:]
    gain = Y[:rank].T @ ((eigenvalues[:rank] - eigenvalues[rank - 1])[:, None] * Y[:rank])
    gain += D * gap + gap[:, None] * D - (D * gap) @ D
    return X, Y, (gain + gain.T) / 2
