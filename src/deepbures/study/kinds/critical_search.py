"""Critical points found by a solver that does not use their enumeration, compared with it."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ...landscape import critical_points
from ...landscape.critical_point_search import search
from ...landscape.curvature import Curvature, network_hessian
from ...linalg.psd import Array, equalized
from ...losses.registry import CovarianceLoss
from ...model.network import DeepLinearNetwork, with_bottleneck
from ...model.starts import random_orthogonal
from ..cell.problem import make_loss
from ..cell.settings import Settings
from ..grid.seeds import generator
from ..results.schema import COUNT, FLAG, FLOAT, INDICES, NAME, Tables, columns, schema

#: Searches: the end of each search, and the nearest enumerated critical point W_J (`kept` is J). `gradient_norm` and
#: `distance` refer to Σ0/λ_1; `evaluations` is −1 at a kink; `negative` is −1 where negative eigenvalues are not
#: counted: below rank k, or if one is too small; `enumerated…` and `reached…` are the numbers of critical points of a
#: problem, of all ranks and of rank k. Trials: losses of matrices of rank ≤ k that are not critical; `excess` is
#: (L − L*) / Σ_j λ_j^{d/2}, d the degree of the loss.
TABLES = {
    "searches": schema(
        **columns(COUNT, "start", "start_rank", "evaluations"),
        **columns(COUNT, "enumerated", "enumerated_at_rank", "reached", "reached_at_rank"),
        gradient_norm=FLOAT,
        **columns(FLAG, "critical", "matched"),
        kept=INDICES,
        **columns(FLOAT, "distance", "loss", "loss_minimum", "value"),
        **columns(COUNT, "negative", "escapes"),
    ),
    "trials": schema(family=NAME, **columns(FLOAT, "size", "loss", "loss_minimum", "excess")),
}
COST = 0.21
#: A point is critical if the norm of the gradient of all layers, for Σ0/λ_1, is at most this …
GRADIENT_TOLERANCE = 1e-9
#: … and equals W_J if ‖S − S_J‖_F/λ_1 is at most this.
MATCH_TOLERANCE = 1e-5
#: Range of the singular values of a start, in units of √λ_1, the only property of the target that starts depend on.
SINGULAR_VALUES = (0.3, 1.2)
#: Standard deviation of the noise by which layers of a start differ from balanced ones, relative to their entries.
NOISE = 0.1
#: Eigenvalues of a Hessian below −this λ_max count as negative, if none in closed form is near that bound.
COUNTED = 1e-7
#: Matrices in each family of `trials`; range of distances from the minimiser, in units of √λ_1.
TRIALS, DISTANCES = 100, (1e-6, 1.0)
#: Range of the singular values of random matrices, in units of √λ_1.
RANDOM_SIZES = (1e-2, 3.0)


@dataclass(frozen=True)
class Options:
    """Keys of `landscape` in the configuration; see config/README.md."""

    starts: int = field(metadata={"minimum": 2})


OPTIONS = {"landscape": Options}


def run(settings: Settings, seed: int) -> Tables:
    """Rows of the tables `searches`, one for each start, and `trials`, one for each matrix.

    Searches solve ∇L^N = 0 for all layers (`critical_point_search`) from starts of rank 1, 2, …, k in turn. Trials are
    matrices of rank ≤ k, critical or not; their losses must not be below L*.
    """
    rank, depth, options = settings.rank, settings.depth, settings.options["landscape"]
    loss = make_loss(settings, seed)
    key = {"dimension": loss.dimension, "depth": depth, "rank": rank, "loss": loss.name}
    starts = _starts(loss, depth, rank, options.starts, generator(settings.study_seed, "search", seed, **key))
    rows: dict[int, dict[str, Any]] = {}
    for width, (numbers, layers) in starts.items():
        for number, row in zip(numbers, _searched(loss, layers, depth, rank), strict=True):
            rows[number] = {"start": number, "start_rank": width, **row}
    counts = _counts(loss, depth, rank, list(rows.values()))
    trials = _trials(loss, rank, generator(settings.study_seed, "trials", seed, **key))
    return {"searches": ({**rows[number], **counts} for number in sorted(rows)), "trials": [trials]}


def _starts(
    loss: CovarianceLoss, depth: int, rank: int, number: int, rng: np.random.Generator
) -> dict[int, tuple[list[int], list[Array]]]:
    """Numbers and stacked layers of the starts of each rank, in units of √λ_1.

    For ε = 0 and N = 1 all starts have rank k, or that of the target if it is lower, because no W of lower rank is a
    critical point there.
    """
    n = loss.dimension
    widest = min(rank, int(np.sum(loss.eigenvalues > 0))) if loss.has_kink else rank
    drawn: dict[int, list[tuple[int, list[Array]]]] = {}
    for start in range(number):
        width = widest if loss.has_kink and depth == 1 else 1 + start % widest
        U, V = (random_orthogonal(rng, n)[:, :width] for _ in range(2))
        W = (U * _log_uniform(rng, SINGULAR_VALUES, width)) @ V.T
        layers = with_bottleneck(DeepLinearNetwork.balanced(W, depth, width), width).layers
        layers = [layer + NOISE * np.sqrt(np.mean(layer**2)) * rng.standard_normal(layer.shape) for layer in layers]
        drawn.setdefault(width, []).append((start, layers))
    return {
        width: (
            [start for start, _ in some],
            [np.stack(parts) for parts in zip(*(layers for _, layers in some), strict=True)],
        )
        for width, some in drawn.items()
    }


def _log_uniform(rng: np.random.Generator, ends: tuple[float, float], *shape: int) -> Array:
    return np.exp(rng.uniform(np.log(ends[0]), np.log(ends[1]), shape))


def _searched(loss: CovarianceLoss, starts: list[Array], depth: int, rank: int) -> Iterator[dict[str, Any]]:
    """Ends of the searches from a stack of starts: one row each."""
    target = loss.normalized()
    ends = search(target, starts)
    loss_minimum = float(loss.minimum_value(rank))
    for i, norm in enumerate(ends.gradient_norm):
        layers = [layer[i] for layer in ends.layers]
        W = DeepLinearNetwork(layers).end_to_end()
        kept, distance = critical_points.nearest(target, W, rank)
        critical = bool(norm <= GRADIENT_TOLERANCE and not ends.at_kink[i])
        matched = bool(critical and distance <= MATCH_TOLERANCE)
        spectrum = critical_points.local_spectrum(loss, kept, depth, rank)
        countable = matched and len(kept) == rank == starts[0].shape[-1 if depth == 1 else -2]
        yield {
            "evaluations": -1 if ends.at_kink[i] else ends.evaluations[i],
            "gradient_norm": norm,
            "critical": critical,
            "matched": matched,
            "kept": kept,
            "distance": distance,
            "loss": float(target.value(W)) * float(loss.eigenvalues[0]) ** (loss.degree / 2),
            "loss_minimum": loss_minimum,
            "value": critical_points.value(loss, kept),
            "negative": _negative(target, layers, spectrum.rates) if countable else -1,
            "escapes": spectrum.escapes,
        }


def _negative(loss: CovarianceLoss, layers: list[Array], rates: Array) -> int:
    """Number of negative eigenvalues of the Hessian; −1 if some are too small to be distinguished from zero."""
    sizes = np.abs(rates[rates != 0])
    if sizes.min() <= 100 * COUNTED * sizes.max():
        return -1
    return Curvature.of(np.linalg.eigvalsh(network_hessian(loss, layers)), COUNTED).negative


def _counts(loss: CovarianceLoss, depth: int, rank: int, rows: list[dict[str, Any]]) -> dict[str, int]:
    """Number of critical points of a problem, and of those that searches reached, of all ranks and of rank k.

    Index sets J that differ by equal eigenvalues form one manifold of critical points and count once. For ε = 0 and
    N = 1 only those of the highest rank are critical.
    """
    spectrum = equalized(loss.eigenvalues, float(loss.epsilon))[loss.minimum_spectrum(loss.dimension) > 0]
    by_rank = np.ones(1, dtype=int)  # coefficients of Π (1 + x + … + x^m) over the groups of m equal eigenvalues
    for size in np.unique(spectrum, return_counts=True)[1]:
        by_rank = np.convolve(by_rank, np.ones(size + 1, dtype=int))
    highest = min(rank, len(spectrum))
    kink = depth == 1 and loss.has_kink
    reached = {row["kept"] for row in rows if row["matched"]}
    return {
        "enumerated": int(by_rank[highest] if kink else by_rank[: highest + 1].sum()),
        "enumerated_at_rank": int(by_rank[rank]) if rank == highest else 0,
        "reached": len(reached),
        "reached_at_rank": sum(len(kept) == rank for kept in reached),
    }


def _trials(loss: CovarianceLoss, rank: int, rng: np.random.Generator) -> dict[str, Any]:
    """Losses of random matrices of rank ≤ k of many sizes, and of matrices near the minimiser, with L*."""
    shape = TRIALS, loss.dimension, rank
    frames, _ = np.linalg.qr(rng.standard_normal(shape))
    sizes = _log_uniform(rng, RANDOM_SIZES, TRIALS, rank)
    sizes *= np.arange(rank) <= rng.integers(rank, size=(TRIALS, 1))  # of every rank from 1 to k
    random = np.sqrt(loss.eigenvalues[0]) * frames * sizes[:, None, :]
    minimiser = loss.eigenvectors[:, :rank] * np.sqrt(loss.minimum_spectrum(rank)[:rank])
    directions = rng.standard_normal(shape)
    directions *= np.sqrt(loss.eigenvalues[0]) / np.linalg.norm(directions, axis=(-2, -1), keepdims=True)
    distances = _log_uniform(rng, DISTANCES, TRIALS)
    W = np.concatenate([random, minimiser + distances[:, None, None] * directions])
    values = loss.value(W)
    minimum = float(loss.minimum_value(rank))
    return {
        "family": ["random"] * TRIALS + ["near the minimiser"] * TRIALS,
        "size": np.concatenate([sizes.max(axis=-1), distances]),
        "loss": values,
        "loss_minimum": minimum,
        "excess": (values - minimum) / loss.unit,
    }
