"""Scaled descent: gradient descent whose speed does not depend on the condition number of the target.

The Bures-Wasserstein loss of one layer has curvature at most 2 in every direction: it is the minimum over Q of
‖[W, √ε I] − R Q‖². So one step size fits all targets, η = ½, and with ε = 0 it gives W⁺ = R polar(R W), that is
S⁺ = Σ0 W (Wᵀ Σ0 W)⁺ Wᵀ Σ0: the Nyström approximation of Σ0 with test matrix W (docs/neighbours/scaled_descent.md).
This fails for depth N ≥ 2, for ε > 0 and for the square loss. Two scalings of the gradient restore it:

- on the right, by C = I + ε (Wᵀ W)⁺ for Bures-Wasserstein and by C = (Wᵀ W)⁺ for the square loss, which is ScaledGD
  (Tong, Ma and Chi 2021). All rates within the range of the minimum are then equal;
- layer by layer, so that N layers move as one. With P = W_N ⋯ W_{j+1} and Q = W_{j−1} ⋯ W_1,
  W_j ← W_j − η (Pᵀ P)⁺ Pᵀ ∇L(W) C Qᵀ (Q Qᵀ)⁺: to first order in η the end-to-end matrix moves by −N η ∇L(W) C within
  the range of W_N. Off this range only the top layer can move it, and does so by the whole N η.
"""

from collections.abc import Sequence
from itertools import accumulate

import numpy as np
from numpy.typing import ArrayLike

from ..linalg.psd import Array
from ..linalg.roots import pseudo_inverse, rank_tolerance
from ..losses.registry import CovarianceLoss
from ..model.network import DeepLinearNetwork, balancedness, bottleneck, layer_gradients, prefix_products
from ..model.starts import Start
from ..model.trajectory import DescentTrajectory, StopReason
from .common import check_ends, checked_network, in_row_space, with_columns

PRECONDITIONERS = ("layerwise", "right", "none")
#: A step is halved at most so many times before the run counts as stationary. Near the optimum 52 halvings reach
#: rounding; from a start with σ_min far below √λ_r the scaled direction is up to (λ_1/σ_min)² too long in addition.
MAX_HALVINGS = 100
#: A product of layers with a larger entry is not evaluated: the loss may contain its fourth power.
_LARGEST = float(np.finfo(float).max) ** 0.25


def natural_step(loss: CovarianceLoss) -> float:
    """2/d², d the degree of the loss: the step size for one layer at which the scaled rates contract to 0.

    These are the rates within the range of the minimum: 2 for losses of Bures-Wasserstein type, d = 2, and 8 for the
    square loss, d = 4.
    """
    return 2 / loss.degree**2


def scaled_descent(
    loss: CovarianceLoss,
    layers: DeepLinearNetwork | Sequence[ArrayLike],
    step_size: float | None = None,
    preconditioner: str = "layerwise",
    *,
    n_steps: int = 100,
    excess_tolerance: float = 0.0,
    repair: bool = True,
) -> DescentTrajectory:
    """Train a deep linear network by scaled descent on all layers at once.

    Parameters
    ----------
    loss
        Loss on the end-to-end matrix, with one target: Bures-Wasserstein with any ε ≥ 0, square, or barycenter.
    layers : sequence of (d_j, d_{j-1})
        W_1, …, W_N at the start, layer 1 first.
    step_size
        η > 0, the first size tried for each step; default `natural_step(loss) / N`. A step that does not lower
        the loss is halved until it does: if each of N layers grows by the fraction x/N, the product grows by about
        e^x, so that whole steps overshoot where a singular value is far too small. For "none" with N ≥ 2 there is
        no default.
    preconditioner
        "layerwise": both scalings. "right": C alone, for one layer. "none": the gradient itself.
        For ε > 0, C is ill-conditioned as long as a singular value of W is too small: of the steps with C and
        with I in its place the one with the lower loss is taken.
    n_steps
        Number of steps, unless the run ends before.
    excess_tolerance
        The run ends once L − L* is at most this, L* the minimum over rank ≤ k = min_j d_j. 0: never.
    repair
        Only for "layerwise": let the top layer take the whole step N η off the range of W_N (the repair of a
        bottleneck). Without it the part of the loss off the range decays by (1 − 2η)² a step only, (1 − 1/N)² at
        the default.

    Returns
    -------
    DescentTrajectory
        Every step is recorded; `times` adds up the step sizes taken. `stop_reason` CONVERGED, STEP_BUDGET, or
        STATIONARY, where no step lowers the loss any more.

    Raises
    ------
    ValueError
        On input that is out of range, not finite, or of shapes that do not fit.
    """
    network = checked_network(loss, layers)
    check_ends(n_steps, excess_tolerance)
    eta = _checked_step_size(loss, network, step_size, preconditioner)
    W = [layer.astype(float) for layer in network.layers]
    W[-1] = loss.to_eigenbasis(W[-1])  # the other layers do not depend on the basis of the data
    rank = bottleneck(W)
    W, frame = in_row_space(W)
    excess, factor = _excess(loss, W, rank)
    if not np.isfinite(excess):
        raise ValueError(f"layers must have a product with entries of at most {_LARGEST:.0e}, for its loss is a square")
    time, reason, rows = 0.0, StopReason.STEP_BUDGET, []
    for step in range(n_steps + 1):
        prefixes = prefix_products(W)
        gradient = loss.form(prefixes[-1].shape[-1]).gradient(prefixes[-1])
        plain = layer_gradients(W, prefixes, gradient)
        norm = float(np.sqrt(sum(np.sum(part**2) for part in plain)))
        rows.append((time, excess, loss.from_eigenbasis(factor), norm, balancedness(W)))
        if excess_tolerance and excess <= excess_tolerance:
            reason = StopReason.CONVERGED
            break
        if step == n_steps:
            break
        changes = [plain] if preconditioner == "none" else _scaled_changes(loss, W, prefixes, gradient, repair)
        found = _lower_point(loss, W, changes, eta, excess, rank)
        if found is None:
            reason = StopReason.STATIONARY
            break
        h, excess, factor, W = found
        time += h
    return _trajectory(rows, loss.minimum_value(rank), _restored(loss, W, frame), reason)


