"""Gradient flow of all N layers, at a cost that does not grow with N: the reduced flow.

From a balanced start the N layers are carried by one n×k matrix Z, the top layer up to a rotation.
With G = Zᵀ Z and any C such that C Cᵀ = G^{N−1}, F = Z C is a factor of the end-to-end covariance,
S = F Fᵀ = Z G^{N−1} Zᵀ, and (paper.md section 4)

    dZ/dt = − ∇L(F) Cᵀ,    Z(0) = U_k diag(s^{1/N})  where  W(0) = U diag(s) Vᵀ,

for every loss whose gradient at W is B(S) W: ∇L(Z C) Cᵀ = B Z G^{N−1}. It costs one decomposition,
that in ∇L, and about 2 log₂ N products of k×k matrices.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from .losses import CovarianceLoss
from .network import check_depth
from .psd import Array, finite_array, integer_power
from .trajectory import FlowTrajectory, StopReason

if TYPE_CHECKING:  # scipy.integrate takes longer to import than many a flow to run: loaded when one does
    from scipy.integrate import DenseOutput, OdeSolver

_EPS = float(np.finfo(float).eps)
#: The least relative tolerance that scipy's integrators accept: the floor of the error control.
_ROUNDING = 100 * _EPS
#: A stage with a larger ‖F‖² is refused before LAPACK sees it: products with it may overflow.
_OVERSHOOT = 1e100
#: A step that is smaller than this share of the mean step has collapsed: the tolerance cannot be met.
_COLLAPSE = 1e-6
#: First step: the relative change of the end-to-end matrix that it is expected to make.
_FIRST_CHANGE = 0.01


def gradient_flow(
    loss: CovarianceLoss,
    initial: ArrayLike,
    depth: int,
    times: ArrayLike | None = None,
    *,
    rank: int | None = None,
    rtol: float = 1e-7,
    atol: float = 0.0,
    excess_tolerance: float = 0.0,
    max_time: float | None = None,
    max_steps: int = 20_000,
    samples: int = 100,
) -> FlowTrajectory:
    """Integrate the gradient flow of a deep linear network from a balanced start.

    Parameters
    ----------
    loss
        Loss on the end-to-end matrix, with one target.
    initial : (n, d_0)
        End-to-end matrix W(0), taken as the product of N balanced layers. Its rank is kept by the flow.
    depth
        N ≥ 1.
    times : (m,), optional
        Increasing times ≥ 0 at which to sample; the flow runs to the last one. If it stops earlier, the
        samples end there. Default: `samples` times from 0 to where the flow stopped, spread evenly over
        the integrator's steps, so that they are dense where the solution changes fast.
    rank
        k, the bottleneck that L − L* refers to; default the numerical rank of W(0).
    rtol
        Error allowed in a step, relative to the distance |Z(t + h) − Z(t)| of the step itself. So the
        distance to the limit keeps a relative accuracy of about `rtol` all the way down an exponential
        tail, which a tolerance relative to |Z| cannot do.
    atol
        Absolute error allowed in an entry of Z on top; there is always a floor of 100 eps |Z|.
    excess_tolerance
        Stop once L − L* is at most this.
    max_time, max_steps
        Horizon (without `times`) and step budget.
    samples
        Number of samples without `times`.

    Returns
    -------
    FlowTrajectory

    Raises
    ------
    ValueError
        On input that is out of range, not finite, or of the wrong shape.
    """
    check_depth(depth)
    if loss.shape != ():
        raise ValueError(f"loss must have one target, not a stack of shape {loss.shape}")
    W = finite_array("initial", initial, 2).astype(float)
    if W.ndim != 2 or W.shape[0] != loss.dimension:
        raise ValueError(f"initial must be a matrix with {loss.dimension} rows, not of shape {W.shape}")
    if not rtol > 0 or not atol >= 0:
        raise ValueError(f"rtol must be positive and atol not negative, not {rtol} and {atol}")
    _checked_ends(excess_tolerance, max_steps, samples)
    if times is not None:
        times = finite_array("times", times, 1).astype(float)
        if times.ndim != 1 or times[0] < 0 or np.any(np.diff(times) <= 0):
            raise ValueError("times must be increasing and not negative")
        max_time = float(times[-1])
    elif max_time is None or not max_time > 0:
        raise ValueError(f"max_time must be positive where no times are given, not {max_time}")

    U, s, _ = np.linalg.svd(loss.eigenvectors.T @ W, full_matrices=False)
    k = max(1, int(np.sum(s > max(W.shape) * np.finfo(float).eps * s[0])))
    rank = k if rank is None else rank
    if not k <= rank <= min(W.shape):
        raise ValueError(
            f"rank must lie between the rank of initial, {k}, and min(n, d_0) = {min(W.shape)}, not {rank}"
        )
    Z = U[:, :k] * s[:k] ** (1 / depth)
    flow = _ReducedFlow(loss, depth, Z.shape)

    def excess(z: Array) -> float:
        return float(loss.excess_in_eigenbasis(flow.factor(z.reshape(Z.shape)), rank))

    sampler = _Sampler(Z.ravel(), times, samples)
    with np.errstate(over="ignore", invalid="ignore"):
        stop_reason = _integrate(
            flow, sampler, max_time, rtol, atol, lambda z: excess(z) <= excess_tolerance, max_steps
        )
    times, states = sampler.taken()
    factors = flow.factor(states.reshape(-1, *Z.shape))
    excess_loss = loss.excess_in_eigenbasis(factors, rank)
    return FlowTrajectory(
        times=times,
        loss=loss.minimum_value(rank) + excess_loss,
        excess=excess_loss,
        factors=loss.eigenvectors @ factors,
        stop_reason=stop_reason,
        n_steps=sampler.n_steps,
        evaluations=flow.evaluations,
    )


def _checked_ends(excess_tolerance: float, max_steps: int, samples: int) -> None:
    """Refuse ends of a flow that it could never meet, or would meet by accident."""
    if not excess_tolerance >= 0:
        raise ValueError(f"excess_tolerance must not be negative, not {excess_tolerance}")
    if not (max_steps >= 1 and samples >= 2 and float(max_steps).is_integer() and float(samples).is_integer()):
        raise ValueError(
            f"max_steps must be an integer of at least 1 and samples one of at least 2, not {max_steps} and {samples}"
        )


class _Sampler:
    """Keeps the states of a flow, and interpolants where they can be asked for: each costs a quarter of a step.

    Given times are interpolated. Otherwise the samples spread evenly over the steps, and are states themselves as
    soon as there is a step for each.
    """

    def __init__(self, z: Array, times: Array | None, samples: int) -> None:
        self.times, self.samples = times, samples
        self.knots, self.states = [0.0], [z]
        self._pieces: dict[int, DenseOutput] = {}

    @property
    def n_steps(self) -> int:
        return len(self.knots) - 1

    def add(self, solver: OdeSolver) -> None:
        """Take note of a step."""
        if self.times is None:
            wanted = self.n_steps < self.samples
        else:  # a time after the last knot and before this one?
            between = int(np.searchsorted(self.times, self.knots[-1], side="right"))
            wanted = between < len(self.times) and bool(self.times[between] < solver.t)
        if wanted:
            self._pieces[self.n_steps] = solver.dense_output()
        self.knots.append(solver.t)
        self.states.append(solver.y)

    def taken(self) -> tuple[Array, Array]:
        """Sample times and the states there."""
        knots = np.array(self.knots)
        if self.times is not None:
            times = np.append(self.times[self.times < knots[-1]], knots[-1])
        elif self.n_steps < self.samples:
            times = np.unique(np.interp(np.linspace(0, self.n_steps, self.samples), np.arange(len(knots)), knots))
        else:
            times = knots[np.linspace(0, self.n_steps, self.samples).round().astype(int)]
        return times, np.array([self._state(knots, t) for t in times])

    def _state(self, knots: Array, time: float) -> Array:
        after = int(np.searchsorted(knots, time))  # t_{after−1} < time ≤ t_after
        return self.states[after] if time == knots[after] else self._pieces[after - 1](time)


class _ReducedFlow:
    """Right-hand side of the reduced flow, in the eigenbasis of the target, on flattened Z."""

    def __init__(self, loss: CovarianceLoss, depth: int, shape: tuple[int, int]) -> None:
        self.gradient = loss.gradient_in_eigenbasis
        self.depth = depth
        self.shape = shape
        self.evaluations = 0
        self._lower = np.tri(shape[1])

    def half_power(self, Z: Array) -> Array:
        """C with C Cᵀ = (Zᵀ Z)^{N−1}, (..., k, k).

        For even N the odd factor Zᵀ Z is that of Zᵀ itself where Z is square, and of R_Zᵀ from a QR where not.
        """
        half, transposed = (self.depth - 1) // 2, Z.swapaxes(-1, -2)
        if self.depth % 2:
            return integer_power(transposed @ Z, half)
        root = transposed
        if self.shape[0] > self.shape[1]:
            root = np.linalg.qr(Z, mode="raw")[0][..., : self.shape[1]] * self._lower  # LAPACK's geqrf, transposed
        return integer_power(transposed @ Z, half) @ root if half else root

    def factor(self, Z: Array) -> Array:
        """F = Z C, a factor of the end-to-end covariance; (..., n, k)."""
        return Z @ self.half_power(Z)

    def __call__(self, _time: float, z: Array) -> Array:
        self.evaluations += 1
        Z = z.reshape(self.shape)
        C = self.half_power(Z)
        F = Z @ C
        # A stage that overshoots overflows in G^{N-1}: NaN makes the integrator shrink the step.
        if not np.vdot(F, F) < _OVERSHOOT:
            return np.full_like(z, np.nan)
        return -(self.gradient(F) @ C.T).ravel()


def _integrate(
    flow: _ReducedFlow,
    sampler: _Sampler,
    max_time: float,
    rtol: float,
    atol: float,
    converged: Callable[[Array], bool],
    max_steps: int,
) -> StopReason:
    """Step scipy's DOP853 from the sampler's first state, its tolerance following the length of the steps."""
    from scipy.integrate import DOP853

    z = sampler.states[0]
    speed, size = float(np.linalg.norm(flow(0.0, z))), float(np.linalg.norm(z))
    if not np.isfinite(speed):
        raise ValueError("initial must be small enough for its loss and gradient to be finite numbers")
    if converged(z):
        return StopReason.CONVERGED
    if max_time == 0:
        return StopReason.END_TIME
    if speed * max_time <= _EPS * size:
        return StopReason.STATIONARY
    first_step = min(_FIRST_CHANGE / flow.depth * size / speed, max_time)
    root_size = np.sqrt(z.size)  # scipy's error norm is a root mean square

    def tolerance(length: float, size: float) -> float:
        """Absolute tolerance for an entry of Z in the next step, from the length of this one and the size of Z."""
        return atol + (rtol * length + _ROUNDING * size) / root_size

    atol_first = tolerance(first_step * speed, size)
    solver = DOP853(flow, 0.0, z, max_time, first_step=first_step, rtol=_ROUNDING, atol=atol_first)
    while True:
        before = solver.y
        solver.step()
        if solver.status == "failed":
            return StopReason.STEP_UNDERFLOW
        sampler.add(solver)
        length = float(np.linalg.norm(solver.y - before))
        solver.atol = tolerance(length, float(np.linalg.norm(before)))
        if converged(solver.y):
            return StopReason.CONVERGED
        if solver.status == "finished":
            return StopReason.END_TIME
        if length <= _ROUNDING * np.linalg.norm(before):  # lost in rounding: the speed is, or the step collapsed
            collapsed = solver.step_size < _COLLAPSE * solver.t / sampler.n_steps
            return StopReason.STEP_UNDERFLOW if collapsed else StopReason.STATIONARY
        if sampler.n_steps == max_steps:
            return StopReason.STEP_BUDGET
