"""Gradient descent on all layers; the seeds of a block advance as one stack."""

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ...descent.gradient_descent import gradient_descent
from ...flow.gradient_flow import gradient_flows
from ...linalg.psd import Array
from ...losses.registry import BuresWasserstein, CovarianceLoss
from ...model.diagnostics import least_singular_value
from ...model.trajectory import FlowTrajectory
from ...rates.below_full_rank import low_rank_descent_rate
from ...rates.predicted import descent_contraction, descent_global_rate, rates_at_minimum, stable_step
from ...rates.program_constants import program_constants
from ...rates.thresholds import proved_step
from ...rates.unbalanced import layer_imbalance
from ..cell import checks, measure
from ..cell.problem import NetworkStart, make_problems, stack_losses
from ..cell.settings import Initialization, Settings, needed
from ..grid.axes import STEP_AXES
from ..grid.target import is_drawn
from ..results.schema import FLOAT, VECTOR, Tables, columns, extended

#: Besides the columns of every run: η; 2/λ_max of the Hessian at the optimum; a step at which descent on all layers is
#: proved to converge (`eta_proved`); the final factor of L − L* per step in theory; the fraction by which each step is
#: proved to reduce L (one layer, else NaN), for k < n that of L − L* (`low_rank_fraction`); max_j ‖W_{j+1}ᵀ W_{j+1} −
#: W_j W_jᵀ‖ at the start, in the spectral norm (`imbalance_initial`); balancedness at the first and last record; the
#: fraction of the final excess loss in the directions with the largest |1 − η r| (`slowest_share`); distance from the
#: flow; the covariances of the coordinates along Ω_1 and Ω_2, row by row.
TABLES = {
    "runs": extended(
        measure.RUNS,
        **columns(FLOAT, "eta", "eta_stable", "eta_proved", "contraction", "descent_global_rate", "low_rank_fraction"),
        imbalance_initial=FLOAT,
        **columns(FLOAT, "balancedness_initial", "balancedness_final", "slowest_share", "flow_error"),
        **columns(VECTOR, "plane_initial", "plane_final"),
    ),
    "trajectories": extended(measure.TRAJECTORIES, step=pa.int64(), balancedness=FLOAT),
}
STEPS = STEP_AXES
COST = 0.1
#: Largest dimension at which cells share a stack: beyond it arithmetic takes longer than calls.
_STACKED_DIMENSION = 10
#: Relative error per step of the flow with which descent is compared.
_FLOW_RTOL = 1e-9


@dataclass(frozen=True)
class Descent:
    """End and records of descent; see `descent` in config/README.md."""

    max_steps: int | None = field(default=None, metadata={"minimum": 1})
    end_time: float | None = field(default=None, metadata={"exclusiveMinimum": 0})
    excess_tolerance: float = field(default=0.0, metadata={"minimum": 0})
    samples: int | None = field(default=None, metadata={"minimum": 2})
    record_every: int | None = field(default=None, metadata={"minimum": 1})
    compare_with_flow: bool = False


OPTIONS = {"initialization": Initialization, "descent": Descent}


def check(block: Mapping[str, Any]) -> Iterator[str]:
    """Keys that exclude or need each other, and step sizes that do not divide the end time."""
    options, step_sizes = block["descent"], block["grid"].get("step_size")
    for one, other in (("max_steps", "end_time"), ("samples", "record_every")):
        if (one in options) == (other in options):
            yield f"descent: exactly one of the keys {one!r} and {other!r} is needed"
    for axis in (axis for axis in ("theorem_step", "proved_step") if axis in block["grid"]):
        yield from checks.bures_distance(block, f"the axis {axis!r}")
    if "end_time" in options:
        if step_sizes is None:
            yield "descent.end_time: needs the axis 'step_size' in the grid"
        for i, eta in enumerate(step_sizes or ()):
            steps = options["end_time"] / eta
            if abs(steps - round(steps)) > 1e-9 * steps or round(steps) < 1:
                yield f"grid.step_size[{i}]: {eta} must divide end_time, {options['end_time']}"
    if options.get("compare_with_flow"):
        if "end_time" not in options:
            yield "descent.compare_with_flow: needs end_time"
        yield from checks.balanced(block)


