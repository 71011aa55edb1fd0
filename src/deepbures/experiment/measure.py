"""What every run is measured by, as columns of `store.RUNS` and `store.TRAJECTORIES`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, fields
from typing import Any

import numpy as np

from .. import diagnostics
from ..initialization import Start
from ..losses import BuresWasserstein, CovarianceLoss
from ..psd import Array
from ..theory import Constants, bound_is_proved, loss_global_rate, paper_constants, rates_at_minimum


def one_row(**values: Any) -> dict[str, list[Any]]:
    """Columns of a table with one row."""
    return {name: [value] for name, value in values.items()}


def columns(rows: Iterable[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Columns of a table from its rows, which have the same names."""
    listed = list(rows)
    return {name: [row[name] for row in listed] for name in listed[0]}


def summary(loss: CovarianceLoss, start: Start, rank: int, depth: int, final: Array) -> dict[str, Any]:
    """Target, start, theory and spectra of a run that ended at the factor `final`, (n, k)."""
    eigenvalues = loss.eigenvalues
    epsilon = float(getattr(loss, "epsilon", 0.0))
    loss_initial = float(loss.value(start.end_to_end))
    least = float(diagnostics.least_singular_value(start.end_to_end, rank))
    if isinstance(loss, BuresWasserstein):
        constants = asdict(paper_constants(eigenvalues, epsilon, depth, loss_initial, rank=rank))
        proved = rank == loss.dimension and bound_is_proved(constants["margin"], epsilon, eigenvalues, least)
    else:  # the paper's theory is about the Bures-Wasserstein loss
        constants = dict.fromkeys((field.name for field in fields(Constants)), float("nan"))
        proved = False
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
        "value_final": float(loss.value(final)),
        "sharp_rate": 2 * rates_at_minimum(loss, depth, rank).min(),
        "least_singular_value_initial": least,
        "global_rate": loss_global_rate(loss, depth, least, rank),
        "bound_is_proved": int(proved),
        "energy_levels": loss.saddle_values(rank),
        "eigenvalues_target": eigenvalues,
        "eigenvalues_initial": _eigenvalues(start.end_to_end, loss.dimension),
        "eigenvalues_final": _eigenvalues(final, loss.dimension),
        "alignment": diagnostics.alignment(final, loss.eigenvectors).ravel(),
    }


def samples(loss: CovarianceLoss, rank: int, F: Array) -> dict[str, Any]:
    """Distances to the optimum, ranks and eigenvalues at the factors F, (m, n, k)."""
    optimum, _ = loss.minimum(rank)
    spectrum = loss.minimum_spectrum(rank)
    optimum_factor = loss.eigenvectors * np.sqrt(spectrum)
    epsilon = float(getattr(loss, "epsilon", 0.0))
    singular_values = np.linalg.svd(F, compute_uv=False)
    squared_bures = squared_bures_logged = diagnostics.squared_bures_distance(F, optimum_factor)
    if epsilon:
        smoothing = np.broadcast_to(np.sqrt(epsilon) * np.eye(loss.dimension), (*F.shape[:-1], loss.dimension))
        smoothed = np.concatenate([F, smoothing], axis=-1)
        squared_bures_logged = diagnostics.squared_bures_by_traces(smoothed, optimum_factor)
    return {
        "covariance_distance": diagnostics.covariance_distance(F, optimum),
        "squared_bures": squared_bures,
        "squared_bures_logged": squared_bures_logged,
        "numerical_rank": diagnostics.numerical_rank(singular_values),
        "effective_rank": diagnostics.effective_rank(singular_values),
        "least_singular_value": diagnostics.least_singular_value(F, rank),
        "eigenvalue_distances": singular_values**2 - spectrum[: singular_values.shape[-1]],
    }


def _eigenvalues(F: Array, dimension: int) -> Array:
    """Eigenvalues of F Fᵀ, largest first, padded with zeros to the dimension."""
    squares = np.linalg.svd(F, compute_uv=False) ** 2
    return np.pad(squares, (0, dimension - squares.shape[-1]))
