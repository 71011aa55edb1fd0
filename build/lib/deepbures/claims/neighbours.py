"""Statements about the neighbours: scaled descent, barycenters, low rank plus sparse, sensing."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from .evidence import Statement, Study, keys_of

_NO_SCALED = "no experiment of the kind scaled (config/neighbours.yaml)"


def _first_steps(study: Study) -> Iterator[pd.DataFrame]:
    for runs in study.tables("scaled", "scaled"):
        one = runs[(runs["loss_name"] == "bures-wasserstein") & (runs["depth"] == 1) & (runs["share"] == 0)]
        one = one[(one["start"] == "gaussian") & (one["rank"] >= one["target_rank"]) & (one["method"] == "layerwise")]
        after = np.array([excess[min(1, len(excess) - 1)] for excess in one["excess"]])
        yield one.assign(deviation=after / one["unit"])


def _tails(study: Study) -> Iterator[pd.DataFrame]:
    for runs in study.tables("scaled", "scaled"):
        settled = runs[runs["tail_factor"].notna() & (runs["tail_expected"] > 0)]
        yield settled.assign(deviation=(settled["tail_factor"] / settled["tail_expected"] - 1).abs())


def _quadratic(study: Study) -> Iterator[pd.DataFrame]:
    for runs in study.tables("scaled", "scaled"):
        exact = runs[(runs["method"] == "layerwise") & (runs["share"] == 0) & (runs["rank"] == runs["target_rank"])]
        exact = exact[(exact["start"] != "gaussian")]
        failed = ~exact["converged"].astype(bool) | (exact["steps"] > 30)
        yield exact.assign(deviation=exact["worst_ratio"].where(~failed))


def _exponents(study: Study) -> Iterator[pd.DataFrame]:
    for runs in study.tables("scaled", "conditions"):
        steep = runs[runs["condition"] > 1]
        steep = steep.assign(number=1 / (1 - np.sqrt(steep["contraction"].clip(0))))
        rows = []
        for keys, group in steep.groupby(keys_of(steep), observed=True):
            if group["condition"].nunique() > 1:
                slope = np.polyfit(np.log(group["condition"]), np.log(group["number"]), 1)[0]
                row = dict(zip(keys_of(steep), keys, strict=True))
                power = (1 if row["loss_name"] == "bures-wasserstein" else 2) - 1 / row["depth"]
                rows.append({**row, "deviation": abs(slope - power)})
        yield pd.DataFrame(rows)


def _barycenter_rates(study: Study) -> Iterator[pd.DataFrame]:
    for runs in study.tables("barycenter", "barycenters"):
        one = runs[runs["factor"].notna()]
        yield one.assign(deviation=(one["factor"] / one["expected"] - 1).abs())


def _sparse(study: Study) -> Iterator[pd.DataFrame]:
    for runs in study.tables("sparse", "recoveries"):
        few = runs[(runs["share"] <= 0.04) & (runs["rank"] <= 10) & (runs["method"] != "frobenius")]
        yield few.assign(deviation=few["error"])


def _sensing(study: Study) -> Iterator[pd.DataFrame]:
    for runs in study.tables("sensing", "sensed"):
        one = runs[runs["method"] == "reweighted"]
        yield one.assign(deviation=one["error"])


ONE_STEP = Statement(
    kind="scaled",
    name="one step",
    source="ours",
    statement="One layer, ε = 0, k ≥ rank Σ0: a half step from a Gaussian start reaches the target, whatever κ",
    formula="L(W − ½∇L(W)) ≤ 1e-13 tr Σ0",
    test="Loss after one step.",
    unit="tr Σ0",
    tolerance=1e-13,
    sees="a relative error of 3e-7 in the factor",
    missing=_NO_SCALED,
    cases=_first_steps,
)
SCALED_TAILS = Statement(
    kind="scaled",
    name="tails of half steps",
    source="ours",
    statement="Half steps on one layer contract as the local rates say; an unrepaired bottleneck costs (1 − 1/N)²",
    formula="e_{t+1}/e_t → max (1 − r/2)²; (λ_{k+1}/λ_k)² for ε = 0; (ε/λ_n)² for k = n",
    test="Last factor of each run whose factor has settled to 0.2 % over three steps.",
    unit="the factor of theory",
    tolerance=0.01,
    sees="a factor that is off by 1 %",
    missing=_NO_SCALED,
    cases=_tails,
)
QUADRATIC = Statement(
    kind="scaled",
    name="quadratic from a Nyström start",
    source="ours",
    statement="Exact rank: scaled descent from a Nyström start takes at most 30 steps, whatever κ, N and the loss",
    formula="e_{t+1} ≤ 0.01 e_t in whole steps below 1e-2; e in λ_r, or λ_r², of the least positive eigenvalue",
    test="Largest ratio of a run; one that took more steps, or did not get there, is a violation.",
    unit="e_t",
    tolerance=0.01,
    sees="linear convergence with a factor above 0.01",
    missing=_NO_SCALED,
    cases=_quadratic,
)
EXPONENTS = Statement(
    kind="scaled",
    name="condition numbers of depth",
    source="ours",
    statement="Depth worsens the condition number of plain descent",
    formula="κ^{1−1/N} (Bures-Wasserstein), κ^{2−1/N} (square loss)",
    test="Slope of the measured local condition number over κ; from the contraction of the slowest mode.",
    unit="1",
    tolerance=0.05,
    sees="an exponent that is off by 0.05",
    missing=_NO_SCALED,
    cases=_exponents,
)
BARYCENTER_RATE = Statement(
    kind="barycenter",
    name="rate to a barycenter",
    source="ours",
    statement="Half steps on one layer approach a barycenter at the rate of the Hessian there",
    formula="e_{t+1}/e_t → (1 − r/2)², r the least non-zero eigenvalue of ∇²F",
    test="Factor along the slowest mode.",
    unit="the factor of theory",
    tolerance=0.01,
    sees="a factor that is off by 1 %",
    missing="no experiment of the kind barycenter (config/neighbours.yaml)",
    cases=_barycenter_rates,
)
FEW_CORRUPTIONS = Statement(
    kind="sparse",
    name="few corruptions",
    source="ours",
    statement="At most 4 % corrupted entries, k ≤ 10, κ = 10: scaled and Bures-Wasserstein steps recover every seed",
    formula="‖W Wᵀ − Σ*‖_F ≤ 1e-6 ‖Σ*‖_F",
    test="Error at the end.",
    unit="‖Σ*‖_F",
    tolerance=1e-6,
    sees="one problem that is not recovered",
    missing="no experiment of the kind sparse (config/neighbours.yaml)",
    cases=_sparse,
)
REWEIGHTED = Statement(
    kind="sensing",
    name="copies do no harm",
    source="ours",
    statement="Locally reweighted projections recover Σ* however often a measurement is repeated",
    formula="‖X − Σ*‖_F ≤ 1e-4 ‖Σ*‖_F",
    test="Error at the end.",
    unit="‖Σ*‖_F",
    tolerance=1e-4,
    sees="one problem that is not recovered",
    missing="no experiment of the kind sensing (config/neighbours.yaml)",
    cases=_sensing,
)
