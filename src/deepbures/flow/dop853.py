"""The explicit integrator of the reduced flow: DOP853 for a stack of starts, its tolerance following their steps.

The coefficients are scipy's (Hairer, Nørsett and Wanner 1993, section II.10), and so is the step control; every member
has its own step and its own end. What is stacked is the right-hand side. All else is entry by entry, so that a member
gets the bits that it gets alone.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..linalg.psd import Array
from .reduced_flow import FactorFlow

_EPS = float(np.finfo(float).eps)
#: Floor of the error control, relative to |Z|.
ROUNDING = 100 * _EPS
#: A step that is smaller than this share of the mean step has collapsed: the tolerance cannot be met.
_COLLAPSE = 1e-6
#: First step: the relative change of the end-to-end matrix that it is expected to make.
_FIRST_CHANGE = 0.01
#: Step control: safety, growth, shrinking, and the order of the error estimate.
_SAFETY, _MOST_GROWTH, _LEAST_SHRINK, _ORDER = 0.9, 10.0, 0.2, 8


class Tableau(NamedTuple):
    """The method: stages, solution, two error estimates; three stages more and the polynomial between."""

    A: Array
    B: Array
    E3: Array
    E5: Array
    A_extra: Array
    D: Array


@cache
def tableau() -> Tableau:
    """The coefficients."""
    from scipy.integrate import DOP853  # takes longer to import than many a flow to run: loaded when one needs it

    return Tableau(DOP853.A, DOP853.B, DOP853.E3, DOP853.E5, DOP853.A_EXTRA, DOP853.D)


def _combined(coefficients: Array, stages: Array) -> Array:
    """Σ_j c_j K_j, added one after the other: the same bits in every stack."""
    total = np.zeros(stages.shape[1:])
    for c, stage in zip(coefficients, stages, strict=False):
        if c:
            total += c * stage
    return total


def _norm(states: Array) -> Array:
    return np.sqrt(np.sum(states**2, axis=(-2, -1)))


class ExplicitPath:
    """Where a flow went under the explicit integrator.

    Parameters
    ----------
    flow
        Its right-hand side.
    start
        Time of the first state.
    state : (n, k)
        The first Z.
    """

    #: Samples that a step is given.
    samples_per_step = 1.0

    def __init__(self, flow: FactorFlow, start: float, state: Array) -> None:
        self.flow = flow
        self.knots, self.states = [start], [state]
        self._stages: dict[int, Array] = {}
        self.evaluations = 0  # for samples within steps

    @property
    def n_steps(self) -> int:
        """Accepted steps."""
        return len(self.knots) - 1

    def add(self, time: float, state: Array, stages: Array | None) -> None:
        """Take note of a step; with its stages (13, n, k) where samples may be asked for within it."""
        if stages is not None:
            self._stages[self.n_steps] = stages
        self.knots.append(time)
        self.states.append(state)

    def collapsed(self, size: float) -> bool:
        """Whether a step of this size is out of proportion with those before."""
        return size < _COLLAPSE * (self.knots[-1] - self.knots[0]) / self.n_steps

    def factors(self, times: Array) -> Array:
        """F at times between the first and the last, (m, n, k)."""
        knots = np.array(self.knots)
        after = np.searchsorted(knots, times)  # t_{after−1} < time ≤ t_after
        states = np.array([self.states[j] for j in after])
        within = times != knots[after]
        if within.any():
            states[within] = self._between(after[within] - 1, times[within])
        return self.flow.factor(states)

    def _between(self, steps: NDArray[np.intp], times: Array) -> Array:
        """States at times within steps, by the polynomial of order 7: three gradients more for a step, all at once."""
        distinct, which = np.unique(steps, return_inverse=True)
        method, knots = tableau(), np.array(self.knots)
        h = (knots[distinct + 1] - knots[distinct])[:, None, None]
        before, end = (np.array([self.states[j + i] for j in distinct]) for i in (0, 1))
        stages = np.empty((len(method.D[0]), *before.shape))
        stages[:13] = np.array([self._stages[j] for j in distinct]).swapaxes(0, 1)
        for i, row in enumerate(method.A_extra, start=13):
            stages[i] = self.flow.field(before + h * _combined(row, stages[:i]))
            self.evaluations += len(distinct)
        change = end - before
        coefficients = [change, h * stages[0] - change, 2 * change - h * (stages[12] + stages[0])]
        coefficients += [h * _combined(row, stages) for row in method.D]
        share = ((times - knots[steps]) / (knots[steps + 1] - knots[steps]))[:, None, None]
        states = np.zeros((len(times), *before.shape[1:]))
        for i, coefficient in enumerate(reversed(coefficients)):
            states = (states + coefficient[which]) * (share if i % 2 == 0 else 1 - share)
        return states + before[which]


class ExplicitStack:
    """A stack of B flows on their way.

    Parameters
    ----------
    flow
        Right-hand side of the members.
    states : (B, n, k)
        Z of each.
    times : (B,)
        Where they are.
    ends : (B,)
        Last time of each.
    rtol, atol
        Error allowed in a step: rtol |Z(t + h) − Z(t)| + atol √(nk), of the step before, above a floor of 100 eps |Z|.

    Attributes
    ----------
    members, time, state, velocity, evaluations
        Of those that go on: place in the stack, time, Z, dZ/dt, and how often it was evaluated.
    length, stages
        |Z(t + h) − Z(t)| of the last step, and its stages (13, B, n, k).
    last_size
        h of the last step.
    failed
        Whether no step is small enough for the tolerance.
    """

    def __init__(self, flow: FactorFlow, states: Array, times: Array, ends: Array, rtol: float, atol: float) -> None:
        self.flow, self.end, self.rtol, self.atol = flow, ends, rtol, atol
        self.members = np.arange(len(states))
        self.time, self.state = times.astype(float), states
        self.velocity = flow.field(states)
        self.evaluations = np.ones(len(states), dtype=int)
        self.stages = np.empty((13, *states.shape))
        speed, norm = _norm(self.velocity), _norm(states)
        self.size = np.minimum(_FIRST_CHANGE / flow.depth * norm / speed, ends - self.time)
        self.last_size = np.zeros(len(states))
        self.length = self.size * speed
        self._tolerance = self._allowed(self.length, norm)
        self._rejected = np.zeros(len(states), dtype=bool)
        self.failed = np.zeros(len(states), dtype=bool)

    def _allowed(self, length: Array, norm: Array) -> Array:
        """Tolerance for an entry of Z in the next step, from the length of the last one and |Z|."""
        return self.atol + (self.rtol * length + ROUNDING * norm) / np.sqrt(self.state[0].size)

    def keep(self, which: NDArray[np.bool_]) -> None:
        """Drop the other members."""
        if which.all():
            return
        self.flow = self.flow.take(np.flatnonzero(which))
        for name in (
            "members",
            "time",
            "end",
            "state",
            "velocity",
            "evaluations",
            "size",
            "last_size",
            "length",
            "failed",
        ):
            setattr(self, name, getattr(self, name)[which])
        self._tolerance, self._rejected = self._tolerance[which], self._rejected[which]
        self.stages = self.stages[:, which]

    def attempt(self) -> NDArray[np.bool_]:
        """Try a step with every member, and tell which took it; the others try a smaller one next time."""
        method, K = tableau(), self.stages
        least = 10 * np.spacing(self.time)
        self.failed = self._rejected & (self.size < least)
        h = np.minimum(np.maximum(self.size, least), self.end - self.time)
        step = h[:, None, None]
        K[0] = self.velocity
        for i in range(1, 12):
            K[i] = self.flow.field(self.state + step * _combined(method.A[i], K[:i]))
        new = self.state + step * _combined(method.B, K)
        K[12] = self.flow.field(new)
        self.evaluations += 12
        error = self._error(new, h)
        stepped: NDArray[np.bool_] = (error < 1) & ~self.failed
        with np.errstate(divide="ignore"):
            factor = _SAFETY * error ** (-1 / _ORDER)
        grown = np.where(self._rejected, 1.0, _MOST_GROWTH)
        shrunk = np.where(factor > _LEAST_SHRINK, factor, _LEAST_SHRINK)  # NaN: the least
        self.size = h * np.where(stepped, np.minimum(grown, factor), shrunk)
        self._rejected = ~stepped
        before, took = self.state, stepped[:, None, None]
        self.time = np.where(stepped, np.where(h == self.end - self.time, self.end, self.time + h), self.time)
        self.length = np.where(stepped, _norm(new - before), self.length)
        self._tolerance = np.where(stepped, self._allowed(self.length, _norm(before)), self._tolerance)
        self.state = np.where(took, new, before)
        self.velocity = np.where(took, K[12], self.velocity)
        self.last_size = np.where(stepped, h, self.last_size)
        return stepped

    def _error(self, new: Array, h: Array) -> Array:
        """Error of a step over the tolerance, by the estimates of order 5 and 3; NaN where a stage overshot."""
        method = tableau()
        scale = self._tolerance[:, None, None] + ROUNDING * np.maximum(np.abs(self.state), np.abs(new))
        fifth = np.sum((_combined(method.E5, self.stages) / scale) ** 2, axis=(-2, -1))
        third = np.sum((_combined(method.E3, self.stages) / scale) ** 2, axis=(-2, -1))
        both = np.sqrt((fifth + 0.01 * third) * new[0].size)
        return np.where(both == 0, 0.0, h * fifth / np.where(both == 0, 1.0, both))
