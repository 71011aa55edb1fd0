"""Descent on fresh batches of samples: where it ends, how it scatters, and what it costs in samples."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...files.matrix_files import read_matrix
from ...files.targets import options_of
from ...linalg.psd import Array, symmetrize
from ...losses.registry import CovarianceLoss
from ...losses.target import Target
from ...model.network import DeepLinearNetwork, layer_gradients, prefix_products
from ...rates.predicted import rates_at_minimum, stable_step
from ...rates.sampling import expected_sampling_error
from ..cell import checks
from ..cell.problem import make_loss
from ..cell.settings import Settings
from ..grid.seeds import generator
from ..results.schema import COUNT, FLOAT, NAME, VECTOR, Tables, columns, schema

#: Where descent on batches of m samples ends (`method` plain, or debiased by Richardson), in the eigenbasis of the
#: target and averaged over the second half of the steps and over all runs: the diagonal of S, its standard error, that
#: of the minimum of the mean of the batch losses of these steps (`mean_minimum`), of the minimum on the target
#: (`unbiased`), and of the former to first order in 1/m (`expected`). With a constant step η: Var S_ab and ρ/(2 − ρ)
#: Var Σ̂_ab for ρ = η r_ab, as means over a and b, in units of λ_1². The excess loss on the target along descent, and
#: the loss at the covariance of as many samples (`floor`).
TABLES = {
    "ends": schema(batch=COUNT, method=NAME, **columns(VECTOR, "end", "error", "mean_minimum", "unbiased", "expected")),
    "scatter": schema(batch=COUNT, **columns(FLOAT, "share", "step", "variance", "expected_variance")),
    "curves": schema(batch=COUNT, method=NAME, **columns(FLOAT, "samples", "excess", "floor")),
}
SOURCES = ("covariance", "samples")
COST = 12.0
METHODS = ("plain", "debiased")
#: Most steps on the mean of the batch losses, from the minimum on the target, and the relative step that ends them.
_MEAN_STEPS, _SETTLED = 60, 1e-6
#: Records of a curve.
_RECORDS = 40


@dataclass(frozen=True)
class Options:
    """Keys of `landscape` in the configuration; see config/README.md."""

    batches: tuple[int, ...] = field(metadata={"minimum": 2})
    runs: int = field(metadata={"minimum": 2})
    max_steps: int = field(metadata={"minimum": 20})
    step_share: float = field(metadata={"exclusiveMinimum": 0, "exclusiveMaximum": 1})
    halving_steps: int = field(metadata={"minimum": 1})
    constant_shares: tuple[float, ...] = field(metadata={"exclusiveMinimum": 0, "exclusiveMaximum": 1})


OPTIONS = {"landscape": Options}
#: The weights and losses whose gradients a step takes, on a stack (steps, runs) of batches in the eigenbasis of the
#: target.
_Batches = list[tuple[float, CovarianceLoss]]
_StepSize = Callable[[int], float]


def check(block: Mapping[str, Any]) -> Iterator[str]:
    """Ranks below n, and batches of fewer than n samples, whose covariances are singular."""
    n = block["dimension"]
    yield from checks.only(block, rank=n)
    for i, size in enumerate(block["landscape"]["batches"]):
        if size < 2 * n or size % 2:
            yield f"landscape.batches[{i}]: {size} must be even and at least twice the dimension, {2 * n}"


def run(settings: Settings, seed: int) -> Tables:
    """Rows of the tables; all losses, ε, σ and depths see the same batches of a seed."""
    options: Options = settings.options["landscape"]
    loss = make_loss(settings, seed)
    draw, fluctuation = _source(settings, loss)
    tables: dict[str, list[dict[str, Any]]] = {name: [] for name in TABLES}
    for m in options.batches:
        rng = generator(settings.study_seed, "batches", seed, dimension=loss.dimension, batch=m, runs=options.runs)
        covariances = _halves(draw, rng, options, m, loss.dimension)
        for method in METHODS:
            batches = _batches(loss, covariances, method)
            for name, row in zip(("ends", "curves"), _trained(loss, batches, settings, m, fluctuation), strict=True):
                tables[name].append({"batch": m, "method": method, **row})
        plain = _batches(loss, covariances, "plain")
        for share in options.constant_shares:
            tables["scatter"].append({"batch": m, **_scatter(loss, plain, settings, share, fluctuation / m)})
    return tables


# --- Batches --------------------------------------------------------------------------------------------------------


def _source(settings: Settings, loss: CovarianceLoss) -> tuple[Callable[..., Array], Array]:
    """How m samples are drawn in the eigenbasis of the target, and m Var Σ̂_ij.

    Gaussian samples have λ_i λ_j (1 + δ_ij); rows of a file are drawn with replacement, less their mean.
    """
    lam = loss.eigenvalues
    if "samples" not in settings.target:
        fluctuation = lam[:, None] * lam * (1 + np.eye(loss.dimension))
        return lambda rng, *shape: rng.standard_normal((*shape, loss.dimension)) * np.sqrt(lam), fluctuation
    rows = read_matrix(settings.target["samples"], **options_of(settings.target)).values
    rows = (rows - rows.mean(axis=0)) @ loss.eigenvectors
    products = rows[:, :, None] * rows[:, None, :]
    return lambda rng, *shape: rows[rng.integers(len(rows), size=shape)], products.var(axis=0)


def _halves(draw: Callable[..., Array], rng: np.random.Generator, options: Options, m: int, n: int) -> Array:
    """Covariances of both halves of each batch, (2, steps, runs, n, n)."""
    halves = np.empty((2, options.max_steps, options.runs, n, n))
    for step in range(options.max_steps):
        X = draw(rng, 2, options.runs, m // 2)
        halves[:, step] = 2 * (X.mT @ X) / m
    return halves


def _batches(loss: CovarianceLoss, halves: Array, method: str) -> _Batches:
    """The losses whose weighted gradients a step takes: one, or 2 ∇L(Σ̂) − ½ (∇L(Σ̂_a) + ∇L(Σ̂_b))."""
    sets = [(1.0, halves.mean(axis=0))] if method == "plain" else [(2.0, halves.mean(axis=0)), (-0.5, halves[0])]
    sets += [(-0.5, halves[1])] if method != "plain" else []
    return [(weight, loss.on(Target.of_covariance(symmetrize(one)), _epsilon(loss, one))) for weight, one in sets]


def _epsilon(loss: CovarianceLoss, covariances: Array) -> Array | float:
    return np.full(covariances.shape[:-2], float(loss.epsilon)) if loss.has_epsilon else 0.0


def _gradient(batches: _Batches, members: NDArray[np.intp], W: Array) -> Array:
    total = np.zeros_like(W)
    for weight, loss in batches:
        total += weight * loss.take(members).gradient(W)
    return total


# --- Descent --------------------------------------------------------------------------------------------------------


def _descend(batches: _Batches, start: Array, depth: int, step_size: _StepSize) -> Iterator[Array]:
    """W (runs, n, n) after each step of descent on all layers, from balanced layers; a step has a batch of its own."""
    steps, runs = batches[0][1].shape
    layers = DeepLinearNetwork.balanced(np.broadcast_to(start, (runs, *start.shape)), depth).layers
    layers = [np.broadcast_to(layer, (runs, *layer.shape[-2:])).copy() for layer in layers]
    for step in range(steps):
        prefixes = prefix_products(layers)
        gradient = _gradient(batches, np.arange(step * runs, (step + 1) * runs), prefixes[-1])
        for layer, change in zip(layers, layer_gradients(layers, prefixes, gradient), strict=True):
            layer -= step_size(step) * change
        yield prefix_products(layers)[-1]


def _decaying(options: Options, loss: CovarianceLoss, depth: int) -> _StepSize:
    """η_t = η_0/(1 + t/τ), η_0 a share of the largest stable step at the minimum."""
    first = options.step_share * stable_step(rates_at_minimum(loss, depth, loss.dimension))
    return lambda step: first / (1 + step / options.halving_steps)


def _trained(
    loss: CovarianceLoss, batches: _Batches, settings: Settings, m: int, fluctuation: Array
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The row of `ends` and the rows of `curves` of one method: all runs from √(tr Σ0/n)/2 I, in steps that decay."""
    options, own, n = settings.options["landscape"], _in_own_basis(loss), loss.dimension
    half = options.max_steps // 2
    recorded = {*np.geomspace(1, options.max_steps, _RECORDS).round().astype(int)}
    start = np.sqrt(loss.eigenvalues.mean()) / 2 * np.eye(n)
    total, excess = np.zeros((options.runs, n)), {}
    for step, W in enumerate(
        _descend(batches, start, settings.depth, _decaying(options, own, settings.depth)), start=1
    ):
        if step in recorded:
            excess[step] = float(own.excess(W, n).mean())
        if step > half:
            total += np.sum(W**2, axis=-1) / (options.max_steps - half)
    shift, unbiased = loss.batch_bias(fluctuation / m), loss.minimum_spectrum(n)
    plain = len(batches) == 1
    row = {
        "end": total.mean(axis=0),
        "error": total.std(axis=0, ddof=1) / np.sqrt(options.runs),
        "mean_minimum": _mean_minimum(own, batches, half),
        "unbiased": unbiased,
        "expected": np.full(n, np.nan) if shift is None else unbiased + shift * plain,
    }
    samples = np.array([m * step for step in excess])
    floors = [expected_sampling_error(loss.eigenvalues, number) for number in samples]
    return row, {"samples": samples, "excess": np.array([*excess.values()]), "floor": np.array(floors)}


