"""Statements about critical points and Hessians."""

from collections.abc import Iterator
from functools import partial

import numpy as np
import pandas as pd

from ..model.trajectory import StopReason
from ..study.results.derived import exponent_at_zero
from .evidence import LOSS_ROUNDING, Statement, Study, each, keys_of, off
from .mutation import Mutation, replaced, shifted, tilted

#: Rounding of eigenvalues of Hessians, relative to λ_max.
_HESSIAN_ROUNDING = 1e-8
#: Losses of critical points that differ by at most this fraction of the largest are tied.
_TIED = 1e-8
#: The curvature of the smoothed loss has levelled off where σ² is below this fraction of ε.
_VANISHED = 1e-4
_Spectrum = partial(Statement, kind="hessian")
_BlowUp = partial(Statement, kind="blow_up")


def _minimiser(study: Study) -> Iterator[pd.DataFrame]:
    for frame in study.tables("critical_search", "trials"):
        yield frame.assign(deviation=np.maximum(-frame["excess"], 0))
    for kind in ("flow", "descent"):
        for runs in study.tables(kind, "runs"):
            ended = runs[runs["stop_reason"] != StopReason.DIVERGED]
            below = np.maximum(ended["loss_minimum"] - ended["value_final"], 0)
            yield ended.assign(deviation=below / np.maximum(ended["energy_levels"].str[0], ended["loss_initial"]))


MINIMISER = Statement(
    name="minimiser",
    source="reconstructed",
    statement="For every target, ε and k, the loss over all matrices of rank at most k is least at a W that retains "
    "the k largest eigenvalues of the target",
    formula="L(W) ≥ L(W_{1..k}) for all W of rank ≤ k",
    test="Loss, computed without L*, at random W of rank ≤ k far from the minimiser and near it, and at the ends of "
    "all flows and descents.",
    unit="the loss at W = 0, or at the start where that is larger",
    tolerance=LOSS_ROUNDING,
    mutations=(
        Mutation("loss", "trials", "excess", 1e-3, shifted(), "of its unit", (-1,)),
        Mutation("final loss", "runs", "value_final", 1e-5, signs=(-1,)),
    ),
    cases=_minimiser,
)


def _curved_minimum(frame: pd.DataFrame) -> pd.DataFrame:
    first = frame[frame["order"] == 0]
    return first.assign(deviation=np.maximum(-first["smallest"] / first["largest"], 0))


CURVED_MINIMUM = _Spectrum(
    name="curvature at the minimiser",
    source="reconstructed",
    statement="At every depth and k, the Hessian of the layers at the minimiser of rank k is positive semidefinite",
    formula="∇²L^N(W_{1..k}) ⪰ 0",
    test="Least eigenvalue of the Hessian of the layers at the minimiser.",
    unit="λ_max",
    tolerance=_HESSIAN_ROUNDING,
    mutations=(Mutation("least eigenvalue", "spectra", "smallest", 1e-3, shifted("largest"), "λ_max", (-1,)),),
    cases=each("hessian", "spectra", _curved_minimum),
)


ENUMERATED = _Spectrum(
    name="W_J is critical",
    source="reconstructed",
    statement="For every set J of k directions of the target with λ_j > ε, the W_J that retains these directions with "
    "eigenvalues λ_j − ε is critical",
    formula="∇L^N(W_J) = 0",
    test="Norm of the gradient of all layers at a sample of the W_J.",
    unit="√λ_1 (Σ0/λ_1 in place of Σ0)",
    tolerance=1e-10,
    mutations=(Mutation("norm of the gradient", "spectra", "gradient_norm", 1e-3, shifted(), "√λ_1", (1,)),),
    cases=each("hessian", "spectra", lambda frame: frame.assign(deviation=frame["gradient_norm"])),
)


def _no_others(frame: pd.DataFrame) -> pd.DataFrame:
    found = frame[frame["critical"] == 1]
    return found.assign(deviation=np.where(found["matched"] == 1, found["distance"], np.inf))


