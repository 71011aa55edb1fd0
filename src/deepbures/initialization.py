"""Initial end-to-end matrices (paper.md section 6)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .losses import BuresWasserstein, CovarianceLoss
from .psd import INPUT_TOLERANCE, Array

#: The authors' first scale of the `close` start, and its reduction after a draw without margin.
FIRST_SCALE, SHRINK = 10.95, 0.95
#: At this many draws the scale has shrunk to 1e-13: no margin is left to find.
MAX_DRAWS = 600


@dataclass(frozen=True)
class Start:
    """An initial end-to-end matrix, and how it was found.

    Attributes
    ----------
    end_to_end : (n, d_0)
        W(0).
    scale
        Scale of the perturbation (`close`) or of the singular values (`small`).
    draws
        Number of draws until the start had a positive margin.
    """

    end_to_end: Array
    scale: float
    draws: int


def random_orthogonal(rng: np.random.Generator, dimension: int) -> Array:
    """Haar-distributed rotation in SO(n): QR of a Gaussian matrix with the signs of R's diagonal taken out."""
    Q, R = np.linalg.qr(rng.standard_normal((dimension, dimension)))
    Q = Q * np.where(np.diag(R) < 0, -1.0, 1.0)
    if np.linalg.slogdet(Q)[0] < 0:
        Q[:, 0] = -Q[:, 0]
    return Q


def margin(loss: CovarianceLoss, W: Array, rank: int) -> float:
    """c = √λ_k − √L(W): positive inside the ball in which the paper's convergence theorems hold."""
    return float(np.sqrt(loss.eigenvalues[rank - 1]) - np.sqrt(loss.value(W)))


def close_start(
    rng: np.random.Generator, loss: BuresWasserstein, rank: int, input_dimension: int | None = None
) -> Start:
    """The authors' `close` start: near the target, barely inside the theory's ball.

    S(0) = Σ0 − εI + Γ diag(D) Γᵀ, D_i = scale · λ_n (2 − i/n), Γ a random rotation, cut to rank k;
    W(0) = U diag(√eig S(0)) Vᵀ, V random. The scale starts at 10.95; while the margin
    c = √λ_k − √L(0) is not positive, it shrinks by 0.95 and Γ is drawn again.

    Parameters
    ----------
    rng
        Stream of the draws.
    loss
        Bures-Wasserstein loss with ε ≤ λ_n, on the target that the start is close to.
    rank
        k.
    input_dimension
        d_0 ≥ k, default n.

    Raises
    ------
    ValueError
        If L* ≥ λ_k, where no start has a margin (the authors' program never returns), or ε > λ_n.
    """
    n, eigenvalues = loss.dimension, loss.eigenvalues
    _, floor = loss.minimum(rank)
    if floor >= eigenvalues[rank - 1]:
        raise ValueError(
            f"no start close to the target has a margin: the minimal loss over rank {rank} is {floor:.6g}, "
            f"not below λ_{rank} = {eigenvalues[rank - 1]:.6g}; use a higher rank or another initialization"
        )
    if loss.epsilon > eigenvalues[-1] * (1 + INPUT_TOLERANCE):
        raise ValueError(f"epsilon must be at most λ_n = {eigenvalues[-1]:.6g} for a close start, not {loss.epsilon}")
    spread = eigenvalues[-1] * (2 - np.arange(1, n + 1) / n)
    scale = FIRST_SCALE
    for draw in range(1, MAX_DRAWS + 1):
        Gamma = random_orthogonal(rng, n)
        S = np.diag(eigenvalues - loss.epsilon) + (Gamma * (scale * spread)) @ Gamma.T
        s, U = np.linalg.eigh(S)
        factor = loss.eigenvectors @ (U * np.sqrt(np.maximum(s, 0)))[:, ::-1][:, :rank]
        if margin(loss, factor, rank) > 0:
            V = random_orthogonal(rng, input_dimension or n)
            return Start(factor @ V[:, :rank].T, scale, draw)
        scale *= SHRINK
    raise ValueError(f"no start close to the target with a margin after {MAX_DRAWS} draws")


def small_start(
    rng: np.random.Generator, dimension: int, rank: int, scale: float, input_dimension: int | None = None
) -> Start:
    """Small balanced start W(0) = scale · U Vᵀ with random orthonormal n×k and d_0×k frames.

    It lies next to the saddle W = 0, from which the flow climbs down the energy levels one by one.
    """
    if not scale > 0:
        raise ValueError(f"scale must be positive, not {scale}")
    if not 1 <= rank <= min(dimension, input_dimension or dimension):
        raise ValueError(
            f"rank must lie between 1 and min(n, d_0) = {min(dimension, input_dimension or dimension)}, not {rank}"
        )
    U = random_orthogonal(rng, dimension)[:, :rank]
    V = random_orthogonal(rng, input_dimension or dimension)[:, :rank]
    return Start(scale * U @ V.T, scale, 1)
