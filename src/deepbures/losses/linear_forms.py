"""The Bures-Wasserstein loss with ε > 0 for F of k ≪ n columns, linear in n, without n × n arrays.

Everything is computed in the eigenbasis of the target, with R = diag(√λ). M = R (F Fᵀ + εI) R = D + Y Yᵀ with
D = ε diag(λ) and Y = R F enters by its resolvents, (M + τ_j)^{-1} = diag(e_j) − A_j A_jᵀ with
(M + τ_j)^{-1} Y = A_j C_jᵀ and M^{-1/2} = Σ_j w_j (M + τ_j)^{-1} (`linalg.resolvents`; paper.md section 11). Rows with
λ_j = 0 are outside the range of M: the transport map T is 0 there.
"""

from collections.abc import Callable, Iterable, Iterator
from copy import copy
from dataclasses import replace
from typing import Any

import numpy as np

from ..linalg.psd import Array, soft_threshold
from ..linalg.resolvents import Resolvent, inverse_root_product, resolvents
from .dense import of_rank
from .form import Form

#: Error of the quadrature for M^{-1/2}, in units of eps: less than the rounding errors.
_ACCURACY = 4


class ThinSmoothed(Form):
    """ε > 0 and k ≪ n: one member after the other, because the nodes of the quadrature depend on λ, ε and F."""

    #: Relative error allowed in M^{-1/2} besides rounding.
    accuracy = 0.0

    def to_accuracy(self, accuracy: float) -> "ThinSmoothed":
        """The form with fewer nodes: their number is proportional to log (1/accuracy)."""
        form = copy(self)
        form.accuracy = accuracy
        return form

    def value(self, F: Array) -> Array:
        """L* + (L − L*), two sums of squares."""
        return self.minimum.value + self.excess(F)

    def excess(self, F: Array) -> Array:
        """L − L*, the excess over the minimum at the rank of F plus the difference of that minimum from L*."""
        F = of_rank(F, self.rank)
        return self._each(Member.excess, F) + self.minimum.lack(F.shape[-1])

    def gradient(self, F: Array) -> Array:
        """2 (F − T F)."""
        return self._each(Member.gradient, F)

    def hessian_operator(self, F: Array) -> Callable[[Array], Array]:
        """V ↦ ∇²L[V]. At a single F it stores the resolvents, n k numbers per node."""
        if F.ndim > 2 or np.ndim(self.minimum.epsilon):
            return lambda V: self.hessian_product(F, V)
        member = Member(self.minimum.eigenvalues, float(self.minimum.epsilon), F)
        stored = [replace(part, outer=part.outer.copy()) for part in member.resolvents()]
        return lambda V: member.hessian_product(V, stored)

    def hessian_product(self, F: Array, V: Array) -> Array:
        """∇²L[V], with one resolvent in memory at a time."""
        return self._each(Member.hessian_product, F, V)

    def transport(self, F: Array, V: Array) -> Array:
        """T V for a block V (..., n, p)."""
        return self._each(Member.transport, F, V)

    def _each(self, compute: Callable[..., Any], F: Array, *directions: Array) -> Array:
        """compute(member, …) for each member of a stack."""
        eigenvalues, epsilon = self.minimum.eigenvalues, self.minimum.epsilon
        batch = np.broadcast_shapes(F.shape[:-2], *(V.shape[:-2] for V in directions), np.shape(epsilon))
        eigenvalues = np.broadcast_to(eigenvalues, (*batch, eigenvalues.shape[-1]))
        epsilon = np.broadcast_to(epsilon, batch)
        F, *stacks = (np.broadcast_to(V, (*batch, *V.shape[-2:])) for V in (F, *directions))
        members = ((Member(eigenvalues[i], float(epsilon[i]), F[i], self.accuracy), i) for i in np.ndindex(batch))
        results = [compute(member, *(V[i] for V in stacks)) for member, i in members]
        return np.reshape(results, (*batch, *np.shape(results[0])))


