"""Which method takes a run how far, and why the run stops.

Collocation integrates runs of full rank, of rank k ≪ n, and near the minimum; the explicit method takes the others to
where collocation is better. The implicit method takes over where one of these is limited by stiffness: where stability
limits the explicit steps, or slow sweeps those of collocation. It hands over to collocation near the minimum.
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
from .implicit import ImplicitPath, Lsoda
from .options import ROUNDING, FlowOptions
from .reduced_flow import FactorFlow, RootFlow, pivoted, symmetric_top
from .run import Run

#: After collocation was slow, the minimum has to be nearer by this factor before it is chosen again.
_NEARER = 1e-2
#: Collocation with so many more rejected than accepted steps makes no progress.
_MANY_REJECTIONS = 30
#: A run is stiff after so many more explicit steps that stability limited than others; likewise sweeps of collocation.
_MANY_LIMITED = 15
#: Least eigenvalue of X beside the largest: the others are lost in the rounding errors of the entries of X.
_LEAST_MODE = 1e-12
#: Most entries of Z, nk, for the implicit method: its Jacobian has the square of that.
_LARGEST_IMPLICIT = 500
#: LSODA's steps, which are short, between tests of convergence: each of these takes as long as two gradients.
_STEPS_BETWEEN = 5
#: Relative error of the gradient's transport map as a fraction of rtol, and at most: it moves the end of the flow by as
#: much, and L − L* by its square.
_QUADRATURE, _LEAST_ACCURATE = 1e-4, 1e-8
#: Safety factor on the gradient bound of L − L*, because the gradient is not evaluated again after the last sweep.
_BOUND_SAFETY = 1.025
#: A path is cut where log (L − L*) is less than this below the logarithm of the tolerance, in at most so many tries.
_CUT_WIDTH, _MAX_CUTS = 0.1, 30
_TINY = float(np.finfo(float).tiny)


def advance(loss: CovarianceLoss, runs: Sequence[Run], options: FlowOptions) -> None:
    """Bring every run to its end; the loss has one target, or one for each run.

    Each run goes from method to method: `_method` chooses when it begins and whenever a method releases it.
    """
    for run in runs:
        run.begin()
        run.methods = set(_ADVANCE) if options.method == "auto" else {"explicit"}
        n, k = run.Z.shape
        limit = run.loss.minimum_spectrum(k) ** (1 / options.depth)  # modes that vanish decay algebraically
        if not (loss.has_linear_part and (k < n or _has_digits(limit[limit > 0]))):
            run.methods.discard("collocation")
    while active := _active(runs):
        chosen = [_method(runs[i]) for i in active]
        for method, integrate in _ADVANCE.items():
            for members in _by_rank(runs, [i for i, name in zip(active, chosen, strict=True) if name == method]):
                integrate(loss.take(members), [runs[i] for i in members], options)


def _method(run: Run) -> str:
    """The method that suits a run where it is.

    Collocation at full rank, near the minimum, and for k ≪ n. Elsewhere the explicit method, until it is limited by
    stability; then the implicit one, or collocation where its Jacobian of (nk)² entries would be too large. A method
    that made no progress is not chosen again, but the explicit one.

    On the plateaus of a lower rank collocation takes half to one and a half times the gradients of the explicit method
    at n = 10, and each of its steps costs more. Where the target's eigenvalues span decades the explicit method is too
    slow: n = 256, k = 16, N = 3 and λ_1 = 532 λ_k take 2,722 gradients to 1e-6; the explicit method had not ended after
    200 s.
    """
    n, k = run.Z.shape
    if "collocation" in run.methods:
        holds = _has_digits(np.linalg.svd(run.Z, compute_uv=False) ** 2) if k == n else is_thin(n, k)
        if (holds and not run.stiff) or _is_near_minimum(run.loss, run.flow.factor(run.Z), run.nearness):
            return "collocation"
    if run.stiff and n * k <= _LARGEST_IMPLICIT:
        return "implicit" if "implicit" in run.methods else "explicit"
    return "collocation" if run.stiff and "collocation" in run.methods else "explicit"


def _has_digits(x: Array) -> bool:
    """Whether X = S^{1/N}, which collocation follows for k = n, holds all of these eigenvalues (m,) to a few digits."""
    return bool(np.all(x >= _LEAST_MODE * x.max(initial=0.0)))


def _active(runs: Sequence[Run]) -> list[int]:
    """Indices of the runs that have not stopped."""
    return [i for i, run in enumerate(runs) if run.reason is None]


def _by_rank(runs: Sequence[Run], members: Sequence[int]) -> list[list[int]]:
    """The members in groups of one rank, each of which makes a stack."""
    ranks = [runs[i].Z.shape[1] for i in members]
    return [[i for i, rank in zip(members, ranks, strict=True) if rank == k] for k in dict.fromkeys(ranks)]


def _is_near_minimum(loss: CovarianceLoss, F: Array, nearness: float) -> NDArray[np.bool_]:
    """Whether no entry of S − S* exceeds this fraction of s*_k, S = F Fᵀ and S* of rank k; for F (..., n, k)."""
    n, k = F.shape[-2:]
    minimum = loss.minimum_spectrum(k)
    # Beyond the first k rows and columns S − S* is semidefinite: its largest entry is on the diagonal.
    leading = np.abs(F[..., :k, :] @ F.mT - np.eye(k, n) * minimum[..., None, :]).max(axis=(-2, -1))
    rest = np.sum(F[..., k:, :] ** 2, axis=-1).max(axis=-1, initial=0.0)
    return np.asarray(np.maximum(leading, rest) <= nearness * minimum[..., k - 1])


def _advance_explicitly(loss: CovarianceLoss, runs: Sequence[Run], options: FlowOptions) -> None:
    """Advance runs of one rank by DOP853 as one stack, each to its end or to where another method is better."""
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
            near = _is_near_minimum(there, F, runs[0].nearness)
            for j, below, is_near in zip(stepped, converged, near, strict=True):
                run, path, time = runs[active.place[j]], paths[active.place[j]], float(active.time[j])
                run.stiff |= bool(active.limited[j] >= _MANY_LIMITED)
                handed = (is_near and "collocation" in run.methods) or (run.stiff and _method(run) != "explicit")
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


def _advance_implicitly(loss: CovarianceLoss, runs: Sequence[Run], options: FlowOptions) -> None:
    """Advance runs by LSODA, one after the other, each to its end or to where collocation is better."""
    for run in runs:
        path, lsoda = ImplicitPath(run.flow, run.time, run.Z), Lsoda(run, options)
        run.paths.append(path)
        handed = False
        while run.reason is None and not handed:
            if not lsoda.step():
                run.methods.discard("implicit")
                break
            interpolated = run.needs_interpolation(path.knots[-1], lsoda.time)
            path.add(lsoda.time, lsoda.state, lsoda.interpolant() if interpolated else None)
            run.implicit_steps += 1
            converged, stalled = False, StopReason.STATIONARY if lsoda.has_stalled() else None
            if run.implicit_steps % _STEPS_BETWEEN == 0 or stalled or lsoda.time == run.end:
                F = run.flow.factor(lsoda.state)
                converged = run.has_converged(F)
                handed = "collocation" in run.methods and bool(_is_near_minimum(run.loss, F, run.nearness))
            run.reason = _stop_reason(run, converged, stalled)
        run.evaluations += lsoda.evaluations
        run.time, run.Z = lsoda.time, lsoda.state


def _advance_by_collocation(loss: CovarianceLoss, runs: Sequence[Run], options: FlowOptions) -> None:
    """Advance runs of one rank by collocation as one stack, each to its end or until it makes no progress."""
    Z = np.array([run.Z for run in runs], dtype=float)
    n, k = Z.shape[1:]
    order = None if k == n else np.array([pivoted(run.Z) for run in runs])
    if order is None:
        states = Z @ Z.mT
    else:
        states = np.array([symmetric_top(start) for start in np.take_along_axis(Z, order[..., None], axis=-2)])
    flow = RootFlow(loss, options.depth, order, min(_QUADRATURE * options.rtol, _LEAST_ACCURATE))
    paths = [CollocationPath(options.depth, run.time, states[i].copy(), flow.frame(i)) for i, run in enumerate(runs)]
    for run, path in zip(runs, paths, strict=True):
        run.paths.append(path)
    times, ends = np.array([run.time for run in runs]), np.array([run.end for run in runs])
    stack = CollocationStack(flow, states, times, ends, options)
    while (active := stack.active).place.size:
        stepped, squared_gradient, steps = stack.sweep()
        floor = ROUNDING * np.linalg.norm(active.state, axis=(-2, -1))
        moved = active.size[:, None, None] * active.velocity
        collapsed = ~stepped & (np.linalg.norm(moved, axis=(-2, -1)) <= floor)
        # Slow sweeps: the flow is stiff, but not along the coordinates.
        slow = (active.limited >= _MANY_LIMITED) & (n * k <= _LARGEST_IMPLICIT)
        continues: NDArray[np.bool_] = ~(collapsed | slow | (active.rejections > _MANY_REJECTIONS))
        for j, step in zip(np.flatnonzero(stepped), steps, strict=True):
            run, path = runs[active.place[j]], paths[active.place[j]]
            path.add(step, float(active.time[j]), active.state[j].copy(), stack.flow.frame(int(j)))
            below = _converges_at_end(run, path, float(squared_gradient[j]))
            stalled = active.length[j] <= ROUNDING * np.linalg.norm(path.state)
            run.reason = _stop_reason(run, below, StopReason.STATIONARY if stalled else None)
            continues[j] &= run.reason is None
        for run, too_slow in zip((runs[i] for i in active.place[~continues]), slow[~continues], strict=True):
            run.stiff = True
            if too_slow:
                run.nearness *= _NEARER
            else:
                run.methods.discard("collocation")
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
    if stalled is None and run.spent >= run.options.max_steps:
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


#: Methods by name, in the order in which they are tried.
_ADVANCE = {
    "explicit": _advance_explicitly,
    "implicit": _advance_implicitly,
    "collocation": _advance_by_collocation,
}
