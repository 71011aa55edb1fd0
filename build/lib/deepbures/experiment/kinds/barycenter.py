"""Barycenters as targets: descent to them at any depth, and the local minima of bounded rank."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...barycenter import Barycenter, draw_covariances, rank_bounded_minima, truncated
from ...curvature import hessian
from ...network import DeepLinearNetwork
from ...psd import Array
from ...scaled_descent import scaled_descent
from ...schema import COUNT, FLAG, FLOAT, VECTOR, schema
from ...seeds import generator
from .. import measure
from ..settings import Settings

#: Descent with scaled steps (k = n): tail factor, and (1 − r/2)² of the Hessian at the barycenter for one layer.
#: Minima over rank ≤ k < n: each local minimum found, in order of its loss, with that of the truncated barycenter and
#: of the one that descent from it reaches; `curvature` is the least eigenvalue of the Hessian off the rotations.
TABLES = {
    "barycenters": schema(
        spread=FLOAT,
        trace=FLOAT,
        steps=COUNT,
        converged=FLAG,
        distance=FLOAT,
        factor=FLOAT,
        expected=FLOAT,
        excess=VECTOR,
    ),
    "minima": schema(
        spread=FLOAT,
        minimum=COUNT,
        loss=FLOAT,
        loss_full=FLOAT,
        loss_truncated=FLOAT,
        loss_from_truncated=FLOAT,
        curvature=FLOAT,
        reached=COUNT,
        starts=COUNT,
    ),
}
#: How its targets are drawn, in the configuration.
SPECTRUM = "spread"
#: CPU seconds that a cell of the default study takes for one seed, on a small machine.
COST = 0.5
#: Descent ends at this share of the trace.
TOLERANCE = 1e-20


@dataclass(frozen=True)
class Options:
    """Keys of `landscape` in the configuration; see config/README.md."""

    spreads: tuple[float, ...]
    covariances: int
    starts: int
    max_steps: int


#: Its options, by section of an experiment's block.
OPTIONS = {"landscape": Options}


def run(settings: Settings, seeds: Sequence[int]) -> Iterator[dict[str, dict[str, Any]]]:
    """Columns of the tables `barycenters` (k = n) and `minima` (k < n, at depth 1 alone), seed by seed."""
    options: Options = settings.options["landscape"]
    if settings.loss != "bures-wasserstein" or settings.epsilon > 0:
        raise ValueError("a barycenter needs the loss 'bures-wasserstein' with epsilon = 0")
    n, rank, depth = settings.dimension, settings.rank, settings.depth
    for seed in seeds:
        descents, minima = [], []
        for spread in options.spreads:
            rng = generator(settings.study_seed, "target", seed, dimension=n, spectrum=SPECTRUM, spread=spread)
            loss = Barycenter(draw_covariances(rng, options.covariances, n, spread))
            rng = generator(settings.study_seed, "initialization", seed, dimension=n, spread=spread, rank=rank)
            if rank == n:
                row = _descent(loss, rng, depth, options.max_steps)
                descents.append({"seed": seed, "spread": spread, **row})
            elif depth == 1:
                for row in _minima(loss, rng, rank, options.starts):
                    minima.append({"seed": seed, "spread": spread, **row})
        yield {
            name: measure.columns(rows) if rows else {column: [] for column in TABLES[name].names}
            for name, rows in (("barycenters", descents), ("minima", minima))
        }


def _descent(loss: Barycenter, rng: np.random.Generator, depth: int, max_steps: int) -> dict[str, Any]:
    n = loss.dimension
    trace = float(loss.eigenvalues.sum())
    start = rng.standard_normal((n, n)) * np.sqrt(trace) / n
    network = DeepLinearNetwork.balanced(start, depth)
    trajectory = scaled_descent(loss, network, n_steps=max_steps, excess_tolerance=TOLERANCE * trace)
    factor, expected = _tail(loss) if depth == 1 else (float("nan"), float("nan"))
    return {
        "trace": trace,
        "steps": int(trajectory.last_step),
        "converged": bool(trajectory.excess[-1] <= TOLERANCE * trace),
        "distance": float(np.linalg.norm(trajectory.final - loss.covariance) / np.linalg.norm(loss.covariance)),
        "factor": factor,
        "expected": expected,
        "excess": trajectory.excess,
    }


def _tail(loss: Barycenter) -> tuple[float, float]:
    """Factor of a half step along the slowest mode of the Hessian, measured and (1 − r/2)²."""
    n = loss.dimension
    optimum = loss.eigenvectors * np.sqrt(loss.eigenvalues)
    rates, modes = np.linalg.eigh(hessian(loss, optimum))
    slowest = n * (n - 1) // 2  # after the zeros of the rotations
    start = optimum + 1e-3 * np.sqrt(loss.eigenvalues[-1]) * modes[:, slowest].reshape(n, n)
    excess = scaled_descent(loss, [start], n_steps=5).excess
    return float((excess[5] / excess[2]) ** (1 / 3)), float((1 - rates[slowest] / 2) ** 2)


def _minima(loss: Barycenter, rng: np.random.Generator, rank: int, number: int) -> Iterator[dict[str, Any]]:
    """From the truncated barycenter, the leading part of each covariance, and Gaussian starts."""
    cut = truncated(loss, rank)
    drawn = rng.standard_normal((number, loss.dimension, rank)) * np.sqrt(loss.eigenvalues[0])
    starts = np.concatenate([[cut], [_leading(S, rank) for S in loss.covariances], drawn])
    from_cut = rank_bounded_minima(loss, rank, cut[None])
    for i, minimum in enumerate(rank_bounded_minima(loss, rank, starts)):
        yield {
            "minimum": i,
            "loss": minimum.value,
            "loss_full": float(loss.minimum_value(rank)),
            "loss_truncated": float(loss.value(cut)),
            "loss_from_truncated": from_cut[0].value if from_cut else float("nan"),
            "curvature": minimum.curvature,
            "reached": minimum.reached,
            "starts": len(starts),
        }


def _leading(covariance: Array, rank: int) -> Array:
    eigenvalues, basis = np.linalg.eigh(covariance)
    return basis[:, ::-1][:, :rank] * np.sqrt(np.maximum(eigenvalues[::-1][:rank], 0))
