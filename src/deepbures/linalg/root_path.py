"""Inverse roots of a stack of matrices along a path, where each changes little from one call to the next.

A descent takes many steps, each with M^{-1/2} of a matrix that differs little from the last one. In the eigenbasis Q of
an earlier M, Qᵀ M Q is nearly diagonal, and the iteration of `psd.near_diagonal_inverse_root`, begun from the last two
roots, finds the next one by a few products: for steps of a relative 1e-6, 1e-5 and 1e-4 in 0.2, 0.4 and 0.5 of the time
of an `eigh` (ours; paper.md section 11). Each member has the iterations, and the bits, that it has alone.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from .psd import Array
from .roots import frobenius

#: Below so many rows an `eigh` takes less time than the calls that save it.
_FEWEST_ROWS = 12
#: Iterations of a call; a basis that needs so many is renewed in the next.
_MOST_ITERATIONS, _MANY_ITERATIONS = 6, 5
#: The rate of convergence is measured in a call of two iterations, and may have grown by this in each one since: the
#: basis grows old.
_SAFETY = 2.0
#: After a call that failed a member takes its next roots by `eigh`: one, and twice as many after each further failure.
_LONGEST_WAIT = 64
#: A matrix of worse condition is not followed: its small eigenvalues are left to the singular values of a factor.
_WORST_CONDITION = 1e-5

#: What is kept of each member: Q and Qᵀ, 1/(σ_a + σ_b), the last two roots in this basis, the rate of convergence, for
#: how many calls it waits, and for how many it waited after its last failure.
_OF_MEMBERS = ("_basis", "_transposed", "_weight", "_last", "_before", "_rate", "_wait", "_longest")

#: σ and Q of the members of a mask, with M = Q diag(σ²) Qᵀ.
Decompose = Callable[[NDArray[np.bool_]], tuple[Array, Array]]


class RootPath:
    """M^{-1/2} of a stack of symmetric positive definite matrices, call after call."""

    _basis: Array
    _transposed: Array
    _weight: Array
    _last: Array
    _before: Array
    _rate: Array
    _wait: NDArray[np.int_]
    _longest: NDArray[np.int_]

    def __init__(self) -> None:
        self._begun = False

    def keep(self, which: NDArray[np.bool_]) -> None:
        """Drop the other members."""
        if self._begun:
            for name in _OF_MEMBERS:
                setattr(self, name, getattr(self, name)[which])

    def inverse_root(self, M: Array, decompose: Decompose) -> tuple[Array, Array]:
        """M^{-1/2} (B, n, n), and the condition of M (B,), its least eigenvalue over the largest.

        Parameters
        ----------
        M : (B, n, n)
        decompose
            Of the members that Newton's method is not tried on, or does not find.
        """
        n = M.shape[-1]
        if n < _FEWEST_ROWS or M.dtype != np.float64:
            sigma, Q = decompose(np.ones(len(M), dtype=bool))
            return (Q / sigma[:, None, :]) @ Q.mT, (sigma[:, 0] / sigma[:, -1]) ** 2
        if not self._begun:
            self._begun = True
            self._basis, self._transposed, self._last, self._before, self._weight = (np.zeros_like(M) for _ in range(5))
            self._rate, self._wait, self._longest = np.ones(len(M)), np.ones(len(M), int), np.ones(len(M), int)
        result, condition = np.empty_like(M), np.empty(len(M))
        followed = np.flatnonzero(self._wait == 0)
        missing = np.ones(len(M), dtype=bool)
        if followed.size:
            missing[followed] = ~self._follow(followed, M, result, condition)
        if missing.any():
            sigma, Q = decompose(missing)
            result[missing] = (Q / sigma[:, None, :]) @ Q.mT
            condition[missing] = (sigma[:, 0] / sigma[:, -1]) ** 2
            self._renew(missing, sigma, Q, condition[missing])
        return result, condition

    def _renew(self, members: NDArray[np.bool_], sigma: Array, Q: Array, condition: Array) -> None:
        """Take over what an `eigh` gave."""
        self._basis[members], self._transposed[members] = Q, Q.mT
        self._weight[members] = 1 / (sigma[:, :, None] + sigma[:, None, :])
        self._last[members] = self._before[members] = np.eye(Q.shape[-1]) / sigma[:, None, :]
        self._rate[members] = 1.0
        wait = np.maximum(self._wait[members] - 1, 0)
        self._wait[members] = np.where(condition > _WORST_CONDITION, wait, 1)

    def _follow(self, members: NDArray[np.intp], M: Array, result: Array, condition: Array) -> NDArray[np.bool_]:
        """Fill in the roots of those of some members that Newton's method finds; which of them."""
        n = M.shape[-1]
        tolerance, unit = 2 * n * float(np.finfo(float).eps), np.eye(n)
        i: NDArray[np.intp] | slice = members if len(members) < len(M) else slice(None)  # no copies where it is all
        Q, transposed, weight, last, rate = (
            array[i] for array in (self._basis, self._transposed, self._weight, self._last, self._rate)
        )
        N = transposed @ M[i] @ Q
        Y = 2 * last
        Y -= self._before[i]
        iterations, going = np.zeros(len(members), dtype=int), np.ones(len(members), dtype=bool)
        size = np.ones(len(members))
        for number in range(1, _MOST_ITERATIONS + 1):
            E = unit - Y @ N @ Y
            before, size = size, np.where(going, frobenius(E), size)
            if number > 1:
                rate = np.divide(size, before, out=rate.copy(), where=going)
            E *= weight
            if not going.all():
                E[~going] = 0.0
            Y += E
            iterations[going] = number
            going &= ~(_SAFETY * rate * size <= tolerance)  # what the next one would be; NaN goes on
            if not going.any():
                break
        rate = np.where(iterations == 1, _SAFETY * rate, rate)  # not measured in this call
        diagonal = np.diagonal(N, axis1=-2, axis2=-1)
        conditions = diagonal.min(axis=-1) / diagonal.max(axis=-1)
        found = ~going & (conditions > _WORST_CONDITION)
        self._wait[members] = iterations >= _MANY_ITERATIONS
        self._longest[members[found]] = 1
        if found.all():
            self._before[i], self._last[i], self._rate[i] = last, Y, rate
            result[i], condition[i] = Q @ Y @ transposed, conditions
            return found
        kept, lost = members[found], members[~found]
        self._before[kept], self._last[kept], self._rate[kept] = last[found], Y[found], rate[found]
        result[kept], condition[kept] = Q[found] @ Y[found] @ transposed[found], conditions[found]
        self._longest[lost] = np.minimum(2 * self._longest[lost], _LONGEST_WAIT)
        self._wait[lost] = self._longest[lost]
        return found
