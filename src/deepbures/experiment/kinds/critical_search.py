"""Critical points found by a solver that knows nothing of the theorem: is every one among those enumerated?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ... import critical_points
from ...initialization import draw_network
from ...landscape import Curvature, network_hessian
from ...losses import CovarianceLoss
from ...network import DeepLinearNetwork
from ...psd import Array
from ...schema import COUNT, FLAG, FLOAT, INDICES, schema
from ...seeds import generator
from .. import measure
from ..problem import make_loss

#: Where a search for critical points ended, and the enumerated one (`kept`) that is nearest.
TABLES = {
    "searches": schema(
        start=COUNT,
        evaluations=COUNT,
        enumerated=COUNT,
        enumerated_at_rank=COUNT,
        gradient_norm=FLOAT,
        critical=FLAG,
        matched=FLAG,
        kept=INDICES,
        distance=FLOAT,
        loss=FLOAT,
        loss_minimum=FLOAT,
        value=FLOAT,
        negative=COUNT,
        escapes=COUNT,
    )
}
#: Section of an experiment's block with its options.
SECTION = "landscape"
#: CPU seconds that a cell of the default study takes for one seed, on a small machine.
COST = 1.5
#: A point is critical once the norm of the gradient is below this share of λ_1 …
GRADIENT_TOLERANCE = 1e-9
#: … and is the enumerated one if ‖S − S_J‖_F is below this share of λ_1.
MATCH_TOLERANCE = 1e-5
#: Evaluations of the gradient after which a search ends.
EVALUATIONS = 200
#: Range of the scale of the starts, in units of the target's mean singular value.
SCALES = (0.1, 3.0)


def run(settings: Mapping[str, Any], seeds: Sequence[int]) -> Iterator[dict[str, dict[str, Any]]]:
    """Columns of the table `searches`, one row a seed and random start.

    Least squares on ∇L^N = 0 over all layers (trust region, with the closed-form Hessian as Jacobian).
    """
    rank, depth, options = settings["rank"], settings["depth"], settings["landscape"]
    for seed in seeds:
        loss = make_loss(settings, seed)
        rng = generator(
            settings["study_seed"], "search", seed, dimension=loss.dimension, depth=depth, rank=rank, loss=loss.name
        )
        enumerated = critical_points.count(loss, rank, lower_ranks=True), critical_points.count(loss, rank)
        rows = []
        for start in range(options["starts"]):
            layers, evaluations = _solve(loss, _start(loss, depth, rank, rng))
            rows.append(
                {
                    "seed": seed,
                    "start": start,
                    "evaluations": evaluations,
                    "enumerated": enumerated[0],
                    "enumerated_at_rank": enumerated[1],
                    **_described(loss, layers, depth, rank),
                }
            )
        yield {"searches": measure.columns(rows)}


def _start(loss: CovarianceLoss, depth: int, rank: int, rng: np.random.Generator) -> list[Array]:
    """Gaussian layers of a random scale; one n × k layer for N = 1."""
    low, high = np.log(SCALES)
    scale = np.exp(rng.uniform(low, high)) * np.sqrt(loss.eigenvalues.mean())
    if depth == 1:
        return [scale * rng.standard_normal((loss.dimension, rank)) / np.sqrt(rank)]
    network = draw_network(rng, loss.dimension, depth, rank, "normal")
    return [scale ** (1 / depth) * layer for layer in network.layers]


def _solve(loss: CovarianceLoss, layers: list[Array]) -> tuple[list[Array], int]:
    """Least squares on the gradient of all layers; where it has no derivative (ε = 0, lost rank) it ends."""
    from scipy.optimize import least_squares

    ends = np.cumsum([W.size for W in layers])[:-1]
    shapes = [W.shape for W in layers]
    visited = np.concatenate([W.ravel() for W in layers])

    def unpack(vector: Array) -> list[Array]:
        return [part.reshape(shape) for part, shape in zip(np.split(vector, ends), shapes, strict=True)]

    def gradient(vector: Array) -> Array:
        network = DeepLinearNetwork(unpack(vector))
        return np.concatenate([g.ravel() for g in network.layer_gradients(loss.gradient(network.end_to_end()))])

    def jacobian(vector: Array) -> Array:
        visited[:] = vector
        H = network_hessian(loss, unpack(vector))
        if not np.isfinite(H).all():
            raise ValueError("the Hessian overflows")
        return H

    try:
        with np.errstate(over="ignore", invalid="ignore"):
            found = least_squares(
                gradient,
                visited.copy(),
                jacobian,
                method="trf",  # MINPACK's "lm" gives other bits from call to call
                xtol=1e-15,
                ftol=1e-15,
                gtol=1e-15,
                max_nfev=EVALUATIONS,
            )
    except ValueError:  # of the Hessian: for ε = 0 the loss has none where W loses rank
        return unpack(visited), -1
    return unpack(found.x), int(found.nfev)


def _described(loss: CovarianceLoss, layers: list[Array], depth: int, rank: int) -> dict[str, Any]:
    """What was found: is it critical, which enumerated point is nearest, and what its Hessian says."""
    network = DeepLinearNetwork(layers)
    W, scale = network.end_to_end(), float(loss.eigenvalues[0])
    gradients = network.layer_gradients(loss.gradient(W))
    norm = float(np.sqrt(sum(np.sum(g**2) for g in gradients)))
    kept, distance = critical_points.nearest(loss, W, rank)
    critical = norm <= GRADIENT_TOLERANCE * scale
    matched = critical and distance <= MATCH_TOLERANCE * scale
    negative = -1
    if matched and len(kept) == rank:
        negative = Curvature.of(np.linalg.eigvalsh(network_hessian(loss, layers)), 1e-7).negative
    return {
        "gradient_norm": norm,
        "critical": critical,
        "matched": matched,
        "kept": kept,
        "distance": distance,
        "loss": float(loss.value(W)),
        "loss_minimum": float(loss.minimum_value(rank)),
        "value": critical_points.value(loss, kept),
        "negative": negative,
        "escapes": critical_points.local_spectrum(loss, kept, depth, rank).escapes,
    }
