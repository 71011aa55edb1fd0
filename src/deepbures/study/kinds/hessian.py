"""Spectra of the Hessian of the deep loss at its critical points."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from ...landscape import critical_points
from ...landscape.curvature import (
    ZERO_TOLERANCE,
    Curvature,
    check_twice_differentiable,
    extreme_eigenvalues,
    hessian,
    network_hessian,
)
from ...linalg.psd import Array
from ...losses.registry import CovarianceLoss
from ...model.network import DeepLinearNetwork
from ..cell import measure
from ..cell.problem import make_loss
from ..cell.settings import Settings
from ..grid.seeds import generator
from ..results.schema import COUNT, FLOAT, VECTOR, Tables, columns, schema

#: At a critical point: `value_error`, the deviation of the loss from its closed form in units of Σ_j λ_j^{d/2}, d the
#: degree of the loss; `gradient_norm` of W for Σ0/λ_1; extreme eigenvalues of the Hessian of the layers; the numbers of
#: negative, zero and positive eigenvalues (−1 if only the extreme ones were computed); `rates`, the eigenvalues ≠ 0 in
#: closed form; `spectrum_error`, the largest deviation from them relative to λ_max. At random matrices W (one layer,
#: ε > 0): extreme eigenvalues of ∇²L_ε(W), 2 (1 − λ_max(T)) (`level`), and the bounds 2 (1 − √(λ_1/ε)) and 2.
TABLES = {
    "spectra": schema(
        **measure.POINT,
        **columns(FLOAT, "value_error", "gradient_norm"),
        parameters=COUNT,
        **columns(FLOAT, "smallest", "largest"),
        **columns(COUNT, "negative", "zero", "positive"),
        **columns(FLOAT, "relative_condition", "absolute_condition"),
        escapes=COUNT,
        escape_rate=FLOAT,
        predicted_zero=COUNT,
        rates=VECTOR,
        spectrum_error=FLOAT,
    ),
    "bounds": schema(
        matrix=COUNT,
        rank_of_point=COUNT,
        **columns(FLOAT, "smallest", "largest", "level", "lower_bound", "upper_bound"),
    ),
}
COST = 0.04
#: Largest number of parameters for which the whole spectrum is computed; above it, the extreme eigenvalues.
DENSE_PARAMETERS = 1500


@dataclass(frozen=True)
class Options:
    """Keys of `landscape` in the configuration; see config/README.md."""

    points: int = field(metadata={"minimum": 2})
    matrices: int = field(default=0, metadata={"minimum": 0})


OPTIONS = {"landscape": Options}


def run(settings: Settings, seed: int) -> Tables:
    """Rows of the tables `spectra`, one for each critical point, and `bounds`."""
    rank, depth, options = settings.rank, settings.depth, settings.options["landscape"]
    loss = make_loss(settings, seed)
    check_twice_differentiable(loss, rank)
    points = critical_points.spread(loss, rank, options.points)
    rows = ({"point": i, **_row(loss, point, depth, rank)} for i, point in enumerate(points))
    bounds = _bounds(settings, seed, loss, options.matrices) if depth == 1 and not loss.has_kink else ()
    return {"spectra": rows, "bounds": bounds}


def _bounds(settings: Settings, seed: int, loss: CovarianceLoss, number: int) -> Iterator[dict[str, Any]]:
    """One row for each of some random W (n, k) of rank 0, …, k in turn, with entries of a random size."""
    bounds = loss.hessian_bounds()
    rng = generator(settings.study_seed, "matrices", seed, dimension=loss.dimension, rank=settings.rank)
    for i in range(0 if bounds is None else number):
        rank = i % (settings.rank + 1)
        W = (
            rng.standard_normal((loss.dimension, settings.rank))
            * np.sqrt(loss.eigenvalues[0])
            * 10 ** rng.uniform(-3, 1)
        )
        W[:, rank:] = 0
        eigenvalues = np.linalg.eigvalsh(hessian(loss, W))
        yield {
            "matrix": i,
            "rank_of_point": rank,
            "smallest": eigenvalues[0],
            "largest": eigenvalues[-1],
            "level": loss.level_of_empty_columns(W),
            **dict(zip(("lower_bound", "upper_bound"), bounds or (), strict=True)),
        }


def _row(loss: CovarianceLoss, point: critical_points.CriticalPoint, depth: int, rank: int) -> dict[str, Any]:
    network = critical_points.network(loss, point.kept, depth, rank)
    W, target = network.end_to_end(), loss.normalized()
    expected = critical_points.local_spectrum(loss, point.kept, depth, rank)
    predicted = np.sort(expected.rates[expected.rates != 0])
    parameters = sum(layer.size for layer in network.layers)
    nonzero, curvature = _spectrum(loss, network, parameters)
    return {
        **asdict(point),
        "value_error": abs(float(loss.value(W)) - point.value) / loss.unit,
        "gradient_norm": float(np.linalg.norm(target.gradient(W / np.sqrt(loss.eigenvalues[0])))),
        "parameters": parameters,
        **asdict(curvature),
        "escapes": expected.escapes,
        "escape_rate": expected.escape_rate,
        "predicted_zero": parameters - len(predicted),
        "rates": predicted,
        "spectrum_error": _deviation(nonzero, predicted, curvature),
    }


def _spectrum(loss: CovarianceLoss, network: DeepLinearNetwork, parameters: int) -> tuple[Array | None, Curvature]:
    """Eigenvalues ≠ 0 and a summary of all; for many parameters None and the extreme ones, with counts of −1."""
    if parameters > DENSE_PARAMETERS:
        smallest, largest = extreme_eigenvalues(loss, network.layers)
        relative = largest / smallest if smallest < -ZERO_TOLERANCE * largest else float("nan")
        return None, Curvature(smallest, largest, -1, -1, -1, relative, float("nan"))
    eigenvalues = np.linalg.eigvalsh(network_hessian(loss, network.layers))
    floor = ZERO_TOLERANCE * np.abs(eigenvalues).max()
    return eigenvalues[np.abs(eigenvalues) > floor], Curvature.of(eigenvalues)


def _deviation(nonzero: Array | None, predicted: Array, curvature: Curvature) -> float:
    """Largest deviation from the closed form, relative to λ_max; infinite if the numbers of eigenvalues differ."""
    if nonzero is None:
        nonzero = np.array([curvature.smallest, curvature.largest])
        predicted = np.array([predicted.min(initial=0), predicted.max(initial=0)])
    if len(nonzero) != len(predicted):
        return float("inf")
    if not len(predicted):  # W = 0 and N > 2: all are zero
        return 0.0
    return float(np.abs(nonzero - predicted).max() / curvature.largest)