class Member:
    """The loss with one target at one matrix.

    Parameters
    ----------
    eigenvalues : (n,)
        λ_1 ≥ … ≥ λ_n.
    epsilon
        ε > 0.
    F : (n, k)
    accuracy
        Relative error allowed in M^{-1/2} besides rounding.
    """

    def __init__(self, eigenvalues: Array, epsilon: float, F: Array, accuracy: float = 0.0) -> None:
        self.eigenvalues, self.epsilon, self.F = eigenvalues, epsilon, F
        self.support = int(np.sum(eigenvalues > 0))
        positive = eigenvalues[: self.support].astype(F.dtype, copy=False)
        self.root = np.sqrt(positive)
        Yt = np.ascontiguousarray((self.root[:, None] * F[: self.support]).T)
        self.M = F.dtype.type(epsilon) * positive, Yt, max(accuracy, _ACCURACY * float(np.finfo(F.dtype).eps))

    def resolvents(self) -> Iterator[Resolvent]:
        """The resolvents of M, one after the other, all in the same memory."""
        return resolvents(*self.M)

    def gradient(self) -> Array:
        """2 (F − R M^{-1/2} Y)."""
        gradient = 2 * self.F
        gradient[: self.support] -= 2 * self.root[:, None] * inverse_root_product(*self.M).T
        return gradient

    def transport(self, V: Array) -> Array:
        """T V = √(Λ/ε) V − R Σ_j w_j A_j A_jᵀ R V for a block V (n, p): T is a diagonal less matrices of rank k."""
        scaled = self.root[:, None] * V[: self.support]
        transported = np.zeros(V.shape, dtype=np.result_type(self.F, V))
        transported[: self.support] = scaled / np.sqrt(self.F.dtype.type(self.epsilon))
        for part in self.resolvents():
            transported[: self.support] -= self.root[:, None] * (part.weight * part.outer.T @ (part.outer @ scaled))
        return transported

    def hessian_product(self, V: Array, parts: Iterable[Resolvent] | None = None) -> Array:
        """2 V − 2 R Σ_j w_j [e_j Z C_j − A_j (B_j + B_jᵀ)] C_jᵀ for V (..., n, k), Z = R V, B_j = A_jᵀ Z C_j.

        This is ∇²L_ε[V] = 2 (I − T) V − 2 R (dM^{-1/2}) Y (paper.md section 2) with
        dM^{-1/2} = −Σ_j w_j (M + τ_j)^{-1} (Z Yᵀ + Y Zᵀ) (M + τ_j)^{-1}. The term T V drops out, because
        Yᵀ (M + τ)^{-1} Y = I − C Cᵀ.
        """
        Zt = np.ascontiguousarray((self.root[:, None] * V[..., : self.support, :]).mT)
        total = np.zeros_like(Zt)
        for part in self.resolvents() if parts is None else parts:
            B = (part.outer @ Zt.mT) @ part.inner
            C = part.weight * part.inner
            total += ((C @ part.inner.T) @ Zt) * part.diagonal - (C @ (B + B.mT)) @ part.outer
        product = 2 * V
        product[..., : self.support, :] -= 2 * self.root[:, None] * total.mT
        return product

    def excess(self) -> np.floating:
        """L_ε(F) − L*, L* the minimum over rank ≤ k.

        With K the directions j ≤ k that the minimiser fills (λ_j > ε), O the others, and T = √(Λ/ε) − C, it is (ours)
        ‖(F − T F)_K‖² + ε ‖(I − T)_KK‖² + ε ‖C_KO‖² + Σ_{i in O} [ |F_i|² − 2 F_i·(T F)_i + 2 ε C_ii ]:
        the sum of squares of paper.md section 2, with the square of C_OO eliminated by T (S + εI) T = Σ0, because its
        cost would be quadratic in the number of nodes. Each term in the bracket is of second order in the distance from
        the minimum, so the relative accuracy is preserved.
        """
        F, epsilon, eigenvalues, root, support = self.F, self.epsilon, self.eigenvalues, self.root, self.support
        k = F.shape[1]
        filled = int(np.sum(soft_threshold(eigenvalues, epsilon)[:k] > 0))
        total = np.zeros((k, support), dtype=F.dtype)  # (M^{-1/2} Y)ᵀ
        rows = np.zeros((filled, support), dtype=F.dtype)  # of D^{-1/2} − M^{-1/2}, those in K
        diagonal = np.zeros(support, dtype=F.dtype)  # its diagonal
        for part in self.resolvents():
            total += (part.weight * part.inner) @ part.outer
            rows += (part.weight * part.outer[:, :filled].T) @ part.outer
            diagonal += part.weight * np.einsum("ij,ij->j", part.outer, part.outer)
        transported = root[:, None] * total.T
        C = root[:filled, None] * rows * root
        inside = np.sum((F[:filled] - transported[:filled]) ** 2)
        C_KK = C[:, :filled] + np.diag(1 - root[:filled] / np.sqrt(F.dtype.type(epsilon)))  # I − T there
        deformed = np.sum(C_KK**2) + np.sum(C[:, filled:] ** 2)
        outside = np.sum(F[filled:] ** 2) - 2 * np.sum(F[filled:support] * transported[filled:])
        traces = 2 * epsilon * np.sum(eigenvalues[filled:support] * diagonal[filled:])
        return inside + epsilon * deformed + outside + traces
