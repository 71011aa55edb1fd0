"""Gradient flow from a balanced start."""

from collections.abc import Hashable, Iterator, Sequence
from typing import Any

import numpy as np

from ...flow.gradient_flow import gradient_flows
from ...linalg.psd import Array
from ...losses.registry import CovarianceLoss
from ...model.trajectory import FlowTrajectory
from ...rates.plateau_times import aligned_sharp_rate, half_times
from ..cell import checks, measure
from ..cell.problem import NetworkStart, make_problems, stack_losses
from ..cell.settings import Initialization, Integration, Settings
from ..grid.target import is_drawn
from ..results.schema import FLOAT, VECTOR, Tables, columns, extended

#: Besides the columns of every run: the factors F(0) and F(T) of the covariance, n × k row by row, with `keep_factors`
#: (else empty); the fraction of the final excess loss in its slowest directions (`slowest_share`); for aligned starts
#: the times at which the eigenvalues of S reach half of their limits, measured and in closed form (else empty), and
#: the sharp rate of such starts (`aligned_rate`, else NaN).
TABLES = {
    "runs": extended(
        measure.RUNS,
        **columns(VECTOR, "factor_initial", "factor_final"),
        slowest_share=FLOAT,
        **columns(VECTOR, "half_times", "half_times_predicted"),
        aligned_rate=FLOAT,
    ),
    "trajectories": measure.TRAJECTORIES,
}
OPTIONS = {"initialization": Initialization, "integration": Integration}
COST = 0.035
#: Largest dimension at which cells share a stack: it is 3 times as fast as cell by cell at n = 2, hardly at n = 20.
_STACKED_DIMENSION = 8


#: The reduced flow describes balanced layers only.
check = checks.balanced


def stack_of(settings: Settings) -> Hashable:
    """Cells with the same value may be computed as one stack; None if that would not be faster."""
    if settings.dimension > _STACKED_DIMENSION or not is_drawn(settings.target):
        return None
    shape = (settings.dimension, settings.rank, settings.depth)
    loss = (settings.loss, *sorted((settings.loss_options or {}).items()))
    return (loss, settings.epsilon > 0, *shape, settings.options["integration"])


def run_stack(members: Sequence[tuple[Settings, int]]) -> Iterator[Tables]:
    """Rows of the tables `runs` and `trajectories` for each member, a cell with a seed, all of one `stack_of`."""
    rank, depth = members[0][0].rank, members[0][0].depth
    options: Integration = members[0][0].options["integration"]
    losses, starts = make_problems(members, options.excess_tolerance)
    initials = np.stack([start.end_to_end for start in starts])
    trajectories = gradient_flows(stack_losses(losses), initials, depth, rank=rank, **options.of_flow())
    yield from map(_tables, (settings for settings, _ in members), losses, starts, trajectories)


def _tables(settings: Settings, loss: CovarianceLoss, start: NetworkStart, trajectory: FlowTrajectory) -> Tables:
    """Rows of the tables of one flow."""
    rank, depth, F = settings.rank, settings.depth, trajectory.factors
    ends = [F[0].ravel(), F[-1].ravel()] if settings.options["integration"].keep_factors else [[], []]
    measured: Any = []
    predicted: Any = []
    aligned = settings.start().kind == "aligned"
    if aligned and loss.is_bures_distance:
        measured = _half_times(trajectory, loss, rank)
        predicted = half_times(loss.eigenvalues[:rank], float(loss.epsilon), depth, start.scale**2)
    run = {
        **measure.summary(loss, start, rank, depth, F[-1], trajectory.excess[0]),
        "stop_reason": trajectory.stop_reason,
        "time_final": trajectory.times[-1],
        "steps": trajectory.n_steps,
        "evaluations": trajectory.evaluations,
        "factor_initial": ends[0],
        "factor_final": ends[1],
        "slowest_share": measure.slowest_share(loss, F[-1], depth, rank),
        "half_times": measured,
        "half_times_predicted": predicted,
        "aligned_rate": aligned_sharp_rate(loss, depth, rank) if aligned else float("nan"),
    }
    samples = {
        "time": trajectory.times,
        "loss": trajectory.loss,
        "excess": trajectory.excess,
        "gradient_norm": trajectory.gradient_norm,
        **measure.along(loss, rank, F, np.linalg.norm(F, axis=-2), trajectory.excess),
    }
    return measure.tables(run, samples)


def _half_times(trajectory: FlowTrajectory, loss: CovarianceLoss, rank: int) -> Array:
    """Times at which s_1, …, s_k of S reach half of their limits, interpolated in log s, (k,); NaN if never."""
    s = np.sum(trajectory.factors**2, axis=-2)
    limits = loss.minimum_spectrum(rank)
    times = np.full(rank, np.nan)
    for i in range(min(rank, s.shape[-1])):
        above = np.flatnonzero(s[:, i] >= limits[i] / 2)
        if limits[i] > 0 and above.size and above[0] > 0:
            j = above[0]
            times[i] = np.interp(np.log(limits[i] / 2), np.log(s[j - 1 : j + 1, i]), trajectory.times[j - 1 : j + 1])
    return times
