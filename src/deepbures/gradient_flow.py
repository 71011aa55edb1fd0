"""Gradient flow of all N layers from balanced starts, at a cost that does not grow with N.

The layers are carried by one small matrix (see `reduced_flow`), which two methods integrate. Exponential collocation
takes the stiffness out, wherever the Jacobian is known: it is the default for starts of full rank. The explicit
method (DOP853) takes any loss and any rank. `_Run.advance` is where they hand over.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .collocation import ROUNDING, Stack, Step, dense_output
from .explicit import ExplicitPath
from .losses import BuresWasserstein, CovarianceLoss
from .network import check_depth
from .psd import Array, finite_array
from .reduced_flow import CURVATURES, FactorFlow, RootFlow
from .trajectory import FlowTrajectory, StopReason

_EPS = float(np.finfo(float).eps)
#: What `method` may be.
METHODS = ("auto", "explicit")
#: Collocation that is rejected this often, and in more steps than it makes, hands over to the explicit method.
_MANY_REJECTIONS = 20
#: A path is cut where the logarithm of L − L* is less than this below that of the tolerance, in at most so many tries.
_CUT_SHARE, _MAX_CUTS = 0.1, 30
_TINY = float(np.finfo(float).tiny)


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
    method: str = "auto",
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
        Error allowed in a step, relative to the distance |X(t + h) − X(t)| of the step itself, X = S^{1/N} (in
        the explicit method: Z, X = Z Zᵀ). So the distance to the limit keeps a relative accuracy of about
        `rtol` all the way down an exponential tail, which a tolerance relative to |X| cannot do.
    atol
        Absolute error allowed in an entry on top; there is always a floor of 100 eps |X|.
    excess_tolerance
        Stop once L − L* is at most this.
    max_time, max_steps
        Horizon (without `times`) and step budget.
    samples
        Number of samples without `times`.
    method
        `auto`: exponential collocation from a start of full rank under a loss whose Jacobian is known, and
        the explicit method elsewhere. `explicit`: that alone.

    Returns
    -------
    FlowTrajectory

    Raises
    ------
    ValueError
        On input that is out of range, not finite, or of the wrong shape.
    """
    if loss.shape != ():
        raise ValueError(f"loss must have one target, not a stack of shape {loss.shape}")
    W = finite_array("initial", initial, 2).astype(float)
    if W.ndim != 2 or W.shape[0] != loss.dimension:
        raise ValueError(f"initial must be a matrix with {loss.dimension} rows, not of shape {W.shape}")
    return gradient_flows(
        loss,
        W[None],
        depth,
        times,
        rank=rank,
        rtol=rtol,
        atol=atol,
        excess_tolerance=excess_tolerance,
        max_time=max_time,
        max_steps=max_steps,
        samples=samples,
        method=method,
    )[0]


def gradient_flows(
    loss: CovarianceLoss,
    initials: ArrayLike,
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
    method: str = "auto",
) -> list[FlowTrajectory]:
    """`gradient_flow` from a stack of starts, each with its own steps and end, at less than the sum of the costs.

    Parameters
    ----------
    loss
        Loss with one target for all starts, or a stack of as many targets.
    initials : (B, n, d_0)
        Starts.
    depth, times, rank, rtol, atol, excess_tolerance, max_time, max_steps, samples, method
        See `gradient_flow`; the same for all starts.

    Returns
    -------
    list
        The trajectory of each start, bit for bit what `gradient_flow` gives.

    Raises
    ------
    ValueError
        As `gradient_flow`.
    """
    check_depth(depth)
    W = finite_array("initials", initials, 3).astype(float)
    if W.ndim != 3 or W.shape[1] != loss.dimension:
        raise ValueError(f"initials must be a stack of matrices with {loss.dimension} rows, not of shape {W.shape}")
    if loss.shape not in ((), W.shape[:1]):
        raise ValueError(f"loss must have one target, or one for each of {len(W)} starts, not shape {loss.shape}")
    if not rtol > 0 or not atol >= 0:
        raise ValueError(f"rtol must be positive and atol not negative, not {rtol} and {atol}")
    if max_steps < 1 or samples < 2:
        raise ValueError(f"max_steps must be at least 1 and samples at least 2, not {max_steps} and {samples}")
    if method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(METHODS)}, not {method!r}")
    if times is not None:
        times = finite_array("times", times, 1).astype(float)
        if times.ndim != 1 or times[0] < 0 or np.any(np.diff(times) <= 0):
            raise ValueError("times must be increasing and not negative")
        max_time = float(times[-1])
    elif max_time is None or not max_time > 0:
        raise ValueError(f"max_time must be positive where no times are given, not {max_time}")
    runs = [
        _Run(loss.take(i), start, depth, rank, times, samples, max_time, rtol, atol, excess_tolerance, max_steps)
        for i, start in enumerate(W)
    ]
    with np.errstate(over="ignore", invalid="ignore"):
        for run in runs:
            run.begin()
        known = type(loss) in CURVATURES and method == "auto"
        stacked = [i for i, run in enumerate(runs) if known and run.reason is None and run.has_full_rank]
        if stacked:
            _collocate(RootFlow(loss.take(stacked), depth), [runs[i] for i in stacked])
        for run in runs:
            if run.reason is None:
                run.explicitly()
        return [run.trajectory() for run in runs]