def _in_own_basis(loss: CovarianceLoss) -> CovarianceLoss:
    """The loss on diag(λ), in the eigenbasis of the target, in which batches are drawn."""
    return loss.on(Target.of_spectrum(loss.eigenvalues), loss.epsilon)


def _mean_minimum(loss: CovarianceLoss, batches: _Batches, first: int) -> Array:
    """The diagonal of S where the mean gradient of the batches from step `first` on vanishes, by descent (N = 1)."""
    steps, runs = batches[0][1].shape
    members = np.arange(first * runs, steps * runs)
    step = stable_step(rates_at_minimum(loss, 1, loss.dimension)) / 2
    W = np.diag(np.sqrt(loss.minimum_spectrum(loss.dimension)))
    later = [(weight, one.take(members)) for weight, one in batches]
    for _ in range(_MEAN_STEPS):
        stack = np.broadcast_to(W, (len(members), *W.shape))
        change = step * sum(weight * one.gradient(stack).mean(axis=0) for weight, one in later)
        W = W - change
        if np.abs(change).max() < _SETTLED * np.abs(W).max():
            break
    return np.sum(W**2, axis=-1)


def _scatter(
    loss: CovarianceLoss, batches: _Batches, settings: Settings, share: float, variance: Array
) -> dict[str, Any]:
    """Var S_ab at a constant step, as means over the entries of what is measured and of what is expected, over λ_1²."""
    own, depth, n = _in_own_basis(loss), settings.depth, loss.dimension
    step = share * stable_step(rates_at_minimum(own, depth, n))
    rates = rates_of_entries(own, depth)
    expected = step * rates / (2 - step * rates) * variance
    steps, runs = batches[0][1].shape
    optimum = np.diag(np.sqrt(loss.minimum_spectrum(n)))
    first, second, count = np.zeros((n, n)), np.zeros((n, n)), (steps - steps // 2) * runs
    for number, W in enumerate(_descend(batches, optimum, depth, lambda _: step)):
        if number >= steps // 2:
            S = W @ W.mT - optimum**2
            first, second = first + S.sum(axis=0), second + np.sum(S**2, axis=0)
    measured = second / count - (first / count) ** 2
    unit = float(loss.eigenvalues[0]) ** 2
    return {
        "share": share,
        "step": step,
        "variance": measured.mean() / unit,
        "expected_variance": expected.mean() / unit,
    }


def rates_of_entries(loss: CovarianceLoss, depth: int) -> Array:
    """r_ab as a symmetric matrix, for k = n (paper.md section 4)."""
    rates = np.zeros((loss.dimension, loss.dimension))
    local = loss.local_rates(depth, np.arange(loss.dimension))
    rates[np.triu_indices(loss.dimension)] = np.nan if local is None else local[0]
    return rates + np.triu(rates, 1).T
