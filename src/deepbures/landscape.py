"""The loss landscape of matrices and of deep networks: Hessians, their spectra, segments, second-order models.

Parameters are the entries of W_1, …, W_N one layer after the other, each row by row. With the
Jacobian dW = Σ_j A_j dW_j B_j, A_j = W_N ⋯ W_{j+1}, B_j = W_{j−1} ⋯ W_1, the Hessian of the deep loss is
Jᵀ ∇²L J plus, for each pair i < j, ⟨∇L(W), A_j dW_j (W_{j−1} ⋯ W_{i+1}) dW_i B_i⟩ (paper.md section 2).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np
from numpy.typing import ArrayLike

from .losses import CovarianceLoss
from .network import DeepLinearNetwork, prefix_products
from .psd import Array, check_square_fits, finite_array, symmetrize

#: Eigenvalues below this share of the largest in size count as zero.
ZERO_TOLERANCE = 1e-9
#: Relative accuracy of the extreme eigenvalues that Lanczos finds, and the seed of its first vector.
_LANCZOS_TOLERANCE, _LANCZOS_SEED = 1e-10, 0


@dataclass(frozen=True)
class Curvature:
    """Summary of the spectrum of a Hessian.

    Attributes
    ----------
    smallest, largest
        λ_min and λ_max, signed.
    negative, zero, positive
        Numbers of eigenvalues; zero are those of size ≤ tolerance · max |λ|. A Hessian of deep layers has
        many by symmetry: rescaling between layers and rotation of the input leave the loss as it is.
    relative_condition
        κ_rel = λ_max / λ_min, λ_min the smallest eigenvalue that is not zero: negative at a saddle.
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


