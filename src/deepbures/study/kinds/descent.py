"""Gradient descent on all layers, the seeds of a block together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ...descent.gradient_descent import gradient_descent
from ...flow.gradient_flow import gradient_flows
from ...linalg.psd import Array
from ...losses.registry import CovarianceLoss
from ...model.diagnostics import least_singular_value
from ...model.trajectory import FlowTrajectory
from ...rates.predicted import descent_contraction, descent_global_rate, rates_at_minimum, stable_step
from ...rates.program_constants import paper_constants
from ..cell import checks, measure
from ..cell.problem import NetworkStart, check_tolerance, make_loss, make_start, stack_losses
from ..cell.settings import Initialization, Settings, needed
from ..grid.axes import STEP_AXES
from ..results.schema import FLOAT, VECTOR, columns, extended

#: For descent: η, 2/λ_max, the final contraction of L − L* per step in theory, the share of L that each step is proved
#: to take (one layer, else NaN), balancedness at the first and last record, distance from the flow, and the covariances
#: of the coordinates along Ω_1 and Ω_2.
TABLES = {
    "runs": extended(
        measure.RUNS,
        **columns(FLOAT, "eta", "eta_stable", "contraction", "descent_global_rate"),
        **columns(FLOAT, "balancedness_initial", "balancedness_final", "flow_error"),
        **columns(VECTOR, "plane_initial", "plane_final"),
    ),
    "trajectories": extended(measure.TRAJECTORIES, step=pa.int64(), balancedness=FLOAT),
}
#: The axes for its step size; an experiment has one of them.
STEPS = STEP_AXES
#: CPU seconds that a cell of the default study takes for one seed, on a small machine.
COST = 0.1
#: Relative accuracy of the flow that descent is compared with.
_FLOW_RTOL = 1e-9


@dataclass(frozen=True)
class Descent:
    """When descent ends and what is recorded; see `descent` in config/README.md."""

    max_steps: int | None = field(default=None, metadata={"minimum": 1})
    end_time: float | None = field(default=None, metadata={"exclusiveMinimum": 0})
    excess_tolerance: float = field(default=0.0, metadata={"minimum": 0})
    samples: int | None = field(default=None, metadata={"minimum": 2})
    record_every: int | None = field(default=None, metadata={"minimum": 1})
    compare_with_flow: bool = False


#: Its options, by section of an experiment's block.
OPTIONS = {"initialization": Initialization, "descent": Descent}


def check(block: Mapping[str, Any]) -> Iterator[str]:
    """When descent ends, what is recorded, and what step sizes and the comparison with a flow need."""
    options, step_sizes = block["descent"], block["grid"].get("step_size")
    for one, other in (("max_steps", "end_time"), ("samples", "record_every")):
        if (one in options) == (other in options):
            yield f"descent: exactly one of the keys {one!r} and {other!r} is needed"
    if "theorem_step" in block["grid"]:
        yield from checks.bures_distance(block, "the axis 'theorem_step'")
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


def run(settings: Settings, seeds: Sequence[int]) -> Iterator[dict[str, dict[str, Any]]]:
    """Columns of the tables `runs` and `trajectories`, seed by seed."""
    rank, depth, options = settings.rank, settings.depth, settings.options["descent"]
    losses = [make_loss(settings, seed) for seed in seeds]
    starts = [make_start(settings, seed, loss) for seed, loss in zip(seeds, losses, strict=True)]
    for loss in losses:
        check_tolerance(options.excess_tolerance, loss, rank)
    step_sizes = [_step_size(settings, loss, start) for loss, start in zip(losses, starts, strict=True)]
    n_steps = options.max_steps or round(_end_time(options) / needed(settings.step_size, "step_size", "end_time"))
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
    for i, (seed, loss, start, eta) in enumerate(zip(seeds, losses, starts, step_sizes, strict=True)):
        kept = np.isfinite(trajectory.excess[:, i])  # until the run ended
        F: Array = trajectory.factors[kept, i]
        samples = {
            "step": trajectory.steps[kept],
            "time": trajectory.steps[kept] * eta,
            "loss": trajectory.loss[kept, i],
            "excess": trajectory.excess[kept, i],
            "gradient_norm": trajectory.gradient_norm[kept, i],
            "balancedness": trajectory.balancedness[kept, i],
            **measure.along(loss, rank, F, np.linalg.svd(F, compute_uv=False)),
        }
        run = {
            **_summary(loss, start, rank, depth, eta, F, samples),
            "stop_reason": trajectory.stop_reason[i],
            "time_final": trajectory.last_step[i] * eta,
            "steps": trajectory.last_step[i],
            "evaluations": trajectory.last_step[i] + 1,
            "flow_error": _distance(F[-1], flows[i]),
        }
        yield {"runs": measure.from_rows(seed, [run]), "trajectories": measure.from_blocks(seed, [samples])}


def _summary(
    loss: CovarianceLoss,
    start: NetworkStart,
    rank: int,
    depth: int,
    eta: float,
    F: Array,
    samples: Mapping[str, Array],
) -> dict[str, Any]:
    """Theory of a run with step size η, and the first and last of its samples, with the factors F (m, n, k)."""
    rates = rates_at_minimum(loss, depth, rank)
    return {
        **measure.summary(loss, start, rank, depth, F[-1]),
        "excess_initial": samples["excess"][0],
        "loss_final": samples["loss"][-1],
        "excess_final": samples["excess"][-1],
        "eta": eta,
        "eta_stable": stable_step(rates),
        "contraction": descent_contraction(rates, eta),
        "descent_global_rate": _global_rate(loss, start, depth, rank, eta),
        "balancedness_initial": samples["balancedness"][0],
        "balancedness_final": samples["balancedness"][-1],
        "plane_initial": _in_plane(loss, start.end_to_end),
        "plane_final": _in_plane(loss, F[-1]),
    }


def _step_size(settings: Settings, loss: CovarianceLoss, start: NetworkStart) -> float:
    """η, as configured or in units of the theorem's or of the largest stable step."""
    if settings.theorem_step is not None:
        return settings.theorem_step * _theorem_step(loss, start, settings.depth, settings.rank)
    if settings.relative_step is not None:
        rates = rates_at_minimum(loss, settings.depth, settings.rank)
        if np.isnan(rates).any():
            raise ValueError(
                f"relative_step needs local rates in closed form, which {loss.name!r} lacks: use step_size"
            )
        return settings.relative_step * stable_step(rates)
    return needed(settings.step_size, "step_size", "descent")


