"""Statements about gradient descent."""

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import pandas as pd

from ..model.trajectory import StopReason
from ..study.results.derived import certified, final_rate, full_rank, order_at_zero, predicted_rate, settling_steps
from .evidence import Bound, Statement, Study, above_rounding, decayed, keys_of, with_runs
from .mutation import Mutation, replaced, tilted, where

#: Distances and drifts below this fraction of their unit are rounding.
_NOISE = 1e-12
#: The transient from a small start changes the ratio of the steps of two losses by at most this factor.
_SLACK = 1.5
#: A descent is in its tail where its final contraction is the closed form to this relative error of the logarithm.
_IN_TAIL = 0.05
_Descent, _DescentBound = partial(Statement, kind="descent"), partial(Bound, kind="descent")


def _contractions(
    covered: Callable[[pd.DataFrame], pd.Series], fraction: Callable[[pd.DataFrame], pd.Series]
) -> Callable[[Study], Iterator[pd.DataFrame]]:
    """Promised and measured decay of the excess loss where each step reduces it by at least a `fraction` of it."""

    def cases(study: Study) -> Iterator[pd.DataFrame]:
        for runs, trajectories in study.training("descent", ["step", "excess"]):
            chosen = runs[covered(runs)]
            merged = with_runs(trajectories, chosen.assign(fraction=fraction(chosen)), ["fraction", "excess_initial"])
            merged = merged[(merged["step"] > 0) & above_rounding(merged)]
            yield decayed(merged, -merged["step"] * np.log1p(-merged["fraction"]))

    return cases


CONTRACTION = _DescentBound(
    name="contraction of descent",
    source="reconstructed",
    statement="For every η that meets the step-size conditions of the authors' program, each step reduces the excess "
    "loss by at least the fraction η r",
    formula="η ≤ min(η_1, η_2, η_3) ⇒ L_i − L* ≤ (1 − η r)^i (L_0 − L*)",
    test="Every record of descents that meet the conditions, at which the promised decay is at least 1e-6; "
    "r = 4 N c^{2(2N−1)/N} K for ε > 0, 2 N c^{2(N−1)/N} for ε = 0 and k = n.",
    cases=_contractions(
        lambda runs: certified(runs) & runs["descent_rate"].notna(), lambda runs: runs["eta"] * runs["descent_rate"]
    ),
    mutations=(
        Mutation(
            "a fraction of at most the proved one",
            "runs",
            "descent_rate",
            change=replaced(lambda runs: np.minimum(runs["descent_rate"], runs["descent_global_rate"] / runs["eta"])),
            verdict="holds",
        ),
    ),
    refuted="docs/paper.md section 8",
)


LAYER_CONTRACTION = _DescentBound(
    name="contraction of one layer",
    source="ours",
    statement="For N = 1, k = n, ε < λ_n, η ≤ 1/2 and from every start of full rank, each step reduces the loss by at "
    "least the fraction 4 η (1 − η) m/(m + ε)",
    formula="L_{i+1} ≤ (1 − 4 η (1 − η) m/(m + ε)) L_i, m = min(σ_n(W_0)², λ_n − ε)",
    test="Every record of such descents at which the promised decay is at least 1e-6; a theorem, proved in "
    "docs/paper.md.",
    mutations=(Mutation("fraction", "runs", "descent_global_rate", 0.01, signs=(1,)),),
    cases=_contractions(
        lambda runs: (runs["descent_global_rate"] > 0) & (runs["descent_global_rate"] < 1),
        lambda runs: runs["descent_global_rate"],
    ),
)


def _stable_step(study: Study) -> Iterator[pd.DataFrame]:
    for runs in study.tables("descent", "runs"):
        if "relative_step" not in runs or not (runs["relative_step"] > 1).any():
            continue
        near = runs[full_rank(runs) & (runs["sharp_rate"] > 0)]
        right = (near["stop_reason"] == StopReason.CONVERGED) == (near["relative_step"] < 1)
        yield near.assign(deviation=np.where(right, 0.0, (near["relative_step"] - 1).abs()))


STABLE_STEP = _Descent(
    name="stable step",
    source="ours",
    statement="For k = n and ε < λ_n, descent converges to the optimum if and only if η is below 2/λ_max of the "
    "Hessian there",
    formula="converges ⇔ η < 2 / λ_max(∇²L^N)",
    test="Outcome of descents whose η is a given multiple of 2/λ_max.",
    unit="2/λ_max, between η and 2/λ_max where the outcome is the other one",
    tolerance=0.0,
    mutations=(Mutation("largest stable step", "runs", "relative_step", 0.02),),
    cases=_stable_step,
)


