"""The implicit integrator of the reduced flow: LSODA with the Jacobian from Hessian products, for stiff plateaus.

Below full rank S follows the target within its range at rates of order N, while the range itself turns at rates without
this factor (off-block rates, paper.md section 4). So the flow is stiff, but not along the coordinates, and exponential
collocation makes short steps. LSODA (Petzold 1983, scipy's) solves linear systems with the whole Jacobian of the nk
entries of Z.
"""

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..linalg.psd import Array
from .dop853 import ExplicitPath
from .options import ROUNDING, FlowOptions
from .run import Run

#: LSODA's tolerance as a fraction of rtol: so the excess is about as accurate as that of collocation (measured).
_FRACTION = 1e-2
#: Least size of a singular value of Z at the minimum relative to the largest, for the absolute tolerance.
_LEAST = 1e-6
#: Steps after which those of LSODA have their full size.
_FEWEST_STEPS = 10
#: First step: h times the largest entry of the Jacobian. LSODA's own guess fails on plateaus, where the velocity is
#: tiny.
_FIRST_EXPONENT = 0.1
#: Velocity of a stage that overshoots, relative to −Z: so large that LSODA takes a smaller step.
_REFUSED = 1e50


class Lsoda:
    """One run that LSODA integrates.

    Parameters
    ----------
    run
        The run, with the time and state that other methods have reached.
    options
        Error allowed in Z_ij in a step, Z = U diag(z) at the start: rtol/100 (|Z_ij| + min(z*_i, z_j)/√n) + atol, where
        z* = s*^{1/2N} at the minimum, with z*_i = z*_k for i > k.

    Attributes
    ----------
    time, state, length
        Time, Z and |Z(t + h) − Z(t)| of the last step.
    evaluations
        Number of gradients and Jacobians.
    """

    def __init__(self, run: Run, options: FlowOptions) -> None:
        from scipy.integrate import LSODA  # imported here: many a flow takes less time than this import

        n, k = run.Z.shape
        U, z, _ = np.linalg.svd(run.Z, full_matrices=False)
        self.flow, self.time, self.state = run.flow, run.time, U * z
        self.evaluations = self._steps = 0
        self.length = 0.0
        rows = run.loss.minimum_spectrum(k) ** (1 / (2 * options.depth))
        rows = np.maximum(rows, _LEAST * rows[0])[np.minimum(np.arange(n), k - 1)]
        scale = np.minimum(rows[:, None], z) / np.sqrt(n)
        rtol = max(_FRACTION * options.rtol, ROUNDING)
        self._begin, self._end = run.time, run.end
        rate = np.abs(self._jacobian(0.0, self.state.ravel())).max()
        self._solver: Any = LSODA(  # in the time since it begins, which has more digits
            self._field,
            0.0,
            self.state.ravel(),
            run.end - run.time,
            first_step=min(_FIRST_EXPONENT / rate, run.end - run.time) if rate > 0 else None,
            rtol=rtol,
            atol=(options.atol + np.maximum(rtol * scale, ROUNDING * z[0] / np.sqrt(n * k))).ravel(),
            jac=self._jacobian,
        )

    def _field(self, _time: float, z: Array) -> Array:
        """dZ/dt; LSODA would accept NaN."""
        self.evaluations += 1
        velocity = self.flow.field(z.reshape(self.state.shape)).ravel()
        return velocity if np.isfinite(velocity).all() else -_REFUSED * z

    def _jacobian(self, _time: float, z: Array) -> Array:
        self.evaluations += 1
        return self.flow.jacobian(z.reshape(self.state.shape))

    def step(self) -> bool:
        """Make a step; False where LSODA cannot."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what LSODA says where it fails
            self._solver.step()
        if self._solver.status == "failed" or not np.isfinite(self._solver.y).all():
            return False
        self._steps += 1
        before, self.state = self.state, self._solver.y.reshape(self.state.shape)
        self.length = float(np.linalg.norm(self.state - before))
        self.time = self._end if self._solver.status == "finished" else self._begin + float(self._solver.t)
        return True

    def has_stalled(self) -> bool:
        """Whether steps of full size are lost in rounding."""
        return self._steps >= _FEWEST_STEPS and self.length <= ROUNDING * float(np.linalg.norm(self.state))

    def interpolant(self) -> Callable[[float], Array]:
        """Z between the ends of the last step, flattened, as a function of time."""
        begin, polynomial = self._begin, self._solver.dense_output()
        return lambda time: polynomial(time - begin)


class ImplicitPath(ExplicitPath):
    """The path of a flow under LSODA; it interpolates within steps by the polynomials of the method."""

    def _between(self, steps: NDArray[np.intp], times: Array) -> Array:
        """States at times within steps."""
        shape = self.states[0].shape
        return np.array([self._stages[j](time).reshape(shape) for j, time in zip(steps, times, strict=True)])