def hessian(loss: CovarianceLoss, W: ArrayLike, rank: int | None = None) -> Array:
    """Hessian of L at a matrix W, (n, d) → (n d, n d), entries of W row by row.

    Parameters
    ----------
    loss
        With one target.
    W : (n, d)
        With d = k columns W runs over the matrices of rank ≤ k up to a rotation of the input: this is the
        Hessian restricted to them, with k (k−1)/2 zeros for the rotations.
    rank
        Rank of W, for ε = 0 below min(n, d). The result then is meant for tangent directions only; see
        `CovarianceLoss.hessian_product`.

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
    """Hessian of the deep loss at the layers W_1, …, W_N: (p, p), p = Σ d_j d_{j−1}; dense.

    For ε = 0 the product of the layers must have rank k = min_j d_j.
    """
    network = _network(loss, layers)
    check_square_fits("the Hessian of the layers", sum(layer.size for layer in network.layers))
    W, below, above = _products(network)
    Jacobian = [np.kron(A, B.T) for A, B in zip(above, below, strict=True)]  # of vec W with respect to vec W_j
    tangents = np.concatenate(Jacobian, axis=1)
    directions = tangents.T.reshape(-1, *W.shape)
    curved = loss.hessian_product(W, directions, _bottleneck(network))
    result = symmetrize(tangents.T @ curved.reshape(len(directions), -1).T)
    gradient = loss.gradient(W)
    ends = np.cumsum([0, *(layer.size for layer in network.layers)])
    for i in range(network.depth):
        between = np.eye(network.layers[i].shape[0])  # W_{j−1} ⋯ W_{i+1}
        for j in range(i + 1, network.depth):
            outer = above[j].T @ gradient @ below[i].T
            block = np.einsum("pq,rs->prsq", outer, between).reshape(network.layers[j].size, -1)
            rows, columns = slice(ends[j], ends[j + 1]), slice(ends[i], ends[i + 1])
            result[rows, columns] += block
            result[columns, rows] += block.T
            between = network.layers[j] @ between
    return result


def network_hessian_product(
    loss: CovarianceLoss, layers: Sequence[ArrayLike], directions: Sequence[ArrayLike]
) -> list[Array]:
    """∇²L^N(W_1, …, W_N)[V_1, …, V_N], one array a layer, without the matrix: O(N) products.

    Parameters
    ----------
    loss, layers
        As in `network_hessian`.
    directions : N arrays (d_j, d_{j−1})
        V_1, …, V_N.
    """
    network = _network(loss, layers)
    V = _directions(network, directions)
    prefixes = prefix_products(network.layers)
    return _hessian_product(loss, network, prefixes, loss.gradient(prefixes[-1]), V)


def extreme_eigenvalues(loss: CovarianceLoss, layers: Sequence[ArrayLike]) -> tuple[float, float]:
    """λ_min and λ_max of the Hessian of the deep loss, by Lanczos on `network_hessian_product`.

    Accurate to 1e-10 of the larger of |λ_min| and |λ_max|: for many parameters, where the dense Hessian is too
    large. The first Lanczos vector is fixed, so that the result is the same every time. A product is linear in n where
    d_0 is as small as k: the end-to-end matrix is n × d_0.

    Raises
    ------
    ValueError
        If Lanczos does not converge.
    """
    from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigsh

    network = _network(loss, layers)
    prefixes = prefix_products(network.layers)
    gradient = loss.gradient(prefixes[-1])
    shapes = [layer.shape for layer in network.layers]
    ends = np.cumsum([layer.size for layer in network.layers])
    size = int(ends[-1])
    if size < 20:  # too few parameters for a Krylov space
        eigenvalues = np.linalg.eigvalsh(network_hessian(loss, layers))
        return float(eigenvalues[0]), float(eigenvalues[-1])

    def product(vector: Array) -> Array:
        parts = np.split(vector.ravel(), ends[:-1])
        V = [part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)]
        return np.concatenate([H.ravel() for H in _hessian_product(loss, network, prefixes, gradient, V)])

    first = np.random.default_rng(_LANCZOS_SEED).standard_normal(size)
    options = {"k": 1, "tol": _LANCZOS_TOLERANCE, "v0": first, "return_eigenvectors": False}
    try:
        dominant = float(eigsh(LinearOperator((size, size), product, dtype=float), which="LM", **options)[0])
        # The other end is dominant once the first is shifted to 0; near 0 itself Lanczos has no relative accuracy.
        shifted = LinearOperator((size, size), lambda x: product(x) - dominant * x.ravel(), dtype=float)
        other = dominant + float(eigsh(shifted, which="LM", **options)[0])
    except ArpackNoConvergence as error:
        raise ValueError(f"the extreme eigenvalues of the Hessian were not found: {error}") from None
    return min(dominant, other), max(dominant, other)


def network_loss(loss: CovarianceLoss, layers: Sequence[Array]) -> Array:
    """L^N(W_1, …, W_N) = L(W_N ⋯ W_1), for stacks of layers, too."""
    return loss.value(DeepLinearNetwork(layers).end_to_end())


def segment(start: ArrayLike, end: ArrayLike, t: ArrayLike) -> Array:
    """(1 − t) W_0 + t W_1 for each t, (m, n, d): a segment in the space of matrices, or of one layer."""
    t = np.asarray(t, dtype=float)[:, None, None]
    return (1 - t) * np.asarray(start) + t * np.asarray(end)


def directional_derivatives(
    loss: CovarianceLoss, layers: Sequence[ArrayLike], directions: Sequence[ArrayLike]
) -> tuple[float, float, float]:
    """L^N and its first and second derivative at 0 along W_j + t V_j, in closed form."""
    network = _network(loss, layers)
    V = _directions(network, directions)
    W = network.end_to_end()
    gradients = network.layer_gradients(loss.gradient(W))
    curved = network_hessian_product(loss, network.layers, V)
    return float(loss.value(W)), _inner(gradients, V), _inner(curved, V)


def numerical_derivatives(
    loss: CovarianceLoss, layers: Sequence[ArrayLike], directions: Sequence[ArrayLike], step: float = 5e-3
) -> tuple[float, float, float]:
    """The same from seven values of the loss alone: central differences of sixth order with spacing `step`."""
    network = _network(loss, layers)
    V = _directions(network, directions)
    offsets = step * np.arange(-3, 4)
    moved = [layer + offsets[:, None, None] * v for layer, v in zip(network.layers, V, strict=True)]
    values = network_loss(loss, moved)
    first = np.array([-1, 9, -45, 0, 45, -9, 1]) / 60
    second = np.array([2, -27, 270, -490, 270, -27, 2]) / 180
    return float(values[3]), float(first @ values / step), float(second @ values / step**2)


def _hessian_product(
    loss: CovarianceLoss, network: DeepLinearNetwork, prefixes: list[Array], gradient: Array, V: list[Array]
) -> list[Array]:
    """Derivative of all layer gradients along V: one pass up for dW, one pass down for what is carried back."""
    layers = network.layers
    moved = [V[0]]  # derivatives of the prefix products
    for layer, v, prefix in zip(layers[1:], V[1:], prefixes[:-1], strict=True):
        moved.append(v @ prefix + layer @ moved[-1])
    carried, changed = gradient, loss.hessian_product(prefixes[-1], moved[-1], _bottleneck(network))
    result: list[Array] = []
    for j in range(len(layers) - 1, 0, -1):
        result.append(changed @ prefixes[j - 1].T + carried @ moved[j - 1].T)
        changed = V[j].T @ carried + layers[j].T @ changed
        carried = layers[j].T @ carried
    return [changed, *result[::-1]]


def _products(network: DeepLinearNetwork) -> tuple[Array, list[Array], list[Array]]:
    """W, the products B_j = W_{j−1} ⋯ W_1 below and A_j = W_N ⋯ W_{j+1} above each layer."""
    layers = network.layers
    prefixes = prefix_products(layers)
    below = [np.eye(layers[0].shape[1]), *prefixes[:-1]]
    above: list[Array] = [np.eye(layers[-1].shape[0])]
    for layer in reversed(layers[1:]):
        above.append(above[-1] @ layer)
    return prefixes[-1], below, above[::-1]


def _bottleneck(network: DeepLinearNetwork) -> int:
    return min(min(layer.shape) for layer in network.layers)


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
    return float(reduce(lambda total, pair: total + np.sum(pair[0] * pair[1]), zip(left, right, strict=True), 0.0))
