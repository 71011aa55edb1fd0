"""Initial end-to-end matrices W(0), and layers W_j from random distributions (paper.md section 6)."""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from ..linalg.psd import Array, equalized
from ..linalg.thin import is_thin
from ..losses.registry import CovarianceLoss
from .network import DeepLinearNetwork, check_depth

#: Distributions of the entries of layers, see `draw_layer`.
DISTRIBUTIONS = (
    "normal",
    "uniform",
    "xavier_normal",
    "xavier_uniform",
    "kaiming_normal",
    "kaiming_uniform",
    "orthogonal",
)
#: The network is made of the layers as drawn, of their product, balanced, or of one end-to-end matrix, balanced.
BALANCES = ("none", "product", "end_to_end")

#: Balanced starts that are not drawn layer by layer: near the target, near the saddle W = 0, near 0 along Ω, and
#: (`level_starts`) with a given excess loss in a random direction, or on the way to the lowest saddle.
NEAR_A_POINT = ("close", "small", "aligned", "level", "saddle")

#: The authors' first scale of the `close` start, and the factor by which it shrinks after a draw without a margin.
FIRST_SCALE, SHRINK = 10.95, 0.95
#: Bound, relative to tr Σ0, on the error of a loss computed as a difference of traces.
_TRACE_DIGITS = 1e-6
#: After this many draws the scale has shrunk to 1e-13, and no start with a margin is left to be found.
MAX_DRAWS = 600
_NO_MARGIN = f"no start close to the target with a margin after {MAX_DRAWS} draws"
#: Number of draws that are tested together.
_BLOCK = 12


@dataclass(frozen=True, eq=False)
class Start:
    """An initial end-to-end matrix and its draw.

    Attributes
    ----------
    end_to_end : (n, d_0)
        W(0).
    scale
        Scale of the perturbation (`close`) or the singular values (`small`, `aligned`).
    draws
        Number of draws up to the first start with a positive margin.
    """

    end_to_end: Array
    scale: float
    draws: int


def random_orthogonal(rng: np.random.Generator, dimension: int) -> Array:
    """Haar-distributed rotation in SO(n), (n, n)."""
    return rotations(rng.standard_normal((dimension, dimension)))


def rotations(gaussian: Array) -> Array:
    """Haar-distributed rotations from square Gaussian matrices (..., n, n), by QR with a positive diagonal of R."""
    Q, R = np.linalg.qr(gaussian)
    Q = Q * np.where(np.diagonal(R, axis1=-2, axis2=-1) < 0, -1.0, 1.0)[..., None, :]
    Q[..., 0] *= np.linalg.slogdet(Q)[0][..., None]
    return Q


def random_frame(rng: np.random.Generator, dimension: int, columns: int) -> Array:
    """Haar-distributed n × k matrix with orthonormal columns, from n × n random numbers for small n, else n × k."""
    if not is_thin(dimension, columns):
        return random_orthogonal(rng, dimension)[:, :columns]
    Q, R = np.linalg.qr(rng.standard_normal((dimension, columns)))
    return Q * np.where(np.diag(R) < 0, -1.0, 1.0)


def margin(loss: CovarianceLoss, W: Array, rank: int) -> float:
    """c = √λ_k − √L(W): positive inside the ball in which the paper's convergence theorems hold."""
    return float(np.sqrt(loss.eigenvalues[rank - 1]) - np.sqrt(loss.value(W)))


