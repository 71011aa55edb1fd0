"""What smoothing costs and what it spoils: ε of the Bures-Wasserstein loss against the blur of the Sinkhorn loss."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ...descent.gradient_descent import gradient_descent
from ...flow.gradient_flow import gradient_flow
from ...landscape.curvature import hessian
from ...linalg.psd import Array
from ...losses.registry import BuresWasserstein, CovarianceLoss, Sinkhorn
from ...model.network import DeepLinearNetwork
from ...model.starts import random_orthogonal
from ...rates.measured import power_law_constant
from ...rates.predicted import rates_at_minimum, stable_step
from ..cell import checks
from ..cell.problem import make_loss
from ..cell.settings import Settings
from ..grid.seeds import generator
from ..results.schema import COUNT, FLAG, FLOAT, NAME, Tables, columns, schema

#: `loss` and its `parameter`, ε or σ². One layer, where the least singular value of W is σ_k (`sigma`): the extreme
#: eigenvalues of the Hessian, and their bounds for every W. Descent at half of the largest stable step from a small
#: start: steps to the relative excess, ‖S − S_0‖/‖S_0‖ at the end and in closed form, S_0 the best S of rank k without
#: smoothing, the sharp rate of the flow, and its condition number. The difference of the Sinkhorn loss from the
#: distance at a random W of orthonormal columns, in units of tr Σ0, and its leading term (`limits`); constant of the
#: tail at a singular target of the same λ_1 (`tails`).
TABLES = {
    "curvatures": schema(
        loss=NAME, **columns(FLOAT, "parameter", "sigma", "smallest", "largest", "lower_bound", "upper_bound")
    ),
    "costs": schema(
        loss=NAME,
        parameter=FLOAT,
        steps=COUNT,
        converged=FLAG,
        **columns(FLOAT, "bias", "expected_bias", "sharp_rate", "condition", "lower_bound"),
    ),
    "limits": schema(**columns(FLOAT, "blur", "relative_blur", "difference", "expected")),
    "tails": schema(**columns(FLOAT, "blur", "constant", "expected")),
}
COST = 2.0
#: Singular values of the starts of descent, in units of √λ_1.
_START = 0.1
#: Number of steps, evenly spaced in the logarithm, at which the end of descent is tested.
_TESTED = 600
#: Horizon of the flows to a singular target, in units of the time of s = σ² (or of λ_1, where that is later).
_HORIZON = 1e5


@dataclass(frozen=True)
class Options:
    """Keys of `landscape` in the configuration; see config/README.md."""

    epsilons: tuple[float, ...] = field(metadata={"minimum": 0, "exclusiveMaximum": 1})
    blurs: tuple[float, ...] = field(metadata={"exclusiveMinimum": 0})
    singular_values: tuple[float, ...] = field(metadata={"exclusiveMinimum": 0})
    tolerance: float = field(metadata={"exclusiveMinimum": 0, "exclusiveMaximum": 1})
    max_steps: int = field(metadata={"minimum": 1})


OPTIONS = {"landscape": Options}


def check(block: Mapping[str, Any]) -> Iterator[str]:
    """The loss, which the kind itself smooths."""
    yield from checks.only(block, epsilon=0)
    yield from checks.bures_distance(block)


def run(settings: Settings, seed: int) -> Tables:
    """Rows of the tables; curvatures in cells of one layer, tails in those of k = n."""
    options: Options = settings.options["landscape"]
    rank, depth = settings.rank, settings.depth
    loss = make_loss(settings, seed)
    rng = generator(settings.study_seed, "frames", seed, dimension=loss.dimension)
    U = random_orthogonal(rng, loss.dimension)
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in TABLES}
    for one, parameter in _losses(loss, options, rank):
        key = {"loss": one.name, "parameter": parameter}
        rows["costs"].append({**key, **_cost(one, U, depth, rank, options)})
        if depth == 1:
            rows["curvatures"] += [{**key, **row} for row in _curvatures(one, U[:, :rank], options)]
        if isinstance(one, Sinkhorn):
            rows["limits"].append({"blur": one.blur, **_limit(one, loss, U[:, :rank])})
            rows["tails"] += [{"blur": one.blur, **_tail(one, depth)}] if rank == loss.dimension else []
    return rows


def _losses(loss: CovarianceLoss, options: Options, rank: int) -> Iterator[tuple[CovarianceLoss, float]]:
    """The losses with their parameters: ε in units of λ_k, and σ² for σ in units of √λ_k."""
    unit = float(loss.eigenvalues[rank - 1])
    for epsilon in options.epsilons:
        yield BuresWasserstein(loss.target, epsilon * unit), epsilon * unit
    for blur in options.blurs:
        yield Sinkhorn(loss.target, blur * np.sqrt(unit)), blur**2 * unit


def _cost(loss: CovarianceLoss, U: Array, depth: int, rank: int, options: Options) -> dict[str, Any]:
    rates = rates_at_minimum(loss, depth, rank)
    start = DeepLinearNetwork.of_factors(
        U[:, :rank], np.full(rank, _START * np.sqrt(loss.eigenvalues[0])), np.eye(rank), depth
    )
    levels = loss.saddle_values(rank)
    run = gradient_descent(
        loss,
        start.layers,
        stable_step(rates) / 2,
        options.max_steps,
        np.unique(np.geomspace(1, options.max_steps, _TESTED).round().astype(int)),
        excess_tolerance=options.tolerance * float(levels[0] - levels[-1]),
    )
    unsmoothed = np.where(np.arange(loss.dimension) < rank, loss.eigenvalues, 0)
    F, unit = loss.to_eigenbasis(run.factors[-1]), np.linalg.norm(unsmoothed)
    return {
        "steps": run.last_step,
        "converged": run.stop_reason == "converged",
        "bias": np.linalg.norm(F @ F.T - np.diag(unsmoothed)) / unit,
        "expected_bias": np.linalg.norm(loss.minimum_spectrum(rank) - unsmoothed) / unit,
        "sharp_rate": 2 * rates.min(),
        "condition": rates.max() / rates.min(),
        "lower_bound": (loss.hessian_bounds() or (np.nan,))[0],
    }


def _curvatures(loss: CovarianceLoss, U: Array, options: Options) -> Iterator[dict[str, float]]:
    """One row for each σ_k: W = √(tr Σ0/n) U diag(1, …, 1, σ_k)."""
    scale = float(np.sqrt(loss.eigenvalues.mean()))
    lower, upper = loss.hessian_bounds() or (np.nan, np.nan)
    for sigma in options.singular_values:
        s = scale * np.append(np.ones(U.shape[1] - 1), sigma)
        eigenvalues = np.linalg.eigvalsh(hessian(loss, U * s))
        ends = {"smallest": eigenvalues[0], "largest": eigenvalues[-1]}
        yield {"sigma": s[-1], **ends, "lower_bound": lower, "upper_bound": upper}


def _limit(loss: Sinkhorn, distance: CovarianceLoss, U: Array) -> dict[str, float]:
    """L_σ − L_0 at W = U, and σ² (½ (k − n)(1 − log σ²) + ½ log det UᵀΣ0U − ½ log det Σ0), up to O(σ⁴)."""
    variance, lam, (n, k) = loss.blur**2, loss.eigenvalues, U.shape
    inside = np.linalg.eigvalsh(U.T @ loss.covariance @ U)
    expected = variance * ((k - n) * (1 - np.log(variance)) + np.log(inside).sum() - np.log(lam).sum()) / 2
    difference = float(loss.value(U)) - float(distance.value(U))
    relative = loss.blur / np.sqrt(float(lam[k - 1]))
    return {"relative_blur": relative, "difference": difference / distance.unit, "expected": expected / distance.unit}


def _tail(loss: Sinkhorn, depth: int) -> dict[str, float]:
    """The constant of the tail on the target diag(λ_1, 0), from W = √λ_1 I."""
    largest, power = float(loss.eigenvalues[0]), 2 * depth / (2 * depth - 1)
    singular = Sinkhorn.from_spectrum([largest, 0.0], None, loss.blur)
    end = _HORIZON * loss.blur**2 / min(largest, loss.blur**2) ** (2 - 1 / depth)
    flow = gradient_flow(
        singular, np.sqrt(largest) * np.eye(2), depth, np.geomspace(end / 100, end, 20), max_time=end, rtol=1e-7
    )
    constant = power_law_constant(flow.excess, flow.gradient_norm, power)
    return {"constant": constant, "expected": singular.tail_constant(depth)}
