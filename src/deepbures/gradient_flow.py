"""Gradient flow of all N layers from balanced starts, at a cost that does not grow with N.

The layers are carried by one small matrix (see `reduced_flow`), which two methods integrate. Exponential collocation
takes the stiffness out where the flow is nearly diagonal in the target's basis: it is the method for starts of full
rank, for k ≪ n, and near the minimum of any lower rank. The explicit method (DOP853) takes any loss, and the plateaus
of a lower rank in a few dimensions. They hand over in `_advance`; `_Run.suits_collocation` is the rule.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .collocation import ROUNDING, Stack
from .collocation_path import CollocationPath
from .diagnostics import norm_over_layers
from .explicit import ExplicitPath, ExplicitStack
from .linear_forms import is_thin
from .losses import CovarianceLoss
from .network import check_depth
from .psd import Array, finite_array, principal_columns
from .reduced_flow import (
    FactorFlow,
    RootFlow,
    pivoted,
    symmetric_top,
)
from .trajectory import FlowTrajectory, StopReason

_EPS = float(np.finfo(float).eps)
#: What `method` may be.
METHODS = ("auto", "explicit")
#: Collocation whose rejected steps outnumber the others by so many hands over to the explicit method.
_MANY_REJECTIONS = 30
#: Below full rank the minimum is near where no entry of S − S*, in the target's basis, exceeds this share of s*_k.
_NEAR = 0.1
#: A path is cut where the logarithm of L − L* is less than this below that of the tolerance, in at most so many tries.
_CUT_SHARE, _MAX_CUTS = 0.1, 30
_TINY = float(np.finfo(float).tiny)
#: By so much the bound of L − L* by the gradient must exceed the tolerance: room for the last sweep, after which the
#: gradient is not evaluated again.
_BOUND_SHARE = 1.025


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
        k ≤ min(n, d_0), the bottleneck that L − L* refers to; default the numerical rank of W(0).
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
        `auto`: under a loss whose Jacobian is known, exponential collocation from a start of full rank or of rank
        k ≪ n, and near the minimum of any rank; the explicit method elsewhere. `explicit`: that alone.

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
    max_time: ArrayLike | None = None,
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
    depth, times, rank, rtol, atol, excess_tolerance, max_steps, samples, method
        See `gradient_flow`; the same for all starts.
    max_time : (B,)
        One horizon, or one for each start.

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
    if not 0 < rtol < 1 or not atol >= 0:
        raise ValueError(f"rtol must be between 0 and 1 and atol not negative, not {rtol} and {atol}")
    _checked_ends(excess_tolerance, max_steps, samples)
    if method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(METHODS)}, not {method!r}")
    if times is not None:
        times = finite_array("times", times, 1).astype(float)
        if times.ndim != 1 or times[0] < 0 or np.any(np.diff(times) <= 0):
            raise ValueError("times must be increasing and not negative")
        max_time = float(times[-1])
    ends = np.asarray(np.nan if max_time is None else max_time, dtype=float)
    if ends.shape not in ((), W.shape[:1]) or (times is None and not (ends > 0).all()):
        raise ValueError(f"max_time must be positive where no times are given, not {max_time!r}")
    runs = [
        _Run(loss.take(i), start, depth, rank, times, samples, float(end), rtol, atol, excess_tolerance, max_steps)
        for i, (start, end) in enumerate(zip(W, np.broadcast_to(ends, len(W)), strict=True))
    ]
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        _advance(loss, runs, loss.has_linear_part and method == "auto")
        return [run.trajectory() for run in runs]


def _checked_ends(excess_tolerance: float, max_steps: int, samples: int) -> None:
    """Refuse ends of a flow that it could never meet, or would meet by accident."""
    if not excess_tolerance >= 0:
        raise ValueError(f"excess_tolerance must not be negative, not {excess_tolerance}")
    if not (max_steps >= 1 and samples >= 2 and float(max_steps).is_integer() and float(samples).is_integer()):
        raise ValueError(
            f"max_steps must be an integer of at least 1 and samples one of at least 2, not {max_steps} and {samples}"
        )


def _advance(loss: CovarianceLoss, runs: Sequence[_Run], collocation: bool) -> None:
    """Bring every run to its end: explicitly to where collocation is better, by collocation from there.

    A run that collocation gives up goes on explicitly, to its end.
    """
    for run in runs:
        run.begin()
    waiting = [i for i, run in enumerate(runs) if run.reason is None]
    if collocation:
        for members in _of_one_rank(runs, [i for i in waiting if not runs[i].suits_collocation()]):
            _explicitly(loss.take(members), [runs[i] for i in members], to_the_end=False)
        for members in _of_one_rank(runs, [i for i in waiting if runs[i].reason is None]):
            _collocate(loss.take(members), [runs[i] for i in members])
    for members in _of_one_rank(runs, [i for i in waiting if runs[i].reason is None]):
        _explicitly(loss.take(members), [runs[i] for i in members], to_the_end=True)


def _of_one_rank(runs: Sequence[_Run], members: Sequence[int]) -> list[list[int]]:
    """The members in groups of one rank, which make a stack."""
    groups: dict[int, list[int]] = {}
    for i in members:
        groups.setdefault(runs[i].Z.shape[1], []).append(i)
    return list(groups.values())


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
        U, s, _ = np.linalg.svd(loss.to_eigenbasis(start), full_matrices=False)
        k = max(1, int(np.sum(s > max(start.shape) * _EPS * s[0])))
        self.rank = k if rank is None else rank
        if not k <= self.rank <= min(start.shape):
            raise ValueError(
                f"rank must lie between the rank of initial, {k}, and min(n, d_0) = {min(start.shape)}, not {self.rank}"
            )
        self.loss, self.depth, self.times, self.samples, self.end = loss, depth, times, samples, end
        self.rtol, self.atol, self.excess_tolerance, self.max_steps = rtol, atol, excess_tolerance, max_steps
        self.time = 0.0
        self.Z: Array = U[:, :k] * s[:k] ** (1 / depth)
        self.flow = FactorFlow(loss, depth)
        self.evaluations = self.explicit_steps = 0
        self.paths: list[ExplicitPath | CollocationPath] = []
        self.reason: StopReason | None = None

    @property
    def n_steps(self) -> int:
        return sum(len(path.knots) - 1 for path in self.paths)

    def converged(self, F: Array) -> bool:
        return bool(self.loss.excess_in_eigenbasis(F, self.rank) <= self.excess_tolerance)

    def cut_at_tolerance(self, path: CollocationPath) -> None:
        """End a path of collocation where L − L* reaches the tolerance: its last step may fall far below.

        So may the step before, where the cheap no of `_reason` was wrong: the gradient is that of a stage which the
        last sweep moved. What comes after the tolerance is left out; it may be rounding alone.
        """
        tolerance = self.excess_tolerance
        if tolerance <= 0:
            return

        def heights(*times: float) -> Array:
            """How far L − L* is above the tolerance, in logarithms: a straight line in an exponential tail."""
            excess = self.loss.excess_in_eigenbasis(path.factors(np.array(times)), self.rank)
            return np.log(np.maximum(excess, _TINY) / tolerance)

        above, below = heights(*path.knots[-2:])
        while above <= 0 and len(path.steps) > 1:
            path.drop()
            above, below = heights(*path.knots[-2:])
        low, high = path.knots[-2:]
        for bisected in range(_MAX_CUTS):
            if below >= -_CUT_SHARE or not above > 0:
                break
            share = (above + _CUT_SHARE / 2) / (above - below) if bisected % 3 < 2 else 0.5
            middle = low + share * (high - low)
            (found,) = heights(middle)
            if found > 0:
                low, above = middle, found
            else:
                high, below = middle, found
        path.cut(high)

    def begin(self) -> None:
        """Whether there is anything to do."""
        speed, size = float(np.linalg.norm(self.flow.field(self.Z))), float(np.linalg.norm(self.Z))
        self.evaluations += 1
        if not np.isfinite(speed):
            raise ValueError("initial must be small enough for its loss and gradient to be finite numbers")
        if self.converged(self.flow.factor(self.Z)):
            self.reason = StopReason.CONVERGED
        elif self.end == 0:
            self.reason = StopReason.END_TIME
        elif speed == 0 or speed * self.end <= _EPS * size:  # the end may be inf
            self.reason = StopReason.STATIONARY

    def suits_collocation(self) -> bool:
        """Whether collocation is better than the explicit method: at full rank, near the minimum, and for k ≪ n.

        On the plateaus of a lower rank it needs half to once and a half the gradients at n = 10, each in a dearer
        step. Where the target's eigenvalues span decades the explicit method is too slow: n = 256, k = 16, N = 3 and
        λ_1 = 532 λ_k take 2,722 gradients to 1e-6; the explicit method had not ended after 200 s.
        """
        n, k = self.Z.shape
        return k == n or is_thin(n, k) or bool(_is_near_minimum(self.loss, self.flow.factor(self.Z)))

    def interpolated(self, before: float, after: float) -> bool:
        """Whether samples can be asked for within the next explicit step."""
        if self.times is None:
            return self.n_steps < self.samples
        between = int(np.searchsorted(self.times, before, side="right"))
        return between < len(self.times) and bool(self.times[between] < after)

    def _spread(self, paths: Sequence[ExplicitPath | CollocationPath], knots: Array) -> Array:
        """Sample times, spread evenly over the steps, of which one of collocation counts for several.

        Explicit steps are interpolated where there are fewer than samples; else their ends are the samples.
        """
        samples = np.concatenate([[path.samples_per_step] * (len(path.knots) - 1) for path in paths])
        weights = np.append(0.0, np.cumsum(samples))
        wanted = np.linspace(0, weights[-1], self.samples)
        times = np.interp(wanted, weights, knots)
        if len(samples) >= self.samples:
            step = np.clip(np.searchsorted(weights, wanted) - 1, 0, len(samples) - 1)
            nearest = step + (wanted - weights[step] > weights[step + 1] - wanted)
            times = np.where(samples[step] > 1, times, knots[nearest])
        return np.unique(np.append(times[:-1], knots[-1]))

    def trajectory(self) -> FlowTrajectory:
        """The samples. Given times are interpolated; else they spread evenly over the steps, and are states
        themselves as soon as there is a step for each."""
        paths = [path for path in self.paths if len(path.knots) > 1]
        if not paths:  # the run ended where it began
            paths = [ExplicitPath(self.flow, 0.0, self.Z)]
        knots = np.concatenate([paths[0].knots[:1], *(path.knots[1:] for path in paths)])
        if self.times is not None:
            times = np.append(self.times[self.times < knots[-1]], knots[-1])
        else:
            times = self._spread(paths, knots)
        factors, done = [], 0
        for path in paths:
            upto = int(np.searchsorted(times, path.knots[-1], side="right"))
            if upto > done:
                factors.append(path.factors(times[done:upto]))
            done = upto
        F, directions, lengths = principal_columns(np.concatenate(factors))
        gradient, excess = self.loss.gradient_and_excess_near_diagonal(F, self.rank)
        assert self.reason is not None
        return FlowTrajectory(
            times=times,
            loss=self.loss.minimum_value(self.rank) + excess,
            excess=excess,
            factors=self.loss.from_eigenbasis(F),
            gradient_norm=norm_over_layers(directions, lengths, gradient, self.depth),
            stop_reason=self.reason,
            n_steps=self.n_steps,
            evaluations=self.evaluations + sum(path.evaluations for path in paths),
            explicit_steps=self.explicit_steps,
        )


def _is_near_minimum(loss: CovarianceLoss, F: Array) -> NDArray[np.bool_]:
    """Whether no entry of S − S* exceeds a tenth of s*_k, S = F Fᵀ of rank k; for F (..., n, k)."""
    n, k = F.shape[-2:]
    minimum = loss.minimum_spectrum(k)
    # Of S − S* beyond the first k rows and columns, semidefinite, the largest entry is on the diagonal.
    filled = np.abs(F[..., :k, :] @ F.mT - np.eye(k, n) * minimum[..., None, :]).max(axis=(-2, -1))
    rest = np.sum(F[..., k:, :] ** 2, axis=-1).max(axis=-1)
    return np.asarray(np.maximum(filled, rest) <= _NEAR * minimum[..., k - 1])


def _explicitly(loss: CovarianceLoss, runs: Sequence[_Run], to_the_end: bool) -> None:
    """Advance runs of one rank explicitly as one stack, each to its end or until collocation is better."""
    first = runs[0]
    states, times, ends = (np.array([getattr(run, name) for run in runs]) for name in ("Z", "time", "end"))
    stack = ExplicitStack(FactorFlow(loss, first.depth), states, times, ends, first.rtol, first.atol)
    paths = [ExplicitPath(run.flow, run.time, run.Z) for run in runs]
    for run, path in zip(runs, paths, strict=True):
        run.paths.append(path)
    while stack.members.size:
        stepped = np.flatnonzero(stack.attempt())
        going: NDArray[np.bool_] = ~stack.failed
        converged, better = _ends(loss, stack, stepped, first, to_the_end)
        for j, below, handed in zip(stepped, converged, better, strict=True):
            run, path, time = runs[stack.members[j]], paths[stack.members[j]], float(stack.time[j])
            wanted = run.interpolated(path.knots[-1], time)
            path.add(time, stack.state[j].copy(), stack.stages[:, j].copy() if wanted else None)
            run.explicit_steps += 1
            lost = stack.length[j] <= ROUNDING * np.linalg.norm(path.states[-2])
            if below:
                run.reason = StopReason.CONVERGED
            elif time == run.end:
                run.reason = StopReason.END_TIME
            elif lost and not handed:  # in rounding: the speed is, or the step collapsed
                collapsed = path.collapsed(float(stack.last_size[j]))
                run.reason = StopReason.STEP_UNDERFLOW if collapsed else StopReason.STATIONARY
            elif run.n_steps == run.max_steps:
                run.reason = StopReason.STEP_BUDGET
            going[j] = run.reason is None and not handed
        for i in stack.members[stack.failed]:
            runs[i].reason = StopReason.STEP_UNDERFLOW
        for j in np.flatnonzero(~going):
            run, path = runs[stack.members[j]], paths[stack.members[j]]
            run.evaluations += int(stack.evaluations[j])
            run.time, run.Z = path.knots[-1], path.states[-1]
        stack.keep(going)


def _ends(
    loss: CovarianceLoss, stack: ExplicitStack, stepped: NDArray[np.intp], first: _Run, to_the_end: bool
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Which of the members that took a step have converged, and which go on by collocation."""
    neither = np.zeros(len(stepped), dtype=bool)
    if not stepped.size:
        return neither, neither
    there, F = loss.take(stack.members[stepped]), stack.flow.factor(stack.state[stepped])
    converged = there.excess_in_eigenbasis(F, first.rank) <= first.excess_tolerance
    return converged, neither if to_the_end else _is_near_minimum(there, F)


