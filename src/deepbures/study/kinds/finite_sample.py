"""The covariance of m samples: its distance from that of the population, and training on it."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ...flow.gradient_flow import gradient_flow
from ...linalg.psd import Array
from ...losses.registry import CovarianceLoss
from ...losses.target import Target
from ...model.diagnostics import squared_bures_distance
from ...rates.sampling import expected_sampling_error
from ..cell import checks
from ..cell.problem import check_target, check_tolerance, make_loss, make_start
from ..cell.settings import Initialization, Integration, Settings
from ..grid.seeds import generator
from ..grid.target import limited_epsilon
from ..results.schema import COUNT, FLOAT, Tables, columns, schema

#: Sampling: B²(Σ̂, Σ0) for the covariance Σ̂ of each draw of m samples, and its expectation to first order in 1/m.
#: Training on one Σ̂: the loss on Σ̂ and the same loss on Σ0, with their minima over rank ≤ k.
TABLES = {
    "sampling": schema(**columns(COUNT, "samples", "draw"), **columns(FLOAT, "squared_bures", "expected")),
    "training": schema(
        samples=COUNT, **columns(FLOAT, "time", "loss", "population_loss", "loss_minimum", "population_minimum")
    ),
}
COST = 0.34


@dataclass(frozen=True)
class Sampling:
    """Sample sizes m, and the number of draws of each; see `sampling` in config/README.md."""

    sizes: tuple[int, ...] = field(metadata={"minimum": 2})
    draws: int = field(metadata={"minimum": 1})


OPTIONS = {"initialization": Initialization, "integration": Integration, "sampling": Sampling}


def check(block: Mapping[str, Any]) -> Iterator[str]:
    """Losses, starts that are not balanced, and fewer samples than the rank."""
    yield from checks.bures_distance(block)
    yield from checks.balanced(block)
    largest = max(block["grid"]["rank"])
    for i, size in enumerate(block["sampling"]["sizes"]):
        if size < largest:
            yield f"sampling.sizes[{i}]: {size} must be at least the rank, {largest}"


def run(settings: Settings, seed: int) -> Tables:
    """Rows of the tables `sampling` and `training`.

    Σ̂ = (1/m) Σ_i x_i x_iᵀ for x_1, …, x_m ~ N(0, Σ0), whose mean is known. All ε, ranks and depths use the same
    draws of a seed. The flow is trained on the first draw of each size.
    """
    options: Sampling = settings.options["sampling"]
    population = make_loss(settings, seed)
    if not population.is_bures_distance:
        raise ValueError(f"a finite sample needs the loss 'bures-wasserstein', not {population.name!r}")
    sampled, trained = [], []
    for m in options.sizes:
        rng = generator(settings.study_seed, "samples", seed, dimension=population.dimension, samples=m)
        factors = [_sample_factor(rng, population, m) for _ in range(options.draws)]
        root = population.eigenvectors * np.sqrt(population.eigenvalues)
        distances = np.array([float(squared_bures_distance(F, root)) for F in factors])
        expected = expected_sampling_error(population.eigenvalues, m)
        draws = np.arange(options.draws)
        sampled.append({"samples": m, "draw": draws, "squared_bures": distances, "expected": expected})
        trained.append({"samples": m, **_training(settings, seed, factors[0], population)})
    return {"sampling": sampled, "training": trained}


def _sample_factor(rng: np.random.Generator, population: CovarianceLoss, m: int) -> Array:
    """F (n, min(n, m)) with F Fᵀ = Σ̂ of m samples."""
    white = rng.standard_normal((m, population.dimension))
    _, triangle = np.linalg.qr(white * np.sqrt(population.eigenvalues / m))
    return population.eigenvectors @ triangle.T


def _training(settings: Settings, seed: int, F: Array, population: CovarianceLoss) -> dict[str, Any]:
    """Samples of a flow on Σ̂ = F Fᵀ, with the loss on Σ0."""
    rank, depth, options = settings.rank, settings.depth, settings.options["integration"]
    target = Target.of_covariance(F @ F.T)
    epsilon = limited_epsilon(float(population.epsilon), target.eigenvalues, rank)
    check_target(target.eigenvalues, rank, epsilon)
    loss = population.on(target, epsilon)
    check_tolerance(options.excess_tolerance, loss, rank)
    trajectory = gradient_flow(loss, make_start(settings, seed, loss).end_to_end, depth, rank=rank, **options.of_flow())
    against = population.with_epsilon(epsilon)
    return {
        "time": trajectory.times,
        "loss": trajectory.loss,
        "population_loss": against.value(trajectory.factors),
        "loss_minimum": float(loss.minimum_value(rank)),
        "population_minimum": float(against.minimum_value(rank)),
    }
