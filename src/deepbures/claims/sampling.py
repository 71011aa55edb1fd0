"""Statements about targets that are estimated from samples."""

from __future__ import annotations

import pandas as pd

from .evidence import Statement, each, keys_of

#: Sizes from which on the law, of first order in 1/m, is expected to hold within the scatter of some draws.
_LARGE = 100


def _sampling_law(draws: pd.DataFrame) -> pd.DataFrame:
    large = draws[draws["samples"] >= _LARGE]
    grouped = large.groupby([*keys_of(large), "samples"], observed=True)
    distance, expected = grouped["squared_bures"], grouped["expected"].first()
    return ((distance.mean() - expected).abs() / distance.sem()).rename("deviation").reset_index()


SAMPLING_LAW = Statement(
    kind="finite_sample",
    name="finite samples",
    source="ours",
    statement="The covariance of m Gaussian samples is this far from the one they are drawn from: so far training is "
    "worthwhile",
    formula="E B²(Σ̂, Σ0) ≈ (1/m) Σ_ij λ_i λ_j (1 + δ_ij) / (2 (λ_i + λ_j))",
    test=f"Mean over the draws of a target and m ≥ {_LARGE}, in units of its standard error.",
    unit="standard errors of the mean",
    tolerance=4.0,
    sees="a law that is off by four standard errors, 20 % for one target and m in the default study",
    cases=each("finite_sample", "sampling", _sampling_law),
)
