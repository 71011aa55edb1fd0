"""The loss landscape of matrices and of deep networks: Hessians, their spectra, segments, second-order models.

Parameters are the entries of W_1, …, W_N one layer after the other, each row by row. With the
Jacobian J[V_1, …, V_N] = Σ_j A_j V_j B_j, A_j = W_N ⋯ W_{j+1}, B_j = W_{j−1} ⋯ W_1, the Hessian of the deep loss is

    ∇²L^N[V, V] = ⟨J V, ∇²L(W)[J V]⟩ + 2 Σ_{i<j} ⟨∇L(W), A_j V_j (W_{j−1} ⋯ W_{i+1}) V_i B_i⟩    (paper.md section 2).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from ..linalg.psd import Array, check_square_fits, finite_array, symmetrize
from ..linalg.thin import is_thin
from ..losses.registry import CovarianceLoss
from ..model.network import DeepLinearNetwork, bottleneck, pack, prefix_products, unpack

#: Eigenvalues below this fraction of the largest absolute value count as zero.
ZERO_TOLERANCE = 1e-9
#: Relative accuracy of the extreme eigenvalues by Lanczos, and the seed of its first vector.
_LANCZOS_TOLERANCE, _LANCZOS_SEED = 1e-10, 0


@dataclass(frozen=True)
class Curvature:
    """Summary of the spectrum of a Hessian.

    Attributes
    ----------
    smallest, largest
        λ_min and λ_max, signed.
    negative, zero, positive
        Numbers of eigenvalues; those with |λ| ≤ tolerance · max |λ| count as zero. A Hessian of deep layers has
        many zeros by symmetry: rescaling between layers and rotation of the input do not change the loss.
    relative_condition
        κ_rel = λ_max / λ_min, λ_min the smallest eigenvalue that is not zero; negative at a saddle.
    absolute_condition
        κ_abs = λ_max / min |λ| over those that are not zero.
    """

    smallest: float
    largest: float
    negative: int
    zero: int
    positive: int
    relative_condition: float
    absolute_condition: float

    @classmethod
    def of(cls, eigenvalues: Array, tolerance: float = ZERO_TOLERANCE) -> Curvature:
        """Summary of the given eigenvalues, (p,); NaN condition numbers where all are zero."""
        eigenvalues = np.sort(eigenvalues)
        floor = tolerance * np.abs(eigenvalues).max()
        nonzero = eigenvalues[np.abs(eigenvalues) > floor]
        negative, positive = int(np.sum(nonzero < 0)), int(np.sum(nonzero > 0))
        largest = float(eigenvalues[-1])
        return cls(
            smallest=float(eigenvalues[0]),
            largest=largest,
            negative=negative,
            zero=len(eigenvalues) - len(nonzero),
            positive=positive,
            relative_condition=largest / float(nonzero[0]) if len(nonzero) else float("nan"),
            absolute_condition=largest / float(np.abs(nonzero).min()) if len(nonzero) else float("nan"),
        )


def check_twice_differentiable(loss: CovarianceLoss, rank: int) -> None:
    """Raise ValueError where matrices of rank k have no Hessian: for ε = 0 and k above the rank of the target."""
    available = int(np.sum(loss.eigenvalues > 0))
    if loss.has_kink and rank > available:
        raise ValueError(
            f"rank {rank} exceeds the rank {available} of the target: "
            "without smoothing its critical points have no Hessian"
        )


def blow_up_constant(loss: CovarianceLoss, kept: ArrayLike, vanishing: ArrayLike) -> float:
    """C in λ_min(∇²L_0(W)) ≈ −C/σ, where m singular values of W vanish together like σ; ε = 0 and N = 1.

    For one vanishing direction u, C = 2 λ_max(Aᵀ P A)/‖A u‖: A = P_⊥ R, P_⊥ projects off the range of R times the other
    singular vectors, and P off A u in addition. For several, with A U_v = Y diag(a) Zᵀ, C is twice the maximum of
    Σ_i ‖P A d_i‖²/a_i + Σ_{i<j} (y_iᵀ A d_j − y_jᵀ A d_i)²/(a_i + a_j) over Σ_i ‖d_i‖² = 1, d_i the changes of the
    vanishing columns of W Z. The second sum comes from the rotation of the polar factor of R W. It is the only one for
    k = n, where C = 0 for a single direction (paper.md section 2).

    Parameters
    ----------
    loss
        Bures-Wasserstein with ε = 0, with one target.
    kept : (n, k − m)
        Orthonormal left singular vectors of W of the singular values that do not vanish; m = k: none.
    vanishing : (n, m)
        Those of the vanishing singular values.
    """
    if not loss.has_kink:
        raise ValueError(f"loss must be Bures-Wasserstein with epsilon = 0: {loss.name} has no blow-up")
    kept, vanishing = np.asarray(kept, dtype=float), finite_array("vanishing", vanishing, 2)
    check_twice_differentiable(loss, kept.shape[1] + vanishing.shape[1])
    n, m = vanishing.shape
    root = np.sqrt(loss.eigenvalues)[:, None]
    range_, _ = np.linalg.qr(root * loss.to_eigenbasis(kept)) if kept.size else (kept, None)
    moved = root * loss.to_eigenbasis(vanishing)
    Y, a, _ = np.linalg.svd(moved - range_ @ (range_.T @ moved), full_matrices=False)  # A U_v
    B = np.concatenate([range_, Y], axis=1)
    turned = root * (Y - range_ @ (range_.T @ Y))  # Aᵀ y_i in its columns

    def product(vector: Array) -> Array:
        D = vector.reshape(m, n)
        overlap = D @ turned
        result = ((overlap - overlap.T) / (a + a[:, None])) @ turned.T
        if B.shape[1] < n:
            scaled = D.T * root
            result += (root * (scaled - B @ (B.T @ scaled)) / a).T
        return result.ravel()

    if is_thin(n, B.shape[1]):
        return 2 * _dominant_eigenvalue(m * n, product)
    check_square_fits("the quadratic form of the blow-up", m * n)
    form = np.stack([product(unit) for unit in np.eye(m * n)])
    return float(2 * np.linalg.eigvalsh(symmetrize(form))[-1])


def hessian(loss: CovarianceLoss, W: ArrayLike, rank: int | None = None) -> Array:
    """Hessian of L at a matrix W, (n, d) → (n d, n d), entries of W row by row.

    Parameters
    ----------
    loss
        With one target.
    W : (n, d)
        The matrices with d = k columns are those of rank ≤ k up to a rotation of the input: the Hessian is restricted
        to them, with k (k−1)/2 zeros for the rotations.
    rank
        Rank of W, needed for ε = 0 where it is below min(n, d). The result is then valid for tangent directions only;
        see `CovarianceLoss.hessian_product`.

    Raises
    ------
    ValueError
        For ε = 0, where W has another rank: the loss is not twice differentiable there.
    """
    W = _matrix(loss, W)
    check_square_fits("the Hessian", W.size)
    directions = np.eye(W.size).reshape(W.size, *W.shape)
    return symmetrize(loss.hessian_product(W, directions, rank).reshape(W.size, W.size))


def network_hessian(loss: CovarianceLoss, layers: Sequence[ArrayLike]) -> Array:
    """Dense Hessian of the deep loss at the layers W_1, …, W_N: (p, p), p = Σ d_j d_{j−1}.

    For ε = 0 the product of the layers must have rank k = min_j d_j.
    """
    return network_hessians(loss, [layer[None] for layer in _network(loss, layers).layers])[0]


def network_hessians(loss: CovarianceLoss, layers: Sequence[Array]) -> Array:
    """`network_hessian` of a stack of networks of one shape, layers (m, d_j, d_{j−1}): (m, p, p)."""
    network = DeepLinearNetwork(layers)
    size = sum(layer.shape[-2] * layer.shape[-1] for layer in network.layers)
    check_square_fits("the Hessian of the layers", size)
    W, below, above = _products(network)
    members, n, d_0 = W.shape
    Jacobian = [np.einsum("mab,mcd->mbcad", A, B) for A, B in zip(above, below, strict=True)]
    directions = np.concatenate([part.reshape(members, -1, n, d_0) for part in Jacobian], axis=1)  # J of each entry
    curved = loss.hessian_product(W[:, None], directions, bottleneck(network.layers))
    parameters = directions.shape[1]
    flat = directions.reshape(members, parameters, -1)
    result = symmetrize(flat @ curved.reshape(members, parameters, -1).mT)
    gradient = loss.gradient(W)
    ends = np.cumsum([0, *(layer.shape[-2] * layer.shape[-1] for layer in network.layers)])
    for i in range(network.depth):
        width = network.layers[i].shape[-2]
        between = np.broadcast_to(np.eye(width), (members, width, width))  # W_{j−1} ⋯ W_{i+1}
        for j in range(i + 1, network.depth):
            outer = above[j].mT @ gradient @ below[i].mT
            block = np.einsum("mpq,mrs->mprsq", outer, between).reshape(members, ends[j + 1] - ends[j], -1)
            rows, columns = slice(ends[j], ends[j + 1]), slice(ends[i], ends[i + 1])
            result[:, rows, columns] += block
            result[:, columns, rows] += block.mT
            between = network.layers[j] @ between
    return result


def network_hessian_product(
    loss: CovarianceLoss, layers: Sequence[ArrayLike], directions: Sequence[ArrayLike]
) -> list[Array]:
    """∇²L^N(W_1, …, W_N)[V_1, …, V_N], one array for each layer, without the dense matrix: O(N) products.

    Parameters
    ----------
    loss, layers
        As in `network_hessian`.
    directions : N arrays (d_j, d_{j−1})
        V_1, …, V_N.
    """
    network = _network(loss, layers)
    return _hessian_operator(loss, network.layers)(_directions(network, directions))


def extreme_eigenvalues(loss: CovarianceLoss, layers: Sequence[ArrayLike]) -> tuple[float, float]:
    """λ_min and λ_max of the Hessian of the deep loss, by Lanczos on its products, for very many parameters.

    The error is at most 1e-10 of the larger of |λ_min| and |λ_max|. The first Lanczos vector is fixed, so that the
    result is reproducible. The cost of a product is linear in n if d_0 is as small as k: W is n × d_0.

    Raises
    ------
    ValueError
        If Lanczos does not converge.
    """
    network = _network(loss, layers)
    shapes = [layer.shape for layer in network.layers]
    size = sum(layer.size for layer in network.layers)
    if size < 20:  # too few parameters for a Krylov space
        eigenvalues = np.linalg.eigvalsh(network_hessian(loss, layers))
        return float(eigenvalues[0]), float(eigenvalues[-1])
    operator = _hessian_operator(loss, network.layers)

    def product(vector: Array) -> Array:
        return pack(operator(unpack(vector.ravel(), shapes)))

    dominant = _dominant_eigenvalue(size, product)
    # The other end is dominant once the first is shifted to 0. Near 0 itself Lanczos has no relative accuracy.
    other = dominant + _dominant_eigenvalue(size, lambda x: product(x) - dominant * x.ravel())
    return min(dominant, other), max(dominant, other)


def _dominant_eigenvalue(size: int, product: Callable[[Array], Array]) -> float:
    """Eigenvalue of largest absolute value of a symmetric operator on vectors (size,), by Lanczos."""
    from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigsh

    operator = LinearOperator((size, size), product, dtype=float)
    first = np.random.default_rng(_LANCZOS_SEED).standard_normal(size)
    options = {"k": 1, "tol": _LANCZOS_TOLERANCE, "v0": first, "return_eigenvectors": False}
    try:
        return float(eigsh(operator, which="LM", **options)[0])
    except ArpackNoConvergence as error:
        raise ValueError(f"the extreme eigenvalues of the Hessian were not found: {error}") from None


def network_loss(loss: CovarianceLoss, layers: Sequence[Array]) -> Array:
    """L^N(W_1, …, W_N) = L(W_N ⋯ W_1), (...) for stacks of layers (..., d_j, d_{j−1})."""
    return loss.value(DeepLinearNetwork(layers).end_to_end())


def segment(start: ArrayLike, end: ArrayLike, t: ArrayLike) -> Array:
    """(1 − t) W_0 + t W_1 for each t (m,): a segment in the space of matrices, or of one layer; (m, n, d)."""
    t = np.asarray(t, dtype=float)[:, None, None]
    return (1 - t) * np.asarray(start) + t * np.asarray(end)


def directional_derivatives(
    loss: CovarianceLoss, layers: Sequence[ArrayLike], directions: Sequence[ArrayLike]
) -> tuple[float, float, float]:
    """L^N, ⟨∇L^N, V⟩ and ⟨V, ∇²L^N V⟩: value and derivatives at t = 0 along W_j + t V_j, in closed form."""
    network = _network(loss, layers)
    V = _directions(network, directions)
    W = network.end_to_end()
    gradients = network.layer_gradients(loss.gradient(W))
    curved = network_hessian_product(loss, network.layers, V)
    return float(loss.value(W)), _inner(gradients, V), _inner(curved, V)


def numerical_derivatives(
    loss: CovarianceLoss, layers: Sequence[ArrayLike], directions: Sequence[ArrayLike], step: float = 2.5e-3
) -> tuple[float, float, float]:
    """`directional_derivatives` from seven values of the loss, by central differences of sixth order.

    Their spacing h is `step` in units of λ_1^{1/2N}, the size of a layer near the optimum.
    """
    network = _network(loss, layers)
    V = _directions(network, directions)
    step *= float(loss.eigenvalues[0]) ** (1 / (2 * network.depth))
    offsets = step * np.arange(-3, 4)
    moved = [layer + offsets[:, None, None] * v for layer, v in zip(network.layers, V, strict=True)]
    values = network_loss(loss, moved)
    first = np.array([-1, 9, -45, 0, 45, -9, 1]) / 60
    second = np.array([2, -27, 270, -490, 270, -27, 2]) / 180
    return float(values[3]), float(first @ values / step), float(second @ values / step**2)


def _hessian_operator(loss: CovarianceLoss, layers: Sequence[Array]) -> Callable[[Sequence[Array]], list[Array]]:
    """V ↦ ∇²L^N[V], the derivative of all layer gradients A_jᵀ ∇L B_jᵀ along V, by two passes over the layers."""
    prefixes = prefix_products(layers)
    gradient, curvature = loss.gradient(prefixes[-1]), loss.hessian_operator(prefixes[-1], bottleneck(layers))

    def product(V: Sequence[Array]) -> list[Array]:
        moved = [V[0]]  # derivatives of the prefix products W_j ⋯ W_1
        for layer, v, prefix in zip(layers[1:], V[1:], prefixes[:-1], strict=True):
            moved.append(v @ prefix + layer @ moved[-1])
        backward, changed = gradient, curvature(moved[-1])  # A_jᵀ ∇L and its derivative
        result: list[Array] = []
        for j in range(len(layers) - 1, 0, -1):
            result.append(changed @ prefixes[j - 1].T + backward @ moved[j - 1].T)
            changed = V[j].T @ backward + layers[j].T @ changed
            backward = layers[j].T @ backward
        return [changed, *result[::-1]]

    return product


def _products(network: DeepLinearNetwork) -> tuple[Array, list[Array], list[Array]]:
    """W, the products B_j = W_{j−1} ⋯ W_1 below and A_j = W_N ⋯ W_{j+1} above each layer, of a stack of networks."""
    layers = network.layers
    prefixes = prefix_products(layers)
    members, d_0, n = len(layers[0]), layers[0].shape[-1], layers[-1].shape[-2]
    below = [np.broadcast_to(np.eye(d_0), (members, d_0, d_0)), *prefixes[:-1]]
    above: list[Array] = [np.broadcast_to(np.eye(n), (members, n, n))]
    for layer in reversed(layers[1:]):
        above.append(above[-1] @ layer)
    return prefixes[-1], below, above[::-1]


def _network(loss: CovarianceLoss, layers: Sequence[ArrayLike]) -> DeepLinearNetwork:
    if loss.shape != ():
        raise ValueError(f"loss must have one target, not a stack of shape {loss.shape}")
    network = DeepLinearNetwork(layers)
    for j, layer in enumerate(network.layers, start=1):
        if layer.ndim != 2:
            raise ValueError(f"layer {j} must be a matrix, not of shape {layer.shape}")
    return network


def _directions(network: DeepLinearNetwork, directions: Sequence[ArrayLike]) -> list[Array]:
    V = [finite_array(f"direction {j}", v, 2) for j, v in enumerate(directions, start=1)]
    if [v.shape for v in V] != [layer.shape for layer in network.layers]:
        raise ValueError(
            f"directions must have the shapes of the layers, {[layer.shape for layer in network.layers]}, "
            f"not {[v.shape for v in V]}"
        )
    return V


def _matrix(loss: CovarianceLoss, W: ArrayLike) -> Array:
    array = finite_array("W", W, 2)
    if loss.shape != () or array.ndim != 2:
        raise ValueError(f"a Hessian is of one target and one W, not of stacks {loss.shape} and {array.shape[:-2]}")
    return array


def _inner(left: Sequence[Array], right: Sequence[Array]) -> float:
    """Σ_j ⟨A_j, B_j⟩."""
    return float(sum(np.sum(a * b) for a, b in zip(left, right, strict=True)))
