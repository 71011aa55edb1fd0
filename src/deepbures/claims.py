"""The statements of the paper, and ours, each confronted with all results of a study that bear on it.

A claim is tested case by case; the margin of a case is by how much it holds, in the claim's own unit, and negative
where it is violated. What counts as rounding is part of the claim, and stated there.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from .grid import axes_of
from .psd import Array

#: Rounding in eigenvalues of Hessians, as a share of λ_max; and in the loss, as a share of L(0).
_HESSIAN_ROUNDING, _LOSS_ROUNDING = 1e-8, 1e-12
#: Allowed deviation of fitted exponents and orders, of levels, and of rates measured in tails and in escapes.
_EXPONENT, _LEVEL, _TAIL, _ESCAPE = 0.05, 0.05, 0.05, 1e-3
#: Deviation of the Polyak-Łojasiewicz ratio ‖∇L‖² / 4 L from 1 where L is above rounding.
_PL, _PL_FLOOR = 1e-6, 1e-12


@dataclass(frozen=True)
class Claim:
    """A statement and what the study says of it.

    Attributes
    ----------
    name
        Short name.
    source
        `paper` or `ours`.
    statement, formula
        In words, and as a formula.
    test
        What is compared in each case, and what counts as rounding.
    cases, violations
        How many cases were looked at, and in how many the claim does not hold.
    worst_margin
        The least margin, negative for a violation; NaN without cases.
    verdict
        `holds`, `violated`, or `not testable here: …` and why.
    """

    name: str
    source: str
    statement: str
    formula: str
    test: str
    cases: int
    violations: int
    worst_margin: float
    verdict: str


class Study:
    """The aggregate tables of a study, by kind of experiment.

    Parameters
    ----------
    folders
        Folder of each experiment's tables, and its kind, by the experiment's name.
    """

    def __init__(self, folders: Mapping[str, tuple[str | Path, str]]) -> None:
        self._folders = {name: (Path(folder), kind) for name, (folder, kind) in folders.items()}

    def tables(self, kind: str, table: str, columns: Sequence[str] | None = None) -> Iterator[pd.DataFrame]:
        """The table of that name of each experiment of a kind, with its axes and the given columns.

        Cells that are one problem stand in the tables once for each grid point: of runs they count once.
        """
        for folder, its_kind in self._folders.values():
            if its_kind == kind:
                frame = pd.read_parquet(folder / f"{table}.parquet")
                frame = frame[[*axes_of(frame.columns), *columns]] if columns else frame
                if "loss_name" in frame:
                    square = frame["loss_name"] == "frobenius"
                    frame = frame[~square | (frame["epsilon"] == frame["epsilon"].min())]
                if "epsilon_effective" in frame:
                    problem = [axis if axis != "epsilon" else "epsilon_effective" for axis in axes_of(frame.columns)]
                    frame = frame.drop_duplicates([*problem, "seed"])
                yield frame


def evaluate(study: Study, names: Container[str] | None = None) -> list[Claim]:
    """Test every claim on a study, or those with the given names."""
    return [test(study) for name, test in CLAIMS.items() if names is None or name in names]


def table(claims: Sequence[Claim]) -> pd.DataFrame:
    """One row a claim."""
    return pd.DataFrame([asdict(claim) for claim in claims])


def markdown(claims: Sequence[Claim]) -> str:
    """The claims as a table in Markdown, with how each was tested below it."""
    lines = ["| claim | formula | cases | violations | worst margin | verdict |", "|---|---|---|---|---|---|"]
    for claim in claims:
        name = f"{claim.statement} ({claim.source})"
        margin = "" if np.isnan(claim.worst_margin) else f"{claim.worst_margin:.2g}"
        numbers = f"{claim.cases:,} | {claim.violations:,} | {margin}"
        lines.append(f"| {name} | {claim.formula.replace('|', '∣')} | {numbers} | {claim.verdict} |")
    lines += ["", "How each was tested, and what its margin is:", ""]
    lines += [f"- *{claim.name}*: {claim.test}" for claim in claims]
    return "\n".join(lines) + "\n"


#: By name, in the order of the table; filled below.
CLAIMS: dict[str, Callable[[Study], Claim]] = {}


def _claim(
    name: str, source: str, statement: str, formula: str, test: str, missing: str
) -> Callable[[Callable[[Study], Iterator[Array]]], Callable[[Study], Claim]]:
    """Make a claim of a function that yields arrays of margins; `missing`: what a study without cases lacks."""

    def decorate(margins_of: Callable[[Study], Iterator[Array]]) -> Callable[[Study], Claim]:
        def evaluate_one(study: Study) -> Claim:
            parts = [np.asarray(part, dtype=float).ravel() for part in margins_of(study)]
            margins = np.concatenate(parts) if parts else np.array([])
            violations = int(np.sum(~(margins >= 0)))  # NaN is a violation
            worst = float(np.min(margins)) if len(margins) else float("nan")
            verdict = "violated" if violations else "holds" if len(margins) else f"not testable here: {missing}"
            return Claim(name, source, statement, formula, test, len(margins), violations, worst, verdict)

        CLAIMS[name] = evaluate_one
        return evaluate_one

    return decorate


@_claim(
    "minimiser",
    "paper",
    "The minimiser over rank ≤ k keeps the k largest eigenvalues",
    "L(W) ≥ L(W_{1..k}), ∇²L^N ⪰ 0 there",
    "Hessian of the layers at W_{1..k}: λ_min / λ_max ≥ −1e-8; every critical point that a search found: its loss "
    "relative to L*, minus 1, ≥ −1e-12.",
    "no experiment of the kinds hessian and critical_search",
)
def minimiser(study: Study) -> Iterator[Array]:
    """λ_min at the first critical point, and losses of found points against the minimum."""
    for frame in study.tables("hessian", "spectra"):
        first = frame[frame["order"] == 0]
        yield (first["smallest"] / first["largest"] + _HESSIAN_ROUNDING).to_numpy()
    for frame in study.tables("critical_search", "searches"):
        found = frame[frame["critical"] == 1]
        yield (found["loss"] / found["loss_minimum"] - 1 + _LOSS_ROUNDING).to_numpy()


@_claim(
    "critical points",
    "paper",
    "The critical points are those of the index sets J",
    "∇L(W) = 0 ⇔ W = W_J",
    "‖∇L‖ ≤ 1e-10 at enumerated points; every critical point that a search from random starts found lies "
    "within 1e-5 λ_1 of one of them.",
    "no experiment of the kinds hessian and critical_search",
)
def enumerated(study: Study) -> Iterator[Array]:
    """Gradients at enumerated points, and matches of the points that a solver found."""
    for frame in study.tables("hessian", "spectra"):
        yield 1e-10 - frame["gradient_norm"].to_numpy()
    for frame in study.tables("critical_search", "searches"):
        found = frame[frame["critical"] == 1]
        yield np.where(found["matched"] == 1, 1e-5 - found["distance"], -1.0)


@_claim(
    "critical values",
    "paper",
    "The loss at W_J is what the empty directions add",
    "L_ε(W_J) = Σ_{j∉J} (√λ_j − √ε)²",
    "Deviation of the computed loss from the closed form, relative to the loss of W = 0, ≤ 1e-12.",
    "no experiment of the kind hessian",
)
def critical_values(study: Study) -> Iterator[Array]:
    """Losses at the enumerated points."""
    for frame in study.tables("hessian", "spectra"):
        yield (1e-12 - frame["value_error"]).to_numpy()


@_claim(
    "strict saddles",
    "paper",
    "All other critical points of rank k are saddles",
    "#{λ(∇²L^N) < 0} = #{a ∈ J, b ∉ J : λ_b > λ_a} > 0",
    "Number of negative eigenvalues of the Hessian of the layers against the number of pairs; margin: "
    "−λ_min / λ_max − 1e-8.",
    "no experiment of the kind hessian",
)
def saddles(study: Study) -> Iterator[Array]:
    """Negative directions at all points but the minimum."""
    for frame in study.tables("hessian", "spectra"):
        others = frame[frame["order"] > 0]
        agrees = (others["negative"] == others["escapes"]) | (others["negative"] < 0)  # −1: not counted
        margin = -others["smallest"] / others["largest"] - _HESSIAN_ROUNDING
        yield np.where(agrees & (others["escapes"] > 0), margin, -1.0)


@_claim(
    "bound of the flow",
    "paper",
    "Gradient flow converges at least as fast as guaranteed",
    "L(t) − L* ≤ (L(0) − L*) exp(−8 N c^{2(2N−1)/N} K t)",
    "Every recorded point of every flow with a margin c > 0; margin: 1 − (L(t) − L*) / bound, rounding 1e-12.",
    "no flow starts with a positive margin c",
)
def flow_bound(study: Study) -> Iterator[Array]:
    """Excess loss over the bound, at all samples."""
    for runs, samples in _flows(study, ["time", "excess"]):
        merged = _with_runs(samples, runs[runs["margin"] > 0], ["bound_rate", "excess_initial"])
        bound = merged["excess_initial"] * np.exp(-merged["bound_rate"] * merged["time"])
        yield (1 - merged["excess"] / bound + _LOSS_ROUNDING)[merged["time"] > 0].to_numpy()


@_claim(
    "margin kept",
    "paper",
    "The flow never leaves the ball: the loss falls, the singular values of the smoothed factor stay above c",
    "σ_k([W(t), √ε I]) = (σ_k(W(t))² + ε)^{1/2} ≥ c",
    "Every recorded point of every flow with c > 0; margin: (σ_k(W)² + ε)^{1/2} − c, rounding 1e-6 (recorded in single "
    "precision). W alone need not keep it: where ε is close to λ_k its own σ_k ends at (λ_k − ε)^{1/2}, below c.",
    "no flow starts with a positive margin c",
)
def margin_kept(study: Study) -> Iterator[Array]:
    """Least singular value of the smoothed factor along flows against c.

    |σ_k([W, √ε I]) − √λ_k| ≤ min_Q ‖[W, √ε I] − R Q‖ = √L(t) ≤ √L(0) = √λ_k − c.
    """
    for runs, samples in _flows(study, ["eigenvalue_distances"]):
        certified = runs[runs["margin"] > 0]
        last = samples["eigenvalue_distances"].str[-1]
        merged = _with_runs(
            samples.drop(columns="eigenvalue_distances").assign(distance=last),
            certified.assign(
                optimum=[
                    target[k - 1] for target, k in zip(certified["eigenvalues_target"], certified["rank"], strict=True)
                ]
            ),
            ["margin", "optimum"],
        )
        # σ_k² + ε, as the distance is that of σ_k² from the optimum's λ_k − ε.
        sigma = np.sqrt(np.maximum(merged["optimum"] + merged["distance"], 0))
        yield (sigma - merged["margin"] + 1e-6).to_numpy()


@_claim(
    "loss falls",
    "paper",
    "Gradient flow decreases the loss",
    "L(t') ≤ L(t) for t' > t",
    "Consecutive records of every flow; margin: the decrease relative to L(0) − L*, rounding 1e-12.",
    "no experiment of the kind flow",
)
def loss_falls(study: Study) -> Iterator[Array]:
    """Decrease of the excess loss from sample to sample."""
    for runs, samples in _flows(study, ["excess"]):
        merged = _with_runs(samples, runs, [])
        groups = merged.groupby([*axes_of(merged.columns), "seed"], sort=False)["excess"]
        decrease = -groups.diff() / groups.transform("first")
        yield decrease.dropna().to_numpy() + _LOSS_ROUNDING


@_claim(
    "balance",
    "paper",
    "Balance is kept by the flow; descent drifts from it in proportion to η",
    "max_j ‖W_{j+1}ᵀ W_{j+1} − W_j W_jᵀ‖ = O(η)",
    "Fitted order of the drift at a fixed time in η, one case a depth and ε; margin: 0.05 − |order − 1|.",
    "no descent has step sizes at one end time",
)
def balance(study: Study) -> Iterator[Array]:
    """Order of the drift of balance in the step size."""
    yield from _orders(study, "balancedness_final")


@_claim(
    "descent to flow",
    "paper",
    "Gradient descent follows the flow as η → 0",
    "‖S_η − S_flow‖ = O(η)",
    "Fitted order of the distance at a fixed time in η, one case a depth and ε; margin: 0.05 − |order − 1|.",
    "no descent is compared with the flow",
)
def descent_to_flow(study: Study) -> Iterator[Array]:
    """Order of the distance from the flow in the step size."""
    yield from _orders(study, "flow_error")


@_claim(
    "contraction of descent",
    "paper",
    "Under the step-size conditions each step contracts the excess loss",
    "η ≤ min(η_1, η_2, η_3) ⇒ L_i − L* ≤ (1 − η r)^i (L_0 − L*)",
    "Every record of descents whose η satisfies the conditions, r = 4 N c^{2(2N−1)/N} K (ε > 0) or 2 N c^{2(N−1)/N} "
    "(reconstructed); margin: 1 − (L_i − L*) / bound.",
    "no run has a step size that the theorem allows (medians from 1e-6 at N = 1 to 1e-347 at N = 100)",
)
def descent_contracts(study: Study) -> Iterator[Array]:
    """Excess loss of descents with a certified step size, against what the theorem promises."""
    for runs, samples in zip(
        study.tables("descent", "runs"),
        study.tables("descent", "trajectories", ["seed", "step", "excess"]),
        strict=True,
    ):
        allowed = runs[["log10_eta_1", "log10_eta_2", "log10_eta_3"]].min(axis=1, skipna=False)
        certified = runs[(runs["margin"] > 0) & (np.log10(runs["eta"]) <= allowed) & runs["descent_rate"].notna()]
        if len(certified):
            merged = _with_runs(samples, certified, ["eta", "descent_rate", "excess_initial"])
            bound = merged["excess_initial"] * (1 - merged["eta"] * merged["descent_rate"]) ** merged["step"]
            yield (1 - merged["excess"] / bound + _LOSS_ROUNDING)[merged["step"] > 0].to_numpy()


@_claim(
    "blow-up",
    "paper",
    "Without smoothing the Hessian blows up at low rank",
    "ε = 0, k < n: λ_min(∇²L_0) ~ −1 / σ_min(W)",
    "Fitted exponent for n × k matrices, one case a seed; margin: 0.05 − |exponent + 1|.",
    "no experiment of the kind blow_up with ε = 0, depth 1 and rank < n",
)
def hessian_blows_up(study: Study) -> Iterator[Array]:
    """Exponents of the most negative eigenvalue at ε = 0."""
    for frame in study.tables("blow_up", "curvatures"):
        cells = frame[(frame["epsilon"] == 0) & (frame["depth"] == 1) & (frame["rank"] < frame["dimension"])]
        for _, cell in cells.groupby([*axes_of(cells.columns), "vanishing", "seed"]):
            small = cell[cell["sigma"] <= 0.02 * cell["sigma"].max()]
            if len(small) >= 2:
                exponent = np.polyfit(np.log(small["sigma"]), np.log(small["smallest"].abs()), 1)[0]
                yield np.array([_EXPONENT - abs(exponent + 1)])


@_claim(
    "smoothing",
    "paper",
    "Smoothing bounds the Hessian",
    "ε > 0: λ_min(∇²L_ε) stays above its level at σ_min = 0",
    "Most negative eigenvalue at the smallest σ against that at σ = 0, N = 1; margin: 0.05 − relative deviation.",
    "no experiment of the kind blow_up with ε > 0 and depth 1",
)
def smoothing_bounds(study: Study) -> Iterator[Array]:
    """Level of the most negative eigenvalue for ε > 0."""
    for frame in study.tables("blow_up", "curvatures"):
        cells = frame[frame["level"].notna()]
        last = cells.loc[cells.groupby([*axes_of(cells.columns), "vanishing", "seed"])["sigma"].idxmin()]
        yield (_LEVEL - (last["smallest"] / last["level"] - 1).abs()).to_numpy()


@_claim(
    "Bures-Wasserstein against square loss",
    "paper",
    "Descent on the Bures-Wasserstein loss needs fewer steps than on the square loss",
    "steps_BW < steps_F at the same share of 2/λ_max",
    "Steps to 1e-6 of the start, paired by depth, seed and step (ε = 0), where both got there; margin: 1 − ratio.",
    "no descent with both losses",
)
def losses_compared(study: Study) -> Iterator[Array]:
    """Ratio of the steps that the two losses need."""
    for runs in study.tables("descent", "runs"):
        if "loss_name" not in runs or runs["loss_name"].nunique() < 2:
            continue
        steps = runs.assign(steps=runs["settling_time"] / runs["eta"])
        steps = steps[steps["epsilon"] == steps["epsilon"].min()]
        keys = [*(axis for axis in axes_of(steps.columns) if axis not in ("loss_name", "epsilon")), "seed"]
        pairs = steps.pivot_table(index=keys, columns="loss_name", values="steps").dropna()
        yield (1 - pairs["bures-wasserstein"] / pairs["frobenius"]).to_numpy()


@_claim(
    "sharp rate",
    "ours",
    "The excess loss finally decays at the closed-form rate",
    "L(t) − L* ~ exp(−2 min r t)",
    "Tail of every flow that reached its tolerance, N > 1, k = n, of a loss whose rate is known; margin: "
    "0.05 − |tail / sharp − 1|.",
    "no flow at full rank reached its tail",
)
def sharp_rate(study: Study) -> Iterator[Array]:
    """Measured tails against closed form."""
    for runs in study.tables("flow", "runs"):
        n = runs["eigenvalues_target"].map(len)
        known = runs["tail_slope"].notna() & runs["sharp_rate"].notna()
        tails = runs[known & (runs["depth"] > 1) & (runs["rank"] == n)]
        ratio = -tails["tail_slope"] * np.log(10) / tails["sharp_rate"]
        yield (_TAIL - (ratio - 1).abs()).to_numpy()


@_claim(
    "Polyak-Łojasiewicz equality",
    "ours",
    "For ε = 0 and full rank the squared gradient is four times the loss",
    "‖∇L_0(W)‖² = 4 L_0(W)",
    "Every recorded point of flows with N = 1, ε = 0, k = n and a loss above 1e-12; margin: 1e-6 − |ratio − 1|.",
    "no flow with N = 1, ε = 0 and k = n",
)
def polyak_lojasiewicz(study: Study) -> Iterator[Array]:
    """Squared gradient over four times the loss."""
    for runs, samples in _flows(study, ["loss", "gradient_norm"]):
        n = runs["eigenvalues_target"].map(len)
        chosen = runs[(runs["depth"] == 1) & (runs["epsilon_effective"] == 0) & (runs["rank"] == n)]
        merged = _with_runs(samples[(samples["depth"] == 1) & (samples["loss"] > _PL_FLOOR)], chosen, ["margin"])
        yield (_PL - (merged["gradient_norm"] ** 2 / (4 * merged["loss"]) - 1).abs()).to_numpy()


@_claim(
    "local spectrum",
    "ours",
    "The Hessian of the layers has the closed-form spectrum at every critical point",
    "λ(∇²L^N(W_J)) = {r_ab} ∪ {0}",
    "All eigenvalues at all points, zeros counted; margin: 1e-8 − largest deviation / λ_max.",
    "no experiment of the kind hessian",
)
def local_spectrum(study: Study) -> Iterator[Array]:
    """Deviation of Hessian spectra from their closed form."""
    for frame in study.tables("hessian", "spectra"):
        agrees = (frame["zero"] == frame["predicted_zero"]) | (frame["zero"] < 0)
        yield np.where(agrees, _HESSIAN_ROUNDING - frame["spectrum_error"], -1.0)


@_claim(
    "escape rates",
    "ours",
    "The flow leaves saddles at the closed-form rates",
    "|S_ab(t)| ~ exp(|r_ab| t)",
    "Fastest escape of a flow from each saddle; margin: 1e-3 − |measured / closed form − 1|.",
    "no experiment of the kind escape",
)
def escape_rates(study: Study) -> Iterator[Array]:
    """Measured rates of escape against closed form."""
    for frame in study.tables("escape", "escapes"):
        left = frame[frame["escapes"] > 0]
        yield (_ESCAPE - (left["measured_rate"] / left["escape_rate"] - 1).abs()).to_numpy()


@_claim(
    "stable step",
    "ours",
    "Descent stays at the optimum up to 2/λ_max, and not beyond",
    "converges ⇔ η < 2 / λ_max(∇²L^N)",
    "Descents at full rank at given shares of 2/λ_max: those below converge, those above do not; margin: distance of "
    "the share from 1, negative where the outcome is the other one.",
    "no descent at full rank near the largest stable step",
)
def stable_step(study: Study) -> Iterator[Array]:
    """Outcome of descents near the largest stable step."""
    for runs in study.tables("descent", "runs"):
        n = runs["eigenvalues_target"].map(len)
        if "relative_step" not in runs or not (runs["relative_step"] > 1).any():
            continue
        near = runs[runs["rank"] == n]
        converged = near["stop_reason"] == "converged"
        distance = (near["relative_step"] - 1).abs()
        yield np.where(converged == (near["relative_step"] < 1), distance, -distance)


def _flows(study: Study, columns: list[str]) -> Iterator[tuple[pd.DataFrame, pd.DataFrame]]:
    """Runs and samples of every flow experiment."""
    return zip(study.tables("flow", "runs"), study.tables("flow", "trajectories", ["seed", *columns]), strict=True)


def _with_runs(samples: pd.DataFrame, runs: pd.DataFrame, columns: list[str]) -> pd.DataFrame:
    """Samples of the given runs, with columns of theirs."""
    keys = [*axes_of(runs.columns), "seed"]
    return samples.merge(runs[[*keys, *columns]], on=keys)


def _orders(study: Study, column: str) -> Iterator[Array]:
    """Margins of the fitted order of a column of runs in the step size, one a cell without it."""
    for runs in study.tables("descent", "runs"):
        if "step_size" not in runs or runs["flow_error"].isna().all():
            continue
        cells = runs[runs[column] > 0]
        for _, cell in cells.groupby([axis for axis in axes_of(runs.columns) if axis != "step_size"]):
            mean = np.log(cell[column]).groupby(cell["step_size"]).mean()
            if len(mean) >= 2:
                yield np.array([_EXPONENT - abs(np.polyfit(np.log(mean.index), mean, 1)[0] - 1)])