def close_start(
    rng: np.random.Generator,
    loss: CovarianceLoss,
    rank: int,
    input_dimension: int | None = None,
    *,
    first_scale: float = FIRST_SCALE,
) -> Start:
    """The authors' `close` start: near the target, just inside the ball in which the paper's theorems hold.

    S(0) = Σ0 − εI + Γ diag(D) Γᵀ, D_i = scale · λ_n (2 − i/n), Γ a random rotation, cut to rank k;
    W(0) = U diag(√eig S(0)) Vᵀ, V random. The first scale is 10.95. While the margin c = √λ_k − √L(0) is not positive,
    the scale shrinks by 0.95 and Γ is drawn again. A smaller first scale gives a larger margin. A negative one (ours)
    gives a start below the optimum: S(0) = S*^{1/2} (I + ½ scale Γ diag(2 − i/n) Γᵀ) S*^{1/2} with S* = Σ0 − εI. For
    k ≪ n (`is_thin`), where a rotation has too many entries, Σ0 − εI is cut to rank k first, Γ is an n × k frame, or
    for scale < 0 a rotation of the range of S*, and D_i = scale · λ_n (2 − i/k).

    Parameters
    ----------
    rng
        Stream of the draws.
    loss
        Bures-Wasserstein loss with ε ≤ λ_n.
    rank
        k.
    input_dimension
        d_0 ≥ k, default n.
    first_scale
        First scale of the search, above −1 and not 0.

    Raises
    ------
    ValueError
        If L* ≥ λ_k, where no start has a margin (the authors' program does not terminate), if ε > λ_n, if the first
        scale is out of range, or for another loss.
    """
    _check_close_start(loss, rank, first_scale)
    n, scales = loss.dimension, np.multiply.accumulate(np.append(first_scale, np.full(MAX_DRAWS - 1, SHRINK)))
    if is_thin(n, rank):
        return _thin_close_start(rng, loss, rank, input_dimension or n, scales)
    done = 0
    if rank == n:
        done = int(np.argmin(np.append(_surely_outside(loss.eigenvalues, scales), False)))
        rng.standard_normal((done, n, n))  # these draws of Γ cannot give a margin
    while done < MAX_DRAWS:
        state, block = rng.bit_generator.state, scales[done : done + _BLOCK]
        S = _perturbed(loss, block, rotations(rng.standard_normal((len(block), n, n))))
        for i in np.flatnonzero(_maybe_inside(loss, S, rank)):
            s, U = np.linalg.eigh(S[i])
            factor = loss.eigenvectors @ (U * np.sqrt(np.maximum(s, 0)))[:, ::-1][:, :rank]
            if margin(loss, factor, rank) > 0:
                rng.bit_generator.state = state
                rng.standard_normal((i + 1, n, n))
                V = random_orthogonal(rng, input_dimension or n)
                return Start(factor @ V[:, :rank].T, float(block[i]), done + int(i) + 1)
        done += len(block)
    raise ValueError(_NO_MARGIN)


def _thin_close_start(
    rng: np.random.Generator, loss: CovarianceLoss, rank: int, input_dimension: int, scales: Array
) -> Start:
    """`close_start` for k ≪ n, on n × k arrays."""
    root, spread = np.sqrt(np.maximum(loss.eigenvalues[:rank] - loss.epsilon, 0)), 2 - np.arange(1, rank + 1) / rank
    factor = np.zeros((loss.dimension, rank))
    for draws, scale in enumerate(scales, start=1):
        if scale > 0:
            optimum = np.eye(loss.dimension, rank) * root
            perturbed = random_frame(rng, loss.dimension, rank) * np.sqrt(scale * loss.eigenvalues[-1] * spread)
            U, s, _ = np.linalg.svd(np.concatenate([optimum, perturbed], axis=1), full_matrices=False)
            factor = (U * s)[:, :rank]
        else:
            factor[:rank] = root[:, None] * random_orthogonal(rng, rank) * np.sqrt(1 + scale / 2 * spread)
        W = loss.from_eigenbasis(factor)
        if margin(loss, W, rank) > 0:
            return Start(W @ random_frame(rng, input_dimension, rank).T, float(scale), draws)
    raise ValueError(_NO_MARGIN)


def _check_close_start(loss: CovarianceLoss, rank: int, first_scale: float) -> None:
    """Raise ValueError in one line where there is no `close_start`."""
    if not loss.is_bures_distance:
        raise ValueError(f"initialization 'close' needs the loss 'bures-wasserstein', not {loss.name!r}")
    if not (first_scale > -1 and first_scale != 0):
        raise ValueError(f"the scale of a close start must be more than -1 and not 0, not {first_scale}")
    n, eigenvalues = loss.dimension, loss.eigenvalues
    if not 1 <= rank <= n:
        raise ValueError(f"rank must lie between 1 and the dimension {n}, not {rank}")
    minimum = loss.minimum_value(rank)
    if minimum >= eigenvalues[rank - 1]:
        raise ValueError(
            f"no start close to the target has a margin: the minimal loss over rank {rank} is {minimum:.6g}, "
            f"not below λ_{rank} = {eigenvalues[rank - 1]:.6g}; use a higher rank or another initialization"
        )
    if loss.epsilon > equalized(eigenvalues, float(loss.epsilon))[-1]:
        raise ValueError(f"epsilon must be at most λ_n = {eigenvalues[-1]:.6g} for a close start, not {loss.epsilon}")