def nystrom_start(
    rng: np.random.Generator,
    loss: CovarianceLoss,
    rank: int,
    input_dimension: int | None = None,
    *,
    orthonormal: bool = False,
) -> Start:
    """Nyström start W(0) ∝ Σ0 G with an n × k Gaussian test matrix G (Li, Zhang, Mokhtari and He 2024).

    Its range lies in that of Σ0, where scaled descent converges quadratically if k ≥ rank Σ0. A Gaussian start has
    directions off that range, which the square loss only halves in each step.

    Parameters
    ----------
    rng
        Stream of the draw.
    loss
        Loss on the target; its covariance is Σ0.
    rank
        k, the number of columns of G.
    input_dimension
        d_0 ≥ k, the number of columns of W(0); those beyond k are zero. Default k.
    orthonormal
        Make all singular values equal. Those of Σ0 G are spread over the condition number of Σ0; the range is the
        same.

    Returns
    -------
    Start
        `end_to_end` (n, d_0) has the largest singular value √λ_1, the unit of W (ours); `scale` is the factor of Σ0 G.

    Raises
    ------
    ValueError
        On a rank that is not between 1 and min(n, d_0), or a target that is zero.
    """
    n, columns = loss.dimension, rank if input_dimension is None else input_dimension
    if not 1 <= rank <= min(n, columns):
        raise ValueError(f"rank must lie between 1 and min(n, d_0) = {min(n, columns)}, not {rank}")
    largest = float(loss.eigenvalues[0]) if loss.shape == () else 0.0
    if not largest > 0:
        raise ValueError("loss must have one target that is not zero")
    sketch = (loss.eigenvalues / largest)[:, None] * rng.standard_normal((n, rank))  # in the eigenbasis
    U, sigma, Vh = np.linalg.svd(sketch, full_matrices=False)
    scale = float(np.sqrt(largest) / sigma[0])
    if orthonormal:
        sigma = np.where(sigma > rank_tolerance(sketch) * sigma[0], sigma[0], 0)
    W = np.zeros((n, columns))
    W[:, :rank] = loss.from_eigenbasis(U * (scale * sigma)) @ Vh
    return Start(W, scale / largest, 1)


def _restored(loss: CovarianceLoss, W: Sequence[Array], frame: Array | None) -> list[Array]:
    """The layers as given: the top one out of the eigenbasis of the target, W_1 out of its row space."""
    layers = list(W)
    if frame is not None:
        layers[0] = layers[0] @ frame
    layers[-1] = loss.from_eigenbasis(layers[-1])
    return layers


def _trajectory(
    rows: Sequence[tuple[float, float, Array, float, Array]], minimum: Array, layers: list[Array], reason: StopReason
) -> DescentTrajectory:
    """The trajectory of a run from its rows of time, excess, factor, gradient norm and balancedness."""
    times, excess, factors, gradient_norm, balance = (np.array(column) for column in zip(*rows, strict=True))
    return DescentTrajectory(
        times=times,
        loss=minimum + excess,
        excess=excess,
        factors=factors,
        stop_reason=reason,
        steps=np.arange(len(rows)),
        gradient_norm=gradient_norm,
        balancedness=balance,
        layers=layers,
        last_step=np.array(len(rows) - 1),
    )


