"""The deep loss along lines through its parameters, against its second-order models."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ...landscape import critical_points
from ...landscape.curvature import (
    ZERO_TOLERANCE,
    check_twice_differentiable,
    directional_derivatives,
    network_hessian,
    network_loss,
    numerical_derivatives,
)
from ...linalg.psd import Array
from ...losses.registry import CovarianceLoss
from ...model.network import unpack, with_bottleneck
from ...model.starts import draw_network
from ..cell.problem import make_loss
from ..cell.settings import Settings
from ..grid.seeds import generator
from ..results.schema import FLOAT, NAME, Tables, columns, schema

#: Loss on a line in the space of all parameters, and its Taylor polynomials of second order, from exact and from
#: numerical derivatives.
TABLES = {
    "lines": schema(
        **columns(NAME, "place", "line"),
        **columns(FLOAT, "distance", "loss", "model", "numerical_model", "curvature", "numerical_curvature"),
    )
}
COST = 0.04
#: Starts of the lines: the global minimum, the saddle in the middle of the order by loss (omitted if no point of rank k
#: is a saddle), a random network.
PLACES = ("minimum", "saddle", "random start")
#: Directions of the lines: a Gaussian unit vector; the eigenvector of the most negative eigenvalue of the Hessian, or
#: of the largest if none is negative.
LINES = ("random", "eigenvector")


@dataclass(frozen=True)
class Options:
    """Keys of `landscape` in the configuration; see config/README.md."""

    samples: int = field(metadata={"minimum": 3})
    reach: float = field(metadata={"exclusiveMinimum": 0})


OPTIONS = {"landscape": Options}


def run(settings: Settings, seed: int) -> Tables:
    """Rows of the table `lines`, one for each place, line and distance."""
    rank, depth, options = settings.rank, settings.depth, settings.options["landscape"]
    loss = make_loss(settings, seed)
    check_twice_differentiable(loss, rank)
    rng = generator(
        settings.study_seed, "lines", seed, dimension=loss.dimension, depth=depth, rank=rank, loss=loss.name
    )
    blocks = []
    for place, layers in _places(loss, depth, rank, rng):
        reach = options.reach * float(np.sqrt(sum(np.sum(W**2) for W in layers)))
        distance = np.linspace(-reach, reach, options.samples)
        for line in LINES:
            direction = _direction(loss, layers, line, rng)
            blocks.append({"place": place, "line": line, **_along(loss, layers, direction, distance)})
    return {"lines": blocks}


def _places(loss: CovarianceLoss, depth: int, rank: int, rng: np.random.Generator) -> Iterator[tuple[str, list[Array]]]:
    points = critical_points.spread(loss, rank, 3)
    yield PLACES[0], critical_points.network(loss, points[0].kept, depth, rank).layers
    # Tied minima are not saddles: where λ_k = λ_{k+1}, several of the first points are minima.
    candidates = points[len(points) // 2], points[-1]
    saddles = [p for p in candidates if critical_points.local_spectrum(loss, p.kept, depth, rank).escapes]
    if saddles:
        yield PLACES[1], critical_points.network(loss, saddles[0].kept, depth, rank).layers
    network = draw_network(rng, loss.dimension, depth, rank, "normal", balance="end_to_end")
    scale = float(np.sqrt(loss.eigenvalues.mean())) ** (1 / depth)
    yield PLACES[2], [scale * layer for layer in with_bottleneck(network, rank).layers]


def _direction(loss: CovarianceLoss, layers: list[Array], line: str, rng: np.random.Generator) -> list[Array]:
    """Unit vector in the space of all parameters, layer by layer."""
    if line == "random":
        vector = rng.standard_normal(sum(W.size for W in layers))
        vector /= np.linalg.norm(vector)
    else:
        eigenvalues, eigenvectors = np.linalg.eigh(network_hessian(loss, layers))
        negative = eigenvalues[0] < -ZERO_TOLERANCE * eigenvalues[-1]
        vector = eigenvectors[:, 0 if negative else -1]
        vector = vector * np.sign(vector[np.argmax(np.abs(vector))])
    return unpack(vector, [W.shape for W in layers])


def _along(loss: CovarianceLoss, layers: list[Array], direction: list[Array], distance: Array) -> dict[str, Any]:
    value, slope, curvature = directional_derivatives(loss, layers, direction)
    numerical = numerical_derivatives(loss, layers, direction)
    moved = [W + distance[:, None, None] * V for W, V in zip(layers, direction, strict=True)]
    return {
        "distance": distance,
        "loss": network_loss(loss, moved),
        "model": value + slope * distance + curvature * distance**2 / 2,
        "numerical_model": numerical[0] + numerical[1] * distance + numerical[2] * distance**2 / 2,
        "curvature": curvature,
        "numerical_curvature": numerical[2],
    }
