"""Inverse square roots M^{-1/2} of a stack of matrices that change little from one call to the next.

A descent takes many steps, and each needs M^{-1/2} of a matrix that differs little from the previous one. In the
eigenbasis Q of an earlier M, Qᵀ M Q is nearly diagonal, and Newton's method of `roots.near_diagonal_inverse_root`,
started from the last two roots, needs only a few matrix products: for steps of a relative 1e-6, 1e-5 and 1e-4 it takes
0.2, 0.4 and 0.5 of the time of an `eigh` (ours; paper.md section 11). Each member has its own number of iterations, so
its result is bitwise the same as when it is computed alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from .psd import Array
from .roots import frobenius
from .stack import take

#: With fewer rows an `eigh` takes less time than the calls of Newton's method.
_FEWEST_ROWS = 12
#: Newton iterations of a call; a basis that needed the second number of iterations is renewed in the next call.
_MOST_ITERATIONS, _MANY_ITERATIONS = 6, 5
#: The rate of convergence is measured in calls of two or more iterations. In every other call it is assumed to have
#: grown by this factor, because the basis grows old.
_SAFETY = 2.0
#: After a call that failed, a member uses `eigh` in its next call, and in twice as many after each further failure.
_LONGEST_WAIT = 64
#: Matrices of a worse condition always use `eigh`, whose caller may replace small eigenvalues by singular values.
_WORST_CONDITION = 1e-5

_EPS, _identity = float(np.finfo(float).eps), cache(np.eye)

#: Decomposition of the members of a mask, σ (m, n) increasing and Q (m, n, n) with M = Q diag(σ²) Qᵀ.
Decompose = Callable[[NDArray[np.bool_]], tuple[Array, Array]]


@dataclass
class _Paths:
    """State of B members, each field with the members on its first axis.

    Attributes
    ----------
    basis, transposed : (B, n, n)
        Q of the last `eigh`, and Qᵀ.
    weight : (B, n, n)
        1/(σ_a + σ_b).
    last, before : (B, n, n)
        The last two roots M^{-1/2} in the basis Q.
    rate : (B,)
        Factor by which an iteration reduces the residual.
    wait, longest : (B,)
        Number of calls that will use `eigh`, and that number after the last failure.
    """

    basis: Array
    transposed: Array
    weight: Array
    last: Array
    before: Array
    rate: Array
    wait: NDArray[np.int_]
    longest: NDArray[np.int_]

    @classmethod
    def unknown(cls, M: Array) -> _Paths:
        """Before the first `eigh` of matrices M (B, n, n)."""
        basis, transposed, weight, last, before = (np.zeros_like(M) for _ in range(5))
        wait, longest = (np.ones(len(M), dtype=int) for _ in range(2))
        return cls(basis, transposed, weight, last, before, np.ones(len(M)), wait, longest)


class RootPath:
    """M^{-1/2} of a stack of symmetric positive definite matrices, call after call."""

    def __init__(self) -> None:
        self._paths: _Paths | None = None

    def keep(self, members: NDArray[np.bool_]) -> None:
        """Drop all members outside the mask."""
        if self._paths is not None:
            self._paths = take(self._paths, members)

    def inverse_root(self, M: Array, decompose: Decompose) -> tuple[Array, Array]:
        """M^{-1/2} (B, n, n), and the reciprocal condition number of M (B,), its least eigenvalue over the largest.

        Parameters
        ----------
        M : (B, n, n)
        decompose
            Called for the members on which Newton's method is not tried, or for which it does not converge.
        """
        if M.shape[-1] < _FEWEST_ROWS or M.dtype != np.float64:
            return _from_spectrum(*decompose(np.ones(len(M), dtype=bool)))
        if self._paths is None:
            self._paths = _Paths.unknown(M)
        result, condition = np.empty_like(M), np.empty(len(M))
        followed = np.flatnonzero(self._paths.wait == 0)
        missing = np.ones(len(M), dtype=bool)
        if followed.size:
            missing[followed] = ~_follow(self._paths, followed, M, result, condition)
        if missing.any():
            sigma, Q = decompose(missing)
            result[missing], condition[missing] = _from_spectrum(sigma, Q)
            _renew(self._paths, missing, sigma, Q, condition[missing])
        return result, condition


def _from_spectrum(sigma: Array, Q: Array) -> tuple[Array, Array]:
    """M^{-1/2} and the reciprocal condition number of M = Q diag(σ²) Qᵀ."""
    return (Q / sigma[:, None, :]) @ Q.mT, (sigma[:, 0] / sigma[:, -1]) ** 2


def _renew(paths: _Paths, members: NDArray[np.bool_], sigma: Array, Q: Array, condition: Array) -> None:
    """Store a new eigendecomposition M = Q diag(σ²) Qᵀ of the members of a mask."""
    paths.basis[members], paths.transposed[members] = Q, Q.mT
    paths.weight[members] = 1 / (sigma[:, :, None] + sigma[:, None, :])
    paths.last[members] = paths.before[members] = np.eye(Q.shape[-1]) / sigma[:, None, :]
    paths.rate[members] = 1.0
    wait = np.maximum(paths.wait[members] - 1, 0)
    paths.wait[members] = np.where(condition > _WORST_CONDITION, wait, 1)


def _follow(paths: _Paths, members: NDArray[np.intp], M: Array, result: Array, condition: Array) -> NDArray[np.bool_]:
    """Write the roots that Newton's method finds; return a mask of the `members` for which it converged."""
    i: NDArray[np.intp] | slice = members if len(members) < len(M) else slice(None)  # a view of all of them
    Q, transposed, last = paths.basis[i], paths.transposed[i], paths.last[i]
    N = transposed @ M[i] @ Q
    Y = 2 * last
    Y -= paths.before[i]
    rate, iterations, converged = _newton(N, Y, paths.weight[i], paths.rate[i])
    diagonal = np.diagonal(N, axis1=-2, axis2=-1)
    conditions = diagonal.min(axis=-1) / diagonal.max(axis=-1)
    found = converged & (conditions > _WORST_CONDITION)
    paths.wait[i] = iterations >= _MANY_ITERATIONS
    if found.all():
        paths.before[i], paths.last[i], paths.rate[i], paths.longest[i] = last, Y, rate, 1
        result[i], condition[i] = Q @ Y @ transposed, conditions
        return found
    kept, lost = members[found], members[~found]
    paths.longest[kept] = 1
    paths.before[kept], paths.last[kept], paths.rate[kept] = last[found], Y[found], rate[found]
    result[kept], condition[kept] = Q[found] @ Y[found] @ transposed[found], conditions[found]
    paths.longest[lost] = np.minimum(2 * paths.longest[lost], _LONGEST_WAIT)
    paths.wait[lost] = paths.longest[lost]
    return found