def _scaled_changes(
    loss: CovarianceLoss, W: Sequence[Array], prefixes: Sequence[Array], gradient: Array, repair: bool
) -> list[list[Array]]:
    """Changes of all layers along the scaled gradients of the loss."""
    directions = loss.scaled_gradients(prefixes[-1], gradient)
    return [_layerwise(W, prefixes, direction, repair) for direction in directions]


def _layerwise(W: Sequence[Array], prefixes: Sequence[Array], direction: Array, repair: bool) -> list[Array]:
    """(Pᵀ P)⁺ Pᵀ D Qᵀ (Q Qᵀ)⁺ for each layer and a direction D (n, d_0); for the top layer N-fold off the range of W_N.

    P = W_N ⋯ W_{j+1}, Q = W_{j−1} ⋯ W_1; so (Pᵀ P)⁺ Pᵀ = P⁺ and Qᵀ (Q Qᵀ)⁺ = Q⁺.
    """
    depth = len(W)
    if depth == 1:
        return [direction]
    above = list(accumulate(reversed(W[1:]), lambda product, layer: product @ layer))[::-1]  # W_N ⋯ W_2, …, W_N
    changes: list[Array] = [pseudo_inverse(P) @ direction for P in above]
    top = direction
    if repair:
        U, sigma, _ = np.linalg.svd(W[-1], full_matrices=False)
        U = U[:, sigma > rank_tolerance(W[-1]) * sigma[0]]
        top = depth * direction - (depth - 1) * U @ (U.T @ direction)
    changes.append(top)
    return [changes[0], *(X @ pseudo_inverse(Q) for X, Q in zip(changes[1:], prefixes[:-1], strict=True))]


def _lower_point(
    loss: CovarianceLoss, W: Sequence[Array], changes: Sequence[list[Array]], eta: float, excess: float, rank: int
) -> tuple[float, float, Array, list[Array]] | None:
    """The first h = η, η/2, η/4, … at which W_j − h Δ_j lowers the loss, Δ the best of the changes; None without one.

    Returns
    -------
    h, excess, factor, layers
        Step size, L − L* after it, a factor of S with at most k columns, and the layers.
    """
    h = eta
    for _ in range(MAX_HALVINGS):
        tried = []
        for change in changes:
            moved = [layer - h * part for layer, part in zip(W, change, strict=True)]
            tried.append((h, *_excess(loss, moved, rank), moved))
        best = min(tried, key=lambda candidate: candidate[1])
        if best[1] < excess:
            return best
        h /= 2
    return None


def _excess(loss: CovarianceLoss, layers: Sequence[Array], rank: int) -> tuple[float, Array]:
    """L − L* of the product of the layers, inf where that is too large; and a factor of S with at most k columns."""
    with np.errstate(over="ignore", invalid="ignore"):
        F = prefix_products(layers)[-1]
        if not np.abs(F).max() <= _LARGEST:
            return np.inf, F
    F = with_columns(F, rank)
    return float(loss.form(F.shape[-1], rank).excess(F)), F


def _checked_step_size(
    loss: CovarianceLoss, network: DeepLinearNetwork, step_size: float | None, preconditioner: str
) -> float:
    """The step size or its default, after checks of it, of the preconditioner and of the shapes."""
    if loss.shape != ():
        raise ValueError(f"loss must have one target, not a stack of shape {loss.shape}")
    for j, layer in enumerate(network.layers, start=1):
        if layer.ndim != 2:
            raise ValueError(f"layer {j} must be a matrix, not of shape {layer.shape}")
    if preconditioner not in PRECONDITIONERS:
        raise ValueError(f"preconditioner must be one of {', '.join(PRECONDITIONERS)}, not {preconditioner!r}")
    if preconditioner == "right" and network.depth > 1:
        raise ValueError(f"preconditioner 'right' is for one layer, not for {network.depth}: use 'layerwise'")
    if step_size is None:
        if preconditioner == "none" and (network.depth > 1 or loss.degree > 2):
            raise ValueError("step_size must be given: plain descent has a universal step for one BW layer alone")
        return natural_step(loss) / network.depth
    if not 0 < step_size < np.inf:
        raise ValueError(f"step_size must be a finite number > 0, not {step_size!r}")
    return float(step_size)
