"""The explicit integrator of the reduced flow: DOP853 for a stack of starts, with its dense output.

A step of 12 stages K_i = f(Z_n + h Σ_j a_ij K_j) gives Z_{n+1} = Z_n + h Σ_i b_i K_i, of order 8, and estimates of its
error, E_5 and E_3 of orders 5 and 3, combined as h ‖E_5‖²/(‖E_5‖² + ‖E_3‖²/100)^{1/2}. Coefficients and step control
are scipy's (Hairer, Nørsett and Wanner 1993, section II.10), but the tolerance is relative to the length of the steps,
not to |Z|. Every member of a stack has its own step and its own end. The right-hand side is evaluated for all members
at once; everything else is elementwise, so each member's result is bitwise the same as when run alone.
"""

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..linalg.psd import Array
from ..linalg.stack import take
from .options import ROUNDING, FlowOptions
from .reduced_flow import FactorFlow

#: A step that is smaller than this fraction of the mean step has collapsed: the tolerance cannot be met.
_COLLAPSE = 1e-6
#: First step: the relative change of the end-to-end matrix that it is expected to make.
_FIRST_CHANGE = 0.01
#: Stability limits a step where h |λ| exceeds this; two stages at its end estimate |λ| (Hairer and Wanner 1996, section
#: IV.2). There 4 to 6.4 was measured, and at most 2.5 where accuracy limits the steps.
_STABILITY = 3.5
#: Step control: safety, growth, shrinking, and the order of the error estimate.
_SAFETY, _MOST_GROWTH, _LEAST_SHRINK, _ORDER = 0.9, 10.0, 0.2, 8


@cache
def _tableau() -> Any:
    """scipy's class of the method, for its coefficients A, B, E3, E5, A_EXTRA and D."""
    from scipy.integrate import DOP853  # imported here: many a flow takes less time than this import

    return DOP853


@dataclass
class ExplicitMembers:
    """State of the members of a stack that are still being integrated, B of them.

    Attributes
    ----------
    place : (B,)
        Index in the stack of all starts.
    time, end : (B,)
        Time reached, and last time.
    state, velocity : (B, n, k)
        Z and dZ/dt.
    size : (B,)
        h of the next step to try.
    length : (B,)
        |Z(t + h) − Z(t)| of the last step.
    tolerance : (B,)
        Error allowed in an entry of Z in the next step.
    rejected : (B,)
        Whether the last step was too inaccurate.
    limited : (B,)
        How many more steps stability limited than did not, at least 0.
    evaluations : (B,)
        Number of gradients.
    """

    place: NDArray[np.intp]
    time: Array
    end: Array
    state: Array
    velocity: Array
    size: Array
    length: Array
    tolerance: Array
    rejected: NDArray[np.bool_]
    limited: NDArray[np.int_]
    evaluations: NDArray[np.int_]


class ExplicitStack:
    """A stack of B flows that advance together.

    Parameters
    ----------
    flow
        Right-hand side of the members.
    states : (B, n, k)
        Z of each.
    times, ends : (B,)
        Time reached by each, and its last time.
    options
        Error allowed in a step: rtol |Z(t + h) − Z(t)| + atol √(nk), of the step before, above a floor of 100 eps |Z|.

    Attributes
    ----------
    active
        State of the members that are still being integrated.
    tried, failed : (B,)
        h of the last attempt of each, and whether no step is small enough for the tolerance.
    stages : (13, B, n, k)
        Stages of that attempt, the derivative at its end included.
    """

    def __init__(self, flow: FactorFlow, states: Array, times: Array, ends: Array, options: FlowOptions) -> None:
        self.flow, self.options = flow, options
        count, velocity, norm = len(states), flow.field(states), _norm(states)
        speed = norm_without_underflow(velocity)
        size = np.minimum(_FIRST_CHANGE / flow.depth * norm / speed, ends - times)
        self.active = ExplicitMembers(
            place=np.arange(count),
            time=times,
            end=ends,
            state=states,
            velocity=velocity,
            size=size,
            length=size * speed,
            tolerance=self._allowed(states, size * speed),
            rejected=np.zeros(count, dtype=bool),
            limited=np.zeros(count, dtype=int),
            evaluations=np.ones(count, dtype=int),
        )

    def _allowed(self, states: Array, length: Array) -> Array:
        """Tolerance for an entry of Z in the next step, from the state before the last one and the length of that."""
        relative = self.options.rtol * length + ROUNDING * _norm(states)
        return self.options.atol + relative / np.sqrt(states[0].size)

    def keep(self, which: NDArray[np.bool_]) -> None:
        """Drop the other members."""
        self.flow, self.active = self.flow.take(which), take(self.active, which)

    def attempt(self) -> NDArray[np.bool_]:
        """Try a step with every member; a mask of those that made it. The others will try a smaller one."""
        a, method = self.active, _tableau()
        least = 10 * np.spacing(a.time)
        self.failed = a.rejected & (a.size < least)
        self.tried = h = np.minimum(np.maximum(a.size, least), a.end - a.time)
        self.stages = K = np.empty((13, *a.state.shape))
        step = h[:, None, None]
        K[0] = a.velocity
        for i in range(1, 12):
            stage = a.state + step * _combined(method.A[i], K[:i])
            K[i] = self.flow.field(stage)
        new = a.state + step * _combined(method.B, K)
        K[12] = self.flow.field(new)
        a.evaluations += 12
        limited = np.where(_norm(step * (K[12] - K[11])) > _STABILITY * _norm(new - stage), 1, -1)
        error = self._error(new, h)
        stepped: NDArray[np.bool_] = (error < 1) & ~self.failed
        with np.errstate(divide="ignore"):
            factor = _SAFETY * error ** (-1 / _ORDER)
        grown = np.where(a.rejected, 1.0, _MOST_GROWTH)
        shrunk = np.where(factor > _LEAST_SHRINK, factor, _LEAST_SHRINK)  # NaN: the least
        a.size = h * np.where(stepped, np.minimum(grown, factor), shrunk)
        a.rejected = ~stepped
        a.limited = np.where(stepped, np.maximum(a.limited + limited, 0), a.limited)
        a.time = np.where(stepped, np.where(h == a.end - a.time, a.end, a.time + h), a.time)
        a.length = np.where(stepped, _norm(new - a.state), a.length)
        a.tolerance = np.where(stepped, self._allowed(a.state, a.length), a.tolerance)
        a.state = np.where(stepped[:, None, None], new, a.state)
        a.velocity = np.where(stepped[:, None, None], K[12], a.velocity)
        return stepped

    def _error(self, new: Array, h: Array) -> Array:
        """Error of a step over the tolerance, by the estimates of order 5 and 3; NaN where a stage overshot."""
        method, a = _tableau(), self.active
        unit = np.exp2(np.frexp(h)[1])  # about h: in it squares of velocities do not underflow
        scale = a.tolerance[:, None, None] + ROUNDING * np.maximum(np.abs(a.state), np.abs(new))
        scale /= unit[:, None, None]
        fifth = np.sum((_combined(method.E5, self.stages) / scale) ** 2, axis=(-2, -1))
        third = np.sum((_combined(method.E3, self.stages) / scale) ** 2, axis=(-2, -1))
        both = np.sqrt((fifth + 0.01 * third) * new[0].size)
        return np.where(both == 0, 0.0, h / unit * fifth / np.where(both == 0, 1.0, both))