def _collocate(loss: CovarianceLoss, runs: Sequence[_Run]) -> None:
    """Advance runs of one rank as one stack until each has ended, or has to go on explicitly."""
    first = runs[0]
    n, k = first.Z.shape
    Z: Array = np.array([run.Z for run in runs], dtype=float)
    order = None if k == n else np.array([pivoted(run.Z) for run in runs])
    if order is not None:
        Z = np.take_along_axis(Z, order[..., None], axis=-2)
    states = Z @ Z.mT if order is None else np.array([symmetric_top(start) for start in Z])
    flow = RootFlow(loss, first.depth, order)
    paths = [CollocationPath(run.depth, run.time, states[i].copy(), flow.frame(i)) for i, run in enumerate(runs)]
    for run, path in zip(runs, paths, strict=True):
        run.paths.append(path)
    times, ends = np.array([run.time for run in runs]), np.array([run.end for run in runs])
    stack = Stack(flow, states, times, ends, first.rtol, first.atol)
    while stack.members.size:
        stepped, measure, steps = stack.sweep()
        going: NDArray[np.bool_] = np.ones(len(stack.members), dtype=bool)
        for j, step in zip(np.flatnonzero(stepped), steps, strict=True):
            run, path = runs[stack.members[j]], paths[stack.members[j]]
            path.add(step, float(stack.time[j]), stack.state[j].copy(), stack.equations.frame(int(j)))
            run.reason = _reason(run, path, float(stack.length[j]), float(measure[j]))
            going[j] = run.reason is None
        lost = ROUNDING * np.linalg.norm(stack.state, axis=(-2, -1))
        collapsed = ~stepped & (stack.size * np.linalg.norm(stack.velocity, axis=(-2, -1)) <= lost)
        going &= ~(collapsed | (stack.rejections > _MANY_REJECTIONS))
        for j in np.flatnonzero(~going):
            run, path = runs[stack.members[j]], paths[stack.members[j]]
            run.evaluations += int(stack.evaluations[j])
            run.time, run.Z = path.knots[-1], path.root()
        stack.keep(going)


def _reason(run: _Run, path: CollocationPath, length: float, squared_gradient: float) -> StopReason | None:
    """Why a run ends after a step, if it does. A lower bound of L − L* by the gradient is a cheap no."""
    surely_above = run.loss.least_excess(squared_gradient) > _BOUND_SHARE * run.excess_tolerance
    if not surely_above and run.converged(path.end()):
        run.cut_at_tolerance(path)
        return StopReason.CONVERGED
    if path.knots[-1] == run.end:
        return StopReason.END_TIME
    if length <= ROUNDING * np.linalg.norm(path.state):
        return StopReason.STATIONARY
    if run.n_steps == run.max_steps:
        return StopReason.STEP_BUDGET
    return None
