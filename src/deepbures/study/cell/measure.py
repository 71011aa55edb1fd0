"""What every run is measured by, as columns of `RUNS` and `TRAJECTORIES`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, fields
from typing import Any

import numpy as np
import pyarrow as pa

from ...linalg.psd import Array
from ...losses.registry import CovarianceLoss
from ...model import diagnostics
from ...model.starts import Start
from ...rates.predicted import loss_global_rate, rates_at_minimum
from ...rates.program_constants import Constants, bound_is_proved, paper_constants
from ..results.schema import COUNT, FLAG, FLOAT, INDICES, NAME, VECTOR, list_of, schema

#: One row a run. Symbols are those of `program_constants`; lists run over eigenvalues, largest first. Ours beside
#: them: σ_k(W(0)), the loss at the end from its definition alone (`value_final`), the rate of the global theorem (NaN
#: where it has none), and whether `bound_rate` is proved for the run.
RUNS = schema(
    epsilon_effective=FLOAT,
    lambda_max=FLOAT,
    lambda_min=FLOAT,
    target_trace=FLOAT,
    start_scale=FLOAT,
    start_draws=COUNT,
    loss_initial=FLOAT,
    loss_minimum=FLOAT,
    value_final=FLOAT,
    excess_initial=FLOAT,
    margin=FLOAT,
    C_0=FLOAT,
    K=FLOAT,
    M=FLOAT,
    log10_Delta=FLOAT,
    log10_eta_1=FLOAT,
    log10_eta_2=FLOAT,
    log10_eta_3=FLOAT,
    bound_rate=FLOAT,
    descent_rate=FLOAT,
    sharp_rate=FLOAT,
    least_singular_value_initial=FLOAT,
    global_rate=FLOAT,
    bound_is_proved=FLAG,
    stop_reason=NAME,
    time_final=FLOAT,
    steps=COUNT,
    evaluations=COUNT,
    loss_final=FLOAT,
    excess_final=FLOAT,
    energy_levels=VECTOR,
    eigenvalues_target=VECTOR,
    eigenvalues_initial=VECTOR,
    eigenvalues_final=VECTOR,
    alignment=VECTOR,
)
#: One row a run and sample time. `squared_bures_logged` is the authors' B²(S + εI, S*); `least_singular_value` is
#: σ_k(W), 0 where W has a lower rank than k.
TRAJECTORIES = schema(
    time=FLOAT,
    loss=FLOAT,
    excess=FLOAT,
    gradient_norm=FLOAT,
    covariance_distance=FLOAT,
    squared_bures=FLOAT,
    squared_bures_logged=FLOAT,
    numerical_rank=pa.int16(),
    effective_rank=FLOAT,
    least_singular_value=FLOAT,
    eigenvalue_distances=list_of(pa.float32()),
)
#: Every critical point of the landscape's tables: J (from 0), its position by loss, and L(W_J).
POINT = {"point": COUNT, "kept": INDICES, "order": COUNT, "value": FLOAT}


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
    epsilon = float(loss.epsilon)
    loss_initial = float(loss.value(start.end_to_end))
    least = float(diagnostics.least_singular_value(start.end_to_end, rank))
    if loss.is_bures_distance:
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
        "alignment": diagnostics.alignment(final, loss.to_eigenbasis).ravel(),
    }


def along(loss: CovarianceLoss, rank: int, F: Array, singular_values: Array) -> dict[str, Any]:
    """Distances to the optimum, ranks and eigenvalues at the factors F, (m, n, k), of these singular values, (m, k)."""
    spectrum = loss.minimum_spectrum(rank)
    factor = loss.to_eigenbasis(F)
    filled = max(1, int(np.sum(spectrum > 0)))
    optimum = np.eye(loss.dimension, filled) * np.sqrt(spectrum[:filled])
    epsilon = float(loss.epsilon)
    squared_bures = squared_bures_logged = diagnostics.squared_bures_distance(factor, optimum)
    if epsilon:
        squared_bures_logged = diagnostics.smoothed_squared_bures_by_traces(factor, epsilon, optimum)
    return {
        "covariance_distance": diagnostics.distance_to_diagonal(factor, spectrum),
        "squared_bures": squared_bures,
        "squared_bures_logged": squared_bures_logged,
        "numerical_rank": diagnostics.numerical_rank(singular_values),
        "effective_rank": diagnostics.effective_rank(singular_values),
        "least_singular_value": diagnostics.kth(singular_values, rank),
        "eigenvalue_distances": singular_values**2 - spectrum[: singular_values.shape[-1]],
    }


def _eigenvalues(F: Array, dimension: int) -> Array:
    """Eigenvalues of F Fᵀ, largest first, padded with zeros to the dimension."""
    squares = np.linalg.svd(F, compute_uv=False) ** 2
    return np.pad(squares, (0, dimension - squares.shape[-1]))
