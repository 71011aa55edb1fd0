"""Figures of the convergence study: trajectories, rates, bounds (F1-F3, G1, G2, G8)."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.contour import ContourSet
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ..linalg.psd import Array
from ..model.trajectory import StopReason
from ..rates import predicted
from ..study.grid.axes import axes_of
from ..study.results import derived
from . import frames, style

#: Names of the two measured slopes in figures.
SLOPES = {"authors": "authors' slope", "tail": "tail slope"}
#: Names of the rebuilt bounds, by the column of their rate.
PROMISES = {"bound_rate": "program's bound", "descent_rate": "program's rate"}
#: The line of the global theorem, ours.
_GLOBAL = {"linestyle": "-.", "linewidth": 0.9}
#: Levels of 1 − r².
_MISFITS = np.logspace(-8, 0, 17)


@style.lettered
def trajectories(runs: pd.DataFrame, trajectories: pd.DataFrame, rate: str = "bound_rate") -> Figure:
    """F1: excess loss, Bures and Frobenius distance to the optimum against time, by depth.

    Bands are one standard deviation (of the logarithm, ddof 1) over seeds. In the first panel the lines of theory
    use the means over seeds of the start and the rate. Dashed: the bound of the authors' program (`rate`, for
    descent `descent_rate`); for flows, dash-dotted: the global bound L(0) exp(−rate · t); dotted: the sharp rate,
    through the end of the curve.
    """
    panels = {
        "excess": r"excess loss $L_\varepsilon - L^*$",
        "squared_bures": r"$\mathcal{B}^2(S, S^*)$",
        "covariance_distance": r"$\Vert S - S^* \Vert_F$",
    }
    figure, axes = style.row(3, 2.4, sharex=True)
    times = frames.time_grid(trajectories)
    with_global = rate == "bound_rate" and runs["global_rate"].notna().all()
    for depth, cell, color in frames.colored(trajectories, "depth"):
        cell_runs = runs[runs["depth"] == depth]
        for axis, column in zip(axes, panels, strict=True):
            band = frames.band(frames.curves(cell, column, times))
            style.band(axis, times, band, color, label=frames.label(depth=depth))
        bound = predicted.flow_bound(times, cell_runs["excess_initial"].mean(), cell_runs[rate].mean())
        axes[0].plot(times, bound, **{**style.THEORY, "color": color})
        if with_global:
            ours = predicted.global_bound(times, cell_runs["loss_initial"].mean(), cell_runs["global_rate"].mean())
            shown = ours > ours[0] * 1e-12  # the curves end there; the bound goes on to 0
            axes[0].plot(times[shown], ours[shown], color=color, **_GLOBAL)
        mean, *_ = frames.band(frames.curves(cell, "excess", times))
        last = np.flatnonzero(np.isfinite(mean))[-1]
        sharp = mean[last] * np.exp(-cell_runs["sharp_rate"].mean() * (times - times[last]))
        shown = (sharp < 1) & (times <= times[last])
        axes[0].plot(times[shown], sharp[shown], color=color, linestyle=":", linewidth=0.9)
    for axis, text in zip(axes, panels.values(), strict=True):
        axis.set(xscale="log", yscale="log", xlabel=r"time $t$", ylabel=text)
    lowest, highest = trajectories["excess"].min(), trajectories["excess"].max()
    axes[0].set_ylim(bottom=lowest * (lowest / highest) ** 0.4)  # two fifths more room, for the legend
    axes[1].legend(loc="lower left")
    names = [(PROMISES[rate], style.THEORY), ("sharp rate", style.THEORY | {"linestyle": ":"})]
    if with_global:
        names.insert(1, ("global bound", {"color": "black", **_GLOBAL}))
    style.key(axes[0], names, loc="lower left", handlelength=2.4)
    return figure


@style.styled
def rate_contours(runs: pd.DataFrame, kind: str) -> Figure:
    """F2: measured slope, and 1 − r² of its fit, over depth × λ_min(Σ0^{1/2}), one column per smoothing ε.

    Dashed contours: the slope of the sharp rate at the same levels. Dotted: λ_n = ε, below which ε is limited
    to λ_n. Hatched: no flow of the cell reached its tail within the step budget.
    """
    table = runs.assign(
        size=-runs[f"{kind}_slope"],
        sharp=_sharp_slope(runs, kind),
        root=np.sqrt(runs["lambda_min"]),
        misfit=1 - runs[f"{kind}_r_squared"],
    )
    table = frames.over_seeds(table, ["size", "sharp", "root", "misfit"])
    if min(table["smin"].nunique(), table["depth"].nunique()) < 2:
        return style.without("contours need two depths and two values of s_min, and so a drawn target")
    if not (table["size_mean"] > 0).any():
        return style.without(f"no flow has a slope ({SLOPES[kind]})")
    figure, axes = style.panels(2, table["epsilon"].nunique(), style.TEXT, 3.6, sharex=True, sharey=True)
    decades = np.log10(table.loc[table["size_mean"] > 0, "size_mean"].agg(["min", "max"]).to_numpy())
    first, last = int(np.floor(decades[0])), int(np.ceil(decades[1]))
    levels = np.logspace(first, last, 4 * (last - first) + 1)
    for (epsilon, cell), (top, bottom) in zip(frames.groups(table, "epsilon"), axes.T, strict=True):
        filled, fit = _draw_contours(top, bottom, cell, levels)
        for axis in (top, bottom):
            axis.patch.set(hatch="////", facecolor="white", edgecolor="0.75")
            if np.sqrt(epsilon) > cell.groupby("smin")["root_mean"].mean().iloc[0]:
                axis.axhline(np.sqrt(epsilon), color="#D55E00", linewidth=0.9, linestyle=":")
        top.set_title(frames.label(epsilon=epsilon))
        bottom.set_xlabel("depth $N$")
    plt.setp(axes[:, 0], ylabel=r"$\lambda_{\min}(\Sigma_0^{1/2})$")
    figure.colorbar(filled, ax=axes[0], label="decades per unit time", format="%g", ticks=levels[::4])
    figure.colorbar(fit, ax=axes[1], label=r"$1 - r^2$ of the fit", ticks=_MISFITS[::4])
    note = r"dotted: $\lambda_n = \varepsilon$"
    if kind == "tail":
        note += r"; hatched: no exponential tail (where $\varepsilon = \lambda_n$: G14)"
    figure.suptitle(f"{SLOPES[kind]} (black) and sharp rate (white, dashed); {note}", fontsize=8)
    return figure


def _draw_contours(top: Axes, bottom: Axes, cell: pd.DataFrame, levels: Array) -> tuple[ContourSet, ContourSet]:
    """Measured slope with contours of the sharp one, and 1 − r² of the fit, at one smoothing."""
    x, y, size = _grid(cell, "size_mean")
    sharp, misfit = (_grid(cell, name)[2] for name in ("sharp_mean", "misfit_mean"))
    marked = [digit * 10.0**power for power in range(-4, 6) for digit in (1, 3)]
    filled = top.contourf(x, y, size, levels, norm=LogNorm(levels[0], levels[-1]), cmap="cividis")
    for text in top.clabel(top.contour(x, y, size, marked, colors="black", linewidths=0.6), fmt="%g", fontsize=5.5):
        measured = y[~np.ma.getmaskarray(size).all(axis=1)]
        if text.get_position()[1] < measured.min() + 0.15 * np.ptp(y):  # all levels meet near λ_n = ε
            text.remove()
    white = {"colors": "white", "linewidths": 0.8, "linestyles": "--"}
    top.contour(x, y, np.ma.masked_where(np.ma.getmaskarray(size), sharp), marked, **white)
    misfit = np.ma.maximum(misfit, _MISFITS[0])
    return filled, bottom.contourf(x, y, misfit, _MISFITS, norm=LogNorm(1e-8, 1), cmap="Greys")


@style.styled
def rate_against_depth(runs: pd.DataFrame, kind: str, by: str = "smin") -> Figure:
    """F3: measured slope against depth, by s_min or rank, with its regression line and the sharp rate."""
    slope = f"{kind}_slope"
    table = frames.over_seeds(runs.assign(sharp=-_sharp_slope(runs, kind)), [slope, "sharp"])
    epsilon = frames.only_value(runs, "epsilon")
    figure, (axis,) = style.row(1, 3.0, style.COLUMN)
    for value, cell, color in frames.colored(table, by):
        cell = cell[cell[f"{slope}_count"] > 0]
        if len(cell) < 2:
            continue
        N, mean, deviation = (cell[name].to_numpy() for name in ("depth", f"{slope}_mean", f"{slope}_std"))
        a, intercept = np.polyfit(N, mean, 1)
        r_squared = np.corrcoef(N, mean)[0, 1] ** 2
        text = f"{frames.label(**{by: value})}: $a = {a:.3g}$, $r^2 = {r_squared:.4f}$"
        style.band(axis, N, (mean, mean - deviation, mean + deviation), color, "o", label=text, markersize=2.8)
        axis.plot(N, intercept + a * N, color=color, linewidth=0.8)
        axis.plot(N, cell["sharp_mean"], **{**style.THEORY, "color": color})
    axis.set(xlabel="depth $N$", ylabel="slope (decades per unit time)")
    axis.set_title(f"{SLOPES[kind]}, {frames.label(epsilon=epsilon)}; dashed: sharp rate")
    figure.legend(*axis.get_legend_handles_labels(), loc="outside lower center", ncols=1, fontsize=6.5)
    return figure


@style.lettered
def measured_against_sharp(runs: pd.DataFrame) -> Figure:
    """G1: tail rate against the sharp rate, every grid point, on one diagonal; below: their ratio."""
    table = _measured_rates(runs)
    if table.empty:
        return style.without("no flow has an exponential tail")
    figure, ((top,), (bottom,)) = style.panels(2, 1, style.COLUMN, 3.8, sharex=True, height_ratios=[2, 1])
    _draw_against_sharp(top, table)
    for (_, cell), points in zip(frames.groups(table, "epsilon"), _points(table), strict=True):
        bottom.errorbar(cell["sharp_rate_mean"], cell["ratio_mean"], cell["ratio_std"], elinewidth=0.5, **points)
    bottom.axhline(1, **style.THEORY)
    bottom.set(xlabel="sharp rate (per unit time)", ylabel="measured / sharp")
    return figure


@style.lettered
def bound_tightness(runs: pd.DataFrame) -> Figure:
    """G2: rates over the sharp rate, against depth: measured tail, global theorem, program's bound.

    One panel per smoothing ε with ε < λ_n in some cell; medians and 10 % to 90 % over s_min and seeds.
    """
    runs = runs[(runs["sharp_rate"] > 0) & (runs["epsilon_effective"] >= runs["epsilon"] * (1 - 1e-9))]
    if runs.empty:
        return style.without("no flow has a sharp rate at an ε below λ_n")
    figure, panels = frames.panels(runs, "epsilon", 2.5, sharey=True)
    for axis, epsilon, cells in panels:
        _draw_tightness(axis, cells)
        axis.set_title(frames.label(epsilon=epsilon))
    panels[0][0].set(ylabel="rate / sharp rate", ylim=(None, 10))
    figure.legend(*panels[-1][0].get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=6.5)
    return figure


@style.lettered
def main_result(runs: pd.DataFrame, shown: pd.DataFrame) -> Figure:
    """Figure of the README: tail rates against depth and against the sharp rate, and the bounds over the sharp rate.

    Parameters
    ----------
    runs
        All runs.
    shown
        Runs of one ε and several s_min, for the first panel.
    """
    figure, (first, second, third) = style.row(3, 2.4)
    table = _measured_rates(shown)
    for smin, cell, color in frames.colored(table, "smin"):
        points = {"color": color, "markersize": 2.5, "label": frames.label(smin=smin) or "spectrum as drawn"}
        first.plot(cell["depth"], cell["measured_mean"], "o", **points)
        first.plot(cell["depth"], cell["sharp_rate_mean"], **style.THEORY)
    first.set(xlabel="depth $N$", ylabel="measured tail rate", ylim=(0, None))
    first.set_title(f"{frames.label(epsilon=frames.only_value(shown, 'epsilon'))}; dashed: theory")
    style.legend(first, fontsize=6.5)
    measured = _measured_rates(runs)
    _draw_against_sharp(second, measured)
    cells = runs.groupby(axes_of(runs.columns)).ngroups
    second.set(xlabel="sharp rate (closed form)", title=f"{len(measured)} of {cells} cells")
    one = frames.only_value(shown, "epsilon")
    _draw_tightness(third, runs[(runs["epsilon_effective"] == one) & (runs["sharp_rate"] > 0)])
    third.set(ylabel="rate / sharp rate", ylim=(None, 10), title=frames.label(epsilon=one))
    style.legend(third, loc="upper right", bbox_to_anchor=(1, 0.9), fontsize=6)
    return figure


@style.lettered
def algebraic_tail(runs: pd.DataFrame) -> Figure:
    """G14: exponent and size of the algebraic tails of flows with ε = λ_n, against depth.

    Shown are the flows that reached their horizon. (a) Fitted exponent of t, dashed: −2N/(2N−1). (b) Excess loss at the
    end divided by its closed form (`rates.predicted.algebraic_tail`). Medians and 10 % to 90 % over targets.
    """
    limited = np.isclose(runs["epsilon_effective"], runs["lambda_min"], rtol=1e-8, atol=0) & (runs["sharp_rate"] == 0)
    flows = runs[limited & (runs["stop_reason"] == StopReason.END_TIME)].drop_duplicates(["smin", "depth", "seed"])
    closed = [predicted.algebraic_tail(row.time_final, row.lambda_min, int(row.depth)) for row in flows.itertuples()]
    columns = {"power_law_slope": "exponent of $t$", "ratio": "excess loss / closed form"}
    flows = flows.assign(ratio=flows["excess_final"] / np.array(closed, dtype=float))
    figure, (left, right) = style.row(2, 2.3)
    for axis, (column, text) in zip((left, right), columns.items(), strict=True):
        by_depth = flows.groupby("depth")[column]
        axis.plot(by_depth.median(), "o", color=style.PALETTE[0], label=f"{len(flows)} flows")
        axis.vlines(by_depth.median().index, by_depth.quantile(0.1), by_depth.quantile(0.9), color=style.PALETTE[0])
        axis.set(xscale="log", xlabel="depth $N$", ylabel=text)
    N = np.geomspace(runs["depth"].min(), runs["depth"].max(), 100)
    left.plot(N, -2 * N / (2 * N - 1), **style.THEORY, label=r"$-2N/(2N-1)$")
    left.legend()
    right.axhline(1, **style.THEORY)
    right.set(xlim=left.get_xlim(), ylim=(0.8, 1.2))
    return figure


@style.lettered
def spread_over_seeds(runs: pd.DataFrame) -> Figure:
    """G8: distance of one seed's slope from the mean over seeds, for each definition of the slope."""
    figure, axes = style.row(2, 2.3, sharey=True)
    for axis, (kind, text) in zip(axes, SLOPES.items(), strict=True):
        cells = runs.groupby(axes_of(runs.columns))[f"{kind}_slope"]
        relative = (runs[f"{kind}_slope"] / cells.transform("mean") - 1).abs() * 100
        table = runs.assign(relative=relative).dropna(subset=["relative"])
        for epsilon, part, color in frames.colored(table, "epsilon", style.distinct):
            smin, values = frames.quantiles(part["relative"], part["smin"])
            style.band(axis, smin, values, color, "o-", label=frames.label(epsilon=epsilon))
        axis.set(xlabel=r"$s_{\min}$", ylim=(0, None), title=text)
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axis.xaxis.set_major_formatter(lambda smin, _: f"{smin:g}" if smin >= 0 else "as drawn" if smin == -1 else "")
    axes[0].set_ylabel("one seed's distance from\nthe mean slope (%)")
    style.legend(axes[0], ncols=2)
    return figure