class CollocationPath:
    """Where a flow went under exponential collocation."""

    def __init__(self, flow: RootFlow, start: float, state: Array) -> None:
        self.flow, self.state = flow, state
        self.knots = [start]
        self.steps: list[Step] = []

    def add(self, step: Step, time: float, state: Array) -> None:
        """Take note of a step, and of where it led."""
        self.steps.append(step)
        self.knots.append(time)
        self.state = state

    def factors(self, times: Array) -> Array:
        """F at times between the first and the last, (m, n, k)."""
        if not self.steps:
            return self.flow.factor(np.array([self.state] * len(times)))
        return self.flow.factor(self.states(times))

    def states(self, times: Array) -> Array:
        """X at times between the first and the last, (m, n, k)."""
        after = np.clip(np.searchsorted(self.knots, times), 1, len(self.steps))  # t_{after−1} < time ≤ t_after
        return self.flow.projected(dense_output([self.steps[j - 1] for j in after], times))

    def cut(self, time: float) -> None:
        """Let the last step end earlier."""
        self.state = self.states(np.array([time]))[0]
        self.knots[-1] = time


class _Run:
    """One start on its way: the path so far, and why it ended."""

    def __init__(
        self,
        loss: CovarianceLoss,
        start: Array,
        depth: int,
        rank: int | None,
        times: Array | None,
        samples: int,
        end: float,
        rtol: float,
        atol: float,
        excess_tolerance: float,
        max_steps: int,
    ) -> None:
        U, s, _ = np.linalg.svd(loss.eigenvectors.T @ start, full_matrices=False)
        k = max(1, int(np.sum(s > max(start.shape) * _EPS * s[0])))
        self.rank = k if rank is None else rank
        if not k <= self.rank <= min(start.shape):
            raise ValueError(
                f"rank must lie between the rank of initial, {k}, and min(n, d_0) = {min(start.shape)}, not {self.rank}"
            )
        self.loss, self.depth, self.times, self.samples, self.end = loss, depth, times, samples, end
        self.rtol, self.atol, self.excess_tolerance, self.max_steps = rtol, atol, excess_tolerance, max_steps
        self.has_full_rank = k == loss.dimension
        self.Z = U[:, :k] * s[:k] ** (1 / depth)
        self.flow = FactorFlow(loss, depth, self.Z.shape)
        self.collocation_evaluations = 0
        self.paths: list[ExplicitPath | CollocationPath] = []
        self.reason: StopReason | None = None

    @property
    def n_steps(self) -> int:
        return sum(len(path.knots) - 1 for path in self.paths)

    def converged(self, F: Array) -> bool:
        return bool(self.loss.excess_in_eigenbasis(F, self.rank) <= self.excess_tolerance)

    def cut_at_tolerance(self) -> None:
        """End a path of collocation where L − L* reaches the tolerance: its last step may fall far below."""
        path, tolerance = self.paths[-1], self.excess_tolerance
        if not isinstance(path, CollocationPath) or tolerance <= 0:
            return

        def height(time: float) -> float:
            """How far L − L* is above the tolerance, in logarithms: a straight line in an exponential tail."""
            excess = float(self.loss.excess_in_eigenbasis(path.factors(np.array([time])), self.rank)[0])
            return float(np.log(max(excess, _TINY) / tolerance))

        (low, high), (above, below) = path.knots[-2:], map(height, path.knots[-2:])
        for bisected in range(_MAX_CUTS):
            if below >= -_CUT_SHARE or not above > 0:
                break
            share = (above + _CUT_SHARE / 2) / (above - below) if bisected % 3 < 2 else 0.5
            middle = low + share * (high - low)
            found = height(middle)
            if found > 0:
                low, above = middle, found
            else:
                high, below = middle, found
        path.cut(high)

    def begin(self) -> None:
        """Whether there is anything to do."""
        speed, size = float(np.linalg.norm(self.flow(0.0, self.Z.ravel()))), float(np.linalg.norm(self.Z))
        if not np.isfinite(speed):
            raise ValueError("initial must be small enough for its loss and gradient to be finite numbers")
        if self.converged(self.flow.factor(self.Z)):
            self.reason = StopReason.CONVERGED
        elif self.end == 0:
            self.reason = StopReason.END_TIME
        elif speed * self.end <= _EPS * size:
            self.reason = StopReason.STATIONARY

    def explicitly(self) -> None:
        """Go on to the end by the explicit method."""
        time, Z = 0.0, self.Z
        if self.paths:
            time, Z = self.paths[-1].knots[-1], np.linalg.cholesky(self.paths[-1].state)
        path = ExplicitPath(self.flow, time, Z.ravel(), self._interpolated)
        self.paths.append(path)
        self.reason = path.integrate(
            self.end,
            self.rtol,
            self.atol,
            lambda z: self.converged(self.flow.factor(z.reshape(Z.shape))),
            self.max_steps - self.n_steps,
        )

    def _interpolated(self, _number: int, before: float, after: float) -> bool:
        """Whether samples can be asked for within the next step."""
        if self.times is None:
            return self.n_steps < self.samples
        between = int(np.searchsorted(self.times, before, side="right"))
        return between < len(self.times) and bool(self.times[between] < after)

    def trajectory(self) -> FlowTrajectory:
        """The samples. Given times are interpolated; else they spread evenly over the steps, and are states
        themselves as soon as there is a step for each."""
        paths = self.paths or [ExplicitPath(self.flow, 0.0, self.Z.ravel(), self._interpolated)]
        knots = np.concatenate([paths[0].knots[:1], *(path.knots[1:] for path in paths)])
        if self.times is not None:
            times = np.append(self.times[self.times < knots[-1]], knots[-1])
        elif self.n_steps < self.samples:
            times = np.unique(np.interp(np.linspace(0, self.n_steps, self.samples), np.arange(len(knots)), knots))
        else:
            times = knots[np.linspace(0, self.n_steps, self.samples).round().astype(int)]
        factors, done = [], 0
        for path in paths:
            upto = int(np.searchsorted(times, path.knots[-1], side="right"))
            if upto > done:
                factors.append(path.factors(times[done:upto]))
            done = upto
        F = np.concatenate(factors)
        excess = self.loss.excess_in_eigenbasis(F, self.rank)
        assert self.reason is not None
        explicit = sum(path.n_steps for path in paths if isinstance(path, ExplicitPath))
        return FlowTrajectory(
            times=times,
            loss=self.loss.minimum_value(self.rank) + excess,
            excess=excess,
            factors=self.loss.eigenvectors @ F,
            stop_reason=self.reason,
            n_steps=self.n_steps,
            evaluations=self.flow.evaluations + self.collocation_evaluations,
            explicit_steps=explicit,
        )