def stack_of(settings: Settings) -> Hashable:
    """Cells with the same value may be computed as one stack; None if that would not be faster."""
    if settings.dimension > _STACKED_DIMENSION or not is_drawn(settings.target):
        return None
    shapes = (settings.dimension, settings.rank, settings.depth, settings.start().width)
    return (settings.loss, settings.epsilon > 0, *shapes, settings.options["descent"], _n_steps(settings))


def _n_steps(settings: Settings) -> int:
    options: Descent = settings.options["descent"]
    return options.max_steps or round(_end_time(options) / needed(settings.step_size, "step_size", "end_time"))


def run_stack(members: Sequence[tuple[Settings, int]]) -> Iterator[Tables]:
    """Rows of the tables `runs` and `trajectories` for each member, a cell with a seed, all of one `stack_of`."""
    shared = members[0][0]
    rank, depth, options, n_steps = shared.rank, shared.depth, shared.options["descent"], _n_steps(shared)
    losses, starts = make_problems(members, options.excess_tolerance)
    step_sizes = [_step_size(*of_run) for of_run in zip((cell for cell, _ in members), losses, starts, strict=True)]
    stacked = stack_losses(losses)
    trajectory = gradient_descent(
        stacked,
        [np.stack(layers) for layers in zip(*(start.network.layers for start in starts), strict=True)],
        step_sizes,
        n_steps,
        _record_steps(n_steps, options),
        excess_tolerance=options.excess_tolerance,
    )
    flows = _flows(options, stacked, starts, depth)
    for i, (loss, start, eta) in enumerate(zip(losses, starts, step_sizes, strict=True)):
        recorded = np.isfinite(trajectory.excess[:, i])  # until the run ended
        F: Array = trajectory.factors[recorded, i]
        samples = {
            "step": trajectory.steps[recorded],
            "time": trajectory.steps[recorded] * eta,
            "loss": trajectory.loss[recorded, i],
            "excess": trajectory.excess[recorded, i],
            "gradient_norm": trajectory.gradient_norm[recorded, i],
            "balancedness": trajectory.balancedness[recorded, i],
            **measure.along(loss, rank, F, np.linalg.svd(F, compute_uv=False), trajectory.excess[recorded, i]),
        }
        row = {
            **_summary(loss, start, rank, depth, eta, F[-1], samples["excess"][0]),
            "stop_reason": trajectory.stop_reason[i],
            "time_final": trajectory.last_step[i] * eta,
            "steps": trajectory.last_step[i],
            "evaluations": trajectory.last_step[i] + 1,
            "balancedness_initial": samples["balancedness"][0],
            "balancedness_final": samples["balancedness"][-1],
            "slowest_share": measure.slowest_share(loss, F[-1], depth, rank, eta),
            "flow_error": _distance(F[-1], flows[i]),
        }
        yield measure.tables(row, samples)


def _summary(
    loss: CovarianceLoss, start: NetworkStart, rank: int, depth: int, eta: float, final: Array, excess: float
) -> dict[str, Any]:
    """Theory of a run with step size η and E_0 = `excess`, and its ends; `final` (n, k): factor of the final S."""
    rates = rates_at_minimum(loss, depth, rank)
    return {
        **measure.summary(loss, start, rank, depth, final, excess),
        "eta": eta,
        "eta_stable": stable_step(rates),
        "eta_proved": _proved_step(loss, start) if loss.is_bures_distance else float("nan"),
        "contraction": descent_contraction(rates, eta),
        "descent_global_rate": _global_rate(loss, start, depth, rank, eta),
        "low_rank_fraction": _low_rank_fraction(loss, depth, rank, eta, excess),
        "imbalance_initial": layer_imbalance(start.network.layers),
        "plane_initial": _in_plane(loss, start.end_to_end),
        "plane_final": _in_plane(loss, final),
    }


