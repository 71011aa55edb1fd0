"""How the Hessian grows when singular values of the end-to-end matrix vanish."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ...landscape.curvature import blow_up_constant, check_twice_differentiable, network_hessian
from ...linalg.psd import Array
from ...losses.registry import CovarianceLoss
from ...model.network import DeepLinearNetwork
from ...model.starts import random_orthogonal
from ..cell import checks, measure
from ..cell.problem import make_loss
from ..cell.settings import Settings
from ..grid.seeds import generator
from ..results.schema import COUNT, FLOAT, columns, schema

#: Extreme eigenvalues of the Hessian where `vanishing` singular values of W are `sigma`; `predicted`: the smallest,
#: from the constant of the blow-up (ε = 0, N = 1, else NaN); `level`: the smallest at σ = 0 (ε > 0, N = 1, else NaN);
#: `epsilon_effective`: min(ε, λ_k).
TABLES = {
    "curvatures": schema(
        dimension=COUNT,
        epsilon_effective=FLOAT,
        vanishing=COUNT,
        **columns(FLOAT, "sigma", "smallest", "largest", "predicted", "level", "level_of_empty_columns"),
    )
}
COST = 0.06


@dataclass(frozen=True)
class Options:
    """Keys of `landscape` in the configuration; see config/README.md."""

    singular_values: tuple[float, ...] = field(metadata={"exclusiveMinimum": 0})
    vanishing: tuple[int, ...] = field(metadata={"minimum": 1})


OPTIONS = {"landscape": Options}


def check(block: Mapping[str, Any]) -> Iterator[str]:
    """No more singular values vanish than there are."""
    least = min(block["grid"]["rank"])
    yield from checks.at_most("landscape.vanishing", block["landscape"]["vanishing"], least, "rank")


def run(settings: Settings, seeds: Sequence[int]) -> Iterator[dict[str, dict[str, Any]]]:
    """Columns of the table `curvatures`, one row per seed, number of vanishing singular values, and their size.

    W = √(tr Σ0 / n) · U diag(1, …, 1, σ, …, σ) Vᵀ with random U, V, as N balanced layers; with N = 1 W is n × k, and
    V = I: a rotation of the input changes no eigenvalue.
    """
    rank, depth, options = settings.rank, settings.depth, settings.options["landscape"]
    for seed in seeds:
        loss = make_loss(settings, seed)
        check_twice_differentiable(loss, rank)
        rng = generator(settings.study_seed, "frames", seed, dimension=loss.dimension)
        U, V = (random_orthogonal(rng, loss.dimension) for _ in range(2))
        scale = float(np.sqrt(loss.eigenvalues.sum() / loss.dimension))
        rows = []
        for vanishing in options.vanishing:
            predicted = _constant(loss, U, rank, vanishing, depth)
            for sigma in options.singular_values:
                s = scale * np.where(np.arange(rank) < rank - vanishing, 1.0, sigma)
                eigenvalues = np.linalg.eigvalsh(
                    network_hessian(loss, DeepLinearNetwork.of_factors(U[:, :rank], s, V[:, :rank].T, depth).layers)
                )
                rows.append(
                    {
                        "dimension": loss.dimension,
                        "epsilon_effective": float(loss.epsilon),
                        "vanishing": vanishing,
                        "sigma": s[-1],
                        "smallest": eigenvalues[0],
                        "largest": eigenvalues[-1],
                        "predicted": -predicted / s[-1],
                        **_levels(loss, U, s, vanishing, depth),
                    }
                )
        yield {"curvatures": measure.from_rows(seed, rows)}


def _constant(loss: CovarianceLoss, U: Array, rank: int, vanishing: int, depth: int) -> float:
    """C of `curvature.blow_up_constant`; NaN unless ε = 0 and N = 1."""
    if depth > 1 or not loss.has_kink:
        return float("nan")
    return blow_up_constant(loss, U[:, : rank - vanishing], U[:, rank - vanishing : rank])


def _levels(loss: CovarianceLoss, U: Array, s: Array, vanishing: int, depth: int) -> dict[str, float]:
    """The most negative eigenvalue at σ = 0, and that in the empty columns alone; N = 1 and ε > 0, else NaN.

    An empty column changes S to second order only: its Hessian is 2 (I − T), T the transport map, and its most
    negative eigenvalue 2 (1 − λ_max(T)).
    """
    limit = U[:, : len(s)] * np.where(np.arange(len(s)) < len(s) - vanishing, s, 0)
    of_empty_columns = loss.level_of_empty_columns(limit) if depth == 1 else None
    if of_empty_columns is None:
        return {"level": float("nan"), "level_of_empty_columns": float("nan")}
    level = float(np.linalg.eigvalsh(network_hessian(loss, [limit]))[0])
    return {"level": level, "level_of_empty_columns": of_empty_columns}
