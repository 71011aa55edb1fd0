"""Deep linear networks: layers, end-to-end matrix, layer gradients, balancedness."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from itertools import accumulate, pairwise

import numpy as np
from numpy.typing import ArrayLike

from ..linalg.psd import Array, finite_array


class DeepLinearNetwork:
    """Network x ↦ W_N ⋯ W_1 x, which pushes N(0, I) to N(0, W Wᵀ), W = W_N ⋯ W_1 (paper.md section 1).

    Parameters
    ----------
    layers : sequence of (..., d_j, d_{j-1})
        W_1, …, W_N; layer 1 acts first. Leading axes stack networks.

    Raises
    ------
    ValueError
        If there is no layer, an entry is not finite, or consecutive shapes do not chain.
    """

    def __init__(self, layers: Sequence[ArrayLike]) -> None:
        self.layers: list[Array] = [finite_array(f"layer {j}", W, 2) for j, W in enumerate(layers, start=1)]
        if not self.layers:
            raise ValueError("layers must hold at least one matrix")
        for j, (lower, upper) in enumerate(pairwise(self.layers), start=1):
            if upper.shape[-1] != lower.shape[-2]:
                raise ValueError(
                    f"layers must chain: layer {j + 1} has {upper.shape[-1]} columns, "
                    f"but layer {j} has {lower.shape[-2]} rows"
                )

    def __repr__(self) -> str:
        """One line: the widths d_0, …, d_N, and the stack if it is one."""
        widths = [self.layers[0].shape[-1], *(layer.shape[-2] for layer in self.layers)]
        words = [str(width) for width in (widths if len(widths) <= 8 else [*widths[:3], *widths[-2:]])]
        shown = " → ".join(words if len(widths) <= 8 else [*words[:3], "…", *words[3:]])
        shape = np.broadcast_shapes(*(layer.shape[:-2] for layer in self.layers))
        stack = f"stack of {shape}, " if shape else ""
        return f"<DeepLinearNetwork: {stack}N = {self.depth} layers, widths {shown}>"

    @classmethod
    def balanced(cls, end_to_end: ArrayLike, depth: int, width: int | None = None) -> DeepLinearNetwork:
        """Balanced network of the given end-to-end matrix W = U diag(s) Vᵀ.

        W_1 = s^{1/N} Vᵀ, inner layers diag(s^{1/N}), W_N = U s^{1/N}, cut to inner width k. They are balanced:
        W_{j+1}ᵀ W_{j+1} = W_j W_jᵀ (paper.md section 4).

        Parameters
        ----------
        end_to_end : (..., n, d_0)
        depth
            N ≥ 1. For N = 1 the network is W itself.
        width
            Inner width k; default min(n, d_0). Where it is smaller than the rank of W, the network has the best
            rank-k approximation of W.
        """
        W = finite_array("end_to_end", end_to_end, 2)
        check_depth(depth)
        width = min(W.shape[-2:]) if width is None else width
        if not 1 <= width <= min(W.shape[-2:]):
            raise ValueError(f"width must lie between 1 and min(n, d_0) = {min(W.shape[-2:])}, not {width}")
        if depth == 1 and width == min(W.shape[-2:]):
            return cls([W])
        U, s, Vh = np.linalg.svd(W, full_matrices=False)
        U, s, Vh = U[..., :, :width], s[..., :width], Vh[..., :width, :]
        return cls([U @ (s[..., :, None] * Vh)]) if depth == 1 else cls.of_factors(U, s, Vh, depth)

    @classmethod
    def of_factors(cls, U: Array, s: Array, Vh: Array, depth: int) -> DeepLinearNetwork:
        """Balanced network of W = U diag(s) Vᵀ: W_1 = s^{1/N} Vᵀ, inner layers diag(s^{1/N}), W_N = U s^{1/N}.

        With one layer it is U diag(s), n × k: a rotation of the input changes neither loss nor curvature, and the
        input is the only bottleneck of one layer.

        Parameters
        ----------
        U : (..., n, k)
        s : (..., k)
            Singular values ≥ 0.
        Vh : (..., k, d_0)
        depth
            N ≥ 1.
        """
        check_depth(depth)
        if depth == 1:
            return cls([U * s[..., None, :]])
        root = s ** (1 / depth)
        inner = root[..., :, None] * np.eye(s.shape[-1], dtype=s.dtype)
        return cls([root[..., :, None] * Vh, *[inner] * (depth - 2), U * root[..., None, :]])

    @property
    def depth(self) -> int:
        """N, the number of layers."""
        return len(self.layers)

    def end_to_end(self) -> Array:
        """W = W_N ⋯ W_1, shape (..., n, d_0)."""
        return reduce(lambda product, layer: layer @ product, self.layers)

    def layer_gradients(self, gradient: ArrayLike) -> list[Array]:
        """∂L^N/∂W_j = (W_N⋯W_{j+1})ᵀ ∇L(W) (W_{j-1}⋯W_1)ᵀ for j = 1..N (paper.md section 2).

        Parameters
        ----------
        gradient : (..., n, d_0)
            ∇L at the end-to-end matrix.
        """
        return layer_gradients(self.layers, prefix_products(self.layers), np.asarray(gradient))

    def balancedness(self) -> Array:
        """max_j ‖W_{j+1}ᵀ W_{j+1} − W_j W_jᵀ‖_F, 0 for one layer; shape (...)."""
        return balancedness(self.layers)


def bottleneck(layers: Sequence[Array]) -> int:
    """k = min_j d_j, the largest rank of the product of layers (..., d_j, d_{j−1})."""
    return min(min(layer.shape[-2:]) for layer in layers)


def with_bottleneck(network: DeepLinearNetwork, rank: int) -> DeepLinearNetwork:
    """The network, with a single layer W = U diag(s) Vᵀ replaced by the n × k matrix U_k diag(s_k).

    It has the same covariance where the rank of W is at most k, and else that of the best rank-k approximation of W.
    A network of several layers is returned unchanged.
    """
    W = network.layers[0]
    if network.depth > 1 or W.shape[-1] <= rank:
        return network
    U, s, Vh = np.linalg.svd(W, full_matrices=False)
    return DeepLinearNetwork.of_factors(U[..., :rank], s[..., :rank], Vh[..., :rank, :], 1)


def pack(layers: Sequence[Array]) -> Array:
    """The entries of W_1, …, W_N, one layer after the other, row by row: (..., p), p = Σ d_j d_{j−1}."""
    return np.concatenate([layer.reshape(*layer.shape[:-2], -1) for layer in layers], axis=-1)


def unpack(vector: Array, shapes: Sequence[tuple[int, ...]]) -> list[Array]:
    """Layers of the given shapes (d_j, d_{j−1}) from their entries (..., p), the inverse of `pack`."""
    ends = np.cumsum([rows * columns for rows, columns in shapes])[:-1]
    parts = np.split(vector, ends, axis=-1)
    return [part.reshape(*vector.shape[:-1], *shape) for part, shape in zip(parts, shapes, strict=True)]


def prefix_products(layers: Sequence[Array]) -> list[Array]:
    """W_1, W_2 W_1, …, W_N ⋯ W_1."""
    return list(accumulate(layers, lambda product, layer: layer @ product))


def layer_gradients(layers: Sequence[Array], prefixes: Sequence[Array], gradient: Array) -> list[Array]:
    """∂L^N/∂W_1, …, ∂L^N/∂W_N from ∇L(W) and the `prefix_products`, as new arrays (paper.md section 2).

    The product ∇Lᵀ W_N ⋯ W_{j+1} is accumulated from the top layer down. In this order no product A Bᵀ occurs, for
    which BLAS is slow if the matrices are small.
    """
    backward = gradient.mT
    gradients: list[Array] = []
    for layer, prefix in zip(reversed(layers[1:]), reversed(prefixes[:-1]), strict=True):
        gradients.append(backward.mT @ prefix.mT)
        backward = backward @ layer
    gradients.append(backward.mT if len(layers) > 1 else gradient.copy())
    return gradients[::-1]


def balancedness(layers: Sequence[Array]) -> Array:
    """max_j ‖W_{j+1}ᵀ W_{j+1} − W_j W_jᵀ‖_F, 0 for one layer; shape (...)."""
    largest = np.zeros(layers[0].shape[:-2])
    for lower, upper in pairwise(layers):
        difference = upper.mT @ upper - lower @ lower.mT
        largest = np.maximum(largest, np.linalg.norm(difference, axis=(-2, -1)))
    return largest


def check_depth(depth: int) -> None:
    """Raise ValueError unless `depth` is an integer ≥ 1."""
    if not (isinstance(depth, (int, np.integer)) and depth >= 1):
        raise ValueError(f"depth must be an integer ≥ 1, not {depth!r}")
