"""Exponential collocation for stacks of stiff equations whose linear part is known entry by entry.

Every member of a stack has its own step and its own end; what is stacked is the right-hand side, at all nodes
of all members in one call. All else is entry by entry, so that a member gets the bits that it gets alone.

A step freezes the Jacobian at its start, J, and fits g in f(y) = f_n + J∘(y − y_n) + g(θ) by a polynomial through
m nodes (see `exponential`). Sweeps y → g → y are repeated until they change y by less than a tenth of the
tolerance; the first begins from the last step's g, extrapolated. Since J is exact where the equation is linear,
the step is limited by what g cannot follow and not by the largest rate.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray

from ..linalg.psd import Array
from .exponential import Collocation

_EPS = float(np.finfo(float).eps)
#: Floor of the error control, relative to |y|.
ROUNDING = 100 * _EPS
#: Three nodes: the fewest gradients over the authors' grid at rtol 1e-6 and 1e-7. At 1e-8 four need less by a fifth.
SCHEME = Collocation(3)
#: |∫_0^θ P_{m+1}| ≤ 1/(2 (2m + 3)), and |θ-response of P_{m+1}| ≤ 1/|hJ| where hJ is large and negative: the error of
#: a polynomial of degree m, between the nodes too, is estimated with the inverse of the sum of both.
_DEGREE = 2 * (2 * SCHEME.count + 3)
#: The estimate is on the safe side by about this factor (measured on the authors' grid).
_ESTIMATE_SHARE = 0.1
#: Two Legendre coefficients estimate the next by their ratio, taken to be at least this.
_LEAST_DECAY = 0.02
#: Sweeps end when what they would still change is below this share of the tolerance, and fail after so many.
_SWEEP_SHARE, _MAX_SWEEPS = 0.3, 6
#: Step control: safety, growth, and shrinking after an error that is too large, or sweeps that fail.
_SAFETY, _MOST_GROWTH, _LEAST_SHRINK, _SHRINK_AFTER_FAILURE = 0.9, 4.0, 0.2, 0.4
#: A sweep reduces the change of the one before by a factor that grows with h: taken at first to be this; the next step
#: is to have at most this; after sweeps that failed; and as large as this it is not told from divergence.
_FIRST_CONTRACTION, _MOST_CONTRACTION, _BEST_CONTRACTION, _WORST = 0.3, 0.3, 0.2, 10.0
#: The last step's g is extrapolated into a step that is at most this many times as long.
_FARTHEST = 3.0
#: First step: hJ and the relative change of y that it is expected to make.
_FIRST_EXPONENT, _FIRST_CHANGE = 0.3, 0.01


class Equations(Protocol):
    """A stack of B autonomous equations y' = f(y) for arrays of shape (B, n, k)."""

    def take(self, members: NDArray[np.intp]) -> Self:
        """Equations of some members."""

    def field(self, y: Array) -> tuple[Array, Array]:
        """f at y (m, B, n, k), NaN where it is not defined, and a measure of the state there, (m, B)."""

    def jacobian(self, y: Array, members: NDArray[np.intp]) -> Array:
        """J, the entrywise linear part of f near the states y of some members, (b, n, k)."""

    def projected(self, y: Array) -> Array:
        """Y without the rounding errors that leave the space in which f lives, (m, B, n, k)."""

    def admissible(self, y: Array) -> NDArray[np.bool_]:
        """Whether a step may end at y, (B,)."""

    def frame(self, member: int) -> NDArray[np.intp] | None:
        """The coordinates that the state of a member is written in."""

    def moved(self, y: Array, members: NDArray[np.intp]) -> NDArray[np.bool_]:
        """Change coordinates where that is better, y (b, n, k) in place, and say for which members."""


@dataclass(frozen=True)
class Step:
    """A step of one member, with its dense output.

    Attributes
    ----------
    time, size
        t_n and h.
    state, velocity, jacobian : (n, k)
        y_n, f_n and J.
    coefficients : (m, n, k)
        a_1, …, a_m.
    frame
        What `Equations` knows about the coordinates of the step.
    """

    time: float
    size: float
    state: Array
    velocity: Array
    jacobian: Array
    coefficients: Array
    frame: NDArray[np.intp] | None


def dense_output(steps: list[Step], times: Array) -> Array:
    """States at the given times, (m, n, k), each within its step (one step for each time)."""
    start, size = (np.array([getattr(step, name) for step in steps])[:, None, None] for name in ("time", "size"))
    state, velocity, jacobian = (
        np.array([getattr(step, name) for step in steps]) for name in ("state", "velocity", "jacobian")
    )
    coefficients = np.array([step.coefficients for step in steps]).swapaxes(0, 1)
    share = (times[:, None, None] - start) / size
    n, k = state.shape[1:]
    if square := n == k:  # all is symmetric: the φ-functions of one triangle are enough
        a, b = np.triu_indices(n)
        start, size, share = start[..., 0], size[..., 0], share[..., 0]
        state, velocity, jacobian, coefficients = (
            values[..., a, b] for values in (state, velocity, jacobian, coefficients)
        )
    first, *others = SCHEME.weights(size * jacobian, share)
    total = first * velocity
    for coefficient, weight in zip(coefficients, others, strict=True):
        total += coefficient * weight
    total = state + size * total
    if not square:
        return total
    whole = np.empty((len(steps), n, n))
    whole[:, a, b] = whole[:, b, a] = total
    return whole


