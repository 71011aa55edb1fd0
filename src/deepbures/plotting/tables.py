"""Tables of the study, as CSV and LaTeX."""

from pathlib import Path

import numpy as np
import pandas as pd

from ..model.trajectory import StopReason
from ..study.grid.axes import AXES, axes_of
from ..study.results import derived
from .frames import over_seeds

#: LaTeX headings of the columns.
HEADINGS = {
    **{axis.name: axis.column for axis in AXES.values()},
    "margin": "$c$",
    **{name: f"${name}$" for name in ("C_0", "K", "M")},
    "log10_Delta": r"$\log_{10}\Delta$",
    **{f"log10_eta_{i}": rf"$\log_{{10}}\eta_{i}$" for i in (1, 2, 3)},
    "bound_rate": "bound (1/time)",
    "loss_initial": "$L(0)$",
    "loss_minimum": "$L^*$",
    "sharp_rate": "sharp rate (1/time)",
    "tail_rate": "tail rate (1/time)",
    "ratio": "tail / sharp",
    "authors_slope": "authors' slope (decades/time)",
    "authors_r_squared": "$r^2$",
    "tail_r_squared": "$r^2$ (tail)",
    "eta": r"$\eta$",
    "eta_stable": r"$2/\lambda_{\max}$",
    "log10_eta_paper": r"$\log_{10}\min(\eta_1,\eta_2,\eta_3)$",
    "descent_rate": "promised (1/time)",
    "final_rate": r"final $-\ln$ contraction",
    "predicted_rate": r"$-\ln\max_r(1-\eta r)^2$",
    "point": "$i$",
    "vanishing": "vanish",
    "smallest": r"$\lambda_{\min}$",
    "largest": r"$\lambda_{\max}$",
    "relative_condition": r"$\kappa_{\mathrm{rel}}$",
    "absolute_condition": r"$\kappa_{\mathrm{abs}}$",
    "escape_rate": r"$\max_r (-r)$",
    "measured_rate": "measured",
    "plateau_time": "plateau time",
    "level": r"$\lambda_{\min}$ at $\sigma = 0$",
    "level_of_empty_columns": r"$2(1 - \lambda_{\max}(T))$",
}
#: Columns of the table of Hessians, and of escapes, in LaTeX.
HESSIAN = ["smallest", "largest", "relative_condition", "absolute_condition"]
ESCAPES = ["escapes", "escape_rate", "measured_rate", "plateau_time"]
BLOW_UP = ["exponent", "level", "level_of_empty_columns"]
#: Columns of the table of step sizes, in LaTeX.
STEP_SIZES = ["margin", "C_0", "M", "log10_Delta", "log10_eta_paper", "eta", "eta_stable"]
STEP_SIZES += ["descent_rate", "final_rate", "predicted_rate"]


def constants(runs: pd.DataFrame) -> pd.DataFrame:
    """T2: constants, step sizes and promised rate of the authors' program for every run, and the global rates.

    `certified`: whether the global theorem at full rank or that below it gives a rate from the start of the run.
    """
    columns = ["margin", "C_0", "K", "M", "log10_Delta", "log10_eta_1", "log10_eta_2", "log10_eta_3", "bound_rate"]
    columns += ["global_rate", "bound_is_proved", "critical_gap", "low_rank_rate", "certified"]
    certified = (runs["global_rate"] > 0) | (runs["low_rank_rate"] > 0)
    runs = runs.assign(certified=certified.astype(int))
    return runs[[*axes_of(runs.columns), "seed", "epsilon_effective", "loss_initial", "loss_minimum", *columns]]


