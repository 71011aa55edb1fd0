"""Statements about starts below the lowest saddle: from where flow and descent converge, and how fast below full rank.

g is the second lowest critical value over rank ≤ k less L*, (√λ_k − √ε)² − ((√λ_{k+1} − √ε)_+)², without the second
term for k = n (`critical_gap`; docs/paper.md, sections 4, 5 and 8).
"""

from collections.abc import Iterator
from functools import partial

import numpy as np
import pandas as pd

from ..model.trajectory import StopReason
from .evidence import Bound, Statement, Study, decays, each, keys_of, with_runs
from .mutation import Mutation, replaced

#: A run that did not converge had time if its slowest mode had this many e-folds: 20 times those of the tolerance.
_HAD_TIME = 400.0
#: Runs with an excess of the start within this fraction of g are on the edge.
_EDGE = 1e-9
#: Relative rounding of the excess loss, in units of √(λ_1/E); falls in a step are tested to the second.
_ROUNDING, _TESTED = 24 * np.finfo(float).eps, 1e-4
_Flow, _Descent = partial(Statement, kind="flow"), partial(Statement, kind="descent")
_LAST = replaced("last excess", "runs", "excess_final", lambda table: 0.01 * table["excess_initial"])


def _smoothed(runs: pd.DataFrame) -> pd.Series:
    """Whether 0 < ε < λ_k."""
    return (runs["epsilon_effective"] > 0) & (runs["sharp_rate"] > 0)


def _left(runs: pd.DataFrame) -> pd.DataFrame:
    """Cases with L − L* at the end, in units of L(0) − L* or of g: runs with 0 < ε < λ_k that ended, or had time."""
    ended = runs["stop_reason"].isin([StopReason.CONVERGED, StopReason.STATIONARY, StopReason.DIVERGED])
    cases = runs[_smoothed(runs) & (ended | (runs["sharp_rate"] * runs["time_final"] > _HAD_TIME))]
    unit = np.maximum(cases["excess_initial"], cases["critical_gap"].where(np.isfinite(cases["critical_gap"]), 0.0))
    return cases.assign(deviation=cases["excess_final"] / unit)


def _on_the_saddle(runs: pd.DataFrame) -> pd.Series:
    """Whether the start is the lowest saddle itself."""
    if not {"initialization", "initial_scale"} <= {*runs.columns}:
        return pd.Series(False, runs.index)
    return (runs["initialization"] == "saddle") & (runs["initial_scale"] >= 1)


def _below(runs: pd.DataFrame) -> pd.Series:
    return runs["excess_initial"] < (1 - _EDGE) * runs["critical_gap"]


FLOW_CONVERGES = _Flow(
    name="convergence of the flow",
    source="abstract",
    statement="For 0 < ε < λ_k, gradient flow of the smoothed loss converges to the minimum, from every start tested "
    "that is no critical point",
    formula="0 < ε < λ_k, ∇L^N ≠ 0 at the start ⇒ L(t) → L*",
    test="Last record of every such flow that ended before its horizon, or ran for 400 times the time of its slowest "
    "mode. The abstract states that it converges; from which starts is the claim 'threshold of convergence'.",
    unit="L(0) − L*, or of g where that is larger",
    tolerance=1e-6,
    mutations=(_LAST,),
    cases=each("flow", "runs", lambda runs: _left(runs[~_on_the_saddle(runs)])),
)


THRESHOLD = _Flow(
    name="threshold of convergence",
    statement="From every balanced start of rank k whose loss is below the second lowest critical value, gradient flow "
    "of the smoothed loss converges to the minimum",
    formula="0 < ε < λ_k, L(0) < L* + g ⇒ L(t) → L*; g = (√λ_k − √ε)² − ((√λ_{k+1} − √ε)_+)²",
    test="Last record of every such flow that ended before its horizon, or ran for 400 times the time of its slowest "
    "mode; a theorem, proved in docs/paper.md.",
    unit="L(0) − L*, or of g where that is larger",
    tolerance=1e-6,
    mutations=(_LAST, Mutation("threshold", "runs", "critical_gap", 0.02, signs=(1,))),
    cases=each("flow", "runs", lambda runs: _left(runs[_below(runs)])),
)