def _theorem_step(loss: CovarianceLoss, start: NetworkStart, depth: int, rank: int) -> float:
    """min(η_1, η_2, η_3) of the descent theorem (paper.md section 5); formulas: `program_constants.Constants`."""
    if not loss.is_bures_distance:
        raise ValueError(f"theorem_step needs the loss 'bures-wasserstein', not {loss.name!r}")
    initial = float(loss.value(start.end_to_end))
    constants = paper_constants(loss.eigenvalues, float(loss.epsilon), depth, initial, rank=rank)
    if not constants.margin > 0:
        raise ValueError(f"theorem_step needs a start with a margin c > 0, not {constants.margin:.6g}")
    step = float(10**constants.log10_step_size)
    if not step > np.finfo(float).tiny:
        raise ValueError(f"theorem_step: the theorem's step, 1e{constants.log10_step_size:.0f}, is too small a float")
    return step


def _global_rate(loss: CovarianceLoss, start: NetworkStart, depth: int, rank: int, step_size: float) -> float:
    """Share of the loss that every step is proved to take (`predicted_rates`, NaN where none is)."""
    if not loss.is_bures_distance:
        return float("nan")
    least = float(least_singular_value(start.end_to_end, rank))
    return descent_global_rate(loss.eigenvalues, float(loss.epsilon), depth, least, step_size, rank)


def _end_time(options: Descent) -> float:
    return needed(options.end_time, "max_steps or end_time", "descent")


def _record_steps(n_steps: int, options: Descent) -> NDArray[np.int64]:
    """Every so many steps, or a number of them spaced evenly in the logarithm; always the first and the last."""
    if options.record_every is not None:
        inner = np.arange(0, n_steps, options.record_every)
    else:
        samples = needed(options.samples, "samples or record_every", "descent")
        inner = np.geomspace(1, n_steps, samples).round().astype(np.int64)
    return np.unique(np.concatenate([[0], inner, [n_steps]]))


def _flows(
    options: Descent, loss: CovarianceLoss, starts: Sequence[NetworkStart], depth: int
) -> Sequence[FlowTrajectory | None]:
    """The gradient flows from the starts to the end time, if the settings ask for them."""
    if not options.compare_with_flow:
        return [None] * len(starts)
    initials = np.stack([start.end_to_end for start in starts])
    return gradient_flows(loss, initials, depth, [_end_time(options)], rtol=_FLOW_RTOL)


def _distance(F: Array, flow: FlowTrajectory | None) -> float:
    """‖S − S_flow‖_F / ‖S_flow‖_F at the end of a flow; NaN without one."""
    if flow is None:
        return float("nan")
    return float(np.linalg.norm(F @ F.T - flow.final) / np.linalg.norm(flow.final))


def _in_plane(loss: CovarianceLoss, F: Array) -> Array:
    """Covariance of the two coordinates along Ω_1 and Ω_2, row by row."""
    coordinates = loss.eigenvectors[:, :2].T @ F
    return (coordinates @ coordinates.T).ravel()
