"""Statements about gradient flow."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from ..model.trajectory import StopReason
from ..rates.measured import power_law_constant
from ..rates.predicted import algebraic_tail
from ..study.results.derived import full_rank, tail_ratio
from .evidence import LOSS_ROUNDING, Bound, Statement, Study, decays, each, keys_of, off, with_runs
from .mutation import Mutation, replaced, tilted, where

#: An algebraic tail is compared where the excess loss is below the first number times λ_n, and the next mode has
#: decayed by e to minus the second.
_LATE, _DECAYED = 1e-5, 40.0
#: The closed form of the tail must also have fallen to this fraction of the start, so that the start is forgotten.
_BEGUN = 1e-3
#: The slowest modes must hold this fraction of the last excess loss; rates within the second are the same.
_SLOWEST_SHARE, _TIED = 0.999, 1e-9
_Flow, _FlowBound = partial(Statement, kind="flow"), partial(Bound, kind="flow")


FLOW_BOUND = _FlowBound(
    name="bound of the flow",
    source="reconstructed",
    statement="From every start with a margin c > 0, the excess loss of gradient flow decays at least at the rate "
    "rebuilt from the program's constants",
    formula="L(t) − L* ≤ (L(0) − L*) exp(−8 N c^{2(2N−1)/N} K t)",
    test="Every record of every flow with c > 0 at which the bound promises a decay of at least 1e-6.",
    mutations=(
        replaced(
            "a rate of at most the global one",
            "runs",
            "bound_rate",
            lambda runs: np.minimum(runs["bound_rate"], runs["global_rate"]),
            "holds",
        ),
    ),
    cases=decays("bound_rate", lambda runs: runs["margin"] > 0),
    refuted="docs/paper.md section 8",
)


REPAIRED_BOUND = _FlowBound(
    name="bound of the flow where W keeps the margin",
    statement="For k = n and from every start at which W(0) and the optimum both have the margin c > 0, the loss "
    "decays at least at the same rate",
    formula="c² ≤ min(σ_n(W(0))², λ_n − ε) ⇒ L(t) ≤ L(0) exp(−8 N c^{2(2N−1)/N} K t)",
    test="The same at the flows that meet this condition, for which the bound is proved.",
    mutations=(Mutation("rate", "runs", "bound_rate", 19, unit="×"),),
    cases=decays("bound_rate", lambda runs: (runs["margin"] > 0) & (runs["bound_is_proved"] == 1)),
)


GLOBAL_RATE = _FlowBound(
    name="global rate of the flow",
    statement="For k = n, ε < λ_n and from every balanced start of full rank, the loss decays at least at the global "
    "rate at all times",
    formula="L(t) ≤ L(0) exp(−4 N m^{2−1/N} t / (m + ε)), m = min(σ_n(W(0))², λ_n − ε)",
    test="Every record of every such flow, with a margin or without; a theorem, proved in docs/paper.md.",
    mutations=(Mutation("rate", "runs", "global_rate", 0.01, signs=(1,)),),
    cases=decays("global_rate", lambda runs: runs["global_rate"] > 0),
)


def _margin_kept(study: Study) -> Iterator[pd.DataFrame]:
    # |σ_k([W, √ε I]) − √λ_k| ≤ min_Q ‖[W, √ε I] − R Q‖ = √L(t) ≤ √L(0) = √λ_k − c.
    for runs, trajectories in study.training("flow", ["least_singular_value"]):
        merged = with_runs(trajectories, runs[runs["margin"] > 0], ["margin", "epsilon_effective", "lambda_max"])
        smoothed = np.sqrt(merged["least_singular_value"] ** 2 + merged["epsilon_effective"])
        short = np.maximum(merged["margin"] - smoothed, 0)
        yield merged.assign(deviation=short / np.sqrt(merged["lambda_max"]))


MARGIN_KEPT = _Flow(
    name="margin kept",
    statement="From every start with a margin c > 0, the k-th singular value of the smoothed factor [W, √ε I] is at "
    "least c along the flow",
    formula="(σ_k(W(t))² + ε)^{1/2} ≥ c",
    test="Every record of every flow with c > 0. W alone need not keep the margin: its σ_k ends at (λ_k − ε)^{1/2}.",
    unit="√λ_1",
    tolerance=1e-9,
    mutations=(Mutation("margin", "runs", "margin", 0.02, signs=(1,)),),
    cases=_margin_kept,
)


def _loss_falls(study: Study) -> Iterator[pd.DataFrame]:
    for runs, trajectories in study.training("flow", ["excess"]):
        merged = with_runs(trajectories, runs, ["loss_initial", "target_trace"])
        before = merged.groupby(keys_of(merged), sort=False, observed=True)["excess"].shift()
        unit = np.maximum(merged["loss_initial"], merged["target_trace"])  # a flow at rest on a saddle keeps S to that
        rise = np.maximum(merged["excess"] - before, 0) / unit
        yield merged.assign(deviation=rise)[before.notna()]


LOSS_FALLS = _Flow(
    name="loss falls",
    statement="Along every gradient flow the loss never increases",
    formula="L(t') ≤ L(t) for t' > t",
    test="Consecutive records of every flow.",
    unit="L(0), or of tr Σ0 where that is larger",
    tolerance=LOSS_ROUNDING,
    mutations=(
        Mutation(
            "every second record", "trajectories", "excess", 0.05, where(lambda table: np.arange(len(table)) % 2 > 0)
        ),
    ),
    cases=_loss_falls,
)


def _sharp_rate(runs: pd.DataFrame) -> pd.DataFrame:
    tails = runs[(runs["sharp_rate"] > 0) & (runs["in_tail"] == 1)]
    return tails.assign(deviation=(tail_ratio(tails) - 1).abs())


SHARP_RATE = _Flow(
    name="sharp rate",
    statement="For every N, k and ε < λ_k and from every start with a component in the slowest mode, the excess loss "
    "of gradient flow finally decays at the closed-form rate of the flow linearised at the minimum",
    formula="L(t) − L* ~ exp(−2 min r t)",
    test="Every flow in its tail: it reached its tolerance, the slopes of the two halves of its last three decades "
    "agree to 0.5 %, and the slowest direction holds 99 % of the remaining excess loss. The rate is the limit of "
    "‖∇L^N‖²/(L − L*), extrapolated from the last two decades: to 0.1 % for any two exponentials that pass this.",
    unit="the closed-form rate",
    tolerance=0.001,
    mutations=(Mutation("closed-form rate", "runs", "sharp_rate", 0.01),),
    cases=each("flow", "runs", _sharp_rate),
)


def _aligned_rate(runs: pd.DataFrame) -> pd.DataFrame:
    aligned = runs[(runs["aligned_rate"] > 0) & runs["limit_rate"].notna()]
    alone = np.array([_slowest_alone(run) for run in aligned.itertuples()], dtype=bool)
    return off(aligned[alone], "limit_rate", "aligned_rate")


def _slowest_alone(run: Any) -> bool:
    """Whether the slowest of the k modes of an aligned start, and those as slow, hold 99.9 % of the last excess."""
    learnt, last = (np.asarray(values)[: run.rank] for values in (run.eigenvalues_target, run.eigenvalues_final))
    excess = (np.sqrt(last + run.epsilon_effective) - np.sqrt(learnt)) ** 2
    rates = 4 * run.depth * (learnt - run.epsilon_effective) ** (2 - 1 / run.depth) / learnt
    return bool(excess[rates <= (1 + _TIED) * rates.min()].sum() >= _SLOWEST_SHARE * excess.sum())


ALIGNED_RATE = _Flow(
    name="rate of aligned starts",
    statement="From every start along the k leading eigenvectors of the target, which excites no exchange of "
    "directions, the excess loss of gradient flow finally decays at the rate of the slowest of its k modes",
    formula="L(t) − L* ~ exp(−2 min_{a ≤ k} r_aa t), 2 r_aa = 4 N (λ_a − ε)^{2−1/N} / λ_a",
    test="Every flow from such a start whose tail is settled and whose slowest mode holds 99.9 % of the remaining "
    "excess loss, with the rate measured as for the sharp rate.",
    unit="the closed-form rate",
    tolerance=0.001,
    mutations=(Mutation("closed-form rate", "runs", "aligned_rate", 0.01),),
    cases=each("flow", "runs", _aligned_rate),
)


def _algebraic_tail(study: Study) -> Iterator[pd.DataFrame]:
    for runs, trajectories in study.training("flow", ["time", "excess", "gradient_norm"]):
        at_edge = np.isclose(runs["epsilon_effective"], runs["lambda_min"], rtol=1e-12, atol=0)
        tails = runs[full_rank(runs) & at_edge & (runs["stop_reason"] == StopReason.END_TIME)]
        s = tails["eigenvalues_target"].str[-2].fillna(np.inf) - tails["epsilon_effective"]  # of the next mode
        next_rate = 4 * tails["depth"] * s ** (2 - 1 / tails["depth"]) / (s + tails["epsilon_effective"])
        alone = (next_rate * tails["time_final"] > _DECAYED) | (tails["rank"] == 1)
        closed = [algebraic_tail(*row) for row in tails[["time_final", "lambda_min", "depth"]].itertuples(index=False)]
        settled = (tails["excess_final"] < _LATE * tails["lambda_min"]) & (closed < _BEGUN * tails["excess_initial"])
        records = with_runs(trajectories, tails[alone & settled], ["lambda_min"])
        cases = []
        for _, run in records.groupby(keys_of(records), sort=False, observed=True):
            depth, least = run["depth"].iloc[0], run["lambda_min"].iloc[0]
            power = 2 * depth / (2 * depth - 1)
            constant = power_law_constant(run["excess"].to_numpy(), run["gradient_norm"].to_numpy(), power)
            cases.append(run.iloc[[0]].assign(deviation=abs(constant / algebraic_tail(1.0, least, depth) - 1)))
        yield from cases


ALGEBRAIC_TAIL = _Flow(
    name="algebraic tail",
    statement="For k = n and ε = λ_n, the excess loss of gradient flow finally decays like a power of t with known "
    "exponent and constant",
    formula="L(t) − L* ~ C t^{−p}, p = 2N/(2N−1), C = ((4N−2)/λ_n)^{−p}/(4 λ_n)",
    test="Limit of d/dt (L − L*)^{−1/p} = ‖∇L^N‖² (L − L*)^{−1−1/p}/p, which is C^{−1/p}, extrapolated from the last "
    "two records whose excess differs by a factor 4; every flow with ε = λ_n that ran to its horizon, where the excess "
    "was below 1e-5 λ_n, the closed form below 1e-3 of the start, and the next mode had decayed by e^{−40}.",
    unit="the constant",
    tolerance=1e-3,
    mutations=(
        Mutation("excess", "trajectories", "excess", 0.01),
        Mutation("exponent", "trajectories", "excess", 0.02, tilted("time"), ""),
    ),
    cases=_algebraic_tail,
)


def _plateaus(study: Study) -> Iterator[pd.DataFrame]:
    for runs in study.tables("flow", "runs"):
        columns = ["half_times", "half_times_predicted"]
        modes = runs[runs["half_times"].map(len) > 0].explode(columns).astype(dict.fromkeys(columns, float))
        learnt = modes[np.isfinite(modes["half_times_predicted"]) & (modes["half_times_predicted"] > 0)]
        yield off(learnt, "half_times", "half_times_predicted")


PLATEAUS = _Flow(
    name="plateau times",
    statement="From every start along the target's eigenvectors, the plateaus of the loss end at times in closed form",
    formula="∫ ds / (4 N s^{2−1/N} (√(λ/(s+ε)) − 1)) = t",
    test="Time at which each eigenvalue of S reaches half of its limit, interpolated between records.",
    unit="the closed-form time",
    tolerance=1e-3,
    mutations=(Mutation("closed-form time", "runs", "half_times_predicted", 0.005),),
    cases=_plateaus,
)


def _polyak_lojasiewicz(study: Study) -> Iterator[pd.DataFrame]:
    for runs, trajectories in study.training("flow", ["loss", "gradient_norm"]):
        distances = runs[runs["margin"].notna()]  # the margin is that of the Bures-Wasserstein loss
        distances = distances[(distances["depth"] == 1) & (distances["epsilon_effective"] == 0)]
        chosen = distances[full_rank(distances)]
        merged = with_runs(trajectories, chosen, ["target_trace"])
        merged = merged[merged["loss"] > LOSS_ROUNDING * merged["target_trace"]]
        yield merged.assign(deviation=(merged["gradient_norm"] ** 2 / (4 * merged["loss"]) - 1).abs())


POLYAK_LOJASIEWICZ = _Flow(
    name="Polyak-Łojasiewicz equality",
    statement="For ε = 0 and at every W of full rank, the squared gradient is four times the loss",
    formula="‖∇L_0(W)‖² = 4 L_0(W)",
    test="Every record of flows with N = 1, ε = 0, k = n and a loss above 1e-12 tr Σ0.",
    unit="4 L_0",
    tolerance=1e-6,
    mutations=(Mutation("norm of the gradient", "trajectories", "gradient_norm", 1e-3),),
    cases=_polyak_lojasiewicz,
)