NO_OTHERS = Statement(
    kind="critical_search",
    name="there are no other critical points",
    source="reconstructed",
    statement="For n = 4 and deep networks, every critical point that a search from random starts finds is one of the "
    "W_J",
    formula="∇L^N = 0 ⇒ W Wᵀ = W_J W_Jᵀ",
    test="Distance ‖S − S_J‖ of each critical point found from the nearest enumerated one.",
    unit="λ_1",
    tolerance=1e-5,
    mutations=(
        Mutation("distance from W_J", "searches", "distance", 1e-3, shifted(), "λ_1", (1,)),
        replaced(
            "one critical point that is no W_J",
            "searches",
            "matched",
            lambda table: table["matched"].where(table.index != 0, 0),
        ),
    ),
    cases=each("critical_search", "searches", _no_others),
)


VALUES = _Spectrum(
    name="critical values",
    source="reconstructed",
    statement="For every J, the loss at W_J is the sum of the losses that the directions outside J add",
    formula="L_ε(W_J) = Σ_{j∉J} (√λ_j − √ε)²; square loss: Σ_{j∉J} λ_j²",
    test="Computed loss against the closed form.",
    unit="Σ_j λ_j, of the square loss Σ_j λ_j²",
    tolerance=1e-12,
    mutations=(Mutation("value", "spectra", "value_error", 1e-3, shifted(), "of its unit", (1,)),),
    cases=each("hessian", "spectra", lambda frame: frame.assign(deviation=frame["value_error"])),
)


def _saddles(frame: pd.DataFrame) -> pd.DataFrame:
    values = frame.groupby(keys_of(frame), observed=True)["value"]
    above = frame["value"] - values.transform("min") > _TIED * values.transform("max")  # equal λ: tied minima
    others = frame[above & (frame["negative"] >= 0)]  # −1: too many parameters to count
    off = (others["negative"] - others["escapes"]).abs()
    return others.assign(deviation=np.where(others["escapes"] > 0, off, np.inf))


SADDLES = _Spectrum(
    name="saddles",
    source="reconstructed",
    statement="Every W_J of rank k that is not a minimiser is a saddle, with one negative direction for each exchange "
    "of a retained direction for one of larger eigenvalue",
    formula="#{λ(∇²L^N) < 0} = #{a ∈ J, b ∉ J : λ_b > λ_a} > 0",
    test="Number of negative eigenvalues of the Hessian of the layers against the number of such pairs, at a sample of "
    "the W_J; the count is ours.",
    unit="directions",
    tolerance=0.0,
    mutations=(Mutation("number of negative directions", "spectra", "negative", 1, shifted(), ""),),
    cases=each("hessian", "spectra", _saddles),
)


def _local_spectrum(frame: pd.DataFrame) -> pd.DataFrame:
    agrees = (frame["zero"] == frame["predicted_zero"]) | (frame["zero"] < 0)
    return frame.assign(deviation=np.where(agrees, frame["spectrum_error"], np.inf))


LOCAL_SPECTRUM = _Spectrum(
    name="local spectrum",
    statement="At every W_J, the spectrum of the Hessian of the layers is known in closed form",
    formula="λ(∇²L^N(W_J)) = {r_ab} ∪ {0}",
    test="All eigenvalues and the number of zeros; with more than 1,500 parameters only the extreme eigenvalues.",
    unit="λ_max",
    tolerance=_HESSIAN_ROUNDING,
    mutations=(
        Mutation("an eigenvalue", "spectra", "spectrum_error", 1e-3, shifted(), "λ_max", (1,)),
        Mutation("number of zeros", "spectra", "zero", 1, shifted(), ""),
    ),
    cases=each("hessian", "spectra", _local_spectrum),
)


def _blow_up_fits(study: Study) -> Iterator[pd.DataFrame]:
    """The row of the smallest σ_k of each run of n × k matrices at ε = 0, with the exponent of |λ_min| in small σ_k."""
    for frame in study.tables("blow_up", "curvatures"):
        cells = frame[(frame["epsilon"] == 0) & (frame["depth"] == 1) & (frame["rank"] < frame["dimension"])]
        for _, run in cells.groupby([*keys_of(cells), "vanishing"], observed=True):
            exponent = exponent_at_zero(run["sigma"], run["smallest"].abs())
            if not np.isnan(exponent):
                yield run.loc[[run["sigma"].idxmin()]].assign(exponent=exponent)


