"""A study of one covariance: a configuration with choices from its spectrum."""

import math
import re
from collections.abc import Sequence
from pathlib import Path
from string import Template
from typing import Any

import numpy as np

from ..files.matrix_files import read_matrix
from ..files.targets import read_target
from ..linalg.psd import Array, spectrum
from ..losses.registry import BuresWasserstein
from ..process.shipped import WORKFLOW
from ..rates.predicted import rates_at_minimum
from .configuration import paths
from .grid.target import dimension_of

#: Depths N by default: of experiments whose costs hardly depend on it, and of the others.
DEPTHS, LOW_DEPTHS = (1, 2, 5, 20, 50), (1, 2, 3, 5)
#: ε by default, relative to an eigenvalue of the target.
FRACTIONS = (0.0, 0.1, 0.5)
#: Largest number of ranks by default, largest n at which critical points are searched for, and largest number of steps
#: of descent, beyond which these experiments are left out.
MOST_RANKS, MOST_SEARCHED, MOST_STEPS = 3, 8, 20_000
#: Up to this deviation from symmetry, relative to its largest entry, a square matrix in a file is a covariance.
_SYMMETRIC = 1e-3
#: Experiments of every study of one target.
_EXPERIMENTS = ["convergence", "low_rank", "plateaus", "hessian", "blow_up", "escape", "finite_sample"]


def target_of(path: str | Path, samples: bool = False) -> dict[str, str]:
    """The keys of `target` for a file: a covariance if it holds a symmetric matrix, else samples, one per row.

    Raises
    ------
    ValueError
        In one line, if the file cannot be read.
    """
    for mistake in paths.mistakes("file", str(path)):
        raise ValueError(mistake)
    return {"samples" if samples or not _is_symmetric(path) else "covariance": str(path)}


def _is_symmetric(path: str | Path) -> bool:
    """Whether a file holds a symmetric matrix; a file that cannot be read is refused where it is used."""
    try:
        matrix = read_matrix(path, square=True).values
    except ValueError:
        return False
    rows, columns = matrix.shape
    return rows == columns and bool(np.abs(matrix - matrix.T).max() <= _SYMMETRIC * np.abs(matrix).max())


def ranks_at_gaps(eigenvalues: Array, number: int = MOST_RANKS) -> list[int]:
    """The k < n with the largest ratios λ_k/λ_{k+1}, at most `number` of them, in ascending order.

    Parameters
    ----------
    eigenvalues : (n,)
        λ_1 ≥ … ≥ λ_n ≥ 0 of the target; λ_k > 0 for each k that is returned.
    """
    positive = int(np.sum(eigenvalues > 0))
    edges = range(1, min(positive, len(eigenvalues) - 1) + 1)
    with np.errstate(divide="ignore"):
        gaps = {k: eigenvalues[k - 1] / eigenvalues[k] for k in edges}
    return sorted(sorted(gaps, key=lambda k: (-gaps[k], k))[:number])


def configuration_of(
    target: dict[str, str],
    name: str,
    *,
    ranks: Sequence[int] | None = None,
    depths: Sequence[int] | None = None,
    epsilons: Sequence[float] | None = None,
    seeds: int = 5,
) -> str:
    """The configuration of a study of one covariance, as YAML with comments, to be laid over config/config.yaml.

    Parameters
    ----------
    target
        See `target_of`.
    name
        Of the folders in results/ and figures/.
    ranks, depths, epsilons
        k, N and ε; by default k at the largest gaps of the spectrum (see `ranks_at_gaps`), N from 1 to 50, and
        ε = 0, λ_k/10 and λ_k/2.
    seeds
        Number of random starts.

    Raises
    ------
    ValueError
        In one line, if the file cannot be read, its covariance has a rank below 2, or the ranks do not fit.
    """
    file = next(iter(target.values()))
    eigenvalues, _ = spectrum("target", read_target(target, dimension_of(target)))
    full = int(np.sum(eigenvalues > 0))
    if full < 2:
        raise ValueError(f"{file}: a study needs a covariance of rank at least 2, not {full}")
    if excess := [str(k) for k in ranks or () if not 1 <= k <= full]:
        raise ValueError(f"ranks must be from 1 to the rank of the covariance, {full}, not {', '.join(excess)}")
    values: dict[str, Any] = {
        **{"name": name, "target_name": file, "target": f"{{{next(iter(target))}: '{file}'}}", "seeds": seeds},
        **_choices(eigenvalues, sorted(ranks or ranks_at_gaps(eigenvalues)), depths, epsilons),
    }
    template = Template((WORKFLOW / "own_target.yaml").read_text(encoding="utf-8"))
    return template.substitute({key: _spelled(value) for key, value in values.items()})


