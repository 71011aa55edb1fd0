"""One cell of the grid: targets, starts, flows and diagnostics of a block of seeds, as tables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, fields
from typing import Any

import numpy as np
import pyarrow as pa

from . import diagnostics, store
from .gradient_flow import gradient_flow
from .initialization import Start, close_start, small_start
from .losses import BuresWasserstein, CovarianceLoss, Frobenius
from .psd import Array
from .seeds import generator
from .targets import draw_target
from .theory import Constants, paper_constants, sharp_rate
from .trajectory import FlowTrajectory


def run_cell(settings: Mapping[str, Any], seeds: Iterable[int]) -> tuple[pa.Table, pa.Table]:
    """Compute one cell of an experiment.

    Parameters
    ----------
    settings
        `grid.Cell.settings`.
    seeds
        Seed indices.

    Returns
    -------
    runs, trajectories
        Tables of schemas `store.RUNS` (one row a seed) and `store.TRAJECTORIES`.
    """
    runs: list[dict[str, Any]] = []
    samples: list[dict[str, Any]] = []
    for seed in seeds:
        run, trajectory = _run(settings, seed)
        runs.append(run)
        samples.append(trajectory)
    metadata = {"cell": dict(settings), **store.provenance("experiment")}
    run_columns = {field.name: [run[field.name] for run in runs] for field in store.RUNS}
    sample_columns = {
        field.name: [value for trajectory in samples for value in trajectory[field.name]]
        for field in store.TRAJECTORIES
    }
    return (
        store.table_of(run_columns, store.RUNS, metadata),
        store.table_of(sample_columns, store.TRAJECTORIES, metadata),
    )


def make_loss(settings: Mapping[str, Any], seed: int) -> CovarianceLoss:
    """Draw the target of a seed and return the loss on it, with ε limited to λ_n (paper.md section 6)."""
    n, target = settings["dimension"], settings["target"]
    rng = generator(settings["study_seed"], "target", seed, dimension=n, spectrum=target["spectrum"])
    covariance = draw_target(rng, n, settings["smin"], spectrum=target["spectrum"], mode=target["mode"])
    if settings["loss"] == "frobenius":
        return Frobenius(covariance)
    least = float(BuresWasserstein(covariance).eigenvalues[-1])
    return BuresWasserstein(covariance, min(settings["epsilon"], least))


def make_start(settings: Mapping[str, Any], seed: int, loss: CovarianceLoss) -> Start:
    """Draw the initial end-to-end matrix of a seed; the stream does not depend on ε, smin or depth."""
    initialization = settings["initialization"]
    kind = initialization["kind"]
    rng = generator(settings["study_seed"], "initialization", seed, dimension=loss.dimension, kind=kind)
    if kind == "close":
        if not isinstance(loss, BuresWasserstein):
            raise ValueError(f"initialization 'close' needs the loss 'bures-wasserstein', not {loss.name!r}")
        return close_start(rng, loss, settings["rank"])
    return small_start(rng, loss.dimension, settings["rank"], initialization["scale"])


def _run(settings: Mapping[str, Any], seed: int) -> tuple[dict[str, Any], dict[str, Any]]:
    rank, depth = settings["rank"], settings["depth"]
    loss = make_loss(settings, seed)
    start = make_start(settings, seed, loss)
    integration = settings["integration"]
    trajectory = gradient_flow(loss, start.end_to_end, depth, rank=rank, **integration)
    return (
        {"seed": seed, **_summary(loss, start, rank, depth, trajectory)},
        {"seed": [seed] * len(trajectory.times), **_samples(loss, rank, depth, trajectory)},
    )


def _summary(loss: CovarianceLoss, start: Start, rank: int, depth: int, trajectory: FlowTrajectory) -> dict[str, Any]:
    eigenvalues = loss.eigenvalues
    epsilon = getattr(loss, "epsilon", 0.0)
    loss_initial = float(loss.value(start.end_to_end))
    if isinstance(loss, BuresWasserstein):
        constants = asdict(paper_constants(eigenvalues, epsilon, depth, loss_initial, rank=rank))
        rate = sharp_rate(eigenvalues, epsilon, depth, rank)
    else:  # the theory is about the Bures-Wasserstein loss
        constants = dict.fromkeys((field.name for field in fields(Constants)), float("nan"))
        rate = float("nan")
    ends = trajectory.factors[[0, -1]]
    spectra = _eigenvalues(ends, loss.dimension)
    return {
        **constants,
        "epsilon_effective": epsilon,
        "lambda_max": eigenvalues[0],
        "lambda_min": eigenvalues[-1],
        "target_trace": eigenvalues.sum(),
        "start_scale": start.scale,
        "start_draws": start.draws,
        "loss_initial": loss_initial,
        "loss_minimum": loss.minimum_value(rank),
        "excess_initial": trajectory.excess[0],
        "sharp_rate": rate,
        "stop_reason": str(trajectory.stop_reason),
        "time_final": trajectory.times[-1],
        "steps": trajectory.n_steps,
        "evaluations": trajectory.evaluations,
        "loss_final": trajectory.loss[-1],
        "excess_final": trajectory.excess[-1],
        "energy_levels": loss.saddle_values(rank),
        "eigenvalues_target": eigenvalues,
        "eigenvalues_initial": spectra[0],
        "eigenvalues_final": spectra[1],
        "alignment": diagnostics.alignment(ends[1], loss.eigenvectors).ravel(),
    }


def _samples(loss: CovarianceLoss, rank: int, depth: int, trajectory: FlowTrajectory) -> dict[str, Any]:
    F = trajectory.factors
    optimum, _ = loss.minimum(rank)
    spectrum = loss.minimum_spectrum(rank)
    optimum_factor = loss.eigenvectors * np.sqrt(spectrum)
    epsilon = getattr(loss, "epsilon", 0.0)
    singular_values = np.linalg.svd(F, compute_uv=False)
    smoothing = np.broadcast_to(np.sqrt(epsilon) * np.eye(loss.dimension), (*F.shape[:-1], loss.dimension))
    smoothed = np.concatenate([F, smoothing], axis=-1) if epsilon else F
    return {
        "time": trajectory.times,
        "loss": trajectory.loss,
        "excess": trajectory.excess,
        "gradient_norm": diagnostics.balanced_gradient_norm(loss, F, depth),
        "covariance_distance": diagnostics.covariance_distance(F, optimum),
        "squared_bures": diagnostics.squared_bures_distance(F, optimum_factor),
        "squared_bures_logged": diagnostics.squared_bures_distance(smoothed, optimum_factor),
        "numerical_rank": diagnostics.numerical_rank(singular_values),
        "effective_rank": diagnostics.effective_rank(singular_values),
        "eigenvalue_distances": singular_values**2 - spectrum[: singular_values.shape[-1]],
    }


def _eigenvalues(F: Array, dimension: int) -> Array:
    """Eigenvalues of F Fᵀ, largest first, padded with zeros to the dimension."""
    squares = np.linalg.svd(F, compute_uv=False) ** 2
    return np.pad(squares, [(0, 0)] * (squares.ndim - 1) + [(0, dimension - squares.shape[-1])])