def _collocate(flow: RootFlow, runs: Sequence[_Run]) -> None:
    """Advance runs of full rank as one stack until each has ended, or has to go on explicitly."""
    states = np.array([run.Z @ run.Z.T for run in runs])
    first = runs[0]
    paths = [CollocationPath(flow, 0.0, state) for state in states]
    for run, path in zip(runs, paths, strict=True):
        run.paths.append(path)
    stack = Stack(flow, states, np.zeros(len(runs)), first.end, first.rtol, first.atol)
    while stack.members.size:
        stepped, measure, steps = stack.sweep()
        going: NDArray[np.bool_] = np.ones(len(stack.members), dtype=bool)
        for j, step in zip(np.flatnonzero(stepped), steps, strict=True):
            run, state, time = runs[stack.members[j]], stack.state[j].copy(), float(stack.time[j])
            run.paths[-1].add(step, time, state)
            run.reason = _reason(run, step, state, time, float(measure[j]))
            going[j] = run.reason is None
        lost = ROUNDING * np.linalg.norm(stack.state, axis=(-2, -1))
        collapsed = ~stepped & (stack.size * np.linalg.norm(stack.velocity, axis=(-2, -1)) <= lost)
        going &= ~(collapsed | (stack.rejections > _MANY_REJECTIONS))
        for j in np.flatnonzero(~going):
            runs[stack.members[j]].collocation_evaluations += int(stack.evaluations[j])
        stack.keep(going)


def _reason(run: _Run, step: Step, state: Array, time: float, squared_gradient: float) -> StopReason | None:
    """Why a run ends after a step, if it does."""
    if not (isinstance(run.loss, BuresWasserstein) and squared_gradient > 4.1 * run.excess_tolerance):
        if run.converged(run.paths[-1].flow.factor(state)):
            run.cut_at_tolerance()
            return StopReason.CONVERGED
    if time == run.end:
        return StopReason.END_TIME
    if np.linalg.norm(state - step.state) <= ROUNDING * np.linalg.norm(step.state):
        return StopReason.STATIONARY
    if run.n_steps == run.max_steps:
        return StopReason.STEP_BUDGET
    return None