class ExplicitPath:
    """The path of a flow under the explicit integrator.

    Parameters
    ----------
    flow
        Its right-hand side.
    start
        Time of the first state.
    state : (n, k)
        The first Z.

    Attributes
    ----------
    knots, states
        Times of the ends of the steps, and Z there.
    evaluations
        Gradients for samples within steps.
    """

    #: Weight of a step when samples are spread over the steps of a run.
    samples_per_step = 1.0

    def __init__(self, flow: FactorFlow, start: float, state: Array) -> None:
        self.flow = flow
        self.knots, self.states = [start], [state]
        self._stages: dict[int, Any] = {}
        self.evaluations = 0

    def add(self, time: float, state: Array, stages: Any) -> None:
        """Append a step; with its stages (13, n, k) if samples may lie within it."""
        if stages is not None:
            self._stages[len(self.states) - 1] = stages
        self.knots.append(time)
        self.states.append(state)

    def has_collapsed(self, size: float) -> bool:
        """Whether a step of this size is out of proportion to the mean step."""
        return size < _COLLAPSE * (self.knots[-1] - self.knots[0]) / (len(self.knots) - 1)

    def root(self) -> Array:
        """Z at the last knot, (n, k)."""
        return self.states[-1]

    def factors(self, times: Array) -> Array:
        """F at times between the first and the last knot, (m, n, k)."""
        knots = np.array(self.knots)
        after = np.searchsorted(knots, times)  # t_{after−1} < time ≤ t_after
        states = np.array([self.states[j] for j in after])
        within = times != knots[after]
        if within.any():
            states[within] = self._between(after[within] - 1, times[within])
        return self.flow.factor(states)

    def _between(self, steps: NDArray[np.intp], times: Array) -> Array:
        """States at times within steps, by the polynomial of degree 7: three more gradients for each step."""
        distinct, which = np.unique(steps, return_inverse=True)
        method, knots = _tableau(), np.array(self.knots)
        h = (knots[distinct + 1] - knots[distinct])[:, None, None]
        before, end = (np.array([self.states[j + i] for j in distinct]) for i in (0, 1))
        stages = np.empty((len(method.D[0]), *before.shape))
        stages[:13] = np.array([self._stages[j] for j in distinct]).swapaxes(0, 1)
        for i, row in enumerate(method.A_EXTRA, start=13):
            stages[i] = self.flow.field(before + h * _combined(row, stages[:i]))
            self.evaluations += len(distinct)
        change = end - before
        coefficients = [change, h * stages[0] - change, 2 * change - h * (stages[12] + stages[0])]
        coefficients += [h * _combined(row, stages) for row in method.D]
        theta = ((times - knots[steps]) / (knots[steps + 1] - knots[steps]))[:, None, None]
        states = np.zeros((len(times), *before.shape[1:]))
        for i, coefficient in enumerate(reversed(coefficients)):
            states = (states + coefficient[which]) * (theta if i % 2 == 0 else 1 - theta)
        return states + before[which]


def _combined(coefficients: Array, stages: Array) -> Array:
    """Σ_j c_j K_j, added one after the other: the same bits in every stack."""
    total = np.zeros(stages.shape[1:])
    for c, stage in zip(coefficients, stages, strict=False):
        if c:
            total += c * stage
    return total


def _norm(states: Array) -> Array:
    return np.sqrt(np.sum(states**2, axis=(-2, -1)))


def norm_without_underflow(velocities: Array) -> Array:
    """Frobenius norm of each velocity, whose squares may underflow where those of Z do not."""
    scale = np.exp2(np.frexp(np.abs(velocities).max(axis=(-2, -1)))[1])  # a power of two: no rounding
    return scale * _norm(velocities / scale[..., None, None])
