"""What a finite sample costs: the covariance of m samples against the population's, and training on it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ...flow.gradient_flow import gradient_flow
from ...linalg.psd import Array
from ...losses.registry import CovarianceLoss
from ...losses.target import Target
from ...model.diagnostics import squared_bures_distance
from ...rates.sampling import expected_sampling_error
from ..cell import measure
from ..cell.problem import check_target, check_tolerance, limited_smoothing, make_loss, make_start
from ..cell.settings import Integration, Settings
from ..grid.seeds import generator
from ..results.schema import COUNT, FLOAT, schema

#: Covariances Σ̂ of m samples: B²(Σ̂, Σ0) of each draw, and its expectation to first order in 1/m. Training on one
#: Σ̂: the training loss, and the same loss against the unseen Σ0; their floors.
TABLES = {
    "sampling": schema(samples=COUNT, draw=COUNT, squared_bures=FLOAT, expected=FLOAT),
    "training": schema(
        samples=COUNT, time=FLOAT, loss=FLOAT, population_loss=FLOAT, loss_minimum=FLOAT, population_minimum=FLOAT
    ),
}
COST = 0.34


@dataclass(frozen=True)
class Sampling:
    """What is drawn from the population: sample sizes, and the number of draws of each."""

    sizes: tuple[int, ...] = field(metadata={"minimum": 2})
    draws: int = field(metadata={"minimum": 1})


OPTIONS = {"integration": Integration, "sampling": Sampling}


def run(settings: Settings, seeds: Sequence[int]) -> Iterator[dict[str, dict[str, Any]]]:
    """Columns of the tables `sampling` and `training`, seed by seed.

    Σ̂ = (1/m) Σ x xᵀ of x ~ N(0, Σ0), whose mean is known. All ε, ranks and depths share the draws of a
    seed. The flow is trained on the first draw of each size.
    """
    options: Sampling = settings.options["sampling"]
    for seed in seeds:
        population = make_loss(settings, seed)
        if not population.is_bures_distance:
            raise ValueError(f"a finite sample needs the loss 'bures-wasserstein', not {population.name!r}")
        sampled, trained = [], []
        for m in options.sizes:
            rng = generator(settings.study_seed, "samples", seed, dimension=population.dimension, samples=m)
            factors = [_sample_factor(rng, population, m) for _ in range(options.draws)]
            expected = expected_sampling_error(population.eigenvalues, m)
            root = population.eigenvectors * np.sqrt(population.eigenvalues)
            for draw, F in enumerate(factors):
                distance = float(squared_bures_distance(F, root))
                sampled.append(
                    {"seed": seed, "samples": m, "draw": draw, "squared_bures": distance, "expected": expected}
                )
            trained.append(_training(settings, seed, m, factors[0], population))
        yield {"sampling": measure.columns(sampled), "training": _joined(trained)}


def _sample_factor(rng: np.random.Generator, population: CovarianceLoss, m: int) -> Array:
    """F with F Fᵀ = Σ̂ of m samples, (n, min(n, m))."""
    white = rng.standard_normal((m, population.dimension))
    _, triangle = np.linalg.qr(white * np.sqrt(population.eigenvalues / m))
    return population.eigenvectors @ triangle.T


def _training(settings: Settings, seed: int, m: int, F: Array, population: CovarianceLoss) -> dict[str, Any]:
    """A flow on Σ̂ = F Fᵀ, and at its samples the loss against Σ0."""
    rank, depth, options = settings.rank, settings.depth, settings.options["integration"]
    target = Target.of_covariance(F @ F.T)
    epsilon = limited_smoothing(float(population.epsilon), target.eigenvalues, rank)
    check_target(target.eigenvalues, rank, epsilon)
    loss = population.on(target, epsilon)
    check_tolerance(options.excess_tolerance, loss, rank)
    trajectory = gradient_flow(loss, make_start(settings, seed, loss).end_to_end, depth, rank=rank, **options.of_flow())
    against = population.with_epsilon(epsilon)
    count = len(trajectory.times)
    return {
        "seed": [seed] * count,
        "samples": [m] * count,
        "time": trajectory.times,
        "loss": trajectory.loss,
        "population_loss": against.value(trajectory.factors),
        "loss_minimum": [float(loss.minimum_value(rank))] * count,
        "population_minimum": [float(against.minimum_value(rank))] * count,
    }


def _joined(tables: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    return {name: [value for table in tables for value in table[name]] for name in tables[0]}