def _newton(N: Array, Y: Array, weight: Array, rate: Array) -> tuple[Array, NDArray[np.int_], NDArray[np.bool_]]:
    """Newton's method Y ← Y + (I − Y N Y)_ab / (σ_a + σ_b) for nearly diagonal N (m, n, n), in place.

    Parameters
    ----------
    N, Y, weight : (m, n, n)
        The matrices, first guesses of N^{-1/2}, which are overwritten by the result, and 1/(σ_a + σ_b).
    rate : (m,)
        Expected factor by which an iteration reduces the residual.

    Returns
    -------
    rate : (m,)
        That factor as measured, or the given one times `_SAFETY` after a single iteration.
    iterations : (m,)
    converged : (m,)
        Whether a further iteration would leave I − Y N Y with a Frobenius norm below 2 n eps.
    """
    n = N.shape[-1]
    tolerance, unit = 2 * n * _EPS, _identity(n)
    iterations, going = np.zeros(len(N), dtype=int), np.ones(len(N), dtype=bool)
    size: Array = np.ones(len(N))
    count = len(N)
    E, products = np.empty_like(N), np.empty_like(N)
    for number in range(1, _MOST_ITERATIONS + 1):
        np.matmul(np.matmul(Y, N, out=products), Y, out=E)
        np.subtract(unit, E, out=E)
        before, size = size, frobenius(E, products)
        if count < len(N):
            size, E[~going] = np.where(going, size, before), 0.0
        if number > 1:
            rate = np.where(going, size / before, rate)
        E *= weight
        Y += E
        iterations += going
        going &= ~(_SAFETY * rate * size <= tolerance)  # a NaN keeps going, to the last iteration
        if not (count := int(np.count_nonzero(going))):
            break
    return np.where(iterations == 1, _SAFETY * rate, rate), iterations, ~going
