"""Semi-random sensing: errors of several methods under repeated measurements."""

from dataclasses import dataclass, field

import numpy as np

from ...neighbours.sensing import SENSING_LOSSES, Measurements, descend, reweighted, spectral_start
from ..cell import checks
from ..cell.settings import Settings
from ..grid.seeds import generator
from ..results.schema import COUNT, FLOAT, NAME, Tables, schema

#: For each number of copies and method (a loss on the plain sum, or `reweighted`): `error` = ‖X − Σ*‖_F / ‖Σ*‖_F.
TABLES = {"sensed": schema(copies=COUNT, method=NAME, error=FLOAT)}
#: `target.spectrum` in the configuration.
SPECTRUM = "wishart"
COST = 2.0


@dataclass(frozen=True)
class Options:
    """Keys of `landscape` in the configuration; see config/README.md."""

    measurements: int = field(metadata={"minimum": 1})
    copies: tuple[int, ...] = field(metadata={"minimum": 0})
    max_steps: int = field(metadata={"minimum": 1})


OPTIONS = {"landscape": Options}


#: One layer; the kind sets targets and ε itself.
check = checks.one_layer


def run(settings: Settings, seed: int) -> Tables:
    """Rows of the table `sensed`: Σ* = U Uᵀ with U (n, k) Gaussian."""
    options: Options = settings.options["landscape"]
    n, rank = settings.dimension, settings.rank
    rng = generator(settings.study_seed, "sensed", seed, dimension=n, rank=rank, measurements=options.measurements)
    U = rng.standard_normal((n, rank)) / np.sqrt(n)
    covariance, vectors = U @ U.T, rng.standard_normal((options.measurements, n))
    rows = []
    for copies in options.copies:
        measured = Measurements.of(covariance, vectors, copies)
        found = {"reweighted": reweighted(measured, rank, n_steps=options.max_steps)[0]}
        for loss in SENSING_LOSSES:
            W = descend(measured, spectral_start(measured, rank), loss, n_steps=options.max_steps)
            found[loss] = W @ W.T
        for method, X in found.items():
            error = float(np.linalg.norm(X - covariance) / np.linalg.norm(covariance))
            rows.append({"copies": copies, "method": method, "error": error})
    return {"sensed": rows}
