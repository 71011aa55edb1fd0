"""Deep linear networks: layers, end-to-end matrix, layer gradients, balancedness."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

import numpy as np
from numpy.typing import ArrayLike

from .psd import Array, finite_array


class DeepLinearNetwork:
    """Network x ↦ W_N ⋯ W_1 x (paper.md section 1).

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
        for j, (lower, upper) in enumerate(zip(self.layers, self.layers[1:], strict=False), start=1):
            if upper.shape[-1] != lower.shape[-2]:
                raise ValueError(
                    f"layers must chain: layer {j + 1} has {upper.shape[-1]} columns, "
                    f"but layer {j} has {lower.shape[-2]} rows"
                )

    @classmethod
    def balanced(cls, end_to_end: ArrayLike, depth: int, width: int | None = None) -> DeepLinearNetwork:
        """Balanced network of the given end-to-end matrix W = U diag(s) Vᵀ.

        W_1 = s^{1/N} Vᵀ, inner layers diag(s^{1/N}), W_N = U s^{1/N} (paper.md section 6), cut to
        inner width k.

        Parameters
        ----------
        end_to_end : (..., n, d_0)
        depth
            N ≥ 1. For N = 1 the network is W itself.
        width
            Inner width k; default min(n, d_0). Smaller than the rank of W, it cuts W to its best
            rank-k approximation.
        """
        W = finite_array("end_to_end", end_to_end, 2)
        check_depth(depth)
        width = min(W.shape[-2:]) if width is None else width
        if not 1 <= width <= min(W.shape[-2:]):
            raise ValueError(f"width must lie between 1 and min(n, d_0) = {min(W.shape[-2:])}, not {width}")
        if depth == 1 and width == min(W.shape[-2:]):
            return cls([W])
        U, s, Vh = np.linalg.svd(W, full_matrices=False)
        root = s[..., :width] ** (1 / depth)
        first = root[..., :, None] * Vh[..., :width, :]
        if depth == 1:
            return cls([U[..., :, :width] @ first])
        inner = root[..., :, None] * np.eye(width, dtype=W.dtype)
        return cls([first, *[inner] * (depth - 2), U[..., :, :width] * root[..., None, :]])

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
        below = [None, *self._prefixes()[:-1]]  # W_{j-1} ⋯ W_1
        backward = np.asarray(gradient)  # (W_N ⋯ W_{j+1})ᵀ ∇L
        gradients: list[Array] = []
        for layer, prefix in zip(reversed(self.layers), reversed(below), strict=True):
            gradients.append(backward if prefix is None else backward @ np.swapaxes(prefix, -1, -2))
            backward = np.swapaxes(layer, -1, -2) @ backward
        return gradients[::-1]

    def balancedness(self) -> Array:
        """max_j ‖W_{j+1}ᵀ W_{j+1} − W_j W_jᵀ‖_F, 0 for one layer; shape (...)."""
        if self.depth == 1:
            return np.zeros(self.layers[0].shape[:-2])
        return np.max(
            [
                np.linalg.norm(np.swapaxes(upper, -1, -2) @ upper - lower @ np.swapaxes(lower, -1, -2), axis=(-2, -1))
                for lower, upper in zip(self.layers, self.layers[1:], strict=False)
            ],
            axis=0,
        )

    def _prefixes(self) -> list[Array]:
        products = [self.layers[0]]
        for layer in self.layers[1:]:
            products.append(layer @ products[-1])
        return products


def check_depth(depth: int) -> None:
    """Raise ValueError unless `depth` is an integer ≥ 1."""
    if not (isinstance(depth, (int, np.integer)) and depth >= 1):
        raise ValueError(f"depth must be an integer ≥ 1, not {depth!r}")
