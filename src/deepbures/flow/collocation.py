"""Exponential collocation for stacks of stiff equations y' = f(y) with a nearly diagonal Jacobian.

A step freezes the entrywise Jacobian J at its start, and fits g in f(y) = f_n + J∘(y − y_n) + g(θ), t = t_n + θh, by a
polynomial of degree m through m nodes. Variation of constants then gives (`exponential`)

    y(t_n + θh) = y_n + hθ φ_1(θhJ) f_n + h Σ_q q! θ^{q+1} φ_{q+1}(θhJ) a_q,    g(θ) = Σ_q a_q θ^q.

Sweeps y → g → y are repeated until what they would still change is below the tolerance; the first begins from the last
step's g, extrapolated. Since J is exact where the equation is linear, the step is limited by what a polynomial cannot
represent of g, and not by the largest rate.

Every member of a stack has its own step and its own end. The right-hand side is evaluated at all nodes of all members
at once; everything else is elementwise, so each member's result is bitwise the same as when run alone.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ..linalg.psd import Array
from ..linalg.stack import take
from .collocation_path import SCHEME, Step
from .exponential import combine
from .options import ROUNDING, FlowOptions
from .reduced_flow import RootFlow

#: |∫_0^θ P_{m+1}| ≤ 1/(2 (2m + 3)), and |θ-response of P_{m+1}| ≤ 1/|hJ| where hJ is large and negative: the error of
#: a polynomial of degree m, between the nodes too, is estimated with the inverse of the sum of both.
_DEGREE = 2 * (2 * SCHEME.count + 3)
#: The estimate exceeds the error by about the inverse of this factor (measured on the authors' grid).
_ESTIMATE_FACTOR = 0.1
#: Two Legendre coefficients estimate the next by their ratio, taken to be at least this.
_LEAST_DECAY = 0.02
#: Sweeps end when what they would still change is below this fraction of the tolerance, and fail after so many.
_SWEEP_FRACTION, _MAX_SWEEPS = 0.3, 6
#: Modes of X that differ by this factor have a tolerance of their own, so many times as large as that of the whole: the
#: excess of aligned starts is then right to 10 rtol (λ_1/λ_n = 1e4 and 1e6, ε = 0.99 λ_n; 1 costs a fifth more).
_GRADED, _SMALL_MODES = 1e3, 3.0
#: Least size of a mode, relative to the largest.
_LEAST_MODE = 1e-40
#: Step control: safety, growth, and shrinking after an error that is too large, or sweeps that fail.
_SAFETY, _MOST_GROWTH, _LEAST_SHRINK, _SHRINK_AFTER_FAILURE = 0.9, 4.0, 0.2, 0.4
#: A sweep reduces the change of the one before by a factor that grows with h: its first guess; the largest that the
#: next step should have; the one that it should have after sweeps that failed; and a bound, as large as divergence.
_FIRST_CONTRACTION, _MOST_CONTRACTION, _BEST_CONTRACTION, _WORST = 0.3, 0.3, 0.2, 10.0
#: The last step's g is extrapolated into a step that is at most this many times as long.
_FARTHEST = 3.0
#: First step: hJ and the relative change of y that it is expected to make.
_FIRST_EXPONENT, _FIRST_CHANGE = 0.3, 0.01


@dataclass
class CollocationMembers:
    """State of the members of a stack that are still being integrated, B of them.

    Attributes
    ----------
    place : (B,)
        Index in the stack of all starts.
    time, end : (B,)
        t_n, and last time.
    state, velocity, jacobian : (B, n, k)
        y_n, f_n and J.
    size, last_size : (B,)
        h of the current step and of the last one; 0 where there is no last one to extrapolate.
    length : (B,)
        |y_n − y_{n−1}| of the last step, as `_sizes` measures it.
    sweeps, change, coupling : (B,)
        Sweeps of the current step, 0 before it begins; what the last one changed; contraction of a sweep over h.
    evaluations, rejections : (B,)
        Number of right-hand sides; of rejected steps, less the accepted ones.
    stages, linear : (m, B, n, k)
        y at the nodes, and y_n + hθ φ_1 f_n there.
    last_offset, last_change : (m, B, n, k)
        y − y_n and f − f_n at the start of the last step and at its nodes but the last.
    weights : (m+1, m, B, n, k)
        θ φ_1 and q! θ^{q+1} φ_{q+1} at the nodes.
    """

    place: NDArray[np.intp]
    time: Array
    end: Array
    state: Array
    velocity: Array
    jacobian: Array
    size: Array
    last_size: Array
    length: Array
    sweeps: NDArray[np.int_]
    change: Array
    coupling: Array
    evaluations: NDArray[np.int_]
    rejections: NDArray[np.int_]
    limited: NDArray[np.int_]
    stages: Array = field(metadata={"axis": 1})
    linear: Array = field(metadata={"axis": 1})
    last_offset: Array = field(metadata={"axis": 1})
    last_change: Array = field(metadata={"axis": 1})
    weights: Array = field(metadata={"axis": 2})


class CollocationStack:
    """A stack of B equations that advance together.

    Parameters
    ----------
    flow
        Right-hand sides of the members.
    states : (B, n, k)
        y of each; for k = n symmetric.
    times, ends : (B,)
        Time reached by each, and its last time.
    options
        Error allowed in a step: rtol |y(t + h) − y(t)| + atol √(nk), Frobenius norm, above a floor of 100 eps |y|.

    Attributes
    ----------
    active
        State of the members that are still being integrated.
    """

    def __init__(self, flow: RootFlow, states: Array, times: Array, ends: Array, options: FlowOptions) -> None:
        self.flow, self.rtol, self.atol = flow, options.rtol, options.atol * np.sqrt(states[0].size)
        count, nodes = len(states), (SCHEME.count, *states.shape)
        velocity = flow.field(states[None])[0][0]
        jacobian = flow.jacobian(states, np.arange(count))
        rate, speed = np.abs(jacobian).max(axis=(-2, -1)), _norm(velocity)
        with np.errstate(divide="ignore"):
            size = np.minimum(_FIRST_EXPONENT / rate, _FIRST_CHANGE * _norm(states) / speed)
        size = np.minimum(size, ends - times)
        self.active = CollocationMembers(
            place=np.arange(count),
            time=times.copy(),
            end=ends,
            state=states,
            velocity=velocity,
            jacobian=jacobian,
            size=size,
            last_size=np.zeros(count),
            length=np.zeros(count),
            sweeps=np.zeros(count, dtype=int),
            change=np.zeros(count),
            coupling=_FIRST_CONTRACTION / size,
            evaluations=np.ones(count, dtype=int),
            rejections=np.zeros(count, dtype=int),
            limited=np.zeros(count, dtype=int),
            stages=np.empty(nodes),
            linear=np.empty(nodes),
            last_offset=np.zeros(nodes),
            last_change=np.zeros(nodes),
            weights=np.empty((SCHEME.count + 1, *nodes)),
        )

    def keep(self, which: NDArray[np.bool_]) -> None:
        """Drop the other members."""
        self.flow, self.active = self.flow.take(which), take(self.active, which)

    @np.errstate(divide="ignore", over="ignore", invalid="ignore")
    def sweep(self) -> tuple[NDArray[np.bool_], Array, list[Step]]:
        """Evaluate the right-hand side once at all nodes, and end the steps whose sweeps have converged.

        Returns
        -------
        stepped : (B,)
            Which members have made a step.
        measure : (B,)
            The measure of `RootFlow.field` at its end.
        steps
            Their steps.
        """
        a = self.active
        if (beginning := np.flatnonzero(a.sweeps == 0)).size:
            self._begin(beginning)
        slope, measure = self.flow.field(a.stages)
        a.evaluations += SCHEME.count
        a.sweeps += 1
        coefficients = SCHEME.coefficients(slope - a.velocity - a.jacobian * (a.stages - a.state))
        stages = self.flow.projected(a.linear + a.size[:, None, None] * combine(coefficients, a.weights[1:]))
        correction = stages - a.stages
        floor = ROUNDING * _norm(a.state)
        tolerance = self.rtol * _norm(stages[-1] - a.state) + floor + self.atol
        size = self._sizes(stages[-1], tolerance)
        settled, failed, shrunk = self._settle(size(correction).max(axis=0), tolerance, floor)
        error = self._error(coefficients, size) / tolerance
        stepped = settled & (error <= 1)
        if stepped.any():
            stepped &= self.flow.admissible(stages[-1])
        failed |= settled & ~stepped & (error <= 1)
        rejected = failed | (settled & ~stepped)
        factor = _SAFETY * np.maximum(error, 1e-12) ** (-1 / (SCHEME.count + 2))
        a.stages = stages
        a.rejections += rejected
        a.size[rejected] *= np.where(failed, shrunk, np.maximum(_LEAST_SHRINK, factor))[rejected]
        steps: list[Step] = []
        if stepped.any():
            a.length = np.where(stepped, size(stages[-1] - a.state), a.length)
            steps = self._accept(np.flatnonzero(stepped), slope, coefficients, correction[-1], factor)
        a.sweeps[rejected | stepped] = 0
        return stepped, measure[-1], steps

    def _begin(self, i: NDArray[np.intp]) -> None:
        """First stages of a step of the members i: the exponential Euler step, with the last g extrapolated."""
        a = self.active
        size, last, J = a.size[i], a.last_size[i], a.jacobian[i]
        h = size[:, None, None]
        weights = SCHEME.weights(h * J, SCHEME.nodes[:, None, None, None])
        linear = a.state[i] + h * weights[0] * a.velocity[i]
        near = size <= _FARTHEST * last
        ratio = np.where(near, size / np.where(near, last, 1.0), 0.0)[:, None, None]
        remainder = a.last_change[:, i] - J * a.last_offset[:, i]
        stages = linear + h * combine(SCHEME.extrapolated(remainder, ratio), weights[1:])
        a.linear[:, i] = linear
        a.stages[:, i] = self.flow.projected(stages)
        for q, weight in enumerate(weights):
            a.weights[q][:, i] = weight

    def _settle(
        self, change: Array, tolerance: Array, floor: Array
    ) -> tuple[NDArray[np.bool_], NDArray[np.bool_], Array]:
        """Which sweeps have converged, which have failed, and the factor on h after a failure; all (B,).

        A sweep that changed y by δ, after one that changed it by δ_0, leaves about δ²/δ_0 to change. Sweeps fail where
        more than `_MAX_SWEEPS` in all would be needed. The next steps use δ/(δ_0 h).
        """
        a = self.active
        finite = np.isfinite(change)
        measured = finite & (a.sweeps > 1) & (a.change > 0)
        a.coupling[measured] = np.minimum(change[measured] / a.change[measured], _WORST) / a.size[measured]
        contraction = a.coupling * a.size
        a.change = change
        settled = finite & (
            (change * np.minimum(contraction, 1.0) < _SWEEP_FRACTION * tolerance) | (change < _SWEEP_FRACTION * floor)
        )
        target = _SWEEP_FRACTION * np.maximum(tolerance, floor)
        missing = np.log(target / change) / np.log(np.minimum(contraction, 0.999))
        failed = ~finite | (~settled & (a.sweeps + missing > _MAX_SWEEPS) & measured)
        by_contraction = np.clip(_BEST_CONTRACTION / contraction, _LEAST_SHRINK, _SHRINK_AFTER_FAILURE)
        return settled, failed, np.where(measured, by_contraction, _SHRINK_AFTER_FAILURE)

    def _sizes(self, end: Array, tolerance: Array) -> Callable[[Array], Array]:
        """How large changes (..., B, n, k) of the state are, to be compared with `tolerance` (B,).

        This is the Frobenius norm, until modes of X (k = n) differ by a factor of `_GRADED` or more: that norm hides
        what happens to the small ones. There it is at least ‖w∘change‖, w_ab = (x_a x_b)^{-1/2} at the end of the step,
        over the tolerance for that, `_SMALL_MODES` rtol ‖w∘(y(t + h) − y(t))‖ above a floor of 100 eps ‖w∘y‖.
        """
        a, diagonal = self.active, np.diagonal(end, axis1=-2, axis2=-1)
        largest = diagonal.max(axis=-1, initial=0.0)
        graded = diagonal.min(axis=-1) * _GRADED < largest
        if end.shape[-2] != end.shape[-1] or not graded.any():
            return _norm
        w = 1 / np.sqrt(np.maximum(diagonal, _LEAST_MODE * largest[..., None]))
        w = np.where(graded[..., None], w, 0.0)
        w = w[..., :, None] * w[..., None, :]
        allowed = _SMALL_MODES * self.rtol * _norm(w * (end - a.state)) + ROUNDING * _norm(w * end)
        allowed += self.atol * w.max(axis=(-2, -1))
        weights = w * np.where(graded, tolerance / np.where(graded, allowed, 1.0), 0.0)[:, None, None]
        return lambda change: np.maximum(_norm(change), _norm(weights * change))

    def _error(self, coefficients: list[Array], size: Callable[[Array], Array]) -> Array:
        """Estimated error of the steps, (B,): the next Legendre coefficient of g, by the ratio of the last two."""
        a = self.active
        h = a.size[:, None, None]
        below, top = SCHEME.highest(coefficients)
        response = h / (_DEGREE + h * np.abs(a.jacobian))
        top_norm, below_norm = size(response * top), size(response * below)
        decay = np.clip(top_norm / np.where(below_norm > 0, below_norm, 1.0), _LEAST_DECAY, 1.0)
        return _ESTIMATE_FACTOR * top_norm * decay

    def _accept(
        self, i: NDArray[np.intp], slope: Array, coefficients: list[Array], correction: Array, factor: Array
    ) -> list[Step]:
        """Move the members i to the ends of their steps, choose their next ones, and return the steps.

        Parameters
        ----------
        slope : (m, B, n, k)
            f at the stages before the last sweep.
        correction : (B, n, k)
            What that sweep changed at the end of the step.
        factor : (B,)
            Factor on h that the error allows.
        """
        a = self.active
        made = Step(
            a.time[i], a.size[i], a.state[i], a.velocity[i], a.jacobian[i], np.array([c[i] for c in coefficients])
        )
        end = a.stages[-1, i]
        a.rejections[i] = np.maximum(a.rejections[i] - 1, 0)
        velocity = slope[-1, i] + a.jacobian[i] * correction[i]  # f at the end, from the last stage beside it
        a.last_offset[0, i], a.last_offset[1:, i] = a.state[i] - end, a.stages[:-1, i] - end
        a.last_change[0, i], a.last_change[1:, i] = a.velocity[i] - velocity, slope[:-1, i] - velocity
        a.last_size[i] = a.size[i]
        moved = self.flow.moved(end, i)
        if moved.any():  # the last g is in other coordinates
            j = i[moved]
            a.last_size[j] = 0.0
            velocity[moved] = self.flow.take(j).field(end[None, moved])[0][0]
            a.evaluations[j] += 1
        a.state[i], a.velocity[i] = end, velocity
        a.jacobian[i] = self.flow.jacobian(end, i)
        arrived = a.size[i] >= a.end[i] - a.time[i]
        a.time[i] = np.where(arrived, a.end[i], a.time[i] + a.size[i])
        size = a.size[i] * np.minimum(_MOST_GROWTH, factor[i])
        converging = np.where(a.sweeps[i] > 1, _MOST_CONTRACTION / a.coupling[i], np.inf)
        a.limited[i] = np.maximum(a.limited[i] + np.where(converging < size, 1, -1), 0)
        a.size[i] = np.minimum(np.minimum(size, converging), a.end[i] - a.time[i])
        return [take(made, j) for j in range(len(i))]


def _norm(matrices: Array) -> Array:
    """Frobenius norm of each matrix."""
    return np.sqrt((matrices * matrices).reshape(*matrices.shape[:-2], -1).sum(axis=-1))
