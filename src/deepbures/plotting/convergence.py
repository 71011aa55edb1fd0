"""Figures of the convergence study: trajectories, rates, bounds (F1-F3, G1, G2, G8 of paper.md section 7)."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ..grid import AXES
from ..theory import flow_bound
from . import frames, style

#: How the two measured slopes are called in figures.
SLOPES = {"authors": "authors' slope", "tail": "tail slope"}
_LN10 = np.log(10)


@style.styled
def trajectories(runs: pd.DataFrame, samples: pd.DataFrame) -> Figure:
    """F1: excess loss, Bures and Frobenius distance to the optimum against time, by depth.

    Bands are one standard deviation (of the logarithm) over seeds; dashed: the paper's bound;
    dotted: the sharp rate, anchored at the end.
    """
    panels = {
        "excess": r"excess loss $L_\varepsilon - L^*$",
        "squared_bures": r"$\mathcal{B}^2(S, S^*)$",
        "covariance_distance": r"$\Vert S - S^* \Vert_F$",
    }
    figure, axes = style.panels(1, 3, style.TEXT, 2.4, sharex=True)
    depths = sorted(samples["depth"].unique())
    times = frames.time_grid(samples)
    for depth, color in zip(depths, style.sequential(len(depths)), strict=True):
        cell, cell_runs = samples[samples["depth"] == depth], runs[runs["depth"] == depth]
        for axis, column in zip(axes[0], panels, strict=True):
            mean, low, high = frames.band(frames.curves(cell, column, times))
            axis.plot(times, mean, color=color, label=frames.label(depth=depth))
            axis.fill_between(times, low, high, color=color, **style.BAND)
        axis = axes[0, 0]
        bound = flow_bound(times, cell_runs["excess_initial"].mean(), cell_runs["bound_rate"].mean())
        axis.plot(times, bound, **{**style.THEORY, "color": color})
        mean, *_ = frames.band(frames.curves(cell, "excess", times))
        last = np.flatnonzero(np.isfinite(mean))[-1]
        sharp = mean[last] * np.exp(-cell_runs["sharp_rate"].mean() * (times - times[last]))
        shown = (sharp < 1) & (times <= times[last])
        axis.plot(times[shown], sharp[shown], color=color, linestyle=":", linewidth=0.9)
    for axis, text in zip(axes[0], panels.values(), strict=True):
        axis.set(xscale="log", yscale="log", xlabel=r"time $t$", ylabel=text)
    axes[0, 0].set_ylim(bottom=samples["excess"].min() / 3, top=30)
    axes[0, 1].legend(loc="lower left")
    theory = [Line2D([], [], **style.THEORY), Line2D([], [], **{**style.THEORY, "linestyle": ":"})]
    axes[0, 0].legend(theory, ["paper's bound", "sharp rate"], loc="lower left")
    style.label_panels(axes[0])
    return figure


@style.styled
def rate_contours(runs: pd.DataFrame, kind: str) -> Figure:
    """F2: measured slope, and r² of its fit, over depth × λ_min(Σ0^{1/2}), one column a smoothing ε.

    Dashed contours: the slope of the sharp rate at the same levels.
    """
    slope = f"{kind}_slope"
    table = runs.assign(size=-runs[slope], sharp=runs["sharp_rate"] / _LN10, root=np.sqrt(runs["lambda_min"]))
    table = frames.over_seeds(table, ["size", "sharp", "root", f"{kind}_r_squared", "epsilon_effective"])
    epsilons = sorted(table["epsilon"].unique())
    figure, axes = style.panels(2, len(epsilons), style.TEXT, 3.6, sharex=True, sharey=True)
    positive = table.loc[table["size_mean"] > 0, "size_mean"]
    decades = np.log10(positive.min()), np.log10(positive.max())
    levels = np.logspace(np.floor(decades[0] * 2) / 2, np.ceil(decades[1] * 2) / 2, 17)
    r_levels = np.linspace(0.9, 1.0, 11)
    for column, epsilon in enumerate(epsilons):
        cell = table[table["epsilon"] == epsilon]
        x, y, size = _grid(cell, "size_mean")
        _, _, sharp = _grid(cell, "sharp_mean")
        _, _, r_squared = _grid(cell, f"{kind}_r_squared_mean")
        top, bottom = axes[:, column]
        filled = top.contourf(x, y, size, levels, norm=LogNorm(levels[0], levels[-1]), cmap="cividis")
        marked = levels[::2]
        top.contour(x, y, sharp, marked, colors="white", linewidths=0.7, linestyles="--")
        lines = top.contour(x, y, size, marked, colors="black", linewidths=0.6)
        top.clabel(lines, fmt="%.3g", fontsize=5.5)
        fit = bottom.contourf(x, y, r_squared, r_levels, cmap="Greys", extend="min")
        limited = np.any(cell["epsilon_effective_mean"] < epsilon * (1 - 1e-12))
        top.set_title(frames.label(epsilon=epsilon) + (r" (limited to $\lambda_n$)" if limited else ""))
        bottom.set_xlabel("depth $N$")
    for row in axes:
        row[0].set_ylabel(r"$\lambda_{\min}(\Sigma_0^{1/2})$")
    figure.colorbar(filled, ax=axes[0], label="decades per unit time", format="%.3g", ticks=levels[::4])
    figure.colorbar(fit, ax=axes[1], label=r"$r^2$ of the fit")
    figure.suptitle(f"{SLOPES[kind]} (black contours) and sharp rate (white, dashed)", fontsize=8)
    return figure


@style.styled
def rate_against_depth(runs: pd.DataFrame, kind: str) -> Figure:
    """F3: measured slope against depth for several s_min, with its regression line and the sharp rate."""
    slope = f"{kind}_slope"
    table = frames.over_seeds(runs.assign(sharp=-runs["sharp_rate"] / _LN10), [slope, "sharp"])
    epsilon = frames.only_value(runs, "epsilon")
    figure, axes = style.panels(1, 1, style.COLUMN, 3.0)
    axis = axes[0, 0]
    values = sorted(table["smin"].unique())
    for (smin, cell), color in zip(frames.groups(table, "smin"), style.sequential(len(values)), strict=True):
        cell = cell[cell[f"{slope}_count"] > 0]
        if len(cell) < 2:
            continue
        N, mean, deviation = (cell[name].to_numpy() for name in ("depth", f"{slope}_mean", f"{slope}_std"))
        a, intercept = np.polyfit(N, mean, 1)
        r_squared = np.corrcoef(N, mean)[0, 1] ** 2
        text = f"{frames.label(smin=smin)}: $a = {a:.3g}$, $r^2 = {r_squared:.4f}$"
        axis.plot(N, mean, "o", color=color, label=text, markersize=2.8)
        axis.fill_between(N, mean - deviation, mean + deviation, color=color, **style.BAND)
        axis.plot(N, intercept + a * N, color=color, linewidth=0.8)
        axis.plot(N, cell["sharp_mean"], **{**style.THEORY, "color": color})
    axis.set(xlabel="depth $N$", ylabel="slope (decades per unit time)")
    axis.set_title(f"{SLOPES[kind]}, {frames.label(epsilon=epsilon)}; dashed: sharp rate")
    figure.legend(*axis.get_legend_handles_labels(), loc="outside lower center", ncols=1, fontsize=6.5)
    return figure


@style.styled
def measured_against_sharp(runs: pd.DataFrame) -> Figure:
    """G1: tail rate against the sharp rate, every grid point, on one diagonal; below: their ratio."""
    table = runs.assign(measured=-runs["tail_slope"] * _LN10)
    table = frames.over_seeds(
        table.assign(ratio=table["measured"] / table["sharp_rate"]), ["measured", "sharp_rate", "ratio"]
    )
    figure, axes = style.panels(2, 1, style.COLUMN, 3.8, sharex=True, height_ratios=[2, 1])
    for (epsilon, cell), color, marker in zip(frames.groups(table, "epsilon"), style.PALETTE, "os^Dv<>", strict=False):
        cell = cell[cell["measured_count"] > 0]
        if cell.empty:
            continue
        points = {"linestyle": "none", "marker": marker, "color": color, "markersize": 2.5, "alpha": 0.7}
        axes[0, 0].plot(cell["sharp_rate_mean"], cell["measured_mean"], label=frames.label(epsilon=epsilon), **points)
        axes[1, 0].errorbar(cell["sharp_rate_mean"], cell["ratio_mean"], cell["ratio_std"], elinewidth=0.5, **points)
    ends = table.loc[table["measured_count"] > 0, "sharp_rate_mean"].agg(["min", "max"])
    axes[0, 0].plot(ends, ends, **style.THEORY, label="equal")
    axes[1, 0].axhline(1, **style.THEORY)
    axes[0, 0].set(xscale="log", yscale="log", ylabel="measured tail rate")
    axes[1, 0].set(xlabel="sharp rate (per unit time)", ylabel="measured / sharp")
    axes[0, 0].legend()
    style.label_panels(axes[:, 0])
    return figure


@style.styled
def bound_tightness(runs: pd.DataFrame) -> Figure:
    """G2: the paper's guaranteed rate as a share of the measured one, against depth."""
    measured = -runs["authors_slope"] * _LN10
    table = runs.assign(share=np.log10(runs["bound_rate"].where(runs["bound_rate"] > 0) / measured))
    table = table.groupby(["epsilon", "depth"])["share"].agg(["mean", "min", "max", "count"]).reset_index()
    table = table[table["count"] > 0]
    figure, axes = style.panels(1, 1, style.COLUMN, 2.4)
    axis = axes[0, 0]
    for (epsilon, cell), color in zip(frames.groups(table, "epsilon"), style.PALETTE[1:], strict=False):
        axis.plot(cell["depth"], 10 ** cell["mean"], "o-", color=color, label=frames.label(epsilon=epsilon))
        axis.fill_between(cell["depth"], 10 ** cell["min"], 10 ** cell["max"], color=color, **style.BAND)
    axis.axhline(1, **style.THEORY)
    axis.text(axis.get_xlim()[1], 1.5, "tight", ha="right", fontsize=7)
    axis.set(yscale="log", xlabel="depth $N$", ylabel="guaranteed / measured rate")
    axis.set_title(r"all $s_{\min}$ and seeds: geometric mean and range", fontsize=7.5)
    axis.legend(loc="lower left")
    return figure