def _blows_up(study: Study) -> Iterator[pd.DataFrame]:
    for run in _blow_up_fits(study):
        yield run.assign(deviation=np.where(run["smallest"] < 0, np.maximum(run["exponent"] + 1, 0), np.inf))


BLOWS_UP = _BlowUp(
    name="blow-up",
    source="abstract",
    statement="For ε = 0, N = 1 and k < n, the Hessian is unbounded as the least singular value of W tends to 0",
    formula="|λ_min(∇²L_0)| → ∞ as σ_k(W) → 0",
    test="λ_min is negative, and |λ_min| grows at least like 1/σ_k: exponent fitted over the small σ_k, one case for "
    "each seed and number of vanishing singular values.",
    unit="the exponent",
    tolerance=0.01,
    mutations=(
        Mutation("exponent", "curvatures", "smallest", 0.02, tilted("sigma"), "", (1,)),
        replaced("the other sign of λ_min", "curvatures", "smallest", lambda table: -table["smallest"]),
    ),
    cases=_blows_up,
)


BLOW_UP_EXPONENT = _BlowUp(
    name="blow-up exponent",
    statement="For ε = 0, N = 1 and k < n, the most negative eigenvalue of the Hessian grows like the inverse of the "
    "least singular value of W",
    formula="λ_min(∇²L_0) ~ −C / σ_k(W)",
    test="Exponent fitted over the small σ_k, one case for each seed and number of vanishing singular values.",
    unit="the exponent",
    tolerance=0.01,
    mutations=(Mutation("exponent", "curvatures", "smallest", 0.02, tilted("sigma"), ""),),
    cases=lambda study: (run.assign(deviation=(run["exponent"] + 1).abs()) for run in _blow_up_fits(study)),
)


def _at_smallest_sigma(cells: pd.DataFrame) -> pd.DataFrame:
    """The row of the smallest σ of each run and number of vanishing singular values."""
    return cells.loc[cells.groupby([*keys_of(cells), "vanishing"], observed=True)["sigma"].idxmin()]


def _blow_up_constant(frame: pd.DataFrame) -> pd.DataFrame:
    last = _at_smallest_sigma(frame[frame["predicted"] < 0])  # 0: k = n, one direction, no blow-up
    return off(last, "smallest", "predicted")


BLOW_UP_CONSTANT = _BlowUp(
    name="blow-up constant",
    statement="For ε = 0, N = 1 and one or several singular values of W that vanish together like σ, the product of σ "
    "and the most negative eigenvalue of the Hessian has a limit in closed form",
    formula="λ_min σ → −C; one direction u: C = 2 λ_max(AᵀPA) / ‖A u‖",
    test="Most negative eigenvalue at the smallest σ against the constant (docs/paper.md, section 2).",
    unit="the constant",
    tolerance=1e-3,
    mutations=(Mutation("constant", "curvatures", "predicted", 0.01),),
    cases=each("blow_up", "curvatures", _blow_up_constant),
)


def _saturation(frame: pd.DataFrame) -> pd.DataFrame:
    last = _at_smallest_sigma(frame[frame["level"].notna()])
    return off(last[last["sigma"] ** 2 <= _VANISHED * last["epsilon_effective"]], "smallest", "level")


SATURATION = _BlowUp(
    name="smoothing",
    statement="For every ε > 0 and N = 1, the most negative eigenvalue of the Hessian stays bounded as σ_k(W) → 0",
    formula="λ_min(∇²L_ε) → 2 (1 − λ_max(T)) > −∞",
    test="Most negative eigenvalue at the smallest σ, where σ² ≤ ε/10,000, against that at σ = 0.",
    unit="the level",
    tolerance=1e-3,
    mutations=(Mutation("level", "curvatures", "level", 0.01),),
    cases=each("blow_up", "curvatures", _saturation),
)


