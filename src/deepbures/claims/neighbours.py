"""Statements about neighbouring problems: scaled descent, barycenters, low rank plus sparse, sensing."""

from functools import partial

import numpy as np
import pandas as pd

from ..linalg.psd import Array
from .evidence import Statement, each, keys_of, off
from .mutation import Mutation, replaced, shifted

_Scaled, _Barycenter, _Sensing = (partial(Statement, kind=kind) for kind in ("scaled", "barycenter", "sensing"))


def _first_steps(runs: pd.DataFrame) -> pd.DataFrame:
    one = runs[(runs["loss_name"] == "bures-wasserstein") & (runs["depth"] == 1) & (runs["share"] == 0)]
    one = one[(one["start"] == "gaussian") & (one["rank"] >= one["target_rank"]) & (one["method"] == "layerwise")]
    after = np.array([excess[min(1, len(excess) - 1)] for excess in one["excess"]])
    return one.assign(deviation=after / one["unit"])


ONE_STEP = _Scaled(
    name="one step",
    statement="For N = 1, ε = 0, k ≥ rank Σ0 and every κ, one step ½ from a Gaussian start reaches the target",
    formula="L(W − ½∇L(W)) ≤ 1e-13 tr Σ0",
    test="Loss after one step.",
    unit="tr Σ0",
    tolerance=1e-13,
    mutations=(Mutation("loss after the step", "scaled", "excess", 1e-3, shifted("unit"), "tr Σ0", (1,)),),
    cases=each("scaled", "scaled", _first_steps),
)


def _lemma(runs: pd.DataFrame) -> pd.DataFrame:
    halves = runs[runs["lemma"].notna()]
    return halves.assign(deviation=halves["lemma"].clip(lower=0))


DESCENT_LEMMA = _Scaled(
    name="descent lemma of half steps",
    statement="For N = 1, every ε and every rank, a step ½ reduces the loss by at least a quarter of the squared "
    "gradient",
    formula="L(W − η∇L) ≤ L − η (1 − η) ‖∇L‖² for 0 < η < 1",
    test="Largest violation of this bound, at η = ½, over the steps of a run.",
    unit="tr Σ0",
    tolerance=1e-12,
    mutations=(Mutation("loss after a step", "scaled", "lemma", 1e-3, shifted(), "tr Σ0", (1,)),),
    cases=each("scaled", "scaled", _lemma),
)


def _tails(runs: pd.DataFrame) -> pd.DataFrame:
    return off(runs[runs["tail_factor"].notna() & (runs["tail_expected"] > 0)], "tail_factor", "tail_expected")


SCALED_TAILS = _Scaled(
    name="tails of half steps",
    statement="For N = 1 half steps finally contract the excess loss at the local rates, and for N > 1 layer-wise "
    "steps without repair of the bottleneck contract it by (1 − 1/N)²",
    formula="e_{t+1}/e_t → max (1 − r/2)², which is (λ_{k+1}/λ_k)² for ε = 0 and (ε/λ_n)² for k = n; (1 − 1/N)²",
    test="Last factor of each run in which the factor has settled to 0.2 % over three steps.",
    unit="the factor of theory",
    tolerance=0.01,
    mutations=(Mutation("factor of theory", "scaled", "tail_expected", 0.02),),
    cases=each("scaled", "scaled", _tails),
)


def _exact(runs: pd.DataFrame) -> pd.DataFrame:
    """Layer-wise runs without smoothing from a Nyström start, on a target of exactly the network's rank."""
    exact = runs[(runs["method"] == "layerwise") & (runs["share"] == 0) & (runs["rank"] == runs["target_rank"])]
    exact = exact[exact["start"] != "gaussian"]
    return exact.assign(reached=exact["converged"].astype(bool) & (exact["steps"] <= 30))


def _quadratic(runs: pd.DataFrame) -> pd.DataFrame:
    exact = _exact(runs)
    return exact.assign(deviation=exact["worst_ratio"].where(exact["reached"]))


def _a_fifth(runs: pd.DataFrame) -> list[Array]:
    """Excess losses that fall by a factor 5 in each of the same number of steps."""
    return [unit * 0.2 ** np.arange(len(excess)) for unit, excess in zip(runs["unit"], runs["excess"], strict=True)]


