"""Measurements that every run has in common, as columns of `RUNS` and `TRAJECTORIES`."""

from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any

import numpy as np
import pyarrow as pa

from ...linalg.psd import Array
from ...losses.closed_form_rates import tied_exchanges
from ...losses.registry import CovarianceLoss
from ...model import diagnostics
from ...model.starts import Start
from ...rates.below_full_rank import low_rank_global_rate
from ...rates.predicted import loss_global_rate, rates_at_minimum
from ...rates.program_constants import Constants, bound_is_proved, program_constants
from ...rates.thresholds import critical_gap
from ..results.schema import COUNT, FLAG, FLOAT, INDICES, NAME, VECTOR, Tables, columns, list_of, schema

#: One row for each run. Lists are over eigenvalues, largest first. Symbols are those of `program_constants`. Further
#: columns: ε limited to λ_k (`epsilon_effective`); σ_k(W(0)) (`least_singular_value_initial`); the final loss from its
#: definition (`value_final`); the rates of the global theorems at full rank and below it, NaN where they do not apply
#: (`global_rate`, `low_rank_rate`); whether `bound_rate` is proved for the run (`bound_is_proved`); the second lowest
#: critical value less L* (`critical_gap`).
RUNS = schema(
    **columns(FLOAT, "epsilon_effective", "lambda_max", "lambda_min", "target_trace", "start_scale"),
    start_draws=COUNT,
    **columns(FLOAT, "loss_initial", "loss_minimum", "value_final", "excess_initial"),
    **columns(FLOAT, "margin", "C_0", "K", "M", "log10_Delta", "log10_eta_1", "log10_eta_2", "log10_eta_3"),
    **columns(FLOAT, "bound_rate", "descent_rate", "sharp_rate", "least_singular_value_initial", "global_rate"),
    bound_is_proved=FLAG,
    **columns(FLOAT, "critical_gap", "low_rank_rate"),
    stop_reason=NAME,
    time_final=FLOAT,
    **columns(COUNT, "steps", "evaluations"),
    **columns(FLOAT, "loss_final", "excess_final"),
    **columns(VECTOR, "energy_levels", "eigenvalues_target", "eigenvalues_initial", "eigenvalues_final", "alignment"),
)
#: One row for each run and sample. `least_singular_value` is σ_k(W), 0 where the rank of W is below k.
TRAJECTORIES = schema(
    **columns(FLOAT, "time", "loss", "excess", "gradient_norm"),
    **columns(FLOAT, "covariance_distance", "squared_bures"),
    numerical_rank=pa.int16(),
    **columns(FLOAT, "effective_rank", "least_singular_value"),
    eigenvalue_distances=list_of(pa.float32()),
)
#: Columns of a critical point W_J: its number, J (`kept`, from 0), its position in the order by loss, and L(W_J).
POINT = {"point": COUNT, "kept": INDICES, "order": COUNT, "value": FLOAT}


#: Relative to the largest one, differences of decay rates below this are rounding.
_SAME_RATE = 1e-8


def tables(run: Mapping[str, Any], samples: Mapping[str, Array]) -> Tables:
    """Rows of `runs` and `trajectories` of one run, with the first and last excess and the last loss as its own."""
    excess = samples["excess"]
    ends = {"excess_initial": excess[0], "loss_final": samples["loss"][-1], "excess_final": excess[-1]}
    return {"runs": [{**run, **ends}], "trajectories": [samples]}