def rates(runs: pd.DataFrame) -> pd.DataFrame:
    """T3: slopes, r², tail rate, sharp rate and bounds, mean and standard deviation over seeds, one row per cell.

    Slopes are in decades per unit time, rates per unit time; deviations have n − 1 in the denominator. `tails`
    counts the seeds with a fitted tail, over which `tail_…` and `ratio` are averaged, and `in_tail` the seeds with a
    settled tail in the slowest direction. `power_law_slope` is the exponent of t where a flow did not converge.
    `limited`: ε exceeds λ_k and was replaced by it, so that cells that differ only in ε may be the same problem.
    """
    table = runs.assign(tail_rate=derived.tail_rate(runs), ratio=derived.tail_ratio(runs))
    columns = ["authors_slope", "authors_r_squared", "tail_slope", "tail_r_squared", "tail_rate", "ratio"]
    columns += ["sharp_rate", "global_rate", "bound_rate", "power_law_slope"]
    axes = axes_of(runs.columns)
    counts = runs.groupby(axes, sort=True).agg(
        seeds=("seed", "count"),
        tails=("tail_slope", "count"),
        in_tail=("in_tail", "sum"),
        epsilon_effective=("epsilon_effective", "mean"),
    )
    merged = counts.reset_index().merge(over_seeds(table, columns), on=axes)
    merged.insert(len(axes), "limited", merged["epsilon_effective"] < merged["epsilon"] * (1 - 1e-12))
    return merged.drop(columns=[f"{name}_count" for name in columns])


def step_sizes(runs: pd.DataFrame) -> pd.DataFrame:
    """T2 for descent: the theorem's constants and step size beside η, 2/λ_max, and promised and final decay per step.

    Mean and standard deviation over seeds, one row per cell. `converged` counts the seeds that converge; `final_rate`
    averages over them minus the logarithm of the final contraction of L − L* in a step.
    """
    table = _with_rates(runs, log10_eta_paper=derived.log10_theorem_step(runs))
    columns = [*STEP_SIZES, "K", "log10_eta_1", "log10_eta_2", "log10_eta_3", "authors_slope", "authors_r_squared"]
    return _with_outcomes(runs, over_seeds(table, columns))


def outcomes(runs: pd.DataFrame) -> pd.DataFrame:
    """Outcomes of descent: seeds that converge, stay or diverge, steps to 1e-6 of the start, final decay per step.

    Mean and standard deviation over the seeds with such a value (`…_count`), one row per cell.
    """
    table = _with_rates(runs, settling_steps=derived.settling_steps(runs))
    columns = ["settling_steps", "final_rate", "predicted_rate", "excess_final", "balancedness_final"]
    return _with_outcomes(runs, over_seeds(table, columns))


def _with_rates(runs: pd.DataFrame, **more: pd.Series) -> pd.DataFrame:
    """Runs of descent with their final decay per step, measured and in closed form, and other columns."""
    return runs.assign(final_rate=derived.final_rate(runs), predicted_rate=derived.predicted_rate(runs), **more)


def hessian(spectra: pd.DataFrame) -> pd.DataFrame:
    """T1: λ_min, λ_max, κ_rel, κ_abs at each critical point, mean and standard deviation over targets.

    `negative` and `zero` are the numbers of such eigenvalues; `escapes` and `predicted_zero` their closed forms.
    """
    columns = [*HESSIAN, "negative", "escapes", "zero", "predicted_zero", "spectrum_error"]
    return over_seeds(spectra, columns, within=["point"])


def escapes(table: pd.DataFrame) -> pd.DataFrame:
    """T8: fastest escape from each saddle, closed form and measured, and time on the plateau; one row per point."""
    saddles = table[table["escapes"] > 0]
    return over_seeds(saddles, ESCAPES, within=["point"])


def blow_up(curvatures: pd.DataFrame) -> pd.DataFrame:
    """T7: fitted exponent of |λ_min| in σ and its level at σ = 0, by number of vanishing singular values."""
    within = [*axes_of(curvatures.columns), "vanishing", "seed"]
    rows = [
        {
            **run[[*within, "level", "level_of_empty_columns"]].to_dict("records")[0],
            "exponent": derived.exponent_at_zero(run["sigma"], run["smallest"].abs()),
        }
        for _, run in curvatures.groupby(within)
    ]
    return over_seeds(pd.DataFrame(rows), BLOW_UP, within=["vanishing"])