def _choices(
    eigenvalues: Array, ranks: list[int], depths: Sequence[int] | None, epsilons: Sequence[float] | None
) -> dict[str, Any]:
    """The values of the template that depend on the spectrum."""
    n, full, last = len(eigenvalues), int(np.sum(eigenvalues > 0)), max(ranks)
    saddle = max((k for k in ranks if k < full), default=full - 1)
    deep, low = list(depths or DEPTHS), list(depths or LOW_DEPTHS)
    epsilon = {  # below λ_k; at saddles below λ_{k+1}, for which a direction is exchanged
        name: list(epsilons or (_rounded(part * eigenvalues[index]) for part in FRACTIONS))
        for name, index in {"full": full - 1, "last": last - 1, "saddle": saddle}.items()
    }
    slowest = [
        _local_rates(eigenvalues, epsilon["full"], deep, full),
        _local_rates(eigenvalues, epsilon["last"], low, last),
    ]
    # Long after the slowest mode has decayed, and after every plateau.
    times = [1e6 / min((rates.min() for rates in some), default=eigenvalues[0]) for some in slowest]
    conditions = (rates.max() / rates.min() for rates in _local_rates(eigenvalues, epsilon["full"], low, full))
    steps = 1000 + int(_rounded(20 * max(conditions, default=0)))
    optional = {"descent": steps <= MOST_STEPS, "critical_search": n <= MOST_SEARCHED}
    return {
        "only": ", ".join(_EXPERIMENTS + [experiment for experiment, fits in optional.items() if fits]),
        **{"most_searched": MOST_SEARCHED, "most_steps": MOST_STEPS, "steps": steps},
        **{"dimension": n, "eigenvalues": _shown(eigenvalues), "sizes": [2 * n, 10 * n, 100 * n]},
        **{"full_rank": full, "rank": ranks, "last_rank": last, "saddle_rank": saddle},
        "full_start": "{kind: close}" if full == n else "{kind: normal, balance: end_to_end}",
        "scale": _rounded(math.sqrt(eigenvalues[last - 1]) / 100),
        **{"full_epsilon": epsilon["full"], "epsilon": epsilon["last"], "saddle_epsilon": epsilon["saddle"]},
        **{"shown_full_epsilon": epsilon["full"][-1], "shown_saddle_epsilon": epsilon["saddle"][-1]},
        **{"depth": deep, "low_depth": low, "shown_depth": max(deep)},
        **{"full_time": _rounded(times[0]), "time": _rounded(times[1])},
        "full_tolerance": _rounded(1e-12 * eigenvalues[full - 1]),
        "descent_tolerance": _rounded(1e-6 * eigenvalues[full - 1]),
        "tolerance": _rounded(1e-8 * eigenvalues[last - 1]),
    }


def _local_rates(eigenvalues: Array, epsilons: Sequence[float], depths: Sequence[int], rank: int) -> list[Array]:
    """The rates at the minimum for each ε and N where all are positive; elsewhere the tail is algebraic."""
    losses = [BuresWasserstein.from_spectrum(eigenvalues, epsilon=epsilon) for epsilon in epsilons]
    rates = [rates_at_minimum(loss, N, rank) for loss in losses for N in depths]
    return [some for some in rates if some.min() > 0]


def name_of(path: str | Path) -> str:
    """A name for the study of a file: its own, with every character that is no letter, digit, - or _ replaced."""
    return re.sub(r"[^\w-]+", "_", Path(path).stem)


def _rounded(value: float) -> float:
    """A number to two digits, for a person to read."""
    return float(f"{value:.2g}")


def _spelled(value: Any) -> str:
    """A value as YAML, numbers without needless digits."""
    if isinstance(value, list):
        return f"[{', '.join(map(_spelled, value))}]"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _shown(eigenvalues: Array) -> str:
    """Eigenvalues to three digits; the first and the last ones of many."""
    words = [f"{value:.3g}" for value in eigenvalues]
    return ", ".join(words if len(words) <= 16 else [*words[:12], "…", *words[-3:]])