def _orders(study: Study, column: str, unit: Callable[[pd.DataFrame], pd.Series]) -> Iterator[pd.DataFrame]:
    """Deviation from 1 of the order of a column of runs in the step size as η → 0; one case per cell and seed.

    `unit` gives the unit of the column in each run; values that are rounding in this unit are left out.
    """
    for runs in study.tables("descent", "runs"):
        if "step_size" not in runs or runs["flow_error"].isna().all():
            continue
        rows = []
        for _, run in runs.groupby([key for key in keys_of(runs) if key != "step_size"], observed=True):
            fitted = order_at_zero(run[run[column] > _NOISE * unit(run)], column)
            if not np.isnan(fitted):
                rows.append(run.iloc[[0]].assign(deviation=abs(fitted - 1)))
        yield from rows


DESCENT_TO_FLOW = _Descent(
    name="descent to flow",
    source="ours",
    statement="At a fixed time and as η → 0, gradient descent approaches the flow at first order in η",
    formula="‖S_η − S_flow‖ = O(η)",
    test="Order in η of the distance at a fixed time, extrapolated to η = 0 from the three smallest step sizes, one "
    "case for each depth, ε and seed.",
    unit="the order",
    tolerance=0.005,
    mutations=(Mutation("order", "runs", "flow_error", 0.02, tilted("eta"), ""),),
    cases=lambda study: _orders(study, "flow_error", lambda runs: pd.Series(1.0, runs.index)),
)


BALANCE = _Descent(
    name="drift from balance",
    source="ours",
    statement="At a fixed time and as η → 0, the drift of gradient descent from balanced layers is of first order in η",
    formula="max_j ‖W_{j+1}ᵀ W_{j+1} − W_j W_jᵀ‖ = O(η)",
    test="Order in η of the drift at a fixed time, extrapolated to η = 0 from the three smallest step sizes, one case "
    "for each depth, ε and seed.",
    unit="the order",
    tolerance=0.005,
    mutations=(Mutation("order", "runs", "balancedness_final", 0.02, tilted("eta"), ""),),
    cases=lambda study: _orders(study, "balancedness_final", lambda runs: runs["lambda_max"] ** (1 / runs["depth"])),
)


def _losses_compared(study: Study) -> Iterator[pd.DataFrame]:
    for runs in study.tables("descent", "runs"):
        if "loss_name" not in runs or runs["loss_name"].nunique() < 2:
            continue
        decay = predicted_rate(runs)
        in_tail = (final_rate(runs) / decay - 1).abs() < _IN_TAIL
        steps = runs.assign(steps=settling_steps(runs), decay=decay.where(in_tail, np.inf))
        steps = steps[steps["epsilon"] == 0]
        keys = [key for key in keys_of(steps) if key not in ("loss_name", "epsilon")]
        columns = {"index": keys, "columns": "loss_name", "values": ["steps", "decay"]}
        pairs = steps.pivot_table(**columns, observed=True, dropna=False).dropna()
        ours, square = (pairs.xs(name, level="loss_name", axis=1) for name in ("bures-wasserstein", "frobenius"))
        tails = np.isfinite(ours["decay"]) & np.isfinite(square["decay"])
        bound = np.minimum(1, _SLACK * square["decay"] / ours["decay"]).where(tails, 1)
        deviation = ours["steps"] / square["steps"] / bound
        yield deviation.rename("deviation").reset_index()


LOSSES_COMPARED = _Descent(
    name="Bures-Wasserstein against square loss",
    source="ours",
    statement="For ε = 0 and from every small start tested, descent needs fewer steps on the Bures-Wasserstein loss "
    "than on the square loss; where both end in their tails, at most 3/2 of the fraction that their contractions give",
    formula="steps_BW / steps_F < min(1, (3/2) log ρ_F / log ρ_BW) at the same multiple of 2/λ_max, ρ = max (1 − η r)²",
    test="Steps to 1e-6 of the start, paired by depth, seed and step, where both reached it. A run ends in its tail "
    "where its measured contraction is ρ to 5 % of the logarithm. For ε near λ_n the comparison can turn around: "
    "docs/paper.md, section 9.",
    unit="this bound",
    tolerance=1.0,
    mutations=(
        Mutation(
            "steps of the Bures-Wasserstein loss",
            "runs",
            "settling_time",
            1.0,
            where(lambda runs: runs.get("loss_name", "") == "bures-wasserstein"),
            "×",
        ),
    ),
    cases=_losses_compared,
)