def critical_search(searches: pd.DataFrame) -> pd.DataFrame:
    """T9: numbers of searches for critical points by their end, one row per cell.

    `critical`: gradient below the tolerance; `matched`: at an enumerated point; `unmatched`: critical, but not
    enumerated; `lost_rank`: ended at a kink, where the loss has no second derivative; `at_zero`: matched at W = 0;
    `at_rank`: matched at a point of rank k; `index_counted`: of these, the ones at which the negative eigenvalues of
    the Hessian can be distinguished from zeros; `index_agrees`: their number is that of the closed form. `found…` and
    `enumerated…` are numbers of different points, over all seeds.
    """
    axes = axes_of(searches.columns)
    matched = searches["matched"] == 1
    at_rank = matched & (searches["kept"].map(len) == searches["rank"])
    table = searches.assign(
        point=searches["kept"].map(lambda kept: tuple(int(j) for j in kept)),
        unmatched=(searches["critical"] == 1) & ~matched,
        lost_rank=(searches["critical"] == 0) & (searches["evaluations"] < 0),
        at_zero=matched & (searches["kept"].map(len) == 0),
        at_rank=at_rank,
        index_counted=at_rank & (searches["negative"] >= 0),
        index_agrees=at_rank & (searches["negative"] == searches["escapes"]),
    )
    sums = ["critical", "matched", "unmatched", "lost_rank", "at_zero", "at_rank", "index_counted", "index_agrees"]
    grouped = table.groupby(axes, sort=True)
    one = searches.drop_duplicates([*axes, "seed"]).groupby(axes)

    def found(which: pd.Series) -> pd.Series:
        return table[which].drop_duplicates([*axes, "seed", "point"]).groupby(axes).size()

    counts = pd.concat([grouped["start"].count().rename("starts"), grouped[sums].sum()], axis=1).assign(
        found=found(matched),
        enumerated=one["enumerated"].sum(),
        found_at_rank=found(at_rank),
        enumerated_at_rank=one["enumerated_at_rank"].sum(),
    )
    worst = searches[matched].groupby(axes)["distance"].max().rename("largest_distance")
    return counts.fillna(0).astype(int).join(worst).reset_index()


def _with_outcomes(runs: pd.DataFrame, summary: pd.DataFrame) -> pd.DataFrame:
    """A summary with the number of seeds and of each outcome before its other columns, one row per cell."""
    axes = axes_of(runs.columns)
    ends = runs.groupby(axes, sort=True)["stop_reason"]
    counts = {"seeds": ends.count()}
    for reason in (StopReason.CONVERGED, StopReason.STEP_BUDGET, StopReason.DIVERGED):
        counts[reason.replace(" ", "_")] = ends.agg(lambda reasons, reason=reason: int((reasons == reason).sum()))
    return pd.DataFrame(counts).reset_index().merge(summary, on=axes)


def with_deviations(summary: pd.DataFrame, columns: list[str]) -> pd.DataFrame:
    """Columns `x_mean`, `x_std` joined into one text column, mean ± std, under the heading of `x`."""
    joined = {
        HEADINGS.get(name, name): [
            "--"
            if np.isnan(mean)
            else (f"${mean:.4g}$" if np.isnan(deviation) else rf"${mean:.4g} \pm {deviation:.2g}$")
            for mean, deviation in zip(summary[f"{name}_mean"], summary[f"{name}_std"], strict=True)
        ]
        for name in columns
    }
    within = [name for name in ("point", "vanishing") if name in summary.columns]
    axes = summary[[*axes_of(summary.columns), *within]].rename(columns=HEADINGS)
    return pd.concat([axes, pd.DataFrame(joined, index=axes.index)], axis=1)


def save(table: pd.DataFrame, folder: str | Path, name: str, latex: pd.DataFrame | None = None) -> pd.DataFrame:
    """Write `folder/name.csv` (full precision) and `.tex` (booktabs, `latex` in place of the table if given)."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    table.to_csv(folder / f"{name}.csv", index=False)
    shown = table.rename(columns=HEADINGS) if latex is None else latex
    shown = shown.rename(columns=lambda column: column if "$" in column else column.replace("_", r"\_"))
    shown.to_latex(folder / f"{name}.tex", index=False, longtable=True, na_rep="--", float_format="{:.4g}".format)
    return table
