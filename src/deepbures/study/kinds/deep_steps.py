"""Single steps of deep descent from many starts: what each removes of the loss, against what is promised."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import numpy as np

from ...descent.gradient_descent import gradient_descent
from ...linalg.psd import Array, symmetrize
from ...losses.registry import BuresWasserstein
from ...model.level_starts import level_start
from ...model.network import DeepLinearNetwork
from ...model.starts import random_orthogonal
from ...rates.deep_descent import deep_descent_fraction
from ..cell import checks
from ..cell.settings import Settings
from ..grid.seeds import generator
from ..results.schema import COUNT, FLAG, FLOAT, Tables, columns, schema

#: One row for each start: κ of the target and ε/λ_n (`share`), q of η = q/(2 N M^{1−1/N}), whether S(0) commutes with
#: Σ0, the promised fraction of L that each step removes, and the step of the least fall relative to the promise: its
#: number, and the natural logarithms of the decay promised and measured in it.
TABLES = {
    "steps": schema(
        **columns(FLOAT, "condition", "share", "q"),
        aligned=FLAG,
        **columns(FLOAT, "eta", "fraction", "promised", "fell"),
        step=COUNT,
    )
}
#: `target.spectrum` in the configuration.
SPECTRUM = "geometric"
COST = 0.6
#: Range of the excess of starts, in units of λ_n: log-uniform.
_EXCESS = (1e-4, 10.0)
#: Below this fraction of the first loss the rounding of W decides what a step removes.
_FLOOR = 1e-8


@dataclass(frozen=True)
class Options:
    """Keys of `landscape` in the configuration; see config/README.md."""

    conditions: tuple[float, ...] = field(metadata={"minimum": 1})
    shares: tuple[float, ...] = field(metadata={"minimum": 0, "exclusiveMaximum": 1})
    step_shares: tuple[float, ...] = field(metadata={"exclusiveMinimum": 0, "maximum": 1})
    starts: int = field(metadata={"minimum": 2})
    steps: int = field(metadata={"minimum": 1})


OPTIONS = {"landscape": Options}


def check(block: Mapping[str, Any]) -> Iterator[str]:
    """Axes that must have one value."""
    yield from checks.only(block, epsilon=0, smin=-1)
    yield from checks.bures_distance(block)


def run(settings: Settings, seed: int) -> Tables:
    """Rows of the table `steps`.

    n = k is the rank of the cell; Σ0 has the eigenvalues 1, …, 1/κ in geometric steps, and ε is `share` of the least.
    Half of the starts lie in a random direction from the minimum, the others along the eigenvectors of Σ0 (for n = 1:
    all).
    """
    options: Options = settings.options["landscape"]
    n, depth = settings.rank, settings.depth
    blocks = []
    for condition, share in product(options.conditions if n > 1 else (1.0,), options.shares):
        rng = generator(settings.study_seed, "steps", seed, dimension=n, condition=condition, share=share)
        basis = random_orthogonal(rng, n)
        eigenvalues = np.geomspace(1, 1 / condition, n)
        loss = BuresWasserstein(symmetrize((basis * eigenvalues) @ basis.T), share * float(eigenvalues[-1]))
        aligned = np.arange(options.starts) % 2 if n > 1 else np.ones(options.starts, dtype=int)
        W = np.stack([_start(rng, loss, bool(flag)) for flag in aligned])
        for q in options.step_shares:
            keys = {"condition": condition, "share": share, "q": q, "aligned": aligned}
            blocks.append({**keys, **_worst_steps(loss, W, depth, q, options.steps)})
    return {"steps": blocks}


def _start(rng: np.random.Generator, loss: BuresWasserstein, aligned: bool) -> Array:
    """W(0), (n, n): of a random excess in a random direction, or with random singular values along Ω."""
    size = 10 ** rng.uniform(*np.log10(_EXCESS))
    if not aligned:
        return level_start(rng, loss, loss.dimension, size * float(loss.eigenvalues[-1])).end_to_end
    s = np.sqrt(loss.minimum_spectrum(loss.dimension)) * np.exp(size * rng.uniform(-1, 1, loss.dimension) / _EXCESS[1])
    return loss.eigenvectors * s


def _worst_steps(loss: BuresWasserstein, W: Array, depth: int, q: float, n_steps: int) -> dict[str, Array]:
    """The step of least fall relative to the promise, of runs from W (m, n, n), each with its own step size."""
    singular = np.linalg.svd(W, compute_uv=False)
    M = np.maximum(singular[:, 0] ** 2, loss.eigenvalues[0] - loss.epsilon)
    eta = q / (2 * depth * M ** (1 - 1 / depth))
    ends = zip(singular[:, -1], singular[:, 0], eta, strict=True)
    fractions = np.array([deep_descent_fraction(loss.eigenvalues, float(loss.epsilon), depth, *each) for each in ends])
    run = gradient_descent(loss, DeepLinearNetwork.balanced(W, depth), eta, n_steps, np.arange(n_steps + 1))
    with np.errstate(divide="ignore", invalid="ignore"):
        fell = np.log(run.excess[:-1] / run.excess[1:])
    fell[run.excess[1:] <= _FLOOR * run.excess[0]] = np.inf
    fell[np.isnan(fell)] = np.inf
    worst = np.argmin(fell, axis=0)
    return {
        "eta": eta,
        "fraction": fractions,
        "promised": -np.log1p(-fractions),
        "fell": np.take_along_axis(fell, worst[None], axis=0)[0],
        "step": worst,
    }