def _saddle(study: Study) -> Iterator[pd.DataFrame]:
    for runs, trajectories in study.training("flow", ["time", "gradient_norm"]):
        chosen = runs[_smoothed(runs) & _on_the_saddle(runs)]
        first = trajectories[trajectories["time"] == 0]
        starts = with_runs(first, chosen, ["critical_gap", "excess_initial", "sharp_rate"])
        speed = starts["gradient_norm"] ** 2 / (starts["sharp_rate"] * starts["excess_initial"])
        yield starts.assign(deviation=np.maximum((starts["excess_initial"] / starts["critical_gap"] - 1).abs(), speed))


SADDLE_AT_THE_THRESHOLD = _Flow(
    name="the threshold is sharp",
    statement="For 0 < ε < λ_k there is a start with the second lowest critical value at which the flow rests",
    formula="∃ W(0): L(0) = L* + g and ∇L(W(0)) = 0",
    test="Starts at the critical point that exchanges direction k for k + 1, or for k = n leaves n empty: excess loss "
    "over g, and the rate of decay ‖∇L^N‖²/(L − L*) over the sharp rate.",
    unit="g, or of the sharp rate",
    tolerance=1e-6,
    mutations=(Mutation("threshold", "runs", "critical_gap", 0.02),),
    cases=_saddle,
)


LOW_RANK_RATE = Bound(
    kind="flow",
    name="global rate below full rank",
    statement="For k < n, ε ≤ λ_n and from every balanced start of rank k with E_0 = L(0) − L* below a threshold, "
    "which is g for ε = 0, the excess loss decays at least at a closed-form rate at all times",
    formula="L(t) − L* ≤ E_0 exp(−rate t); ε = 0: rate = 4 (√λ_k − √E_0)^{2−2/N} (1 − λ_{k+1}/(λ_k − E_0))",
    test="Every record of every such flow; a theorem, proved in docs/paper.md.",
    mutations=(Mutation("rate", "runs", "low_rank_rate", 0.01, signs=(1,)),),
    cases=decays("low_rank_rate", lambda runs: runs["low_rank_rate"] > 0),
)


def _small_steps(runs: pd.DataFrame) -> pd.Series:
    return runs["eta"] <= (1 + _EDGE) * runs["eta_proved"]


DESCENT_CONVERGES = _Descent(
    name="convergence of descent",
    source="abstract",
    statement="Gradient descent with finite steps converges to the minimum of the smoothed loss under assumptions on "
    "the initial weights; ours: their loss is below the second lowest critical value and η is at most η̄, at every "
    "depth, with balanced layers or not",
    formula="0 < ε < λ_k, L_0 < L* + g, η ≤ η̄ ⇒ L_i → L*; 1/η̄ = 2 N B^{2N−2} + 2 (N−1) B^{N−2} √L_0, ‖W_j‖ ≤ B",
    test="Last record of every such descent that ended before its last step, or ran for 400 times the time of its "
    "slowest mode. The abstract states that it converges; the assumptions are ours, proved in docs/paper.md.",
    unit="L_0 − L*, or of g where that is larger",
    tolerance=1e-6,
    mutations=(_LAST,),
    cases=each("descent", "runs", lambda runs: _left(runs[_small_steps(runs) & _below(runs)])),
)


def _falls(study: Study) -> Iterator[pd.DataFrame]:
    for runs, trajectories in study.training("descent", ["step", "excess", "gradient_norm"]):
        merged = with_runs(trajectories, runs[_small_steps(runs)], ["eta", "lambda_max"])
        following = merged.groupby(keys_of(merged), sort=False, observed=True)["excess"].shift(-1)
        promised = merged["eta"] / 2 * merged["gradient_norm"] ** 2
        fell = merged["excess"] - following
        rounding = _ROUNDING * np.sqrt(merged["lambda_max"] * merged["excess"])
        tested = following.notna() & (promised * _TESTED > rounding)
        yield merged.assign(deviation=np.maximum(1 - fell / promised, 0))[tested]


DESCENT_FALLS = _Descent(
    name="descent in small steps",
    statement="For every ε ≥ 0, from all layers of any widths and balance, each step of size η ≤ η̄ lowers the loss by "
    "at least half of what its gradient promises",
    formula="η ≤ η̄ ⇒ L_{i+1} ≤ L_i − (η/2) ‖∇L^N‖²",
    test="Every two consecutive records of such descents in which the promised fall is 10⁴ times the rounding of the "
    "loss; a theorem, proved in docs/paper.md. For ε = 0, k = n, N = 1 and η = 1/2 it is an equality.",
    unit="the promised fall",
    tolerance=_TESTED,
    mutations=(Mutation("norm of the gradient", "trajectories", "gradient_norm", 0.01, signs=(1,)),),
    cases=_falls,
)