@style.styled
def spread_over_seeds(runs: pd.DataFrame) -> Figure:
    """G8: how far one seed may lie from the mean over seeds, by definition of the slope."""
    figure, axes = style.panels(1, 2, style.TEXT, 2.3, sharey=True)
    for axis, (kind, text) in zip(axes[0], SLOPES.items(), strict=True):
        cells = runs.groupby(list(AXES))[f"{kind}_slope"]
        relative = (runs[f"{kind}_slope"] / cells.transform("mean") - 1).abs() * 100
        table = runs.assign(relative=relative).dropna(subset=["relative"])
        for (epsilon, part), color in zip(frames.groups(table, "epsilon"), style.PALETTE, strict=False):
            by_smin = part.groupby("smin")["relative"]
            axis.plot(by_smin.median().index, by_smin.median(), "o-", color=color, label=frames.label(epsilon=epsilon))
            axis.fill_between(
                by_smin.median().index, by_smin.quantile(0.1), by_smin.quantile(0.9), color=color, **style.BAND
            )
        axis.set(xlabel=r"$s_{\min}$", ylim=(0, None))
        axis.set_title(text)
    axes[0, 0].set_ylabel("one seed's distance from\nthe mean slope (%)")
    axes[0, 0].legend(ncols=2)
    style.label_panels(axes[0])
    return figure


def _grid(cell: pd.DataFrame, column: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Depths, λ_min(Σ0^{1/2}) and values of a column on that grid, NaN where there are none."""
    table = cell.pivot_table(index="smin", columns="depth", values=column, dropna=False)
    roots = cell.groupby("smin")["root_mean"].mean()
    return table.columns.to_numpy(), roots.loc[table.index].to_numpy(), np.ma.masked_invalid(table.to_numpy())