def _surely_outside(eigenvalues: Array, scales: Array) -> NDArray[np.bool_]:
    """Whether a scale gives no margin for k = n, whatever Γ: S(0) + εI ≥ Σ0 + scale λ_n I, and L grows with S above Σ0.

    ∂L/∂S = I − T, and T = (S + εI)^{-1} # Σ0 ≤ I where S + εI ≥ Σ0 (# the geometric mean, which is monotone).
    """
    shifted = eigenvalues + np.maximum(scales, 0)[:, None] * eigenvalues[-1]
    least = np.sum((np.sqrt(shifted) - np.sqrt(eigenvalues)) ** 2, axis=-1)
    return (scales > 0) & (least > eigenvalues[-1] + _TRACE_DIGITS * eigenvalues.sum())


def _perturbed(loss: CovarianceLoss, scales: Array, Gamma: Array) -> Array:
    """S(0) for scales (m,) of one sign and rotations Γ (m, n, n), in the eigenbasis of the target, (m, n, n)."""
    n, eigenvalues = loss.dimension, loss.eigenvalues
    spread = 2 - np.arange(1, n + 1) / n
    optimum = np.maximum(eigenvalues - loss.epsilon, 0)
    if scales[0] > 0:
        widths = scales[:, None, None] * eigenvalues[-1] * spread
        return np.diag(optimum) + (Gamma * widths) @ Gamma.mT
    root = np.sqrt(optimum)
    widths = scales[:, None, None] / 2 * spread
    return root[:, None] * (np.eye(n) + (Gamma * widths) @ Gamma.mT) * root


def _maybe_inside(loss: CovarianceLoss, S: Array, rank: int) -> NDArray[np.bool_]:
    """Whether S (m, n, n) may have a margin. For k = n the loss as a difference of traces decides in most cases."""
    eigenvalues = loss.eigenvalues
    if rank < loss.dimension:
        return np.ones(len(S), dtype=bool)
    root, smoothed = np.sqrt(eigenvalues), S + loss.epsilon * np.eye(loss.dimension)
    mu = np.linalg.eigvalsh(root[:, None] * smoothed * root)
    traces = np.trace(smoothed, axis1=-2, axis2=-1) + eigenvalues.sum()
    value = traces - 2 * np.sum(np.sqrt(np.maximum(mu, 0)), axis=-1)
    return value <= eigenvalues[-1] + _TRACE_DIGITS * eigenvalues.sum()


def small_start(
    rng: np.random.Generator, dimension: int, rank: int, scale: float, input_dimension: int | None = None
) -> Start:
    """Small balanced start W(0) = scale · U Vᵀ with random orthonormal n × k and d_0 × k frames.

    It lies near the saddle W = 0, from which the flow descends the energy levels one by one.
    """
    if not scale > 0:
        raise ValueError(f"scale must be positive, not {scale}")
    if not 1 <= rank <= min(dimension, input_dimension or dimension):
        raise ValueError(
            f"rank must lie between 1 and min(n, d_0) = {min(dimension, input_dimension or dimension)}, not {rank}"
        )
    U = random_frame(rng, dimension, rank)
    V = random_frame(rng, input_dimension or dimension, rank)
    return Start(scale * U @ V.T, scale, 1)


def aligned_start(
    rng: np.random.Generator, loss: CovarianceLoss, rank: int, scale: float, input_dimension: int | None = None
) -> Start:
    """Start W(0) = scale · Ω_k Vᵀ along the k leading eigenvectors of the target, V random orthonormal.

    S(0) = scale² Ω_k Ω_kᵀ commutes with Σ0, and so does S(t): each eigenvalue follows its own equation
    ds/dt = 4 N s^{2−1/N} (√(λ/(s + ε)) − 1) (paper.md section 9; `plateau_times.mode_times`).
    """
    if not scale > 0:
        raise ValueError(f"scale must be positive, not {scale}")
    V = random_frame(rng, input_dimension or loss.dimension, rank)
    return Start(scale * loss.eigenvector_columns(np.arange(rank)) @ V.T, scale, 1)


