"""Statements about gradient flow and gradient descent."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import pandas as pd

from ..model.trajectory import StopReason
from ..rates.predicted import algebraic_tail
from ..study.results.derived import certified, full_rank, order, settling_steps, tail_ratio
from .evidence import LOSS_ROUNDING, Statement, Study, each, keys_of, off, with_runs

#: An algebraic tail is compared where the excess loss is below the first share of λ_n, and the next mode has decayed by
#: e to minus the second.
_LATE, _DECAYED = 1e-5, 40.0
#: It is also required that its law has fallen to this share of the start, so that the start is forgotten.
_BEGUN = 1e-3
#: Distances and drifts below this share of their unit are rounding.
_NOISE = 1e-12
#: Below this share of L(0) − L* the rounding of W ends every fall.
_FLOOR = 1e-24
#: What a test of rates would notice.
_ONE_SAMPLE = "one recorded value multiplied by 1.5 where"
#: A bound on how far the excess loss falls.
_Bound = partial(
    Statement,
    unit="the promised fall (logarithms)",
    tolerance=1e-3,
    sees="a fall that is 0.1 % short of the promise",
    bound=True,
)


def _above_rounding(trajectories: pd.DataFrame) -> pd.Series:
    """Whether a record is still above the rounding of W, which no bound can pass (NaN: yes)."""
    return ~(trajectories["excess"] <= _FLOOR * trajectories["excess_initial"])


def _falls(rate: str, covered: Callable[[pd.DataFrame], pd.Series]) -> Callable[[Study], Iterator[pd.DataFrame]]:
    """Promised and measured fall of the excess loss at the samples, after their start, of the flows with a rate."""

    def cases(study: Study) -> Iterator[pd.DataFrame]:
        for runs, trajectories in study.training("flow", ["time", "excess"]):
            merged = with_runs(trajectories, runs[covered(runs)], [rate, "excess_initial"])
            merged = merged[(merged["time"] > 0) & _above_rounding(merged)]
            yield _fallen(merged, merged[rate] * merged["time"])

    return cases


def _fallen(merged: pd.DataFrame, promised: pd.Series) -> pd.DataFrame:
    with np.errstate(divide="ignore"):
        fell = np.log(merged["excess_initial"] / merged["excess"])
    return merged.assign(promised=promised, fell=fell)


def _flow_converges(runs: pd.DataFrame) -> pd.DataFrame:
    exponential = runs[(runs["epsilon_effective"] > 0) & (runs["margin"] > 0) & (runs["sharp_rate"] > 0)]
    slowest = exponential["global_rate"].fillna(exponential["sharp_rate"] / 5)
    had_time = exponential["stop_reason"] != StopReason.END_TIME
    had_time |= slowest * exponential["time_final"] > _DECAYED / 2
    ended = exponential[had_time]
    return ended.assign(deviation=ended["excess_final"] / ended["excess_initial"])


FLOW_CONVERGES = Statement(
    kind="flow",
    name="convergence of the flow",
    source="abstract",
    statement="Gradient flow of the smoothed loss converges to the minimum, from starts with a margin and for ε < λ_k",
    formula="c > 0, ε > 0 ⇒ L(t) → L*",
    test="Last record of every flow with 0 < ε < λ_k and c > 0 whose horizon is 20 times the time of its rate, or that "
    "ended before.",
    unit="L(0) − L*",
    tolerance=1e-6,
    sees="a flow that stays above 1e-6 of its start; not how fast it falls",
    missing="no flow with ε > 0 starts with a positive margin c",
    cases=each("flow", "runs", _flow_converges),
)


FLOW_BOUND = _Bound(
    kind="flow",
    name="bound of the flow",
    source="reconstructed",
    statement="From every start with a margin c > 0 gradient flow converges at least as fast as this rate",
    formula="L(t) − L* ≤ (L(0) − L*) exp(−8 N c^{2(2N−1)/N} K t)",
    test="Every record of every flow with c > 0 at which the bound promises a fall of at least 1e-6.",
    missing="the bound promises a fall of at least 1e-6 nowhere",
    cases=_falls("bound_rate", lambda runs: runs["margin"] > 0),
    refuted="docs/paper.md section 8",
)


REPAIRED_BOUND = _Bound(
    kind="flow",
    name="bound of the flow where W keeps the margin",
    source="ours",
    statement="The same bound, where W itself and its optimum have the margin (k = n): there it is proved",
    formula="c² ≤ min(σ_n(W(0))², λ_n − ε) ⇒ L(t) ≤ L(0) exp(−8 N c^{2(2N−1)/N} K t)",
    test="The same at the flows that meet this condition.",
    missing="no flow meets the condition with a promise of at least 1e-6",
    cases=_falls("bound_rate", lambda runs: (runs["margin"] > 0) & (runs["bound_is_proved"] == 1)),
)


GLOBAL_RATE = _Bound(
    kind="flow",
    name="global rate of the flow",
    source="ours",
    statement="From every balanced start of full rank, k = n and ε < λ_n, the loss falls at this rate at all times",
    formula="L(t) ≤ L(0) exp(−4 N m^{2−1/N} t / (m + ε)), m = min(σ_n(W(0))², λ_n − ε)",
    test="Every record of every such flow, with a margin or without; a theorem, proved in docs/paper.md.",
    missing="no flow at full rank with ε < λ_n",
    cases=_falls("global_rate", lambda runs: runs["global_rate"] > 0),
)


def _margin_kept(study: Study) -> Iterator[pd.DataFrame]:
    # |σ_k([W, √ε I]) − √λ_k| ≤ min_Q ‖[W, √ε I] − R Q‖ = √L(t) ≤ √L(0) = √λ_k − c.
    for runs, trajectories in study.training("flow", ["least_singular_value"]):
        merged = with_runs(trajectories, runs[runs["margin"] > 0], ["margin", "epsilon_effective", "lambda_max"])
        smoothed = np.sqrt(merged["least_singular_value"] ** 2 + merged["epsilon_effective"])
        short = np.maximum(merged["margin"] - smoothed, 0)
        yield merged.assign(deviation=short / np.sqrt(merged["lambda_max"]))


MARGIN_KEPT = Statement(
    kind="flow",
    name="margin kept",
    source="ours",
    statement="Along the flow the k-th singular value of the smoothed factor [W, √ε I] stays above c",
    formula="(σ_k(W(t))² + ε)^{1/2} ≥ c",
    test="Every record of every flow with c > 0. W alone need not keep it: its σ_k ends at (λ_k − ε)^{1/2}.",
    unit="√λ_1",
    tolerance=1e-9,
    sees="a singular value that is 1e-9 √λ_1 below c",
    missing="no flow starts with a positive margin c",
    cases=_margin_kept,
)


def _loss_falls(study: Study) -> Iterator[pd.DataFrame]:
    for runs, trajectories in study.training("flow", ["excess"]):
        merged = with_runs(trajectories, runs, ["loss_initial"])
        before = merged.groupby(keys_of(merged), sort=False, observed=True)["excess"].shift()
        rise = np.maximum(merged["excess"] - before, 0) / merged["loss_initial"]
        yield merged.assign(deviation=rise)[before.notna()]


LOSS_FALLS = Statement(
    kind="flow",
    name="loss falls",
    source="ours",
    statement="Gradient flow never increases the loss",
    formula="L(t') ≤ L(t) for t' > t",
    test="Consecutive records of every flow.",
    unit="L(0)",
    tolerance=LOSS_ROUNDING,
    sees=f"{_ONE_SAMPLE} the loss had fallen by less than a third since the record before, which most have not",
    cases=_loss_falls,
)


def _sharp_rate(runs: pd.DataFrame) -> pd.DataFrame:
    tails = runs[(runs["sharp_rate"] > 0) & (runs["in_tail"] == 1)]
    return tails.assign(deviation=(tail_ratio(tails) - 1).abs())


SHARP_RATE = Statement(
    kind="flow",
    name="sharp rate",
    source="ours",
    statement="The excess loss finally decays at the closed-form rate of the linearised flow, at every N and k",
    formula="L(t) − L* ~ exp(−2 min r t)",
    test="Every flow in its tail: it reached its tolerance, the slopes of the two halves of its last three decades "
    "agree to 0.5 %, and 99 % of what is left of the excess loss is in the slowest direction. The rate is the limit "
    "of ‖∇L^N‖²/(L − L*), extrapolated from the last two decades: to 0.1 % for any two exponentials that pass this.",
    unit="the closed-form rate",
    tolerance=0.001,
    sees="a rate that is off by 0.1 %",
    missing="no flow has reached its tail",
    cases=each("flow", "runs", _sharp_rate),
)


def _algebraic_tail(runs: pd.DataFrame) -> pd.DataFrame:
    at_edge = np.isclose(runs["epsilon_effective"], runs["lambda_min"], rtol=1e-12, atol=0)
    tails = runs[full_rank(runs) & at_edge & (runs["stop_reason"] == StopReason.END_TIME)]
    s = tails["eigenvalues_target"].str[-2].fillna(np.inf) - tails["epsilon_effective"]  # of the next mode
    next_rate = 4 * tails["depth"] * s ** (2 - 1 / tails["depth"]) / (s + tails["epsilon_effective"])
    alone = (next_rate * tails["time_final"] > _DECAYED) | (tails["rank"] == 1)
    law = [algebraic_tail(*row) for row in tails[["time_final", "lambda_min", "depth"]].itertuples(index=False)]
    settled = (tails["excess_final"] < _LATE * tails["lambda_min"]) & (law < _BEGUN * tails["excess_initial"])
    return tails.assign(deviation=(tails["excess_final"] / law - 1).abs())[alone & settled]


ALGEBRAIC_TAIL = Statement(
    kind="flow",
    name="algebraic tail",
    source="ours",
    statement="Where ε = λ_n (k = n) the tail is a power of t with known exponent and constant",
    formula="L(t) − L* ~ (1/(4 λ_n)) ((4N−2) t/λ_n)^{−2N/(2N−1)}",
    test="Excess loss at the end of every flow with ε = λ_n that ran to its horizon, where it was below 1e-5 λ_n, the "
    "law below 1e-3 of the start, and the next mode had decayed by e^{−40}.",
    unit="the closed form",
    tolerance=0.1,
    sees="a constant that is off by 10 %, an exponent that is off by 0.01",
    missing="no flow with ε = λ_n ran to its horizon",
    cases=each("flow", "runs", _algebraic_tail),
)


def _plateaus(study: Study) -> Iterator[pd.DataFrame]:
    for runs in study.tables("flow", "runs"):
        aligned = runs[runs["half_times"].map(len) > 0]
        if not len(aligned):
            continue
        modes = aligned.explode(["half_times", "half_times_predicted"]).astype(
            {"half_times": float, "half_times_predicted": float}
        )
        learnt = modes[np.isfinite(modes["half_times_predicted"]) & (modes["half_times_predicted"] > 0)]
        yield off(learnt, "half_times", "half_times_predicted")


PLATEAUS = Statement(
    kind="flow",
    name="plateau times",
    source="ours",
    statement="From a start along the target's eigenvectors the plateaus of the loss end at times in closed form",
    formula="∫ ds / (4 N s^{2−1/N} (√(λ/(s+ε)) − 1)) = t",
    test="Time at which each eigenvalue of S reaches half of its limit, interpolated between records.",
    unit="the closed-form time",
    tolerance=0.01,
    sees="a time that is off by 1 %",
    missing="no flow starts along the target's eigenvectors",
    cases=_plateaus,
)


def _polyak_lojasiewicz(study: Study) -> Iterator[pd.DataFrame]:
    for runs, trajectories in study.training("flow", ["loss", "gradient_norm"]):
        chosen = runs[(runs["depth"] == 1) & (runs["epsilon_effective"] == 0) & full_rank(runs)]
        merged = with_runs(trajectories, chosen, ["target_trace"])
        merged = merged[merged["loss"] > LOSS_ROUNDING * merged["target_trace"]]
        yield merged.assign(deviation=(merged["gradient_norm"] ** 2 / (4 * merged["loss"]) - 1).abs())


POLYAK_LOJASIEWICZ = Statement(
    kind="flow",
    name="Polyak-Łojasiewicz equality",
    source="ours",
    statement="For ε = 0 and full rank the squared gradient is four times the loss",
    formula="‖∇L_0(W)‖² = 4 L_0(W)",
    test="Every record of flows with N = 1, ε = 0, k = n and a loss above 1e-12 tr Σ0.",
    unit="4 L_0",
    tolerance=1e-6,
    sees="a gradient or loss that is off by 1e-6",
    missing="no flow with N = 1, ε = 0 and k = n",
    cases=_polyak_lojasiewicz,
)


def _contracted(trajectories: pd.DataFrame, runs: pd.DataFrame) -> pd.DataFrame:
    """Promised and measured fall of the excess loss where each step takes at least the `share` of a run."""
    merged = with_runs(trajectories, runs, ["share", "excess_initial"])
    merged = merged[(merged["step"] > 0) & _above_rounding(merged)]
    return _fallen(merged, -merged["step"] * np.log1p(-merged["share"]))


def _contraction(study: Study) -> Iterator[pd.DataFrame]:
    for runs, trajectories in study.training("descent", ["step", "excess"]):
        covered = runs[certified(runs) & runs["descent_rate"].notna()]
        yield _contracted(trajectories, covered.assign(share=covered["eta"] * covered["descent_rate"]))


CONTRACTION = _Bound(
    kind="descent",
    name="contraction of descent",
    source="reconstructed",
    statement="Under the step-size conditions of the authors' program each step contracts the excess loss",
    formula="η ≤ min(η_1, η_2, η_3) ⇒ L_i − L* ≤ (1 − η r)^i (L_0 − L*)",
    test="Every record of descents whose η meets the conditions and whose promised fall is at least 1e-6; "
    "r = 4 N c^{2(2N−1)/N} K for ε > 0, 2 N c^{2(N−1)/N} for ε = 0 and k = n.",
    missing="no run has a step size that the conditions allow, with a promise of at least 1e-6",
    cases=_contraction,
    refuted="docs/paper.md section 8",
)


def _layer_contraction(study: Study) -> Iterator[pd.DataFrame]:
    for runs, trajectories in study.training("descent", ["step", "excess"]):
        proved = runs[(runs["descent_global_rate"] > 0) & (runs["descent_global_rate"] < 1)]
        yield _contracted(trajectories, proved.assign(share=proved["descent_global_rate"]))


LAYER_CONTRACTION = _Bound(
    kind="descent",
    name="contraction of one layer",
    source="ours",
    statement="One layer, k = n, ε < λ_n, η ≤ 1/2, any start of full rank: each step takes this share of the loss",
    formula="L_{i+1} ≤ (1 − 4 η (1 − η) m/(m + ε)) L_i, m = min(σ_n(W_0)², λ_n − ε)",
    test="Every record of descents with N = 1 and k = n, whose promised fall is at least 1e-6; a theorem, proved in "
    "docs/paper.md.",
    missing="no descent with one layer, k = n and ε < λ_n",
    cases=_layer_contraction,
)


def _stable_step(study: Study) -> Iterator[pd.DataFrame]:
    for runs in study.tables("descent", "runs"):
        if "relative_step" not in runs or not (runs["relative_step"] > 1).any():
            continue
        near = runs[full_rank(runs) & (runs["sharp_rate"] > 0)]
        right = (near["stop_reason"] == StopReason.CONVERGED) == (near["relative_step"] < 1)
        yield near.assign(deviation=np.where(right, 0.0, (near["relative_step"] - 1).abs()))


STABLE_STEP = Statement(
    kind="descent",
    name="stable step",
    source="ours",
    statement="At full rank, ε < λ_n, descent ends at the optimum for η below 2/λ_max of the Hessian there, and for no "
    "other",
    formula="converges ⇔ η < 2 / λ_max(∇²L^N)",
    test="Outcome of descents at given shares of 2/λ_max.",
    unit="2/λ_max, between η and 2/λ_max where the outcome is the other one",
    tolerance=0.0,
    sees="a largest stable step that is off by more than the shares next to 1, 5 % in the default study",
    missing="no descent at full rank near the largest stable step",
    cases=_stable_step,
)


def _orders(study: Study, column: str, unit: Callable[[pd.DataFrame], pd.Series]) -> Iterator[pd.DataFrame]:
    """Deviation from 1 of the fitted order of a column of runs in the step size; one case per cell and seed.

    `unit` gives the unit of the column in each run; values that are rounding in this unit are left out.
    """
    for runs in study.tables("descent", "runs"):
        if "step_size" not in runs or runs["flow_error"].isna().all():
            continue
        rows = []
        for _, run in runs.groupby([key for key in keys_of(runs) if key != "step_size"], observed=True):
            fitted = order(run[run[column] > _NOISE * unit(run)], column)
            if not np.isnan(fitted):
                rows.append(run.iloc[[0]].assign(deviation=abs(fitted - 1)))
        yield from rows


DESCENT_TO_FLOW = Statement(
    kind="descent",
    name="descent to flow",
    source="ours",
    statement="Gradient descent follows the flow as η → 0",
    formula="‖S_η − S_flow‖ = O(η)",
    test="Fitted order in η of the distance at a fixed time, one case a depth, ε and seed.",
    unit="the order",
    tolerance=0.05,
    sees="an order that is off by 0.05",
    missing="no descent is compared with the flow",
    cases=lambda study: _orders(study, "flow_error", lambda runs: pd.Series(1.0, runs.index)),
)


BALANCE = Statement(
    kind="descent",
    name="drift from balance",
    source="ours",
    statement="Descent drifts from balance in proportion to η",
    formula="max_j ‖W_{j+1}ᵀ W_{j+1} − W_j W_jᵀ‖ = O(η)",
    test="Fitted order in η of the drift at a fixed time, one case a depth, ε and seed.",
    unit="the order",
    tolerance=0.05,
    sees="an order that is off by 0.05",
    missing="no descent has step sizes at one end time",
    cases=lambda study: _orders(study, "balancedness_final", lambda runs: runs["lambda_max"] ** (1 / runs["depth"])),
)


def _losses_compared(study: Study) -> Iterator[pd.DataFrame]:
    for runs in study.tables("descent", "runs"):
        if "loss_name" not in runs or runs["loss_name"].nunique() < 2:
            continue
        steps = runs.assign(steps=settling_steps(runs))
        steps = steps[steps["epsilon"] == 0]
        keys = [key for key in keys_of(steps) if key not in ("loss_name", "epsilon")]
        pairs = steps.pivot_table(index=keys, columns="loss_name", values="steps", observed=True, dropna=False).dropna()
        yield pairs.reset_index().assign(deviation=(pairs["bures-wasserstein"] / pairs["frobenius"]).to_numpy())


LOSSES_COMPARED = Statement(
    kind="descent",
    name="Bures-Wasserstein against square loss",
    source="ours",
    statement="At ε = 0, from a small start, descent needs fewer steps on the Bures-Wasserstein loss than on the "
    "square loss",
    formula="ε = 0: steps_BW / steps_F < 1 at the same share of 2/λ_max",
    test="Steps to 1e-6 of the start, paired by depth, seed and step, where both got there. With ε near λ_n it can "
    "turn: docs/paper.md, section 9.",
    unit="steps of the square loss",
    tolerance=1.0,
    sees="a pair in which the square loss needs no more steps",
    missing="no descent with both losses at ε = 0",
    cases=_losses_compared,
)
