"""Which method takes a run how far, and why the run stops.

Collocation integrates runs of full rank, of rank k ≪ n, and near the minimum; the explicit method takes the others to
where collocation is better, and to their end where collocation makes no progress or the loss has no known Jacobian.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ..linalg.psd import Array
from ..linalg.thin import is_thin
from ..losses.registry import CovarianceLoss
from ..model.trajectory import StopReason
from .collocation import CollocationStack
from .collocation_path import CollocationPath
from .dop853 import ExplicitPath, ExplicitStack
from .options import ROUNDING, FlowOptions
from .reduced_flow import FactorFlow, RootFlow, pivoted, symmetric_top
from .run import Run

#: Below full rank the minimum is near where no entry of S − S*, in the target's basis, exceeds this fraction of s*_k.
_NEAR = 0.1
#: Collocation with so many more rejected than accepted steps hands over to the explicit method.
_MANY_REJECTIONS = 30
#: Safety factor on the gradient bound of L − L*, because the gradient is not evaluated again after the last sweep.
_BOUND_SAFETY = 1.025
#: A path is cut where log (L − L*) is less than this below the logarithm of the tolerance, in at most so many tries.
_CUT_WIDTH, _MAX_CUTS = 0.1, 30
_TINY = float(np.finfo(float).tiny)


def advance(loss: CovarianceLoss, runs: Sequence[Run], options: FlowOptions) -> None:
    """Bring every run to its end; the loss has one target, or one for each run."""
    for run in runs:
        run.begin()
    if loss.has_linear_part and options.method == "auto":
        for members in _by_rank(runs, [i for i in _active(runs) if not _suits_collocation(runs[i])]):
            _advance_explicitly(loss.take(members), [runs[i] for i in members], options, hand_over=True)
        for members in _by_rank(runs, _active(runs)):
            _advance_by_collocation(loss.take(members), [runs[i] for i in members], options)
    for members in _by_rank(runs, _active(runs)):
        _advance_explicitly(loss.take(members), [runs[i] for i in members], options, hand_over=False)


def _active(runs: Sequence[Run]) -> list[int]:
    """Indices of the runs that have not stopped."""
    return [i for i, run in enumerate(runs) if run.reason is None]


def _by_rank(runs: Sequence[Run], members: Sequence[int]) -> list[list[int]]:
    """The members in groups of one rank, each of which makes a stack."""
    ranks = [runs[i].Z.shape[1] for i in members]
    return [[i for i, rank in zip(members, ranks, strict=True) if rank == k] for k in dict.fromkeys(ranks)]


def _suits_collocation(run: Run) -> bool:
    """Whether collocation is better than the explicit method: at full rank, near the minimum, and for k ≪ n.

    On the plateaus of a lower rank it takes half to one and a half times the gradients at n = 10, and each of its steps
    costs more. Where the target's eigenvalues span decades the explicit method is too slow: n = 256, k = 16, N = 3 and
    λ_1 = 532 λ_k take 2,722 gradients to 1e-6; the explicit method had not ended after 200 s.
    """
    n, k = run.Z.shape
    return k == n or is_thin(n, k) or bool(_is_near_minimum(run.loss, run.flow.factor(run.Z)))


def _is_near_minimum(loss: CovarianceLoss, F: Array) -> NDArray[np.bool_]:
    """Whether no entry of S − S* exceeds s*_k/10, S = F Fᵀ and S* of rank k; for F (..., n, k)."""
    n, k = F.shape[-2:]
    minimum = loss.minimum_spectrum(k)
    # Beyond the first k rows and columns S − S* is semidefinite: its largest entry is on the diagonal.
    leading = np.abs(F[..., :k, :] @ F.mT - np.eye(k, n) * minimum[..., None, :]).max(axis=(-2, -1))
    rest = np.sum(F[..., k:, :] ** 2, axis=-1).max(axis=-1)
    return np.asarray(np.maximum(leading, rest) <= _NEAR * minimum[..., k - 1])


def _advance_explicitly(loss: CovarianceLoss, runs: Sequence[Run], options: FlowOptions, hand_over: bool) -> None:
    """Advance runs of one rank by DOP853 as one stack, each to its end, or with `hand_over` to near the minimum."""
    states, times, ends = np.array([run.Z for run in runs]), [run.time for run in runs], [run.end for run in runs]
    stack = ExplicitStack(FactorFlow(loss, options.depth), states, np.array(times), np.array(ends), options)
    paths = [ExplicitPath(run.flow, run.time, run.Z) for run in runs]
    for run, path in zip(runs, paths, strict=True):
        run.paths.append(path)
    while (active := stack.active).place.size:
        stepped = np.flatnonzero(stack.attempt())
        for i in active.place[stack.failed]:
            runs[i].reason = StopReason.STEP_UNDERFLOW
        continues: NDArray[np.bool_] = ~stack.failed
        if stepped.size:
            there, F = loss.take(active.place[stepped]), stack.flow.factor(active.state[stepped])
            converged = there.form(F.shape[-1], runs[0].rank).excess(F) <= options.excess_tolerance
            near = _is_near_minimum(there, F) if hand_over else np.zeros_like(converged)
            for j, below, handed in zip(stepped, converged, near, strict=True):
                run, path, time = runs[active.place[j]], paths[active.place[j]], float(active.time[j])
                interpolated = run.needs_interpolation(path.knots[-1], time)
                path.add(time, active.state[j].copy(), stack.stages[:, j].copy() if interpolated else None)
                run.explicit_steps += 1
                stalled = None
                if active.length[j] <= ROUNDING * np.linalg.norm(path.states[-2]) and not handed:
                    collapsed = path.has_collapsed(float(stack.tried[j]))
                    stalled = StopReason.STEP_UNDERFLOW if collapsed else StopReason.STATIONARY
                run.reason = _stop_reason(run, bool(below), stalled)
                continues[j] = run.reason is None and not handed
        _release(stack, continues, runs, paths)


def _advance_by_collocation(loss: CovarianceLoss, runs: Sequence[Run], options: FlowOptions) -> None:
    """Advance runs of one rank by collocation as one stack, each to its end or until it makes no progress."""
    Z = np.array([run.Z for run in runs], dtype=float)
    n, k = Z.shape[1:]
    order = None if k == n else np.array([pivoted(run.Z) for run in runs])
    if order is None:
        states = Z @ Z.mT
    else:
        states = np.array([symmetric_top(start) for start in np.take_along_axis(Z, order[..., None], axis=-2)])
    flow = RootFlow(loss, options.depth, order)
    paths = [CollocationPath(options.depth, run.time, states[i].copy(), flow.frame(i)) for i, run in enumerate(runs)]
    for run, path in zip(runs, paths, strict=True):
        run.paths.append(path)
    times, ends = np.array([run.time for run in runs]), np.array([run.end for run in runs])
    stack = CollocationStack(flow, states, times, ends, options)
    while (active := stack.active).place.size:
        stepped, squared_gradient, steps = stack.sweep()
        floor = ROUNDING * np.linalg.norm(active.state, axis=(-2, -1))
        collapsed = ~stepped & (active.size * np.linalg.norm(active.velocity, axis=(-2, -1)) <= floor)
        continues: NDArray[np.bool_] = ~(collapsed | (active.rejections > _MANY_REJECTIONS))
        for j, step in zip(np.flatnonzero(stepped), steps, strict=True):
            run, path = runs[active.place[j]], paths[active.place[j]]
            path.add(step, float(active.time[j]), active.state[j].copy(), stack.flow.frame(int(j)))
            below = _converges_at_end(run, path, float(squared_gradient[j]))
            stalled = active.length[j] <= ROUNDING * np.linalg.norm(path.state)
            run.reason = _stop_reason(run, below, StopReason.STATIONARY if stalled else None)
            continues[j] &= run.reason is None
        _release(stack, continues, runs, paths)


def _release(
    stack: ExplicitStack | CollocationStack,
    continues: NDArray[np.bool_],
    runs: Sequence[Run],
    paths: Sequence[ExplicitPath] | Sequence[CollocationPath],
) -> None:
    """Report progress, drop the members that do not continue, and give their runs the state that they have reached."""
    active = stack.active
    if report := runs[0].options.report:
        report(max(run.n_steps for run in runs), min(paths[place].knots[-1] for place in active.place))
    for j in np.flatnonzero(~continues):
        run, path = runs[active.place[j]], paths[active.place[j]]
        run.evaluations += int(active.evaluations[j])
        run.time, run.Z = path.knots[-1], path.root()
    if not continues.all():
        stack.keep(continues)


def _stop_reason(run: Run, converged: bool, stalled: StopReason | None) -> StopReason | None:
    """Why a run stops after a step, or None. `stalled` is the reason if the step was lost in rounding."""
    if converged:
        return StopReason.CONVERGED
    if run.paths[-1].knots[-1] == run.end:
        return StopReason.END_TIME
    if stalled is None and run.n_steps == run.options.max_steps:
        return StopReason.STEP_BUDGET
    return stalled


def _converges_at_end(run: Run, path: CollocationPath, squared_gradient: float) -> bool:
    """Whether L − L* is at most the tolerance at the end of a path; the path is then cut where it reaches it.

    The lower bound of L − L* by the gradient (`least_excess`) excludes most steps at no cost.
    """
    if run.loss.least_excess(squared_gradient) > _BOUND_SAFETY * run.options.excess_tolerance:
        return False
    if not run.has_converged(path.end()):
        return False
    if run.options.excess_tolerance > 0:
        _cut_at_tolerance(run, path)
    return True


def _cut_at_tolerance(run: Run, path: CollocationPath) -> None:
    """End a path of collocation where L − L* reaches the tolerance, because its last step may lead far below.

    So may the step before, where the gradient bound excluded convergence wrongly: the gradient is that of a stage,
    which the last sweep moved. What follows the tolerance is left out, because it may be rounding errors alone.
    """
    tolerance = run.options.excess_tolerance

    def heights(*times: float) -> Array:
        """log ((L − L*)/tolerance): a straight line in an exponential tail."""
        F = path.factors(np.array(times))
        excess = run.loss.form(F.shape[-1], run.rank).excess(F)
        return np.log(np.maximum(excess, _TINY) / tolerance)

    above, below = heights(*path.knots[-2:])
    while above <= 0 and len(path.steps) > 1:
        path.drop()
        above, below = heights(*path.knots[-2:])
    low, high = path.knots[-2:]
    for tried in range(_MAX_CUTS):
        if below >= -_CUT_WIDTH or not above > 0:
            break
        fraction = (above + _CUT_WIDTH / 2) / (above - below) if tried % 3 < 2 else 0.5
        middle = low + fraction * (high - low)
        (found,) = heights(middle)
        if found > 0:
            low, above = middle, found
        else:
            high, below = middle, found
    path.cut(high)
