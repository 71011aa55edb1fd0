"""The explicit integrator of the reduced flow: scipy's DOP853, its tolerance following the length of the steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from .psd import Array
from .reduced_flow import FactorFlow
from .trajectory import StopReason

if TYPE_CHECKING:  # scipy.integrate takes longer to import than many a flow to run: loaded when one does
    from scipy.integrate import DenseOutput

_EPS = float(np.finfo(float).eps)
#: The least relative tolerance that scipy's integrators accept: the floor of the error control.
_ROUNDING = 100 * _EPS
#: A step that is smaller than this share of the mean step has collapsed: the tolerance cannot be met.
_COLLAPSE = 1e-6
#: First step: the relative change of the end-to-end matrix that it is expected to make.
_FIRST_CHANGE = 0.01


class ExplicitPath:
    """Where a flow went under the explicit integrator, with interpolants: each costs a quarter of a step.

    Parameters
    ----------
    flow
        Right-hand side.
    start
        Time of the first state.
    state : (n k,)
        The first state, Z flattened.
    wanted
        Whether a step between two times is to be interpolated, given the number of steps before it.
    """

    def __init__(
        self, flow: FactorFlow, start: float, state: Array, wanted: Callable[[int, float, float], bool]
    ) -> None:
        self.flow, self.wanted = flow, wanted
        self.knots, self.states = [start], [state]
        self._pieces: dict[int, DenseOutput] = {}

    @property
    def n_steps(self) -> int:
        """Accepted steps."""
        return len(self.knots) - 1

    def factors(self, times: Array) -> Array:
        """F at times between the first and the last, (m, n, k)."""
        knots = np.array(self.knots)
        after = np.searchsorted(knots, times)  # t_{after−1} < time ≤ t_after
        states = [
            self.states[j] if t == knots[j] else self._pieces[j - 1](t) for j, t in zip(after, times, strict=True)
        ]
        return self.flow.factor(np.array(states).reshape(-1, *self.flow.shape))

    def integrate(
        self, end: float, rtol: float, atol: float, ended: Callable[[Array], bool], max_steps: int
    ) -> StopReason | None:
        """Go on to a time or for some steps; None if `ended` holds at a state before."""
        from scipy.integrate import DOP853

        flow, z = self.flow, self.states[-1]
        speed, size = float(np.linalg.norm(flow(0.0, z))), float(np.linalg.norm(z))
        root_size = np.sqrt(z.size)  # scipy's error norm is a root mean square

        def tolerance(length: float, size: float) -> float:
            """Absolute tolerance for an entry of Z in the next step, from the length of this one and the size of Z."""
            return atol + (rtol * length + _ROUNDING * size) / root_size

        start = self.knots[-1]
        first_step = min(_FIRST_CHANGE / flow.depth * size / speed, end - start)
        atol_first = tolerance(first_step * speed, size)
        solver = DOP853(flow, start, z, end, first_step=first_step, rtol=_ROUNDING, atol=atol_first)
        for number in range(1, max_steps + 1):
            before, t = solver.y, solver.t
            solver.step()
            if solver.status == "failed":
                return StopReason.STEP_UNDERFLOW
            if self.wanted(self.n_steps, t, solver.t):
                self._pieces[self.n_steps] = solver.dense_output()
            self.knots.append(solver.t)
            self.states.append(solver.y)
            length = float(np.linalg.norm(solver.y - before))
            solver.atol = tolerance(length, float(np.linalg.norm(before)))
            if ended(solver.y):
                return None
            if solver.status == "finished":
                return StopReason.END_TIME
            if length <= _ROUNDING * np.linalg.norm(before):  # lost in rounding: the speed is, or the step collapsed
                collapsed = solver.step_size < _COLLAPSE * (solver.t - start) / number
                return StopReason.STEP_UNDERFLOW if collapsed else StopReason.STATIONARY
        return StopReason.STEP_BUDGET
