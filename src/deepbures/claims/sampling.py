"""Statements about targets that are estimated from samples."""

import pandas as pd

from .evidence import Statement, each, keys_of
from .mutation import Mutation

#: Smallest m at which terms of second order in 1/m are below the scatter over the draws.
_LARGE = 100


def _sampling_error(draws: pd.DataFrame) -> pd.DataFrame:
    large = draws[draws["samples"] >= _LARGE]
    grouped = large.groupby([*keys_of(large), "samples"], observed=True)
    distance, expected = grouped["squared_bures"], grouped["expected"].first()
    return ((distance.mean() - expected).abs() / distance.sem()).rename("deviation").reset_index()


SAMPLING_ERROR = Statement(
    kind="finite_sample",
    name="finite samples",
    statement="For m Gaussian samples with m → ∞, the expected sampling error of their covariance is known to first "
    "order in 1/m",
    formula="E B²(Σ̂, Σ0) ≈ (1/m) Σ_ij λ_i λ_j (1 + δ_ij) / (2 (λ_i + λ_j))",
    test=f"Mean over the draws for each target and m ≥ {_LARGE}, in units of its standard error. Fitting a sample "
    "below this error is overfitting.",
    unit="standard errors of the mean",
    tolerance=4.0,
    mutations=(Mutation("closed form", "sampling", "expected", 0.05),),
    cases=each("finite_sample", "sampling", _sampling_error),
)
