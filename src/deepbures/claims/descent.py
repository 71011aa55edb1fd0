"""Statements about gradient descent."""

from collections.abc import Iterator
from functools import partial

import numpy as np
import pandas as pd

from ..model.trajectory import StopReason
from ..study.results.derived import (
    certified,
    final_rate,
    full_rank,
    in_balanced_tail,
    order_at_zero,
    predicted_rate,
    settling_steps,
)
from .evidence import Bound, Cases, Column, Statement, Study, above_rounding, decayed, each, keys_of, with_runs
from .mutation import Mutation, raised, replaced, tilted, where

#: Distances and drifts below this fraction of their unit are rounding.
_NOISE = 1e-12
#: A start is near the minimum up to this fraction of g, the height of the lowest saddle above it.
_NEAR = 0.001 * (1 + 1e-9)
#: Descents that end show convergence if the excess fell to the first number; those that did not, had time after so many
#: e-folds of the slowest mode. Range of η r of the slowest mode in which descent ends before rounding has grown.
_FELL, _HAD_STEPS, _SLOWEST = 1e-8, 100.0, (0.45, 1.9)
#: Losses are compared at the first fraction of the largest stable step; from the second on that can turn round.
_QUARTER, _LATE_STEP = 0.25, 0.95
#: Room for the way to the neighbourhood of the minimum, in which steps are counted by local contraction.
_SPARE = 1.5
#: A descent is in its tail where its final contraction is the closed form to this relative error of the logarithm.
_IN_TAIL = 0.05
_Descent, _DescentBound = partial(Statement, kind="descent"), partial(Bound, kind="descent")


def _contractions(covered: Column, fraction: Column) -> Cases:
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
        replaced(
            "a fraction of at most the proved one",
            "runs",
            "descent_rate",
            lambda runs: np.minimum(runs["descent_rate"], runs["descent_global_rate"] / runs["eta"]),
            "holds",
        ),
    ),
    refuted="docs/paper.md section 8",
)


