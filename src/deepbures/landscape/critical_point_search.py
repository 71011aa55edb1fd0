"""A solver for ∇L^N = 0 that uses no closed form of the critical points: least squares on the gradients of all layers.

It is a Levenberg-Marquardt method on stacks of networks of one shape. With the gradient g of the deep loss and its
Hessian H = Q diag(h) Qᵀ, the step p(μ) = −Q (h / (h² + μ²)) Qᵀ g minimises ‖g + H p‖² + μ² ‖p‖². Several μ around the
last one are tried, and the step to the smallest gradient is taken. The zeros of H by symmetry do no harm.

Where W loses rank, the loss has no second derivative for ε = 0, and convergence is slow for N ≥ 2. There, and where a
search takes too long, it continues in a narrower network, without the least singular value of W. A critical point of
the narrower network is one of the wider network, too, except for ε = 0 and N = 1.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..linalg.psd import Array
from ..losses.registry import CovarianceLoss
from ..model.network import DeepLinearNetwork, layer_gradients, pack, prefix_products, unpack, with_bottleneck
from .curvature import network_hessians

#: A search ends when the norm of the gradient of all layers is at most this (Σ0 has norm 1), …
GRADIENT_TOLERANCE = 1e-11
#: … after so many Hessians, or when no damping up to the largest one leads to a smaller gradient.
ITERATIONS, LARGEST_DAMPING = 60, 1e6
#: W has lost rank if σ_k(W) is below this (√λ_1 is 1), or for ε = 0 if σ_k(R W) is below this fraction of σ_1(R W).
_SINGULAR, _SINGULAR_WITH_KINK = 1e-6, 1e-12
#: Steps with one Hessian. Where the points with a small gradient lie on a curve, as they do for two nearly equal
#: eigenvalues, a straight step leaves the curve, and a second one returns to it.
_STEPS = 2
#: Singular values of R W up to this fraction of the largest are rounding errors of a product of layers.
_PRODUCT_ROUNDING = 1e-13
#: Dampings that a step tries, relative to the last one; the first damping, and the least.
_DAMPINGS = 10.0 ** np.arange(-2, 3)
_FIRST_DAMPING, _LEAST_DAMPING = 0.1, 1e-9


@dataclass(frozen=True, eq=False)
class Ends:
    """The ends of the searches from a stack of m networks.

    Attributes
    ----------
    layers
        N arrays (m, d_j, d_{j−1}) of the shapes of the starts.
    gradient_norm : (m,)
        (Σ_j ‖∂L^N/∂W_j‖²)^{1/2} there.
    evaluations : (m,)
        Number of Hessians.
    at_kink : (m,)
        Whether the search ended because W lost rank: for ε = 0 and N = 1, where such a W is not a critical point.
    """

    layers: list[Array]
    gradient_norm: Array
    evaluations: NDArray[np.int64]
    at_kink: NDArray[np.bool_]


def search(loss: CovarianceLoss, starts: Sequence[Array]) -> Ends:
    """Search for critical points of the deep loss from each network of a stack.

    Parameters
    ----------
    loss
        With one target of norm λ_1 = 1 (`CovarianceLoss.normalized`), to which all tolerances refer.
    starts : N arrays (m, d_j, d_{j−1})
        Layers with inner width k; one layer is n × k.
    """
    depth, width = len(starts), starts[0].shape[-2 if len(starts) > 1 else -1]
    layers, evaluations, lost = _solve(loss, starts)
    norm = _norm(_gradient(loss, layers))
    if depth == 1 and loss.has_kink:
        return Ends(layers, norm, evaluations, lost)
    goes_on = lost | (norm > GRADIENT_TOLERANCE) if width > 1 else lost
    if goes_on.any():
        narrower, more = _narrower(loss, [layer[goes_on] for layer in layers], width - 1)
        for layer, end in zip(layers, narrower, strict=True):
            layer[goes_on] = end
        evaluations[goes_on] += more
        norm = _norm(_gradient(loss, layers))
    return Ends(layers, norm, evaluations, np.zeros_like(lost))


def _narrower(loss: CovarianceLoss, layers: list[Array], width: int) -> tuple[list[Array], NDArray[np.int64]]:
    """Layers at the ends of the searches that continue with W cut to a lower rank, and their numbers of Hessians."""
    ends = [np.zeros_like(layer) for layer in layers]
    if width == 0:
        return ends, np.zeros(len(layers[0]), dtype=np.int64)
    W = prefix_products(layers)[-1]
    found = search(loss, with_bottleneck(DeepLinearNetwork.balanced(W, len(layers), width), width).layers)
    for end, layer in zip(ends, found.layers, strict=True):
        end[:, : layer.shape[-2], : layer.shape[-1]] = layer
    return ends, found.evaluations


def _solve(loss: CovarianceLoss, starts: Sequence[Array]) -> tuple[list[Array], NDArray[np.int64], NDArray[np.bool_]]:
    """Layers at the ends (m, d_j, d_{j−1}), numbers of Hessians (m,), and whether W lost rank there (m,)."""
    shapes = [layer.shape[-2:] for layer in starts]
    x = pack(starts)
    g = _gradient(loss, starts)
    norm, damping = _norm(g), np.full(len(x), _FIRST_DAMPING)
    evaluations, lost = np.zeros(len(x), dtype=np.int64), np.zeros(len(x), dtype=bool)
    live = np.arange(len(x))
    for _ in range(ITERATIONS):
        lost[live] = _has_lost_rank(loss, unpack(x[live], shapes), min(map(min, shapes)))
        live = live[~lost[live] & (norm[live] > GRADIENT_TOLERANCE) & (damping[live] < LARGEST_DAMPING)]
        if not len(live):
            break
        evaluations[live] += 1
        h, Q = np.linalg.eigh(network_hessians(loss, unpack(x[live], shapes)))
        tried = np.maximum(damping[live, None] * _DAMPINGS, _LEAST_DAMPING)
        weights = -h[:, None, :] / (h[:, None, :] ** 2 + tried[..., None] ** 2)
        moved, gradients = np.repeat(x[live, None, :], len(_DAMPINGS), axis=1), g[live, None, :]
        longest = _norm(x[live])[:, None, None]
        for _ in range(_STEPS):
            steps = (weights * (gradients @ Q)) @ Q.mT
            length = np.linalg.norm(steps, axis=-1, keepdims=True)
            moved = moved + steps * np.minimum(1, longest / np.maximum(length, np.finfo(float).tiny))
            gradients = _gradient(loss, unpack(moved, shapes))
        norms = _norm(gradients)
        best = norms.argmin(axis=1)
        members = np.arange(len(live))
        better = norms[members, best] < norm[live]
        winners, chosen = live[better], (members[better], best[better])
        x[winners], g[winners], norm[winners] = moved[chosen], gradients[chosen], norms[chosen]
        damping[live] = np.where(better, tried[members, best], 1e3 * damping[live])
    return unpack(x, shapes), evaluations, lost


def _has_lost_rank(loss: CovarianceLoss, layers: list[Array], rank: int) -> NDArray[np.bool_]:
    """Whether the product of the layers, for which `rank` is the bottleneck, has a lower rank; (m,)."""
    W = prefix_products(layers)[-1]
    lost = np.linalg.svd(W, compute_uv=False)[..., rank - 1] < _SINGULAR
    if loss.has_kink:
        X = np.sqrt(loss.eigenvalues)[:, None] * (loss.eigenvectors.T @ W)
        sigma = np.linalg.svd(X, compute_uv=False)
        lost |= sigma[..., rank - 1] <= _SINGULAR_WITH_KINK * sigma[..., 0]
        if rank < sigma.shape[-1]:  # R W = 0 up to rounding errors, for a singular target
            lost |= sigma[..., rank] > _PRODUCT_ROUNDING * sigma[..., 0]
    return lost


def _gradient(loss: CovarianceLoss, layers: Sequence[Array]) -> Array:
    """∇L^N, all layers in one vector, (..., p)."""
    prefixes = prefix_products(layers)
    return pack(layer_gradients(layers, prefixes, loss.gradient(prefixes[-1])))


def _norm(vectors: Array) -> Array:
    return np.linalg.norm(vectors, axis=-1)
