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
from ..process.shipped import WORKFLOW
from ..rates.predicted import sharp_rate
from .configuration import paths
from .grid.target import dimension_of

#: Depths N by default: of experiments whose costs hardly depend on it, and of the others.
DEPTHS, LOW_DEPTHS = (1, 2, 5, 20, 50), (1, 2, 3, 5)
#: ε by default, relative to an eigenvalue of the target.
FRACTIONS = (0.0, 0.1, 0.5)
#: Largest number of ranks by default, and largest n at which critical points are searched for.
MOST_RANKS, MOST_SEARCHED = 3, 8
#: Up to this deviation from symmetry, relative to its largest entry, a square matrix in a file is a covariance.
_SYMMETRIC = 1e-3
#: Experiments of the study: all but the search, which is for small n.
_EXPERIMENTS = ["convergence", "low_rank", "plateaus", "descent", "hessian", "blow_up", "escape", "finite_sample"]


def target_of(path: str | Path, samples: bool = False) -> dict[str, str]:
    """The keys of `target` for a file: a covariance if it holds a symmetric matrix, else samples, one per row.

    Raises
    ------
    ValueError
        In one line, if the file cannot be read.
    """
    for mistake in paths.mistakes("file", str(path)):
        raise ValueError(mistake)
    matrix = None if samples else _square(path)
    if matrix is not None and np.abs(matrix - matrix.T).max() <= _SYMMETRIC * np.abs(matrix).max():
        return {"covariance": str(path)}
    return {"samples": str(path)}


def _square(path: str | Path) -> Array | None:
    """The matrix in a file if it is square, else None; a file that cannot be read is refused where it is used."""
    try:
        matrix = read_matrix(path, square=True).values
    except ValueError:
        return None
    return matrix if matrix.shape[0] == matrix.shape[1] else None


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
    n = dimension_of(target)
    eigenvalues, _ = spectrum("target", read_target(target, n))
    full = int(np.sum(eigenvalues > 0))
    if full < 2:
        raise ValueError(f"{next(iter(target.values()))}: a study needs a covariance of rank at least 2, not {full}")
    if excess := [str(k) for k in ranks or () if not 1 <= k <= full]:
        raise ValueError(f"ranks must be from 1 to the rank of the covariance, {full}, not {', '.join(excess)}")
    ranks = sorted(ranks or ranks_at_gaps(eigenvalues))
    saddle = max((k for k in ranks if k < full), default=full - 1)
    low = depths or LOW_DEPTHS

    def smoothing(rank: int) -> list[float]:
        return list(epsilons or (_rounded(part * eigenvalues[rank - 1]) for part in FRACTIONS))

    def horizon(rank: int, over: Sequence[int]) -> float:
        """Long after the slowest mode has decayed, and after every plateau."""
        rates = [sharp_rate(eigenvalues, epsilon, N, rank) for N in over for epsilon in smoothing(rank)]
        return _rounded(1e6 / min(rate for rate in [*rates, eigenvalues[0]] if rate > 0))

    scale = math.sqrt(eigenvalues[max(ranks) - 1]) / 100
    values: dict[str, Any] = {
        "name": name,
        "target_name": next(iter(target.values())),
        "target": "{" + ", ".join(f"{key}: '{path}'" for key, path in target.items()) + "}",
        "only": ", ".join(_EXPERIMENTS + ["critical_search"] * (n <= MOST_SEARCHED)),
        **{"dimension": n, "eigenvalues": _shown(eigenvalues), "seeds": seeds, "most_searched": MOST_SEARCHED},
        **{"full_rank": full, "rank": ranks, "last_rank": max(ranks), "saddle_rank": saddle},
        "full_start": "{kind: close}" if full == n else "{kind: normal, balance: end_to_end}",
        **{"full_epsilon": smoothing(full), "epsilon": smoothing(max(ranks)), "saddle_epsilon": smoothing(saddle)},
        **{"shown_full_epsilon": smoothing(full)[-1], "shown_saddle_epsilon": smoothing(saddle)[-1]},
        **{"depth": list(depths or DEPTHS), "low_depth": list(low), "shown_depth": max(depths or DEPTHS)},
        **{"full_tolerance": _rounded(1e-12 * eigenvalues[full - 1]), "scale": _rounded(scale)},
        "tolerance": _rounded(1e-8 * eigenvalues[max(ranks) - 1]),
        **{"full_time": horizon(full, depths or DEPTHS), "time": horizon(max(ranks), low)},
        "sizes": [2 * n, 10 * n, 100 * n],
    }
    return Template((WORKFLOW / "own_target.yaml").read_text(encoding="utf-8")).substitute(
        {key: _spelled(value) for key, value in values.items()}
    )


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