LAYER_CONTRACTION = _DescentBound(
    name="contraction of one layer",
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


LOW_RANK_CONTRACTION = _DescentBound(
    name="contraction of one layer below full rank",
    statement="For N = 1, k < n, ε ≤ λ_n, η < 1 and from every start of rank k with E_0 = L_0 − L* below a threshold, "
    "which is g for ε = 0, each step reduces the excess loss by at least a closed-form fraction",
    formula="E_{i+1} ≤ (1 − 4 η (1 − η) γ) E_i; ε = 0: γ = 1 − λ_{k+1}/(λ_k − E_0)",
    test="Every record of such descents at which the promised decay is at least 1e-6; a theorem, proved in "
    "docs/paper.md.",
    mutations=(Mutation("fraction", "runs", "low_rank_fraction", 0.01, signs=(1,)),),
    cases=_contractions(lambda runs: runs["low_rank_fraction"] > 0, lambda runs: runs["low_rank_fraction"]),
)


def _stepped(study: Study, initialization: str) -> Iterator[pd.DataFrame]:
    """Runs at full rank with a multiple of the largest stable step, from starts of one kind."""
    for runs in study.tables("descent", "runs"):
        if {"relative_step", "initialization", "initial_scale"} <= {*runs.columns}:
            yield runs[full_rank(runs) & (runs["sharp_rate"] > 0) & (runs["initialization"] == initialization)]


def _stable_step(study: Study) -> Iterator[pd.DataFrame]:
    for runs in _stepped(study, "level"):
        near = runs[runs["excess_initial"] <= _NEAR * runs["critical_gap"]]
        fell = (near["stop_reason"] != StopReason.CONVERGED) | (near["excess_final"] < _FELL * near["excess_initial"])
        e_folds = predicted_rate(near) * near["steps"]
        slow = (e_folds > 0) & (e_folds < _HAD_STEPS)
        near = near[fell & ~(slow & (near["stop_reason"] == StopReason.STEP_BUDGET))]
        right = (near["stop_reason"] == StopReason.CONVERGED) == (near["relative_step"] < 1)
        yield near.assign(deviation=np.where(right, 0.0, (near["relative_step"] - 1).abs()))


STABLE_STEP = _Descent(
    name="stable step",
    statement="For k = n, ε < λ_n and from a generic start near the minimum, descent converges to the optimum if and "
    "only if η is below 2/λ_max of the Hessian there",
    formula="L_0 − L* ≤ 0.001 g, generic: converges ⇔ η < 2 / λ_max(∇²L^N)",
    test="Outcome of descents whose η is a given multiple of 2/λ_max, from starts in a random direction from the "
    "minimum, that had the steps to end. Large starts, and those without the fastest mode, are two other claims.",
    unit="2/λ_max, between η and 2/λ_max where the outcome is the other one",
    tolerance=0.0,
    mutations=(Mutation("largest stable step", "runs", "relative_step", 0.02),),
    cases=_stable_step,
)


def _all_end(reason: StopReason) -> Mutation:
    """One outcome of all runs."""
    return replaced("outcome of all of them", "runs", "stop_reason", lambda table: str(reason))


def _diverges_below(study: Study) -> Iterator[pd.DataFrame]:
    for runs in _stepped(study, "small"):
        large = runs[(runs["relative_step"] < 1) & (runs["least_singular_value_initial"] ** 2 > runs["lambda_max"])]
        if len(large):
            diverged = (large["stop_reason"] == StopReason.DIVERGED).any()
            yield large.iloc[[0]].assign(deviation=0.0 if diverged else 1.0)


DIVERGES_BELOW = _Descent(
    name="a large start diverges below the stable step",
    statement="There are starts from which descent with η below 2/λ_max of the Hessian at the minimum diverges",
    formula="∃ W_0, η < 2 / λ_max(∇²L^N): descent diverges",
    test="At least one descent of each experiment from starts whose singular values are all above √λ_1.",
    unit="experiments without one",
    tolerance=0.0,
    mutations=(_all_end(StopReason.CONVERGED),),
    cases=_diverges_below,
)


def _converges_above(study: Study) -> Iterator[pd.DataFrame]:
    for runs in _stepped(study, "saddle"):
        near = runs[(runs["excess_initial"] <= _NEAR * runs["critical_gap"]) & (runs["depth"] > 1)]
        slowest = near["eta"] * near["sharp_rate"] / 2
        above = near[(near["relative_step"] > 1) & (slowest > _SLOWEST[0]) & (slowest < _SLOWEST[1])]
        yield above.assign(deviation=np.where(above["stop_reason"] == StopReason.CONVERGED, 0.0, 1.0))


CONVERGES_ABOVE = _Descent(
    name="without the fastest mode descent converges above the stable step",
    statement="For k = n ≥ 2, N ≥ 2 and from starts near the minimum that have only the slowest mode, descent "
    "converges with η up to 1.2 times 2/λ_max of the Hessian, if η r < 2 for the rate r of that mode",
    formula="W_0 = W* but for σ_n: descent converges at η = 1.2 · 2 / λ_max(∇²L^N)",
    test="Outcome of every such descent with 0.45 < η r < 1.9: it ends before rounding, which excites all modes, has "
    "grown.",
    unit="runs with another outcome",
    tolerance=0.0,
    mutations=(_all_end(StopReason.DIVERGED),),
    cases=_converges_above,
)


def _final_contraction(runs: pd.DataFrame) -> pd.DataFrame:
    tails = runs[in_balanced_tail(runs)]
    return tails.assign(deviation=(final_rate(tails) / predicted_rate(tails) - 1).abs())


FINAL_CONTRACTION = _Descent(
    name="sharp contraction",
    statement="For every N, k and ε < λ_k, a step of descent from balanced layers that stays near the minimum finally "
    "multiplies the excess loss by the closed-form factor",
    formula="L_{i+1} − L* ~ max_r (1 − η r)² (L_i − L*)",
    test="Every descent in its tail, as for the sharp rate of the flow, whose layers are balanced at the end to 0.001 "
    "λ_1^{1/N}: large steps lose balance, and the minimum that they reach has other rates. The factor is the limit of "
    "that over three equal parts of the last two decades.",
    unit="the logarithm of the factor",
    tolerance=0.001,
    mutations=(Mutation("logarithm of the closed-form factor", "runs", "contraction", 0.01, raised),),
    cases=each("descent", "runs", _final_contraction),
)


def _orders(study: Study, column: str, unit: Column) -> Iterator[pd.DataFrame]:
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
    """Pairs of runs: ratio of their steps, and that of their local contractions, NaN unless both end in their tails."""
    for runs in study.tables("descent", "runs"):
        if not {"loss_name", "relative_step"} <= {*runs.columns} or runs["loss_name"].nunique() < 2:
            continue
        decay = predicted_rate(runs)
        in_tail = (final_rate(runs) / decay - 1).abs() < _IN_TAIL
        steps = runs.assign(steps=settling_steps(runs), decay=decay.where(in_tail, np.inf))
        steps = steps[steps["epsilon"] == 0]
        keys = [key for key in keys_of(steps) if key not in ("loss_name", "epsilon")]
        pairs = steps.pivot_table(
            index=keys, columns="loss_name", values=["steps", "decay"], observed=True, dropna=False
        ).dropna()
        tails = np.isfinite(pairs["decay"]).all(axis=1)
        ratios = {
            "ratio": pairs["steps"]["bures-wasserstein"] / pairs["steps"]["frobenius"],
            "local": (pairs["decay"]["frobenius"] / pairs["decay"]["bures-wasserstein"]).where(tails),
        }
        yield pd.DataFrame(ratios).reset_index()


def _slower(name: str) -> Mutation:
    """Twice as many steps of the runs on one of several losses."""

    def on_it(runs: pd.DataFrame) -> pd.Series:
        return runs["loss_name"] == name if "loss_name" in runs else pd.Series(False, runs.index)

    subject = {"bures-wasserstein": "Bures-Wasserstein", "frobenius": "square"}[name]
    return Mutation(f"steps on the {subject} loss", "runs", "settling_time", 1.0, where(on_it), "×")


def _fewer_steps(study: Study) -> Iterator[pd.DataFrame]:
    for pairs in _losses_compared(study):
        quarter = pairs[pairs["relative_step"] == _QUARTER]
        yield quarter.assign(deviation=quarter["ratio"] / np.fmin(1, _SPARE * quarter["local"]))


LOSSES_COMPARED = _Descent(
    name="Bures-Wasserstein against square loss",
    statement="For ε = 0, from a small start and at a quarter of the largest stable step, descent needs fewer steps on "
    "the Bures-Wasserstein loss than on the square loss; where both end in their tails, at most 1.5 times the ratio of "
    "their local contractions",
    formula="steps_BW / steps_F < min(1, 1.5 ln c_F / ln c_BW), c = max_r (1 − η r)²",
    test="Steps to 1e-6 of the start, paired by depth and seed, where both reached it. A run ends in its tail where "
    "the logarithm of its last contraction is that of c to 5 %. For ε near λ_n, and close to the largest stable step, "
    "the comparison can turn round: docs/paper.md, section 9.",
    unit="this bound",
    tolerance=1.0,
    mutations=(_slower("bures-wasserstein"),),
    cases=_fewer_steps,
)


def _more_steps(study: Study) -> Iterator[pd.DataFrame]:
    for pairs in _losses_compared(study):
        late = pairs[(pairs["relative_step"] >= _LATE_STEP) & (pairs["depth"] == 1) & (pairs["rank"] == 1)]
        yield late.assign(deviation=1 / late["ratio"])


LOSSES_TURN_ROUND = _Descent(
    name="the comparison of losses turns round",
    statement="For n = N = 1, ε = 0, from W(0) = √λ/10 and at 0.95 and 0.99 of the largest stable step, descent needs "
    "more steps on the Bures-Wasserstein loss than on the square loss",
    formula="steps_BW / steps_F > 1",
    test="Steps to 1e-6 of the start, paired by step size, where both reached it.",
    unit="steps of the square loss over those of the Bures-Wasserstein loss",
    tolerance=1.0,
    mutations=(_slower("frobenius"),),
    cases=_more_steps,
)
