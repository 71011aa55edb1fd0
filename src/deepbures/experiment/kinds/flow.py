"""Gradient flow from a balanced start, seed by seed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ...diagnostics import balanced_gradient_norm
from ...gradient_flow import gradient_flow
from ...schema import VECTOR, extended
from .. import measure
from ..problem import make_loss, make_start

#: Of flows: factors F(0), F(T) of the covariance, n × k row by row, empty unless they are asked for.
TABLES = {
    "runs": extended(measure.RUNS, factor_initial=VECTOR, factor_final=VECTOR),
    "trajectories": measure.TRAJECTORIES,
}
#: Section of an experiment's block with its options.
SECTION = "integration"
#: CPU seconds that a cell of the default study takes for one seed, on a small machine.
COST = 0.5


def run(settings: Mapping[str, Any], seeds: Sequence[int]) -> Iterator[dict[str, dict[str, Any]]]:
    """Columns of the tables `runs` and `trajectories`, seed by seed."""
    rank, depth = settings["rank"], settings["depth"]
    options = dict(settings["integration"])
    ends = (0, -1) if options.pop("keep_factors", False) else ()
    for seed in seeds:
        loss = make_loss(settings, seed)
        start = make_start(settings, seed, loss)
        trajectory = gradient_flow(loss, start.end_to_end, depth, rank=rank, **options)
        F = trajectory.factors
        kept = [F[end].ravel() for end in ends] or [[], []]
        yield {
            "runs": measure.one_row(
                seed=seed,
                **measure.summary(loss, start, rank, depth, F[-1]),
                excess_initial=trajectory.excess[0],
                stop_reason=trajectory.stop_reason,
                time_final=trajectory.times[-1],
                steps=trajectory.n_steps,
                evaluations=trajectory.evaluations,
                loss_final=trajectory.loss[-1],
                excess_final=trajectory.excess[-1],
                factor_initial=kept[0],
                factor_final=kept[1],
            ),
            "trajectories": {
                "seed": [seed] * len(trajectory.times),
                "time": trajectory.times,
                "loss": trajectory.loss,
                "excess": trajectory.excess,
                "gradient_norm": balanced_gradient_norm(loss, F, depth),
                **measure.samples(loss, rank, F),
            },
        }
