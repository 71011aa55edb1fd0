"""The landscape of n = 2, k = 1, which is the plane of W = (w_1, w_2) in the basis Ω, and flows on it."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ...flow.gradient_flow import gradient_flow
from ...landscape import critical_points
from ...losses.registry import CovarianceLoss
from ..cell.problem import make_loss
from ..cell.settings import Settings
from ..results.schema import COUNT, FLOAT, Tables, columns, schema

#: Loss on a square grid of the plane, its critical points, and flows.
TABLES = {
    "surface": schema(**columns(FLOAT, "x", "y", "loss")),
    "points": schema(rank_of_point=COUNT, **columns(FLOAT, "x", "y", "loss"), escapes=COUNT),
    "flows": schema(start=COUNT, **columns(FLOAT, "time", "x", "y", "loss")),
}
COST = 1.1
#: Half the side of the square, and radius of the circle of starts, in units of √λ_1.
REACH, RADIUS = 1.4, 1.25
#: Radius of the circle of the other half of the starts, around the saddle W = 0, in the same units.
INNER_RADIUS = 0.05
#: Excess loss at which flows end, in the `unit` of the loss; their longest time, in units of λ_1^{1/N − d/2}, d the
#: degree of the loss.
EXCESS_TOLERANCE, MAX_TIME = 1e-9, 1e4


@dataclass(frozen=True)
class Options:
    """Keys of `landscape` in the configuration; see config/README.md."""

    starts: int = field(metadata={"minimum": 2})
    samples: int = field(metadata={"minimum": 3})


OPTIONS = {"landscape": Options}


def check(block: Mapping[str, Any]) -> Iterator[str]:
    """Dimensions and ranks for which W is no point of a plane."""
    if block["dimension"] != 2 or block["grid"]["rank"] != [1]:
        yield "dimension: a surface needs dimension 2 and rank 1"


def run(settings: Settings, seed: int) -> Tables:
    """Rows of the tables `surface`, `points` and `flows`."""
    options = settings.options["landscape"]
    loss = make_loss(settings, seed)
    axis = REACH * np.sqrt(loss.eigenvalues[0]) * np.linspace(-1, 1, options.samples)
    x, y = (values.ravel() for values in np.meshgrid(axis, axis))
    values = loss.form(1).value(np.stack([x, y], axis=-1)[..., None])
    return {
        "surface": [{"x": x, "y": y, "loss": values}],
        "points": _points(loss, settings.depth),
        "flows": _flows(loss, settings.depth, options.starts),
    }


def _points(loss: CovarianceLoss, depth: int) -> Iterator[dict[str, Any]]:
    """±W_J for each J of one element, and W = 0, which is no critical point for ε = 0 and N = 1: one row each."""
    for point in critical_points.critical_points(loss, 1, lower_ranks=True):
        W = loss.eigenvectors.T @ critical_points.factor(loss, point.kept, 1)[:, 0]
        spectrum = critical_points.local_spectrum(loss, point.kept, depth, 1)
        for sign in (1, -1) if point.kept else (1,):
            yield {
                "rank_of_point": len(point.kept),
                "x": sign * W[0],
                "y": sign * W[1],
                "loss": point.value,
                "escapes": spectrum.escapes,
            }


def _flows(loss: CovarianceLoss, depth: int, starts: int) -> Iterator[dict[str, Any]]:
    """Gradient flows, half of them from a circle around all critical points, the others from one around 0."""
    outer = starts // 2
    angles = 2 * np.pi * (np.concatenate([np.arange(outer) / outer, np.arange(starts - outer) / (starts - outer)]))
    radii = np.where(np.arange(starts) < outer, RADIUS, INNER_RADIUS) * np.sqrt(loss.eigenvalues[0])
    unit_of_time = float(loss.eigenvalues[0]) ** (1 / depth - loss.degree / 2)
    for number, (angle, radius) in enumerate(zip(angles + 0.11, radii, strict=True)):  # off the axes of symmetry
        start = radius * np.array([np.cos(angle), np.sin(angle)])
        flow = gradient_flow(
            loss,
            loss.eigenvectors @ start[:, None],
            depth,
            max_time=MAX_TIME * unit_of_time,
            max_steps=500,
            excess_tolerance=EXCESS_TOLERANCE * loss.unit,
        )
        F = (loss.eigenvectors.T @ flow.factors)[..., 0]
        x, y = (F * np.sign(F @ start)[:, None]).T  # its sign is arbitrary
        yield {"start": number, "time": flow.times, "x": x, "y": y, "loss": flow.loss}
