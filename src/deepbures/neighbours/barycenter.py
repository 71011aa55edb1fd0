"""Bures-Wasserstein barycenters as targets: the weighted sum of the losses to several covariances.

F(W) = Σ_i w_i L_i(W), with L_i the Bures-Wasserstein loss to Σ_i and Σ_i w_i = 1, is least where S = W Wᵀ is the
barycenter of the Σ_i (Agueh and Carlier 2011), and ∇F = 2 (I − Σ_i w_i T_i) W. One layer with step ½ is the fixed-point
iteration S⁺ = T̄ S T̄, T̄ = Σ_i w_i T_i, of Álvarez-Esteban et al. (2016): W⁺ = Σ_i w_i R_i polar(R_i W), which needs
no inverse and works for singular covariances (docs/neighbours/barycenters.md). Where all Σ_i are regular,
`barycenter_newton` finds S with fewer decompositions.

Over matrices of rank ≤ k the minimiser is not the barycenter cut to rank k, and, unlike for one target, there can be
local minima that are not global: `rank_bounded_minima` finds them.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike

from ..linalg.psd import Array, finite_array, spectrum, symmetrize
from ..losses.base import CovarianceLoss
from ..losses.bures_wasserstein import BuresWasserstein
from ..losses.form import Form
from ..losses.target import Target
from .barycenter_newton import newton

#: Largest number of half steps of a search.
MAX_STEPS = 20_000
#: Largest deviation of the sum of the weights from 1, for each weight.
_WEIGHT_TOLERANCE = 1e-12
#: Two minima are the same if their covariances differ by less than this fraction of the trace.
_SAME = 1e-5


class Barycenter(CovarianceLoss):
    """Weighted sum of the Bures-Wasserstein losses to several covariances, F(W) = Σ_i w_i L_i(W).

    Parameters
    ----------
    covariances : (m, n, n)
        Σ_1, …, Σ_m, symmetric positive semidefinite, of any ranks.
    weights : (m,), optional
        w_i > 0 with sum 1; default 1/m each.
    epsilon
        Smoothing ε ≥ 0, the same in all losses, at most the least eigenvalue of the barycenter.

    Attributes
    ----------
    covariance, eigenvalues, eigenvectors
        The barycenter and its spectrum: the target that descent and flow converge to for k = n.
    covariances, weights, epsilon
        As given.

    Raises
    ------
    ValueError
        On covariances that are not symmetric positive semidefinite and finite, on other weights, or on ε too large.

    Notes
    -----
    Over rank ≤ k < n no closed form of the minimum is known: `minimum_value` and `excess` then refer to the barycenter
    itself, the minimum over all ranks, so that the excess at a bounded rank does not reach 0. `empty_costs` and
    `saddle_values`, which are known only for a single target, raise ValueError.
    """

    name = "barycenter"
    degree = 2

    def __init__(self, covariances: ArrayLike, weights: ArrayLike | None = None, epsilon: float = 0.0) -> None:
        self.covariances, roots = _checked_covariances(covariances)
        self.weights = _checked_weights(weights, len(self.covariances))
        if not 0 <= epsilon < np.inf:
            raise ValueError(f"epsilon must be a finite number ≥ 0, not {epsilon!r}")
        self.epsilon = float(epsilon)
        super().__init__(_fixed_point(self.covariances, roots, self.weights))
        if self.epsilon > self.eigenvalues[-1]:
            raise ValueError(
                f"epsilon must be at most the least eigenvalue of the barycenter, {self.eigenvalues[-1]:.6g}, "
                f"not {self.epsilon}"
            )
        basis = self.eigenvectors
        self._terms = _Terms(basis.T @ self.covariances @ basis, self.weights, self.epsilon)
        self._roots = _roots(basis.T @ self.covariances @ basis)
        # U_i σ_i V_iᵀ = R_i S̄^{1/2}: T_i = R_i U_i σ_i^{-1} U_iᵀ R_i is the map from the barycenter to Σ_i
        self._U, sigma, _ = np.linalg.svd(self._roots * np.sqrt(self.eigenvalues))
        positive = sigma > self.dimension * np.finfo(float).eps * sigma[:, :1]
        self._sigma = np.sqrt(np.where(positive, sigma, 0))[:, :, None]  # σ^{1/2}, as a column
        self._inverse = np.divide(1, self._sigma, out=np.zeros_like(self._sigma), where=self._sigma > 0)
        self._value = float(self._terms.value(np.diag(np.sqrt(self.eigenvalues - self.epsilon))))

    def minimum_spectrum(self, rank: int) -> Array:
        """Eigenvalues of the barycenter, less ε; only over all ranks."""
        if rank < self.dimension:
            raise ValueError(f"the minimum over rank {rank} has no closed form for a barycenter: search for it")
        return self.eigenvalues - self.epsilon

    def minimum_value(self, rank: int) -> Array:
        """F at the barycenter, whatever the rank."""
        return np.asarray(self._value)

    def empty_costs(self) -> Array:
        """Not known for several targets: raises ValueError."""
        raise ValueError("the cost of an empty direction is known only for a single target, not for a barycenter")

    def make_form(self, columns: int, rank: int) -> Form:
        """The weighted sum of the forms of the L_i, with an excess of its own."""
        return _BarycenterForm(self, rank)


class _BarycenterForm(Form):
    """F(W) = Σ_i w_i L_i(W) for matrices in the eigenbasis of the barycenter."""

    def __init__(self, loss: Barycenter, rank: int) -> None:
        self.loss, self.rank = loss, rank

    def value(self, F: Array) -> Array:
        """Σ_i w_i L_i."""
        return self.loss._terms.value(F)

    def excess(self, F: Array) -> Array:
        """F(W) − F(barycenter) as a sum of squares.

        With A = [F, √ε I], R_i S̄^{1/2} = U_i σ_i V_iᵀ and the polar factor Q_i of R_i A it is
        Σ_i w_i (‖σ_i^{-1/2} U_iᵀ R_i A − σ_i^{1/2} U_iᵀ Q_i‖² + tr σ_i − ‖σ_i^{1/2} U_iᵀ Q_i‖²), because
        Σ_i w_i T_i = I on the range of the barycenter, plus tr S off this range.
        """
        loss, n = self.loss, self.loss.dimension
        A = F
        if loss.epsilon > 0:
            noise = np.broadcast_to(np.sqrt(loss.epsilon) * np.eye(n), (*F.shape[:-1], n))
            A = np.concatenate([F, noise], axis=-1)
        RA = loss._roots @ A[..., None, :, :]
        P, _, Vh = np.linalg.svd(RA, full_matrices=False)
        turned = loss._sigma * (loss._U.mT @ P)
        squares = np.sum((loss._inverse * (loss._U.mT @ RA) - turned @ Vh) ** 2, axis=(-2, -1))
        if A.shape[-1] < n:
            squares = squares + np.sum(loss._sigma**2, axis=(-2, -1)) - np.sum(turned**2, axis=(-2, -1))
        outside = np.sum(A[..., loss.eigenvalues == 0, :] ** 2, axis=(-2, -1))
        return squares @ loss.weights + outside

    def gradient(self, F: Array) -> Array:
        """Σ_i w_i ∇L_i = 2 (I − Σ_i w_i T_i) F."""
        return self.loss._terms.gradient(F)

    def hessian_operator(self, F: Array) -> Callable[[Array], Array]:
        """V ↦ Σ_i w_i ∇²L_i[V]."""
        return lambda V: self.loss._terms.hessian_product(F, V, self.rank)


def barycenter(covariances: ArrayLike, weights: ArrayLike | None = None) -> Array:
    """Bures-Wasserstein barycenter (n, n) of covariances (m, n, n), without the loss to it; see `Barycenter`."""
    covariances, roots = _checked_covariances(covariances)
    return _fixed_point(covariances, roots, _checked_weights(weights, len(covariances)))


def _fixed_point(covariances: Array, roots: Array, weights: Array) -> Array:
    """S = T̄ S T̄, by Newton's method, or by the iteration itself where a covariance is singular.

    The start (Σ_i w_i Σ_i^{1/2})² is the barycenter of covariances that commute.
    """
    W = np.einsum("i,iab->ab", weights, roots)
    S = newton(covariances, weights, W @ W.T)
    if S is None:
        W, _ = _settle(_Terms(covariances, weights, 0.0), W)
        S = symmetrize(W @ W.T)
    return S


def draw_covariances(rng: np.random.Generator, number: int, dimension: int, spread: float) -> Array:
    """Random covariances (m, n, n) of a given spread: Σ_i = exp(spread · H_i), H_i = (A + Aᵀ)/(2 √n), A Gaussian.

    For large n the eigenvalues of H_i fill (−√2, √2) (Wigner's semicircle), so that each Σ_i has a condition number of
    about exp(2 √2 · spread). For spread = 0 every Σ_i is I.

    Raises
    ------
    ValueError
        On a number or dimension below 1, or a negative spread.
    """
    if number < 1 or dimension < 1:
        raise ValueError(f"number and dimension must be at least 1, not {number} and {dimension}")
    if not 0 <= spread < np.inf:
        raise ValueError(f"spread must be a finite number ≥ 0, not {spread!r}")
    A = rng.standard_normal((number, dimension, dimension))
    exponents, basis = np.linalg.eigh((A + A.mT) / (2 * np.sqrt(dimension)))
    return symmetrize((basis * np.exp(spread * exponents)[..., None, :]) @ basis.mT)


@dataclass(frozen=True, eq=False)
class RankBoundedMinimum:
    """A local minimum of F over matrices of rank ≤ k.

    Attributes
    ----------
    factor : (n, k)
        W, up to a rotation of its columns.
    value
        F(W).
    gradient_norm
        ‖∇F(W)‖_F, relative to √tr S̄: how closely the search converged.
    curvature
        Least eigenvalue of the Hessian at W, apart from the k (k−1)/2 zeros of the rotations: > 0 for a strict minimum.
    reached
        Number of starts that ended here.
    """

    factor: Array
    value: float
    gradient_norm: float
    curvature: float
    reached: int


def truncated(loss: Barycenter, rank: int) -> Array:
    """Factor (n, k) of the barycenter cut to its k largest eigenvalues: not the minimiser, but a start near it."""
    return loss.eigenvectors[:, :rank] * np.sqrt(loss.eigenvalues[:rank])


def rank_bounded_minima(
    loss: Barycenter, rank: int, starts: ArrayLike, *, tolerance: float = 1e-9, max_steps: int = MAX_STEPS
) -> list[RankBoundedMinimum]:
    """Local minima of F over rank ≤ k, in order of their value, by half steps from many starts at once.

    W⁺ = W − ½ ∇F reduces F by at least ¼ ‖∇F‖², so each start ends at a critical point. Saddles are recognised by
    their curvature and left out.

    Parameters
    ----------
    loss
        With ε = 0.
    rank
        k < n.
    starts : (p, n, k)
        For example `truncated`, the leading factor of each Σ_i, and random factors.
    tolerance
        Tolerance of ‖∇F‖, relative to √tr S̄; the search ends when all starts meet it.
    max_steps
        Largest number of half steps; starts that do not meet the tolerance by then are left out.

    Returns
    -------
    list of RankBoundedMinimum
        The distinct minima: two of them differ in S by at least 1e-5 tr S̄.

    Raises
    ------
    ValueError
        If the starts do not fit, or ε > 0.
    """
    if loss.epsilon > 0:
        raise ValueError(f"the search needs a loss with epsilon = 0, not {loss.epsilon}")
    n = loss.dimension
    if not 1 <= rank < n:
        raise ValueError(f"rank must lie between 1 and n − 1 = {n - 1}, not {rank}")
    W = finite_array("starts", starts, 3).astype(float)
    if W.shape[1:] != (n, rank):
        raise ValueError(f"starts must have the shape (p, {n}, {rank}), not {W.shape}")
    scale = float(np.sqrt(loss.eigenvalues.sum()))
    F, norms = _settle(loss._terms, loss.eigenvectors.T @ W, tolerance * scale, max_steps)
    values = loss.form(rank).value(F)
    found: list[RankBoundedMinimum] = []
    members: list[Array] = []
    for i in np.argsort(values, kind="stable"):
        if norms[i] > tolerance * scale:
            continue
        S = F[i] @ F[i].T
        same = [j for j, other in enumerate(members) if np.abs(S - other).max() < _SAME * scale**2]
        if same:
            j = same[0]
            found[j] = replace(found[j], reached=found[j].reached + 1)
            continue
        members.append(S)
        curvature = _least_curvature(loss, F[i])
        found.append(
            RankBoundedMinimum(loss.eigenvectors @ F[i], float(values[i]), float(norms[i] / scale), curvature, 1)
        )
    return [minimum for minimum in found if minimum.curvature > 0]


def _least_curvature(loss: Barycenter, F: Array) -> float:
    """Least eigenvalue of the Hessian at F (n, k), orthogonal to the rotations F Θ, Θ antisymmetric."""
    directions = np.eye(F.size).reshape(F.size, *F.shape)
    k = F.shape[1]
    hessian = symmetrize(loss.form(k).hessian_operator(F)(directions).reshape(F.size, F.size))
    a, b = np.triu_indices(k, 1)
    rotations = np.zeros((len(a), *F.shape))
    rotations[np.arange(len(a)), :, a] = F[:, b].T
    rotations[np.arange(len(a)), :, b] = -F[:, a].T
    if len(a):
        basis, _, _ = np.linalg.svd(rotations.reshape(len(a), -1).T)
        rest = basis[:, len(a) :]
        hessian = symmetrize(rest.T @ hessian @ rest)
    return float(np.linalg.eigvalsh(hessian)[0])


class _Terms:
    """Σ_i w_i L_i for matrices W (..., n, d): one stack of losses for each rank of the Σ_i."""

    def __init__(self, covariances: Array, weights: Array, epsilon: float) -> None:
        target = Target.of_covariance(covariances)
        ranks = np.sum(target.eigenvalues > 0, axis=-1)
        groups = [ranks == rank for rank in np.unique(ranks)]
        self.losses = [(BuresWasserstein(target.take(group), epsilon), weights[group]) for group in groups]

    def value(self, W: Array) -> Array:
        return sum(loss.form(W.shape[-1]).value(_turned(loss, W)) @ weights for loss, weights in self.losses)

    def gradient(self, W: Array) -> Array:
        return self._summed(W, lambda loss, F: loss.form(W.shape[-1]).gradient(F))

    def hessian_product(self, W: Array, V: Array, rank: int) -> Array:
        def term(loss: BuresWasserstein, F: Array) -> Array:
            return loss.form(W.shape[-1], rank).hessian_operator(F)(_turned(loss, V))

        return self._summed(W, term)

    def _summed(self, W: Array, term: Callable[[BuresWasserstein, Array], Array]) -> Array:
        return sum(
            np.einsum("i,...iab->...ab", weights, loss.eigenvectors @ term(loss, _turned(loss, W)))
            for loss, weights in self.losses
        )


def _turned(loss: BuresWasserstein, W: Array) -> Array:
    """Ω_iᵀ W for each target: (..., m, n, d)."""
    return loss.eigenvectors.mT @ W[..., None, :, :]


def _settle(terms: _Terms, W: Array, tolerance: float = 0.0, max_steps: int = MAX_STEPS) -> tuple[Array, Array]:
    """Half steps W ← W − ½ ∇F until ‖∇F‖ is at most the tolerance; with 0, until it stops falling. W and ‖∇F‖."""
    W = W.copy()
    gradient = terms.gradient(W)
    norm = np.linalg.norm(gradient, axis=(-2, -1))
    best, waited = norm, 0
    for _ in range(max_steps):
        if tolerance and np.all(norm <= tolerance):
            break
        W = W - gradient / 2
        gradient = terms.gradient(W)
        norm = np.linalg.norm(gradient, axis=(-2, -1))
        if not tolerance:  # to the last digit: until it has not fallen by 0.1 % in 20 steps
            waited = 0 if norm < 0.999 * best else waited + 1
            best = min(best, norm)
            if waited == 20 or norm == 0:
                break
    return W, norm


def _roots(covariances: Array) -> Array:
    """Symmetric roots Σ_i^{1/2}, (m, n, n)."""
    eigenvalues, basis = spectrum("covariances", covariances)
    return (basis * np.sqrt(eigenvalues)[..., None, :]) @ basis.mT


def _checked_covariances(covariances: ArrayLike) -> tuple[Array, Array]:
    """The covariances and their symmetric roots, both (m, n, n)."""
    array = finite_array("covariances", covariances, 3).astype(float)
    if array.ndim != 3:
        raise ValueError(f"covariances must be a stack (m, n, n) of matrices, not of shape {array.shape}")
    roots = _roots(array)
    return symmetrize(array), roots


def _checked_weights(weights: ArrayLike | None, number: int) -> Array:
    if weights is None:
        return np.full(number, 1 / number)
    array = finite_array("weights", weights, 1).astype(float)
    if array.shape != (number,) or not (array > 0).all() or abs(array.sum() - 1) > _WEIGHT_TOLERANCE * number:
        raise ValueError(f"weights must be {number} positive numbers with sum 1, not {array.tolist()}")
    return array / array.sum()
