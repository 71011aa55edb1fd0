"""CPU time of a gradient of the smoothed loss against n, in the dense form and in the form that is linear in n.

The times differ from run to run; the results of all other kinds do not.
"""

from dataclasses import dataclass, field
from time import process_time

import numpy as np

from ...linalg.psd import Array
from ...linalg.thin import is_thin
from ...losses.registry import BuresWasserstein
from ..cell import checks
from ..cell.settings import Settings
from ..grid.seeds import generator
from ..results.schema import COUNT, FLOAT, NAME, Tables, schema

#: For each dimension and form: the median CPU time of a gradient, and the largest difference of the gradients of the
#: two forms relative to the largest entry (NaN where the dense form is not computed).
TABLES = {"timings": schema(n=COUNT, form=NAME, seconds=FLOAT, difference=FLOAT)}
#: `target.spectrum` in the configuration.
SPECTRUM = "geometric"
COST = 10.0
COST_AT = 4096  # its dimension in config/images.yaml


@dataclass(frozen=True)
class Options:
    """Keys of `landscape` in the configuration; see config/README.md."""

    condition: float = field(metadata={"minimum": 1})
    halvings: int = field(metadata={"minimum": 2})
    largest_dense: int = field(metadata={"minimum": 1})
    repeats: int = field(metadata={"minimum": 1})


OPTIONS = {"landscape": Options}


#: One layer; the kind sets targets and ε itself.
check = checks.one_layer


def run(settings: Settings, seed: int) -> Tables:
    """Rows of the table `timings`: λ = 1, …, 1/κ in geometric steps, ε = λ_k/10, Gaussian W."""
    options: Options = settings.options["landscape"]
    k = settings.rank
    rows = []
    for halved in range(options.halvings, -1, -1):
        n = settings.dimension // 2**halved
        if not is_thin(n, k):
            raise ValueError(f"halvings: rank {k} has no form that is linear in n at n = {n}: halve less often")
        eigenvalues = np.geomspace(1, 1 / options.condition, n)
        loss = BuresWasserstein.from_spectrum(eigenvalues, epsilon=float(eigenvalues[k - 1]) / 10)
        W = generator(settings.study_seed, "scaling", seed, dimension=n).standard_normal((n, k)) / np.sqrt(n)
        seconds, difference = {}, float("nan")
        seconds["linear"], gradient = _timed(loss, W, options.repeats)
        if n <= options.largest_dense:
            # Columns of zeros change only which form is chosen.
            seconds["dense"], wide = _timed(loss, np.pad(W, ((0, 0), (0, n // 4))), options.repeats)
            difference = float(np.abs(wide[:, :k] - gradient).max() / np.abs(gradient).max())
        for form, median in seconds.items():
            rows.append({"n": n, "form": form, "seconds": median, "difference": difference})
    return {"timings": rows}


def _timed(loss: BuresWasserstein, W: Array, repeats: int) -> tuple[float, Array]:
    """Median CPU seconds of a gradient, without the first one, and the gradient."""
    gradient = loss.gradient(W)
    times = []
    for _ in range(repeats):
        start = process_time()
        loss.gradient(W)
        times.append(process_time() - start)
    return float(np.median(times)), gradient