QUADRATIC = _Scaled(
    name="quadratic from a Nyström start",
    statement="For k = rank Σ0 and every κ, N and loss, scaled descent from a Nyström start converges in at most 30 "
    "steps, and each whole step below 1e-2 reduces the excess loss a hundredfold",
    formula="e_{t+1} ≤ 0.01 e_t for e_t < 1e-2; e in units of λ_r, or of λ_r² for the square loss",
    test="Largest ratio in a run; a run that takes more steps, or does not converge, is a violation.",
    unit="e_t",
    tolerance=0.01,
    mutations=(
        replaced("a constant factor of 0.02 in each step", "scaled", "worst_ratio", lambda runs: 0.02),
        Mutation("steps", "scaled", "steps", 30, shifted(), "", (1,)),
    ),
    cases=each("scaled", "scaled", _quadratic),
)


def _tenths(runs: pd.DataFrame) -> pd.DataFrame:
    exact = _exact(runs)
    square = exact["loss_name"] != "bures-wasserstein"
    few = exact[exact["condition"] ** np.where(square, 2, 1) <= 1e4]
    ratios = [_largest_ratio(excess / unit) for excess, unit in zip(few["excess"], few["unit"], strict=True)]
    return few.assign(deviation=np.where(few["reached"], ratios, np.nan))


def _largest_ratio(relative: Array) -> float:
    """Largest e_{t+1}/e_t over all steps from e_t in (0, 1e-2)."""
    late = np.flatnonzero((relative[:-1] > 0) & (relative[:-1] < 1e-2))
    return float(np.max(relative[late + 1] / relative[late], initial=0.0))


TENTHS = _Scaled(
    name="a tenth a step from a Nyström start",
    statement="For k = rank Σ0, every N and κ ≤ 1e4 (square loss: κ ≤ 1e2), scaled descent from a Nyström start "
    "converges in at most 30 steps, and each step below 1e-2 of the loss at W = 0 reduces the excess loss tenfold",
    formula="e_{t+1} ≤ 0.1 e_t for e_t < 1e-2; e in units of tr Σ0, or of ‖Σ0‖² for the square loss",
    test="Largest ratio in a run, of halved steps too; a run that takes more steps, or does not converge, is a "
    "violation.",
    unit="e_t",
    tolerance=0.1,
    mutations=(
        replaced("a constant factor of 0.2 in each step", "scaled", "excess", _a_fifth),
        Mutation("steps", "scaled", "steps", 30, shifted(), "", (1,)),
    ),
    cases=each("scaled", "scaled", _tenths),
)


#: A factor of the excess in one step is measured to about 1e-12; this far from 1 it gives the rate to 0.1 %.
_RESOLVED = 1e-9


def _exponents(runs: pd.DataFrame) -> pd.DataFrame:
    steep = runs[(runs["condition"] > 1) & (1 - runs["contraction"] > _RESOLVED)]
    steep = steep.assign(number=1 / (1 - np.sqrt(steep["contraction"].clip(0))))
    rows = []
    for keys, group in steep.groupby(keys_of(steep), observed=True):
        if group["condition"].nunique() > 1:
            slope = np.polyfit(np.log(group["condition"]), np.log(group["number"]), 1)[0]
            row = dict(zip(keys_of(steep), keys, strict=True))
            power = (1 if row["loss_name"] == "bures-wasserstein" else 2) - 1 / row["depth"]
            rows.append({**row, "deviation": abs(slope - power)})
    return pd.DataFrame(rows)


def _steeper(runs: pd.DataFrame, column: str, amount: float) -> pd.Series:
    """The contraction (1 − 1/κ_H)² with a condition number κ_H whose exponent in κ is larger by the amount."""
    return (1 - (1 - np.sqrt(runs[column].clip(0))) * runs["condition"] ** -amount) ** 2


