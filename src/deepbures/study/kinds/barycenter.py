"""Barycenters as targets: descent to them at any depth, and local minima over bounded rank."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ...descent.scaled_descent import scaled_descent
from ...files.targets import read_covariances
from ...landscape.curvature import hessian
from ...linalg.psd import Array
from ...losses.registry import LOSSES
from ...model.network import DeepLinearNetwork
from ...neighbours.barycenter import Barycenter, RankBoundedMinimum, draw_covariances, rank_bounded_minima, truncated
from ..cell import checks
from ..cell.settings import Settings, needed
from ..grid.seeds import generator
from ..grid.target import is_drawn
from ..results.schema import COUNT, FLAG, FLOAT, VECTOR, Tables, columns, schema

#: Barycenters: descent with scaled steps (k = n); `factor` of the tail, and for one layer its closed form (1 − r/2)², r
#: the least rate of the Hessian at the barycenter (`expected`).
#: Minima over rank ≤ k < n: the local minima found, in the order of their losses, with the loss of the truncated
#: barycenter and of the minimum that descent from it reaches; `curvature` is the least eigenvalue of the Hessian
#: orthogonally to rotations.
#: Planes (k = 1): F on the plane through 0, the lowest minimum and the next one (or the second eigenvector, if there is
#: none), on a square grid of coordinates up to `reach`, row by row; the first axis points to the lowest minimum.
#: `profile` is the least F over the length of W, for PROFILE angles from 0 to 180° to the first axis.
#: `spread` is NaN for a set that is read from files.
TABLES = {
    "barycenters": schema(
        **columns(FLOAT, "spread", "trace"),
        steps=COUNT,
        converged=FLAG,
        **columns(FLOAT, "distance", "factor", "expected"),
        excess=VECTOR,
    ),
    "minima": schema(
        spread=FLOAT,
        minimum=COUNT,
        **columns(FLOAT, "loss", "loss_full", "loss_truncated", "loss_from_truncated", "curvature"),
        **columns(COUNT, "reached", "starts"),
    ),
    "planes": schema(
        **columns(FLOAT, "spread", "reach"),
        **columns(VECTOR, "losses", "lowest", "other"),
        loss_zero=FLOAT,
        profile=VECTOR,
    ),
}
#: `target.spectrum` in the configuration.
SPECTRUM = "spread"
#: Keys of targets that are not drawn.
SOURCES = ("barycenter",)
COST = 0.5
#: Excess at which descent ends, relative to the trace of the barycenter.
TOLERANCE = 1e-20
#: Number of points along a side of a plane, and in its profile by angle.
PLANE, PROFILE = 61, 181


@dataclass(frozen=True)
class Options:
    """Keys of `landscape` in the configuration; see config/README.md."""

    starts: int = field(metadata={"minimum": 2})
    max_steps: int = field(metadata={"minimum": 1})
    spreads: tuple[float, ...] | None = field(default=None, metadata={"minimum": 0})
    covariances: int | None = field(default=None, metadata={"minimum": 1})


OPTIONS = {"landscape": Options}


def check(block: Mapping[str, Any]) -> Iterator[str]:
    """The loss, axes that must have one value, and the keys of sets that are drawn."""
    yield from checks.bures_distance(block)
    yield from checks.only(block, epsilon=0, smin=-1)
    for key in ("spreads", "covariances"):
        if is_drawn(block["target"]) and key not in block["landscape"]:
            yield f"landscape.{key}: the key is missing: sets that are drawn need it"
        if not is_drawn(block["target"]) and key in block["landscape"]:
            yield f"landscape.{key}: the covariances are read from files; leave the key out"


def run(settings: Settings, seed: int) -> Tables:
    """Rows of the tables `barycenters` (k = n), `minima` (k < n, N = 1) and `planes` (k = 1)."""
    options: Options = settings.options["landscape"]
    if not LOSSES[settings.loss].is_bures_distance or settings.epsilon > 0:
        raise ValueError("a barycenter needs the loss 'bures-wasserstein' with epsilon = 0")
    n, rank, depth = settings.dimension, settings.rank, settings.depth
    tables: dict[str, list[dict[str, Any]]] = {name: [] for name in TABLES}
    for spread, loss in _losses(settings, options, seed):
        rng = generator(settings.study_seed, "initialization", seed, dimension=n, spread=spread, rank=rank)
        if rank == n:
            tables["barycenters"].append({"spread": spread, **_descent(loss, rng, depth, options.max_steps)})
        elif depth == 1:
            cut, starts = _starts(loss, rng, rank, options.starts)
            found = rank_bounded_minima(loss, rank, starts)
            tables["minima"] += [{"spread": spread, **row} for row in _minima(loss, found, cut, len(starts))]
            if rank == 1 and found:
                tables["planes"].append({"spread": spread, **_plane(loss, found)})
    return tables


def _losses(settings: Settings, options: Options, seed: int) -> Iterator[tuple[float, Barycenter]]:
    """Spread and loss of each set of covariances; the spread is NaN for the set that is read from files."""
    n = settings.dimension
    if not is_drawn(settings.target):
        yield float("nan"), Barycenter(*read_covariances(settings.target, n))
        return
    spreads = needed(options.spreads, "landscape.spreads", "a set of covariances that is drawn")
    number = needed(options.covariances, "landscape.covariances", "a set of covariances that is drawn")
    for spread in spreads:
        rng = generator(settings.study_seed, "target", seed, dimension=n, spectrum=SPECTRUM, spread=spread)
        yield spread, Barycenter(draw_covariances(rng, number, n, spread))


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
    """Factor of a half step along the slowest mode of the Hessian, measured and (1 − r/2)²; NaN if λ_n = 0."""
    n = loss.dimension
    if loss.eigenvalues[-1] == 0:
        return float("nan"), float("nan")
    optimum = loss.eigenvectors * np.sqrt(loss.eigenvalues)
    rates, modes = np.linalg.eigh(hessian(loss, optimum))
    slowest = n * (n - 1) // 2  # after the zeros of the rotations
    start = optimum + 1e-3 * np.sqrt(loss.eigenvalues[-1]) * modes[:, slowest].reshape(n, n)
    excess = scaled_descent(loss, [start], n_steps=5).excess
    return float((excess[5] / excess[2]) ** (1 / 3)), float((1 - rates[slowest] / 2) ** 2)


def _starts(loss: Barycenter, rng: np.random.Generator, rank: int, number: int) -> tuple[Array, Array]:
    """The truncated barycenter; and all starts: it, the leading part of each covariance, Gaussian matrices."""
    cut = truncated(loss, rank)
    drawn = rng.standard_normal((number, loss.dimension, rank)) * np.sqrt(loss.eigenvalues[0])
    return cut, np.concatenate([[cut], [_leading(S, rank) for S in loss.covariances], drawn])


def _minima(loss: Barycenter, found: Sequence[RankBoundedMinimum], cut: Array, number: int) -> Iterator[dict[str, Any]]:
    rank = cut.shape[1]
    from_cut = rank_bounded_minima(loss, rank, cut[None])
    for i, minimum in enumerate(found):
        yield {
            "minimum": i,
            "loss": minimum.value,
            "loss_full": float(loss.minimum_value(rank)),
            "loss_truncated": float(loss.value(cut)),
            "loss_from_truncated": from_cut[0].value if from_cut else float("nan"),
            "curvature": minimum.curvature,
            "reached": minimum.reached,
            "starts": number,
        }


def _plane(loss: Barycenter, found: Sequence[RankBoundedMinimum]) -> dict[str, Any]:
    """F on the plane of two minima of rank 1. On the ray r u, F = r² − 2 r g(u) + F(0), which is least at r = g(u)."""
    lowest = found[0].factor[:, 0]
    other = found[1].factor[:, 0] if len(found) > 1 else loss.eigenvectors[:, 1]
    basis = np.linalg.qr(np.column_stack([lowest, other]))[0]
    basis = basis * np.sign(np.einsum("ij,ij->j", basis, np.column_stack([lowest, other])))
    reach = 1.4 * max(float(np.linalg.norm(minimum.factor)) for minimum in found[:2])
    side = np.linspace(-reach, reach, PLANE)
    points = np.stack(np.meshgrid(side, side), axis=-1).reshape(-1, 2)
    angles = np.linspace(0, np.pi, PROFILE)
    zero = float(loss.value(np.zeros((loss.dimension, 1))))
    rays = loss.value((np.column_stack([np.cos(angles), np.sin(angles)]) @ basis.T)[:, :, None])
    return {
        "reach": reach,
        "losses": loss.value((points @ basis.T)[:, :, None]),
        "lowest": lowest @ basis,
        "other": other @ basis if len(found) > 1 else np.full(2, np.nan),
        "loss_zero": zero,
        "profile": zero - ((1 + zero - rays) / 2) ** 2,
    }


def _leading(covariance: Array, rank: int) -> Array:
    eigenvalues, basis = np.linalg.eigh(covariance)
    return basis[:, ::-1][:, :rank] * np.sqrt(np.maximum(eigenvalues[::-1][:rank], 0))