def _sharp_slope(runs: pd.DataFrame, kind: str) -> pd.Series:
    """Sharp rate in decades per unit time, of the runs that have a slope of a kind."""
    return (runs["sharp_rate"] / np.log(10)).where(runs[f"{kind}_slope"].notna())


def _points(table: pd.DataFrame) -> list[dict[str, object]]:
    """Keywords of the points of each smoothing ε of a table, in ascending order."""
    points = {"linestyle": "none", "markersize": 2.5, "alpha": 0.7}
    return [points | look for look in style.looks(table["epsilon"].nunique(), style.distinct)]


def _measured_rates(runs: pd.DataFrame) -> pd.DataFrame:
    """Measured tail rate, sharp rate and their ratio, over the seeds of each cell that reached its tail."""
    table = runs.assign(measured=derived.tail_rate(runs))
    table["sharp_rate"] = table["sharp_rate"].where(table["measured"].notna())
    table["ratio"] = table["measured"] / table["sharp_rate"]
    table = frames.over_seeds(table, ["measured", "sharp_rate", "ratio"])
    return table[table["measured_count"] > 0]


def _draw_against_sharp(axis: Axes, table: pd.DataFrame) -> None:
    """Measured against sharp rate of each cell, and the line where they are equal."""
    for (epsilon, cell), points in zip(frames.groups(table, "epsilon"), _points(table), strict=True):
        axis.plot(cell["sharp_rate_mean"], cell["measured_mean"], label=frames.label(epsilon=epsilon), **points)
    ends = table["sharp_rate_mean"].agg(["min", "max"])
    axis.plot(ends, ends, **style.THEORY, label="equal")
    axis.set(ylabel="measured tail rate")
    if not table.empty:
        axis.set(xscale="log", yscale="log")
    axis.legend()