def draw_layer(rng: np.random.Generator, distribution: str, rows: int, columns: int, deviation: float = 1.0) -> Array:
    """Layer W_j of the given shape d_j × d_{j−1}.

    Parameters
    ----------
    rng
        Stream of the draw.
    distribution
        `normal`: N(0, deviation²). `uniform`: U(−1, 1). Xavier: variance 2/(d_j + d_{j−1}) (Glorot and Bengio
        2010); Kaiming: variance 2/d_{j−1} (He et al. 2015); each normal or uniform. `orthogonal`: U Vᵀ with
        random orthonormal frames, so that all singular values are 1.
    deviation
        For `normal` only.

    Raises
    ------
    ValueError
        On an unknown distribution.
    """
    if distribution == "orthogonal":
        width = min(rows, columns)
        return random_frame(rng, rows, width) @ random_frame(rng, columns, width).T
    family, _, density = distribution.rpartition("_")
    if distribution not in DISTRIBUTIONS:
        raise ValueError(f"distribution must be one of {', '.join(DISTRIBUTIONS)}, not {distribution!r}")
    if family:
        deviation = np.sqrt(2 / (rows + columns if family == "xavier" else columns))
    elif density == "uniform":
        deviation = 1 / np.sqrt(3)
    if density == "normal":
        return deviation * rng.standard_normal((rows, columns))
    return deviation * np.sqrt(3) * rng.uniform(-1, 1, (rows, columns))


def draw_network(
    rng: np.random.Generator,
    dimension: int,
    depth: int,
    rank: int,
    distribution: str,
    *,
    balance: str = "none",
    gamma: float = 1.0,
    input_dimension: int | None = None,
    width: int | None = None,
) -> DeepLinearNetwork:
    """Network of random layers, balanced or not.

    Parameters
    ----------
    rng
        Stream of the draw.
    dimension, depth, rank
        n, N, and k, the width of all inner layers (see `width`).
    distribution
        One of `DISTRIBUTIONS`, see `draw_layer`. For `normal` the entries of the end-to-end matrix have the variance
        d_0^{−γ}: the deviation σ is σ^{2N} = d_0^{−γ} / (d_1 ⋯ d_{N−1}).
    balance
        `none`: the layers as drawn. `product`: the balanced network of their product (the authors'
        `balance`). `end_to_end`: that of one n × d_0 matrix with this distribution, cut to rank k (their
        `balance-force`).
    gamma
        γ, for `normal` only.
    input_dimension
        d_0, default n.
    width
        Width h ≥ k of the layers as drawn; default k. For k < n the first layer keeps the width k, the bottleneck.

    Raises
    ------
    ValueError
        On an unknown distribution or balance, or a depth, rank or width out of range.
    """
    d_0 = input_dimension or dimension
    check_depth(depth)
    if balance not in BALANCES:
        raise ValueError(f"balance must be one of {', '.join(BALANCES)}, not {balance!r}")
    if not 1 <= rank <= min(dimension, d_0):
        raise ValueError(f"rank must lie between 1 and min(n, d_0) = {min(dimension, d_0)}, not {rank}")
    width = rank if width is None else width
    if width < rank:
        raise ValueError(f"width must be at least the rank {rank}, not {width}")
    hidden = [width] * (depth - 1)
    if rank < dimension:
        hidden[:1] = [rank] * min(1, depth - 1)
    widths = [d_0, *hidden, dimension]
    if balance == "end_to_end" or (depth == 1 and rank < min(dimension, d_0)):  # one layer has no bottleneck
        W = draw_layer(rng, distribution, dimension, d_0, d_0 ** (-gamma / 2))
        return DeepLinearNetwork.balanced(W, depth, rank)
    log_deviation = -(gamma * np.log(d_0) + np.sum(np.log(widths[1:-1]))) / (2 * depth)
    deviation = float(np.exp(log_deviation))
    shapes = [(rows, columns) for columns, rows in pairwise(widths)]
    network = DeepLinearNetwork([draw_layer(rng, distribution, *shape, deviation) for shape in shapes])
    return network if balance == "none" else DeepLinearNetwork.balanced(network.end_to_end(), depth, rank)


def with_end_rank(network: DeepLinearNetwork, rank: int) -> DeepLinearNetwork:
    """The network with its first and last layer replaced by their best approximations of rank r = `rank`."""
    if rank < 1:
        raise ValueError(f"rank must be at least 1, not {rank}")

    def cut(W: Array) -> Array:
        U, s, Vh = np.linalg.svd(W, full_matrices=False)
        return (U[..., :rank] * s[..., None, :rank]) @ Vh[..., :rank, :]

    first, last = cut(network.layers[0]), cut(network.layers[-1])
    return DeepLinearNetwork([first] if network.depth == 1 else [first, *network.layers[1:-1], last])