def _hessian_bounds(frame: pd.DataFrame) -> pd.DataFrame:
    below = np.maximum(frame["lower_bound"] - frame["level"], frame["level"] - frame["smallest"])
    empty = np.where(frame["rank_of_point"] < frame["rank"], (frame["smallest"] - frame["level"]).abs(), 0.0)
    above = (frame["largest"] - frame["upper_bound"]) / frame["upper_bound"]
    outside = np.maximum(below, empty) / frame["lower_bound"].abs()
    return frame.assign(deviation=np.maximum(np.maximum(outside, above), 0))


HESSIAN_BOUNDS = _Spectrum(
    name="Hessian with smoothing",
    statement="For every ε > 0 and at every W, all eigenvalues of the Hessian lie between 2 (1 − λ_max(T)), which is "
    "one of them wherever a column of W is empty, and 2; T is the optimal transport map",
    formula="2 (1 − √(λ_1/ε)) ≤ 2 (1 − λ_max(T)) ≤ λ(∇²L_ε(W)) ≤ 2",
    test="Random W of every rank from 0 to k with entries of sizes from 10^{−3} √λ_1 to 10 √λ_1, N = 1; a theorem, "
    "proved in docs/paper.md.",
    unit="the bound",
    tolerance=1e-6,
    mutations=(
        Mutation("least eigenvalue at an empty column", "bounds", "level", 1e-3),
        Mutation("upper bound", "bounds", "upper_bound", 1e-3, signs=(-1,)),
    ),
    cases=each("hessian", "bounds", _hessian_bounds),
)


def _exponential_fillings(frame: pd.DataFrame) -> pd.DataFrame:
    growing = frame[frame["filling_rate"] < 0]
    return growing.assign(deviation=(growing["measured_rate"] / growing["filling_rate"] + 1).abs())


EMPTY_COLUMNS = Statement(
    kind="escape",
    name="empty columns",
    statement="At W_J of rank below k, an empty column z in direction b grows exponentially at the closed-form rate "
    "for N = 1 (not for ε = 0, where W_J is no critical point), and for ε = 0 for N = 2",
    formula="z ~ exp(r t): ε > 0, N = 1: r = 2 (√(λ_b/ε) − 1); ε = 0, N = 2: 2 √λ_b; square loss, N = 1: 4 λ_b",
    test="Growth of S_bb = z^{2N} in flows that start with a little of the leading direction in an empty column.",
    unit="the closed-form rate",
    tolerance=1e-4,
    mutations=(Mutation("closed-form rate", "fillings", "filling_rate", 0.01),),
    cases=each("escape", "fillings", _exponential_fillings),
)


ALGEBRAIC_FILLING = Statement(
    kind="escape",
    name="empty columns of deeper networks",
    statement="In deeper networks an empty column grows algebraically, at a rate that vanishes with it like a known "
    "power: for N ≥ 2, for the Bures-Wasserstein loss without smoothing for N ≥ 3",
    formula="d log z / dt = 2 s^{1−1/N} (√(λ_b/(s + ε)) − 1), s = z^{2N}; square loss: 4 s^{1−1/N} (λ_b − s)",
    test="Growth of S_bb in flows that start with a little of the leading direction in an empty column, against the "
    "formula at that s.",
    unit="the closed-form rate",
    tolerance=1e-4,
    mutations=(Mutation("closed-form rate", "fillings", "growth_rate", 0.01),),
    cases=each(
        "escape", "fillings", lambda frame: off(frame[frame["filling_rate"] == 0], "measured_rate", "growth_rate")
    ),
)


ESCAPE_RATES = Statement(
    kind="escape",
    name="escape rates",
    statement="From near every saddle of rank k, gradient flow departs at the closed-form rates",
    formula="|S_ab(t)| ~ exp(|r_ab| t)",
    test="Fastest rate at which a flow leaves each saddle, measured against closed form.",
    unit="the closed-form rate",
    tolerance=1e-3,
    mutations=(Mutation("closed-form rate", "escapes", "escape_rate", 0.01),),
    cases=each("escape", "escapes", lambda frame: off(frame[frame["escapes"] > 0], "measured_rate", "escape_rate")),
)
