"""Statements about critical points and Hessians."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from ..model.trajectory import StopReason
from ..study.results.derived import exponent_at_zero
from .evidence import LOSS_ROUNDING, Statement, Study, each, keys_of, off

#: Rounding in eigenvalues of Hessians, as a share of λ_max.
_HESSIAN_ROUNDING = 1e-8
#: Losses of critical points that agree to this share of the largest are tied.
_TIED = 1e-8
#: The curvature of the smoothed loss has levelled off where σ² is below this share of ε.
_VANISHED = 0.01


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
    statement="The minimiser over matrices of rank ≤ k keeps the k largest eigenvalues",
    formula="L(W) ≥ L(W_{1..k}) for all W of rank ≤ k",
    test="Loss at random W of rank ≤ k, far from the minimiser and near it, and at the ends of all flows and descents, "
    "computed without L*.",
    unit="the loss of W = 0, or of a start above it",
    tolerance=LOSS_ROUNDING,
    sees="a W whose loss is 1e-12 of that of W = 0 below the minimum",
    missing="no W to compare with",
    cases=_minimiser,
)


def _curved_minimum(frame: pd.DataFrame) -> pd.DataFrame:
    first = frame[frame["order"] == 0]
    return first.assign(deviation=np.maximum(-first["smallest"] / first["largest"], 0))


CURVED_MINIMUM = Statement(
    kind="hessian",
    name="curvature at the minimiser",
    source="reconstructed",
    statement="At the W that keeps the k largest eigenvalues the Hessian of the layers has no negative direction",
    formula="∇²L^N(W_{1..k}) ⪰ 0",
    test="Least eigenvalue of the Hessian of the layers at the first critical point.",
    unit="λ_max",
    tolerance=_HESSIAN_ROUNDING,
    sees="a negative curvature of 1e-8 λ_max",
    cases=each("hessian", "spectra", _curved_minimum),
)


ENUMERATED = Statement(
    kind="hessian",
    name="W_J is critical",
    source="reconstructed",
    statement="Every W that keeps k directions of the target, with eigenvalues λ_a − ε, is critical (sampled)",
    formula="∇L^N(W_J) = 0",
    test="Gradient of all layers at enumerated points.",
    unit="√λ_1 (Σ0/λ_1 in place of Σ0)",
    tolerance=1e-10,
    sees="a gradient of 1e-10 √λ_1",
    cases=each("hessian", "spectra", lambda frame: frame.assign(deviation=frame["gradient_norm"])),
)


def _no_others(frame: pd.DataFrame) -> pd.DataFrame:
    found = frame[frame["critical"] == 1]
    return found.assign(deviation=np.where(found["matched"] == 1, found["distance"], np.inf))


NO_OTHERS = Statement(
    kind="critical_search",
    name="there are no other critical points",
    source="reconstructed",
    statement="Every critical point of deep networks, n = 4, that a search from random starts finds is one of the W_J",
    formula="∇L^N = 0 ⇒ W W^T = W_J W_J^T",
    test="Distance ‖S − S_J‖ of each found point from the nearest enumerated one.",
    unit="λ_1",
    tolerance=1e-5,
    sees="a found point that is 1e-5 λ_1 away; not points that the search misses",
    missing="no search found a critical point",
    cases=each("critical_search", "searches", _no_others),
)


VALUES = Statement(
    kind="hessian",
    name="critical values",
    source="reconstructed",
    statement="The loss at W_J is what the empty directions add",
    formula="L_ε(W_J) = Σ_{j∉J} (√λ_j − √ε)²; Frobenius: Σ_{j∉J} λ_j²",
    test="Computed loss against the closed form.",
    unit="Σ_j λ_j, of the square loss Σ_j λ_j²",
    tolerance=1e-12,
    sees="a value that is off by 1e-12 of that sum",
    cases=each("hessian", "spectra", lambda frame: frame.assign(deviation=frame["value_error"])),
)


def _saddles(frame: pd.DataFrame) -> pd.DataFrame:
    values = frame.groupby(keys_of(frame), observed=True)["value"]
    above = frame["value"] - values.transform("min") > _TIED * values.transform("max")  # equal λ: tied minima
    others = frame[above & (frame["negative"] >= 0)]  # −1: too many parameters to count
    off = (others["negative"] - others["escapes"]).abs()
    return others.assign(deviation=np.where(others["escapes"] > 0, off, np.inf))


SADDLES = Statement(
    kind="hessian",
    name="saddles",
    source="reconstructed",
    statement="All other critical points of rank k are saddles (sampled), with as many negative directions as there "
    "are exchanges of a kept direction for a larger one",
    formula="#{λ(∇²L^N) < 0} = #{a ∈ J, b ∉ J : λ_b > λ_a} > 0",
    test="Negative eigenvalues of the Hessian of the layers, counted, against the number of pairs (the count is ours).",
    unit="directions",
    tolerance=0.0,
    sees="one direction more or less",
    missing="no experiment of the kind hessian counts negative eigenvalues at a saddle",
    cases=each("hessian", "spectra", _saddles),
)


def _local_spectrum(frame: pd.DataFrame) -> pd.DataFrame:
    agrees = (frame["zero"] == frame["predicted_zero"]) | (frame["zero"] < 0)
    return frame.assign(deviation=np.where(agrees, frame["spectrum_error"], np.inf))


LOCAL_SPECTRUM = Statement(
    kind="hessian",
    name="local spectrum",
    source="ours",
    statement="The Hessian of the layers has the closed-form spectrum at every critical point",
    formula="λ(∇²L^N(W_J)) = {r_ab} ∪ {0}",
    test="All eigenvalues at all points, zeros counted; the extreme ones where there are more than 1,500 parameters.",
    unit="λ_max",
    tolerance=_HESSIAN_ROUNDING,
    sees="an eigenvalue that is off by 1e-8 λ_max, one zero more or less",
    cases=each("hessian", "spectra", _local_spectrum),
)


def _blow_up_fits(study: Study) -> Iterator[pd.DataFrame]:
    """n × k matrices at ε = 0, their small singular values: one row per run, with exponent and growth."""
    for frame in study.tables("blow_up", "curvatures"):
        cells = frame[(frame["epsilon"] == 0) & (frame["depth"] == 1) & (frame["rank"] < frame["dimension"])]
        for _, run in cells.groupby([*keys_of(cells), "vanishing"], observed=True):
            exponent = exponent_at_zero(run["sigma"], run["smallest"].abs())
            if not np.isnan(exponent):
                growth = run.loc[run["sigma"].idxmin(), "smallest"] / run.loc[run["sigma"].idxmax(), "smallest"]
                reach = run["sigma"].max() / run["sigma"].min()
                yield run.iloc[[0]].assign(exponent=exponent, growth=growth, reach=reach)


def _blows_up(study: Study) -> Iterator[pd.DataFrame]:
    for run in _blow_up_fits(study):
        yield run.assign(deviation=np.where(run["growth"] > 0, np.sqrt(run["reach"]) / run["growth"], np.inf))


BLOWS_UP = Statement(
    kind="blow_up",
    name="blow-up",
    source="abstract",
    statement="Without smoothing the Hessian blows up at low rank (n × k matrices, k < n)",
    formula="ε = 0: |λ_min(∇²L_0)| → ∞ as σ_k(W) → 0",
    test="Growth of |λ_min| from the largest to the smallest σ_k, against (σ_max/σ_min)^{1/2}.",
    unit="1 / growth, times that power",
    tolerance=1.0,
    sees="a growth slower than the square root of 1/σ_k",
    missing="no experiment of the kind blow_up with ε = 0, depth 1 and rank < n",
    cases=_blows_up,
)


def _blow_up_exponent(study: Study) -> Iterator[pd.DataFrame]:
    for run in _blow_up_fits(study):
        yield run.assign(deviation=(run["exponent"] + 1).abs())


BLOW_UP_EXPONENT = Statement(
    kind="blow_up",
    name="blow-up exponent",
    source="ours",
    statement="It grows like the inverse of the least singular value",
    formula="ε = 0, k < n: λ_min(∇²L_0) ~ −1 / σ_k(W)",
    test="Fitted exponent over the small σ_k, one case a seed and number of vanishing singular values.",
    unit="the exponent",
    tolerance=0.01,
    sees="an exponent that is off by 0.01",
    missing="no experiment of the kind blow_up with ε = 0, depth 1 and rank < n",
    cases=_blow_up_exponent,
)


def _at_smallest_sigma(cells: pd.DataFrame) -> pd.DataFrame:
    """The row of the smallest σ, one a run and number of vanishing singular values."""
    return cells.loc[cells.groupby([*keys_of(cells), "vanishing"], observed=True)["sigma"].idxmin()]


def _blow_up_constant(frame: pd.DataFrame) -> pd.DataFrame:
    last = _at_smallest_sigma(frame[frame["predicted"] < 0])  # 0: k = n, one direction, no blow-up
    return off(last, "smallest", "predicted")


BLOW_UP_CONSTANT = Statement(
    kind="blow_up",
    name="blow-up constant",
    source="ours",
    statement="The constant of the blow-up is known, where one singular value vanishes and where several do together",
    formula="λ_min σ → −C; one direction u: C = 2 λ_max(AᵀPA) / ‖A u‖",
    test="Most negative eigenvalue at the smallest σ against the constant (docs/paper.md, section 2).",
    unit="the constant",
    tolerance=1e-3,
    sees="a constant that is off by 0.1 %",
    missing="no experiment of the kind blow_up with ε = 0, depth 1 and rank < n",
    cases=each("blow_up", "curvatures", _blow_up_constant),
)


def _saturation(frame: pd.DataFrame) -> pd.DataFrame:
    last = _at_smallest_sigma(frame[frame["level"].notna()])
    return off(last[last["sigma"] ** 2 <= _VANISHED * last["epsilon_effective"]], "smallest", "level")


SATURATION = Statement(
    kind="blow_up",
    name="smoothing",
    source="ours",
    statement="With smoothing the most negative curvature levels off as σ_k → 0 (N = 1)",
    formula="ε > 0: λ_min(∇²L_ε) → 2 (1 − λ_max(T)) < ∞",
    test="Most negative eigenvalue at the smallest σ, where σ² ≤ ε/100, against that at σ = 0, from either side.",
    unit="the level",
    tolerance=0.05,
    sees="a level that is off by 5 %",
    missing="no experiment of the kind blow_up with ε > 0, depth 1 and a σ of at most √ε/10",
    cases=each("blow_up", "curvatures", _saturation),
)


ESCAPE_RATES = Statement(
    kind="escape",
    name="escape rates",
    source="ours",
    statement="The flow leaves saddles at the closed-form rates",
    formula="|S_ab(t)| ~ exp(|r_ab| t)",
    test="Fastest escape of a flow from each saddle, measured against closed form.",
    unit="the closed-form rate",
    tolerance=1e-3,
    sees="a rate that is off by 0.1 %",
    cases=each("escape", "escapes", lambda frame: off(frame[frame["escapes"] > 0], "measured_rate", "escape_rate")),
)