EXPONENTS = _Scaled(
    name="condition numbers of depth",
    statement="For k = n, ε = 0 and every N, the condition number of the Hessian at the optimum is a power of κ, with "
    "an exponent that grows with N",
    formula="κ^{1−1/N} (Bures-Wasserstein), κ^{2−1/N} (square loss)",
    test="Slope in log κ of the logarithm of the condition number, measured as the contraction of the slowest mode; "
    "where it is nearer to 1 than 1e-9, rounding of the loss leaves it too few digits.",
    unit="the exponent",
    tolerance=0.01,
    mutations=(Mutation("exponent", "conditions", "contraction", 0.02, _steeper, ""),),
    cases=each("scaled", "conditions", _exponents),
)
BARYCENTER_RATE = _Barycenter(
    name="rate to a barycenter",
    statement="For N = 1, half steps approach every barycenter at the rate of the Hessian there",
    formula="e_{t+1}/e_t → (1 − r/2)², r the least non-zero eigenvalue of ∇²F",
    test="Factor along the slowest mode.",
    unit="the factor of theory",
    tolerance=0.01,
    mutations=(Mutation("factor of theory", "barycenters", "expected", 0.02),),
    cases=each("barycenter", "barycenters", lambda runs: off(runs[runs["factor"].notna()], "factor", "expected")),
)
BARYCENTER_FOUND = _Barycenter(
    name="barycenter by descent",
    statement="At every depth, scaled descent on the weighted sum of losses converges to the barycenter that the "
    "fixed-point iteration finds",
    formula="‖W Wᵀ − S̄‖_F ≤ 1e-8 ‖S̄‖_F",
    test="Distance at the end; a run that does not reach an excess of 1e-20 tr S̄ is a violation.",
    unit="‖S̄‖_F",
    tolerance=1e-8,
    mutations=(
        Mutation("distance", "barycenters", "distance", 1e-3, shifted(), "‖S̄‖_F", (1,)),
        replaced(
            "one run that does not converge",
            "barycenters",
            "converged",
            lambda runs: np.minimum(runs["converged"], runs.index != 0),
        ),
    ),
    cases=each(
        "barycenter",
        "barycenters",
        lambda runs: runs.assign(deviation=runs["distance"].where(runs["converged"].astype(bool))),
    ),
)


def _sparse(runs: pd.DataFrame) -> pd.DataFrame:
    few = runs[(runs["share"] <= 0.04) & (runs["rank"] <= 10) & (runs["method"] != "frobenius")]
    return few.assign(deviation=few["error"])


FEW_CORRUPTIONS = Statement(
    kind="sparse",
    name="few corruptions",
    statement="For at most 4 % corrupted entries in each row, k ≤ 10 and κ = 10, scaled and Bures-Wasserstein steps "
    "recover Σ* for every seed",
    formula="‖W Wᵀ − Σ*‖_F ≤ 1e-6 ‖Σ*‖_F",
    test="Error at the end.",
    unit="‖Σ*‖_F",
    tolerance=1e-6,
    mutations=(Mutation("error", "recoveries", "error", 1e-3, shifted(), "‖Σ*‖_F", (1,)),),
    cases=each("sparse", "recoveries", _sparse),
)


def _reweighted(runs: pd.DataFrame) -> pd.DataFrame:
    one = runs[runs["method"] == "reweighted"]
    return one.assign(deviation=one["error"])


REWEIGHTED = _Sensing(
    name="copies do no harm",
    statement="For every number of copies of one measurement, locally reweighted projections recover Σ*",
    formula="‖X − Σ*‖_F ≤ 1e-4 ‖Σ*‖_F",
    test="Error at the end.",
    unit="‖Σ*‖_F",
    tolerance=1e-4,
    mutations=(Mutation("error", "sensed", "error", 1e-3, shifted(), "‖Σ*‖_F", (1,)),),
    cases=each("sensing", "sensed", _reweighted),
)


def _unweighted(runs: pd.DataFrame) -> pd.DataFrame:
    """Each run is a case; its deviation is the fraction of seeds recovered in its group."""
    many = runs[(runs["method"] != "reweighted") & (runs["copies"] >= 10_000)]
    keys = [*(key for key in keys_of(many) if key != "seed"), "method", "copies"]
    recovered = many.assign(deviation=(many["error"] <= 1e-4).astype(float))
    return recovered.assign(deviation=recovered.groupby(keys, observed=True)["deviation"].transform("mean"))


UNWEIGHTED = _Sensing(
    name="copies spoil plain descent",
    statement="With 10,000 copies of one measurement, descent on the square loss or the sliced loss recovers Σ* for at "
    "most 20 % of the seeds",
    formula="#{‖X − Σ*‖_F ≤ 1e-4 ‖Σ*‖_F} ≤ 20 % of the seeds",
    test="Fraction of the seeds recovered, by loss.",
    unit="the seeds",
    tolerance=0.2,
    mutations=(
        replaced(
            "half of the problems recovered",
            "sensed",
            "error",
            lambda runs: runs["error"].where(runs["seed"] % 2 > 0, 0.0),
        ),
    ),
    cases=each("sensing", "sensed", _unweighted),
)