def _step_size(settings: Settings, loss: CovarianceLoss, start: NetworkStart) -> float:
    """η: `step_size`, `theorem_step` min(η_1, η_2, η_3), `relative_step` 2/λ_max, or `proved_step` η̄."""
    if settings.theorem_step is not None:
        return settings.theorem_step * _theorem_step(loss, start, settings.depth, settings.rank)
    if settings.relative_step is not None:
        rates = rates_at_minimum(loss, settings.depth, settings.rank)
        if np.isnan(rates).any():
            raise ValueError(f"relative_step needs local rates in closed form, not {loss.name!r}: use step_size")
        return settings.relative_step * stable_step(rates)
    if settings.proved_step is not None:
        if not loss.is_bures_distance:
            raise ValueError(f"proved_step needs the loss 'bures-wasserstein', not {loss.name!r}")
        return settings.proved_step * _proved_step(loss, start)
    return needed(settings.step_size, "step_size", "descent")


def _theorem_step(loss: CovarianceLoss, start: NetworkStart, depth: int, rank: int) -> float:
    """min(η_1, η_2, η_3), the largest step of the descent theorem; formulas in `program_constants.Constants`."""
    if not loss.is_bures_distance:
        raise ValueError(f"theorem_step needs the loss 'bures-wasserstein', not {loss.name!r}")
    initial = float(loss.value(start.end_to_end))
    constants = program_constants(loss.eigenvalues, float(loss.epsilon), depth, initial, rank=rank)
    if not constants.margin > 0:
        raise ValueError(f"theorem_step needs a start with a margin c > 0, not {constants.margin:.6g}")
    step = float(10**constants.log10_step_size)
    if not step > np.finfo(float).tiny:
        raise ValueError(f"theorem_step: the theorem's step, 1e{constants.log10_step_size:.0f}, is too small a float")
    return step


def _global_rate(loss: CovarianceLoss, start: NetworkStart, depth: int, rank: int, step_size: float) -> float:
    """Fraction by which every step is proved to reduce the loss (`predicted.descent_global_rate`); NaN if none is."""
    if not loss.is_bures_distance:
        return float("nan")
    least = float(least_singular_value(start.end_to_end, rank))
    return descent_global_rate(loss.eigenvalues, float(loss.epsilon), depth, least, step_size, rank)


def _low_rank_fraction(loss: CovarianceLoss, depth: int, rank: int, step_size: float, excess: float) -> float:
    """Fraction of L − L* that every step on one layer is proved to remove, k < n; NaN if none is."""
    if not loss.is_bures_distance or rank == loss.dimension:
        return float("nan")
    return low_rank_descent_rate(loss.eigenvalues, float(loss.epsilon), depth, rank, excess, step_size)


def _proved_step(loss: CovarianceLoss, start: NetworkStart) -> float:
    return proved_step(cast(BuresWasserstein, loss), start.network.layers)


def _end_time(options: Descent) -> float:
    return needed(options.end_time, "max_steps or end_time", "descent")


def _record_steps(n_steps: int, options: Descent) -> NDArray[np.int64]:
    """Every `record_every`-th step, or `samples` steps spaced evenly in the logarithm, with 0 and the last step."""
    if options.record_every is not None:
        inner = np.arange(0, n_steps, options.record_every)
    else:
        samples = needed(options.samples, "samples or record_every", "descent")
        inner = np.geomspace(1, n_steps, samples).round().astype(np.int64)
    return np.unique(np.concatenate([[0], inner, [n_steps]]))


def _flows(
    options: Descent, loss: CovarianceLoss, starts: Sequence[NetworkStart], depth: int
) -> Sequence[FlowTrajectory | None]:
    """The gradient flows from the starts to the end time with `compare_with_flow`, else None for each start."""
    if not options.compare_with_flow:
        return [None] * len(starts)
    initials = np.stack([start.end_to_end for start in starts])
    return gradient_flows(loss, initials, depth, [_end_time(options)], rtol=_FLOW_RTOL)


def _distance(F: Array, flow: FlowTrajectory | None) -> float:
    """‖F Fᵀ − S_flow‖_F / ‖S_flow‖_F at the end of a flow; NaN without a flow."""
    if flow is None:
        return float("nan")
    return float(np.linalg.norm(F @ F.T - flow.final) / np.linalg.norm(flow.final))


def _in_plane(loss: CovarianceLoss, F: Array) -> Array:
    """Covariance of the coordinates of F Fᵀ along Ω_1 and Ω_2, row by row, (4,)."""
    coordinates = loss.eigenvectors[:, :2].T @ F
    return (coordinates @ coordinates.T).ravel()
