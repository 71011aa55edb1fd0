"""Scaled descent and Nyström starts on targets with a given condition number, compared with plain descent."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import numpy as np

from ...descent.gradient_descent import gradient_descent
from ...descent.scaled_descent import natural_step, nystrom_start, scaled_descent
from ...linalg.psd import Array, symmetrize
from ...losses.registry import LOSSES, CovarianceLoss, make
from ...model.network import DeepLinearNetwork
from ...model.starts import random_orthogonal
from ...rates.predicted import descent_contraction, rates_at_minimum, stable_step
from ..cell import checks
from ..cell.settings import Settings
from ..grid.seeds import generator
from ..results.schema import COUNT, FLAG, FLOAT, NAME, VECTOR, Tables, columns, schema

#: Runs: `share` is ε/λ_r, λ_r the least positive eigenvalue; `method` a preconditioner, or `unrepaired` for layer-wise
#: steps without the repair of a bottleneck. `unit` is tr Σ0, or ‖Σ0‖² for the square loss, and `local_unit` λ_r, or
#: λ_r². `worst_ratio` is the largest e_{t+1}/e_t of a whole step with e_t < 1e-2, e the excess in `local_unit`. Where
#: steps are W − ½∇ (else NaN), `lemma` is the largest L(W − ½∇) − L + ¼‖∇‖² in `unit`. Conditions: contraction per step
#: of plain descent from the slowest mode with half the largest stable step, measured and in theory.
TABLES = {
    "scaled": schema(
        condition=FLOAT,
        target_rank=COUNT,
        share=FLOAT,
        **columns(NAME, "start", "method"),
        **columns(FLOAT, "unit", "local_unit"),
        **columns(COUNT, "steps", "halved"),
        converged=FLAG,
        **columns(FLOAT, "worst_ratio", "lemma", "tail_factor", "tail_expected"),
        excess=VECTOR,
    ),
    "conditions": schema(**columns(FLOAT, "condition", "contraction", "expected")),
}
#: `target.spectrum` in the configuration.
SPECTRUM = "geometric"
COST = 0.8
STARTS = ("gaussian", "nystrom", "orthonormal")
#: Excess, in `unit`, at which a run has converged, and between which its tail lies.
TOLERANCE, TAIL = 1e-12, (1e-5, 1e-11)
#: Relative size of the slowest mode at the start of plain descent.
_PERTURBATION = 1e-3


@dataclass(frozen=True)
class Options:
    """Keys of `landscape` in the configuration; see config/README.md."""

    conditions: tuple[float, ...] = field(metadata={"minimum": 1})
    target_ranks: tuple[int, ...] = field(metadata={"minimum": 1})
    shares: tuple[float, ...] = field(metadata={"minimum": 0, "exclusiveMaximum": 1})
    start_kinds: tuple[str, ...] = field(metadata={"enum": STARTS})
    max_steps: int = field(metadata={"minimum": 1})


OPTIONS = {"landscape": Options}


def check(block: Mapping[str, Any]) -> Iterator[str]:
    """Axes that must have one value, and ranks of targets that exceed the dimension."""
    yield from checks.only(block, epsilon=0, smin=-1)
    ranks, dimension = block["landscape"]["target_ranks"], block["dimension"]
    yield from checks.at_most("landscape.target_ranks", ranks, dimension, "dimension")


def run(settings: Settings, seed: int) -> Tables:
    """Rows of the tables `scaled` and `conditions`.

    Σ0 has the eigenvalues 1, …, 1/κ in geometric steps and then zeros, in a basis that is the same for all κ, ranks,
    losses and depths of a seed; ε is `share` times the least positive eigenvalue.
    """
    options: Options = settings.options["landscape"]
    n, rank, depth = settings.dimension, settings.rank, settings.depth
    basis = random_orthogonal(generator(settings.study_seed, "target", seed, dimension=n, spectrum=SPECTRUM), n)
    rows, conditions = [], []
    shares = options.shares if LOSSES[settings.loss].has_epsilon else (0.0,)
    for condition, target_rank, share in product(options.conditions, options.target_ranks, shares):
        eigenvalues = np.pad(np.geomspace(1, 1 / condition, target_rank), (0, n - target_rank))
        loss = make(settings.loss, symmetrize((basis * eigenvalues) @ basis.T), settings.loss_options)
        loss = loss.with_epsilon(share * eigenvalues[target_rank - 1])
        for start in options.start_kinds:
            rng = generator(settings.study_seed, "initialization", seed, dimension=n, kind=start, rank=rank)
            network = _network(_start(rng, loss, rank, start), depth, rank)
            for method in _methods(loss, depth, rank, target_rank, share, start):
                keys = {"condition": condition, "target_rank": target_rank, "share": share, "start": start}
                row = _trained(loss, network, method, options.max_steps, target_rank)
                rows.append({**keys, "method": method, **row})
        if share == 0 and target_rank == rank == n and not (depth == 1 and loss.degree == 2):
            measured, expected = _plain(loss, depth)
            conditions.append({"condition": condition, "contraction": measured, "expected": expected})
    return {"scaled": rows, "conditions": conditions}


def _start(rng: np.random.Generator, loss: CovarianceLoss, rank: int, start: str) -> Array:
    if start == "gaussian":
        return rng.standard_normal((loss.dimension, loss.dimension)) / np.sqrt(loss.dimension)
    return nystrom_start(rng, loss, rank, loss.dimension, orthonormal=start == "orthonormal").end_to_end


def _network(W: Array, depth: int, rank: int) -> DeepLinearNetwork:
    """Balanced layers of W, cut to inner width k."""
    U, s, Vh = np.linalg.svd(W, full_matrices=False)
    return DeepLinearNetwork.of_factors(U[:, :rank], s[:rank], Vh[:rank], depth)


def _methods(loss: CovarianceLoss, depth: int, rank: int, target_rank: int, share: float, start: str) -> Iterator[str]:
    """Layer-wise steps; where their tail is known, also plain half steps and steps without the repair."""
    yield "layerwise"
    if loss.degree == 2 and start == "gaussian":
        if depth == 1 and share > 0 and target_rank == loss.dimension:
            yield "none"
        if depth > 1 and share == 0 and rank == target_rank < loss.dimension:
            yield "unrepaired"


def _trained(
    loss: CovarianceLoss, network: DeepLinearNetwork, method: str, max_steps: int, target_rank: int
) -> dict[str, Any]:
    unit, least = loss.unit, float(loss.eigenvalues[target_rank - 1]) ** (loss.degree / 2)
    rank = min(min(layer.shape) for layer in network.layers)
    unrepaired = method == "unrepaired"
    trajectory = scaled_descent(
        loss,
        network,
        preconditioner="layerwise" if unrepaired else method,
        n_steps=max_steps,
        excess_tolerance=TOLERANCE * unit,
        repair=not unrepaired,
    )
    excess = trajectory.excess
    local = excess / least
    full = natural_step(loss) / network.depth
    whole = np.diff(trajectory.times) > 0.99 * full
    late = np.flatnonzero(whole & (local[:-1] < 1e-2))
    plain = loss.degree == 2 and network.depth == 1 and (method == "none" or loss.epsilon == 0)
    surplus = (np.diff(excess) + trajectory.gradient_norm[:-1] ** 2 / 4)[whole]
    return {
        "unit": unit,
        "local_unit": least,
        "steps": int(trajectory.last_step),
        "halved": int(np.sum(~whole)),
        "converged": bool(excess[-1] <= TOLERANCE * unit),
        "worst_ratio": float(np.max(excess[late + 1] / excess[late], initial=0.0)),
        "lemma": float(np.max(surplus / unit)) if plain and len(surplus) else float("nan"),
        "tail_factor": _tail(excess / unit),
        "tail_expected": _expected(loss, network.depth, rank, method, target_rank),
        "excess": excess,
    }


def _tail(relative: Array) -> float:
    """Factor of the last step with an excess inside `TAIL`, if three factors agree to 0.2 %; else NaN."""
    inside = relative[(relative < TAIL[0]) & (relative > TAIL[1])]
    factors = inside[1:] / inside[:-1]
    settled = len(factors) >= 3 and abs(factors[-1] / factors[-3] - 1) < 2e-3
    return float(factors[-1]) if settled else float("nan")


def _expected(loss: CovarianceLoss, depth: int, rank: int, method: str, target_rank: int) -> float:
    """Tail factor: (1 − 1/N)² without the repair; for half steps on one layer that of the local rates; else NaN."""
    if method == "unrepaired":
        return (1 - 1 / depth) ** 2
    subspace = method == "layerwise" and rank < target_rank and loss.has_kink
    if depth == 1 and loss.degree == 2 and (method == "none" or subspace):
        return descent_contraction(rates_at_minimum(loss, 1, rank), 0.5)
    return float("nan")


def _plain(loss: CovarianceLoss, depth: int) -> tuple[float, float]:
    """Factor of L − L* in a step of plain descent from the slowest mode, that of λ_n: measured and in theory."""
    rates = rates_at_minimum(loss, depth)
    eta = stable_step(rates) / 2
    s = np.sqrt(loss.eigenvalues)
    s[-1] *= 1 + _PERTURBATION
    excess = gradient_descent(loss, DeepLinearNetwork.balanced(loss.eigenvectors * s, depth), eta, 2).excess
    return float(excess[2] / excess[1]), descent_contraction(rates, eta)