#: Name and line of each rate in G2, by its column.
_RATES = {
    "measured": ("measured in the tail", {"color": style.PALETTE[0], "marker": "o"}),
    "global_rate": ("global theorem (ours)", {"color": style.PALETTE[2], "marker": "s", "markersize": 2.2}),
    "bound_rate": ("program's bound", {"color": style.PALETTE[1], "marker": "^"}),
}


def _draw_tightness(axis: Axes, runs: pd.DataFrame) -> None:
    """Rates over the sharp rate, median and 10 % to 90 % over s_min and seeds; a rate of 0 is not drawn."""
    table = runs.assign(measured=derived.tail_rate(runs).where(runs["in_tail"] == 1))
    for column, (text, line) in _RATES.items():
        ratio = (table[column] / table["sharp_rate"]).where(table[column] > 0)
        if ratio.notna().any():
            style.band(axis, *frames.quantiles(ratio, table["depth"]), label=text, linewidth=0.9, **line)
    axis.axhline(1, **style.THEORY)
    axis.set(yscale="log", xlabel="depth $N$")


def _grid(cell: pd.DataFrame, column: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Depths, λ_min(Σ0^{1/2}) and values of a column on that grid, NaN where there are none."""
    table = cell.pivot_table(index="smin", columns="depth", values=column, dropna=False)
    roots = cell.groupby("smin")["root_mean"].mean()
    return table.columns.to_numpy(), roots.loc[table.index].to_numpy(), np.ma.masked_invalid(table.to_numpy())
