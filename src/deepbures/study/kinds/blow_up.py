"""How the Hessian grows when singular values of the end-to-end matrix vanish."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ...landscape.curvature import blow_up_constant, check_twice_differentiable, network_hessian
from ...linalg.psd import Array
from ...losses.registry import CovarianceLoss
from ...model.network import DeepLinearNetwork
from ...model.starts import random_orthogonal
from ..cell import checks
from ..cell.problem import make_loss
from ..cell.settings import Settings
from ..grid.seeds import generator
from ..results.schema import COUNT, FLOAT, Tables, columns, schema

#: Extreme eigenvalues of the Hessian where `vanishing` singular values of W are σ (`sigma`). For N = 1 (else NaN):
#: `predicted` is −C/σ, with the constant C of the blow-up (ε = 0); `level` is the smallest eigenvalue at σ = 0, and
#: `level_of_empty_columns` its closed form (ε > 0). `epsilon_effective` is min(ε, λ_k).
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
    """Numbers of vanishing singular values that exceed the rank."""
    least = min(block["grid"]["rank"])
    yield from checks.at_most("landscape.vanishing", block["landscape"]["vanishing"], least, "rank")


def run(settings: Settings, seed: int) -> Tables:
    """Rows of the table `curvatures`, one for each number of vanishing singular values and σ.

    W = √(tr Σ0 / n) U diag(1, …, 1, σ, …, σ) Vᵀ with random rotations U and V, as N balanced layers. For N = 1, W is
    n × k and V = I, because a rotation of the input changes no eigenvalue.
    """
    rank, depth, options = settings.rank, settings.depth, settings.options["landscape"]
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
            layers = DeepLinearNetwork.of_factors(U[:, :rank], s, V[:, :rank].T, depth).layers
            eigenvalues = np.linalg.eigvalsh(network_hessian(loss, layers))
            row = {"vanishing": vanishing, "sigma": s[-1], "smallest": eigenvalues[0], "largest": eigenvalues[-1]}
            rows.append({**row, "predicted": -predicted / s[-1], **_levels(loss, U, s, vanishing, depth)})
    same = {"dimension": loss.dimension, "epsilon_effective": float(loss.epsilon)}
    return {"curvatures": ({**same, **row} for row in rows)}


def _constant(loss: CovarianceLoss, U: Array, rank: int, vanishing: int, depth: int) -> float:
    """C of the blow-up λ_min σ → −C, see `curvature.blow_up_constant`; NaN unless ε = 0 and N = 1."""
    if depth > 1 or not loss.has_kink:
        return float("nan")
    return blow_up_constant(loss, U[:, : rank - vanishing], U[:, rank - vanishing : rank])


def _levels(loss: CovarianceLoss, U: Array, s: Array, vanishing: int, depth: int) -> dict[str, float]:
    """The least eigenvalue of the Hessian at σ = 0, and that of its block of empty columns; NaN unless N = 1 and ε > 0.

    An empty column changes S to second order only, so its block is 2 (I − T) with the transport map T, and the least
    eigenvalue of the block 2 (1 − λ_max(T)).
    """
    limit = U[:, : len(s)] * np.where(np.arange(len(s)) < len(s) - vanishing, s, 0)
    of_empty_columns = loss.level_of_empty_columns(limit) if depth == 1 else None
    if of_empty_columns is None:
        return {"level": float("nan"), "level_of_empty_columns": float("nan")}
    level = float(np.linalg.eigvalsh(network_hessian(loss, [limit]))[0])
    return {"level": level, "level_of_empty_columns": of_empty_columns}
