"""Statements about training on fresh batches of samples (docs/samples.md)."""

from collections.abc import Iterator
from functools import partial

import numpy as np
import pandas as pd

from .evidence import Statement, Study, each, keys_of
from .mutation import Mutation, where

_Minibatch = partial(Statement, kind="minibatch")
#: Smallest m at which the scatter is compared with its first order in 1/m.
_LARGE = 20


def _relative(ends: pd.DataFrame, one: str, other: str) -> pd.Series:
    """max_i |one − other|/λ_i for columns of vectors."""
    rows = zip(ends[one], ends[other], ends["unbiased"], strict=True)
    return pd.Series([float(np.max(np.abs(a - b) / unit)) for a, b, unit in rows], ends.index)


BARYCENTER_END = _Minibatch(
    name="end of descent on batches",
    statement="For every loss, N and m, descent on fresh batches in steps that decay ends where the mean gradient of "
    "the batches vanishes: for the Bures-Wasserstein loss at the barycenter of their covariances",
    formula="S → argmin_S E L(S, Σ̂); Bures-Wasserstein: the barycenter of the Σ̂",
    test="Diagonal of S averaged over the second half of the steps, against the minimum of the mean loss of the same "
    "batches, found by descent on all of them; largest difference over the directions.",
    unit="λ_i",
    tolerance=0.03,
    mutations=(Mutation("minimum of the mean loss", "ends", "mean_minimum", 0.08),),
    cases=each("minibatch", "ends", lambda ends: ends.assign(deviation=_relative(ends, "end", "mean_minimum"))),
)


def _first_order(ends: pd.DataFrame) -> pd.DataFrame:
    known = ends[ends["expected"].map(lambda values: not np.isnan(values).any())]
    away = [
        np.max(np.abs(run.mean_minimum - run.expected) / (4 * run.error + 4 * run.unbiased / run.batch**2))
        for run in known.itertuples()
    ]
    return known.assign(deviation=np.array(away, dtype=float))


BATCH_BIAS = _Minibatch(
    name="bias of batches",
    statement="To first order in 1/m, batches of m Gaussian samples shorten each eigenvalue by a closed-form fraction, "
    "the small ones most; blur makes it less, Richardson's gradient and the square loss have none",
    formula="s_i = λ_i (1 − (1/m) Σ_j (1 + δ_ij) (2 λ_j/(d_i + d_j))²), d = √(4 λ² + σ⁴); σ = 0: Bures-Wasserstein",
    test="Minimum of the mean loss of the batches; largest difference over the directions.",
    unit="4 standard errors of the end + 4 λ_i/m²",
    tolerance=1.0,
    mutations=(Mutation("closed form", "ends", "expected", 0.1),),
    cases=each("minibatch", "ends", _first_order),
)


def _depths(study: Study) -> Iterator[pd.DataFrame]:
    for ends in study.tables("minibatch", "ends"):
        keys = [*(key for key in keys_of(ends) if key != "depth"), "batch", "method"]
        for _, runs in ends.groupby(keys, observed=True):
            shallow = runs.loc[runs["depth"].idxmin(), "end"]
            apart = [np.max(np.abs(a - shallow) / unit) for a, unit in zip(runs["end"], runs["unbiased"], strict=True)]
            yield runs.assign(deviation=apart)[runs["depth"] > runs["depth"].min()]


SAME_AT_EVERY_DEPTH = _Minibatch(
    name="depth does not move the end of batches",
    statement="For every loss and m, descent on the same batches ends at the same covariance at every depth",
    formula="S_∞ does not depend on N",
    test="Diagonal of S averaged over the second half of the steps, against that of the least depth.",
    unit="λ_i",
    tolerance=0.04,
    mutations=(
        Mutation("end at the largest depth", "ends", "end", 0.1, where(lambda t: t["depth"] == t["depth"].max())),
    ),
    cases=_depths,
)


def _scatter(scatter: pd.DataFrame) -> pd.DataFrame:
    large = scatter[(scatter["batch"] >= _LARGE) & scatter["expected_variance"].notna()]
    return large.assign(deviation=(large["variance"] / large["expected_variance"] - 1).abs())


SCATTER = _Minibatch(
    name="scatter at a constant step",
    statement="For every loss and N, descent on batches in small constant steps scatters about its end with a variance "
    "that is known to first order in 1/m",
    formula="Var S_ab = η r_ab/(2 − η r_ab) · λ_a λ_b (1 + δ_ab)/m, r_ab the local rates",
    test=f"Sum of the variances of all entries of S over the second half of the steps, m ≥ {_LARGE}.",
    unit="the closed form",
    tolerance=0.3,
    mutations=(Mutation("closed form", "scatter", "expected_variance", 0.6),),
    cases=each("minibatch", "scatter", _scatter),
)
