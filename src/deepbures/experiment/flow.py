"""Gradient flow from a balanced start, seed by seed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ..diagnostics import balanced_gradient_norm
from ..gradient_flow import gradient_flows
from . import measure
from .problem import make_loss, make_start, stack_losses


def run(settings: Mapping[str, Any], seeds: Sequence[int]) -> Iterator[dict[str, dict[str, Any]]]:
    """Columns of the tables `runs` and `trajectories`, seed by seed; the flows advance as one stack."""
    rank, depth = settings["rank"], settings["depth"]
    options = dict(settings["integration"])
    ends = (0, -1) if options.pop("keep_factors", False) else ()
    losses = [make_loss(settings, seed) for seed in seeds]
    starts = [make_start(settings, seed, loss) for seed, loss in zip(seeds, losses, strict=True)]
    initials = np.stack([start.end_to_end for start in starts])
    trajectories = gradient_flows(stack_losses(losses), initials, depth, rank=rank, **options)
    for seed, loss, start, trajectory in zip(seeds, losses, starts, trajectories, strict=True):
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