def summary(loss: CovarianceLoss, start: Start, rank: int, depth: int, final: Array, excess: float) -> dict[str, Any]:
    """Target, start, theory and spectra of a run with L(0) − L* = `excess` and the final factor F (n, k) of its S."""
    eigenvalues = loss.eigenvalues
    epsilon = float(loss.epsilon)
    loss_initial = float(loss.value(start.end_to_end))
    least = float(diagnostics.least_singular_value(start.end_to_end, rank))
    if loss.is_bures_distance:
        constants = asdict(program_constants(eigenvalues, epsilon, depth, loss_initial, rank=rank))
        proved = rank == loss.dimension and bound_is_proved(constants["margin"], epsilon, eigenvalues, least)
    else:  # the constants are those of the Bures-Wasserstein loss
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
        "critical_gap": critical_gap(loss, rank),
        "low_rank_rate": _low_rank_rate(loss, depth, rank, excess),
        "energy_levels": loss.saddle_values(rank),
        "eigenvalues_target": eigenvalues,
        "eigenvalues_initial": _eigenvalues(start.end_to_end, loss.dimension),
        "eigenvalues_final": _eigenvalues(final, loss.dimension),
        "alignment": diagnostics.alignment(final, loss.to_eigenbasis).ravel(),
    }


def _low_rank_rate(loss: CovarianceLoss, depth: int, rank: int, excess: float) -> float:
    """`low_rank_global_rate`; NaN for k = n and for losses other than Bures-Wasserstein."""
    if not loss.is_bures_distance or rank == loss.dimension:
        return float("nan")
    return low_rank_global_rate(loss.eigenvalues, float(loss.epsilon), depth, rank, excess)


def along(loss: CovarianceLoss, rank: int, F: Array, singular_values: Array, excess: Array) -> dict[str, Any]:
    """Distances to the optimum, ranks and eigenvalues at the factors F (m, n, k) with their singular values (m, k).

    Where the minimum is the target itself and ε = 0, B²(S, S*) is the `excess` L − L* (m,).
    """
    spectrum = loss.minimum_spectrum(rank)
    factor = loss.to_eigenbasis(F)
    filled = max(1, int(np.sum(spectrum > 0)))
    optimum = np.eye(loss.dimension, filled) * np.sqrt(spectrum[:filled])
    if loss.is_bures_distance and not loss.epsilon and np.array_equal(spectrum, loss.eigenvalues):
        squared_bures = excess
    else:
        squared_bures = diagnostics.squared_bures_distance(factor, optimum)
    return {
        "covariance_distance": diagnostics.distance_to_diagonal(factor, spectrum),
        "squared_bures": squared_bures,
        "numerical_rank": diagnostics.numerical_rank(singular_values),
        "effective_rank": diagnostics.effective_rank(singular_values),
        "least_singular_value": diagnostics.kth(singular_values, rank),
        "eigenvalue_distances": singular_values**2 - spectrum[: singular_values.shape[-1]],
    }


def slowest_share(loss: CovarianceLoss, F: Array, depth: int, rank: int, step_size: float = 0.0) -> float:
    """Fraction of the excess loss at F, near the minimum, in the directions that decay most slowly.

    Those with the least local rate r; for descent with step size η, those with the largest |1 − η r|. Only where it is
    near 1 does the tail of log (L − L*) have the slope of the closed form. NaN where the excess by direction is not
    known in closed form: for ε ≥ λ_k, for losses other than Bures-Wasserstein, and where λ_k = λ_{k+1}, as the minima
    then form a manifold.
    """
    if tied_exchanges(loss.eigenvalues, float(loss.epsilon), np.arange(rank)).any():
        return float("nan")
    by_direction = loss.excess_by_direction(F, rank)
    local = None if by_direction is None else loss.local_rates(depth, np.arange(rank))
    if by_direction is None or local is None:
        return float("nan")
    shares, total = np.concatenate(by_direction), float(np.sum(np.concatenate(by_direction)))
    slowness, all_slowness = (
        np.abs(1 - step_size * rates) if step_size else -rates
        for rates in (np.concatenate(local), rates_at_minimum(loss, depth, rank))
    )
    slowest = np.abs(slowness - all_slowness.max()) <= _SAME_RATE * np.abs(slowness).max()
    return float(shares[slowest].sum()) / total if total > 0 else float("nan")


def _eigenvalues(F: Array, dimension: int) -> Array:
    """Eigenvalues of F Fᵀ, largest first, padded with zeros to the dimension."""
    squares = np.linalg.svd(F, compute_uv=False) ** 2
    return np.pad(squares, (0, dimension - squares.shape[-1]))
