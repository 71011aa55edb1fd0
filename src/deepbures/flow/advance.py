"""Advance a gradient flow by collocation or by an explicit method, and say when and why it ends."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ..linalg.psd import Array
from ..losses.registry import CovarianceLoss
from ..model.trajectory import StopReason
from .collocation import ROUNDING, Stack
from .collocation_path import CollocationPath
from .dop853 import ExplicitPath, ExplicitStack
from .reduced_flow import FactorFlow, RootFlow, pivoted, symmetric_top
from .run import _is_near_minimum, _Run

#: Collocation whose rejected steps outnumber the others by so many hands over to the explicit method.
_MANY_REJECTIONS = 30
#: By so much the bound of L − L* by the gradient must exceed the tolerance: room for the last sweep, after which the
#: gradient is not evaluated again.
_BOUND_SHARE = 1.025


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
    converged = there.form(F.shape[-1], first.rank).excess(F) <= first.excess_tolerance
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