class Stack:
    """Members that advance together.

    Parameters
    ----------
    equations
        Right-hand sides of the B members.
    states : (B, n, k)
    times : (B,)
        Where the members are.
    ends : (B,)
        Last time of each.
    rtol, atol
        Error allowed in a step: rtol |y(t + h) − y(t)| + atol √(nk), Frobenius norm, above a floor of 100 eps |y|.
    """

    def __init__(
        self, equations: Equations, states: Array, times: Array, ends: Array, rtol: float, atol: float
    ) -> None:
        self.equations, self.end, self.rtol = equations, ends, rtol
        self.members = np.arange(len(states))
        self.time, self.state = times.astype(float), states
        self.atol = atol * np.sqrt(states[0].size)
        nodes = (SCHEME.count, *states.shape)
        self.velocity = equations.field(states[None])[0][0]
        self.evaluations = np.ones(len(states), dtype=int)
        self.jacobian = equations.jacobian(states, self.members)
        self.last_size = np.zeros(len(states))  # 0: there is no last step to extrapolate
        self.last_offset, self.last_change = np.zeros(nodes), np.zeros(nodes)
        self.weights = np.empty((SCHEME.count + 1, *nodes))
        self.linear, self.stages = np.empty(nodes), np.empty(nodes)
        self.sweeps = np.zeros(len(states), dtype=int)
        self.change = np.full(len(states), np.nan)
        rate = np.abs(self.jacobian).max(axis=(-2, -1))
        speed = _norm(self.velocity)
        with np.errstate(divide="ignore"):
            size = np.minimum(_FIRST_EXPONENT / rate, _FIRST_CHANGE * _norm(states) / speed)
        self.size = np.minimum(size, ends - self.time)
        self.coupling = _FIRST_CONTRACTION / self.size
        self.rejections = np.zeros(len(states), dtype=int)
        self.length = np.zeros(len(states))
        self._pending = np.ones(len(states), dtype=bool)

    def keep(self, which: NDArray[np.bool_]) -> None:
        """Drop the other members."""
        if which.all():
            return
        self.equations = self.equations.take(np.flatnonzero(which))
        for name in ("members", "time", "end", "state", "velocity", "evaluations", "jacobian", "last_size", "sweeps"):
            setattr(self, name, getattr(self, name)[which])
        for name in ("coupling", "change", "size", "rejections", "length", "_pending"):
            setattr(self, name, getattr(self, name)[which])
        for name in ("last_offset", "last_change", "linear", "stages"):
            setattr(self, name, getattr(self, name)[:, which])
        self.weights = self.weights[:, :, which]

    def _begin(self, i: NDArray[np.intp]) -> None:
        """First stages of a step of the members i: the exponential Euler step, with the last g extrapolated."""
        size, last = self.size[i], self.last_size[i]
        h = size[:, None, None]
        J = self.jacobian[i]
        weights = SCHEME.weights(h * J, SCHEME.nodes[:, None, None, None])
        linear = self.state[i] + h * weights[0] * self.velocity[i]
        near = size <= _FARTHEST * last
        ratio = np.where(near, size / np.where(near, last, 1.0), 0.0)[:, None, None]
        remainder = self.last_change[:, i] - J * self.last_offset[:, i]
        stages = linear + h * _integrated(SCHEME.extrapolated(remainder, ratio), weights)
        self.linear[:, i] = linear
        self.stages[:, i] = self.equations.projected(stages)
        for q, weight in enumerate(weights):
            self.weights[q][:, i] = weight
        self.sweeps[i] = 0
        self.change[i] = np.nan
        self._pending[i] = False

    @np.errstate(divide="ignore", over="ignore", invalid="ignore")
    def sweep(self) -> tuple[NDArray[np.bool_], Array, list[Step]]:
        """Evaluate all stages once, and end the steps that have settled.

        Returns
        -------
        stepped : (B,)
            Which members have made a step.
        measure : (B,)
            What `Equations.field` measured at its end.
        steps
            Their steps.
        """
        if self._pending.any():
            self._begin(np.flatnonzero(self._pending))
        h = self.size[:, None, None]
        field, measure = self.equations.field(self.stages)
        self.evaluations += SCHEME.count
        self.sweeps += 1
        remainder = field - self.velocity - self.jacobian * (self.stages - self.state)
        coefficients = SCHEME.coefficients(remainder)
        stages = self.equations.projected(self.linear + h * _integrated(coefficients, self.weights))
        difference = stages - self.stages
        change = _norm(difference).max(axis=0)
        valid = np.isfinite(change)
        floor = ROUNDING * _norm(self.state)
        tolerance = self.rtol * _norm(stages[-1] - self.state) + floor + self.atol
        again = valid & ~np.isnan(self.change) & (self.change > 0)
        self.coupling[again] = np.minimum(change[again] / self.change[again], _WORST) / self.size[again]
        contraction = self.coupling * self.size
        self.change = change
        settled = valid & (
            (change * np.minimum(contraction, 1.0) < _SWEEP_SHARE * tolerance) | (change < _SWEEP_SHARE * floor)
        )
        target = _SWEEP_SHARE * np.maximum(tolerance, floor)
        missing = np.log(target / change) / np.log(np.minimum(contraction, 0.999))
        failed = ~valid | (~settled & (self.sweeps + missing > _MAX_SWEEPS) & again)
        below, top = SCHEME.highest(coefficients)
        response = h / (_DEGREE + h * np.abs(self.jacobian))
        top_norm, below_norm = _norm(response * top), _norm(response * below)
        decay = np.clip(top_norm / np.where(below_norm > 0, below_norm, 1.0), _LEAST_DECAY, 1.0)
        error = _ESTIMATE_SHARE * top_norm * decay / tolerance
        stepped = settled & (error <= 1)
        if stepped.any():
            stepped &= self.equations.admissible(stages[-1])
            failed |= settled & ~stepped & (error <= 1)
        rejected = failed | (settled & ~stepped)
        factor = _SAFETY * np.maximum(error, 1e-12) ** (-1 / (SCHEME.count + 2))
        self.stages, self._pending = stages, rejected | stepped
        if rejected.any():
            self.rejections += rejected
            slow = np.where(
                valid & again,
                np.clip(_BEST_CONTRACTION / contraction, _LEAST_SHRINK, _SHRINK_AFTER_FAILURE),
                _SHRINK_AFTER_FAILURE,
            )
            shrink = np.where(failed, slow, np.maximum(_LEAST_SHRINK, factor))
            self.size[rejected] *= shrink[rejected]
        i = np.flatnonzero(stepped)
        steps = self._advance(i, field, coefficients, stages, difference[-1], factor) if i.size else []
        return stepped, measure[-1], steps

    def _advance(
        self, i: NDArray[np.intp], field: Array, coefficients: list[Array], stages: Array, last: Array, factor: Array
    ) -> list[Step]:
        steps = [
            Step(
                float(self.time[j]),
                float(self.size[j]),
                self.state[j].copy(),
                self.velocity[j].copy(),
                self.jacobian[j].copy(),
                np.array([a[j] for a in coefficients]),
                self.equations.frame(j),
            )
            for j in i
        ]
        end = stages[-1, i]
        self.rejections[i] = np.maximum(self.rejections[i] - 1, 0)
        self.length[i] = _norm(end - self.state[i])
        # f at the end of the step, from the last stage beside it.
        velocity = field[-1, i] + self.jacobian[i] * last[i]
        self.last_offset[0, i], self.last_offset[1:, i] = self.state[i] - end, stages[:-1, i] - end
        self.last_change[0, i], self.last_change[1:, i] = self.velocity[i] - velocity, field[:-1, i] - velocity
        self.last_size[i] = self.size[i]
        moved = self.equations.moved(end, i)
        if moved.any():  # the last g is in other coordinates
            j = i[moved]
            self.last_size[j] = 0.0
            field_moved, _ = self.equations.take(j).field(end[None, moved])
            velocity[moved] = field_moved[0]
            self.evaluations[j] += 1
        self.state[i], self.velocity[i] = end, velocity
        self.jacobian[i] = self.equations.jacobian(end, i)
        arrived = self.size[i] >= self.end[i] - self.time[i]
        self.time[i] = np.where(arrived, self.end[i], self.time[i] + self.size[i])
        size = self.size[i] * np.minimum(_MOST_GROWTH, factor[i])
        measured = self.sweeps[i] > 1
        size[measured] = np.minimum(size[measured], _MOST_CONTRACTION / self.coupling[i][measured])
        self.size[i] = np.minimum(size, self.end[i] - self.time[i])
        return steps


def _integrated(coefficients: list[Array], weights: list[Array] | Array) -> Array:
    """Σ_q a_q w_q, in this order for every entry."""
    total = coefficients[0] * weights[1]
    for coefficient, weight in zip(coefficients[1:], weights[2:], strict=True):
        total += coefficient * weight
    return total


def _norm(matrices: Array) -> Array:
    """Frobenius norm of each matrix."""
    return np.sqrt((matrices * matrices).reshape(*matrices.shape[:-2], -1).sum(axis=-1))
