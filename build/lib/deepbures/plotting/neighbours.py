"""Figures of the neighbours (docs/neighbours): scaled descent, barycenters, low rank plus sparse, sensing."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from . import style

#: Relative accuracy to which steps of plain descent are counted.
_ACCURACY = 1e-12
_LOSSES = {"bures-wasserstein": "Bures-Wasserstein", "frobenius": "square loss"}
_METHODS = {"frobenius": "Frobenius", "scaled": "scaled", "bures-wasserstein": "Bures-Wasserstein"}
_SENSING = {"square": "square loss", "sliced": "sliced loss", "reweighted": "reweighted"}


@style.styled
def steps_against_condition(scaled: pd.DataFrame, conditions: pd.DataFrame) -> Figure:
    """N1: steps to a relative 1e-12 against κ, plain descent (dashed) and scaled (solid), a colour a depth; k = n.

    Plain steps are ln 1e-12 over the logarithm of the contraction that is measured on the slowest mode, at half the
    largest stable step; one Bures-Wasserstein layer needs none of this, its step ½ is the scaled one.
    """
    figure, axes = style.panels(1, 2, style.TEXT, 2.6)
    full = scaled[(scaled["method"] == "layerwise") & (scaled["start"] == "gaussian") & (scaled["share"] == 0)]
    full = full[(full["target_rank"] == full["rank"]) & (full["rank"] == full["rank"].max())]
    depths = sorted(full["depth"].unique())
    for ax, (loss, name) in zip(axes[0], _LOSSES.items(), strict=True):
        for depth, color in zip(depths, style.sequential(len(depths)), strict=True):
            runs = full[(full["loss_name"] == loss) & (full["depth"] == depth)]
            steps = runs.groupby("condition")["steps"].mean()
            ax.plot(steps.index, steps, "o-", color=color, markersize=3, label=f"$N = {depth}$")
            plain = conditions[(conditions["loss_name"] == loss) & (conditions["depth"] == depth)]
            factor = (
                plain[(plain["contraction"] > 0) & (plain["contraction"] < 1)]
                .groupby("condition")["contraction"]
                .mean()
            )
            ax.plot(factor.index, np.log(_ACCURACY) / np.log(factor), "--", color=color)
        ax.set(
            xscale="log", yscale="log", xlabel=r"condition number $\kappa$ of $\Sigma_0$", ylabel="steps", title=name
        )
    axes[0, 1].legend(fontsize=6)
    style.label_panels(axes[0])
    return figure


@style.styled
def excess_by_start(scaled: pd.DataFrame) -> Figure:
    """N2: relative excess against the step from three starts, exact rank k < n; a line a condition number, one seed."""
    figure, axes = style.panels(1, 2, style.TEXT, 2.6)
    shown = scaled[
        (scaled["method"] == "layerwise") & (scaled["share"] == 0) & (scaled["rank"] == scaled["rank"].min())
    ]
    shown = shown[(shown["target_rank"] == shown["rank"]) & (shown["seed"] == shown["seed"].min())]
    depths = sorted(shown["depth"].unique())
    shown = shown[shown["depth"] == depths[min(1, len(depths) - 1)]]
    largest = shown["condition"].max()
    for ax, (loss, name) in zip(axes[0], _LOSSES.items(), strict=True):
        for start, color in zip(("gaussian", "nystrom", "orthonormal"), style.PALETTE, strict=False):
            runs = shown[(shown["loss_name"] == loss) & (shown["start"] == start)].sort_values("condition")
            for run in runs.itertuples():
                label = start if run.condition == largest else None
                relative = np.maximum(np.asarray(run.excess) / run.unit, 1e-18)
                ax.plot(relative, color=color, alpha=0.4 if label is None else 1, label=label)
        ax.set(yscale="log", xlabel="step", ylabel=r"$(L - L^*)$ / unit", title=name)
    axes[0, 0].legend(fontsize=6)
    style.label_panels(axes[0])
    return figure


@style.styled
def barycenters(descents: pd.DataFrame, minima: pd.DataFrame) -> Figure:
    """N3: (a) relative excess to the barycenter by spread, a line a depth, one seed; (b) minima of bounded rank.

    (b) Of each set of covariances the loss of every local minimum, as a dot, and of the truncated barycenter, as a bar,
    relative to the lowest.
    """
    figure, axes = style.panels(1, 2, style.TEXT, 2.6)
    left, right = axes[0]
    one = descents[descents["seed"] == descents["seed"].min()]
    depths, spreads = sorted(one["depth"].unique()), sorted(one["spread"].unique())
    lines = ("-", "--", ":", "-.")
    for spread, color in zip(spreads, style.sequential(len(spreads)), strict=True):
        for i, depth in enumerate(depths):
            for run in one[(one["spread"] == spread) & (one["depth"] == depth)].itertuples():
                relative = np.maximum(np.asarray(run.excess) / run.trace, 1e-24)
                label = f"spread {spread:g}" if i == 0 else None
                left.plot(relative, lines[i % len(lines)], color=color, label=label)
    left.set(yscale="log", xlabel="step", ylabel=r"$(F - F^*)/\mathrm{tr}$")
    left.legend(fontsize=6)
    keys = ["spread", "seed", "rank"]
    sets = minima.assign(lowest=minima.groupby(keys)["loss"].transform("min"))
    sets["place"] = sets["rank"] + (sets["spread"].rank(method="dense") - (sets["spread"].nunique() + 1) / 2) * 0.2
    colors = dict(zip(spreads, style.sequential(len(spreads)), strict=True))
    for spread, group in sets.groupby("spread"):
        first = group.drop_duplicates(keys)
        right.plot(first["place"], first["loss_truncated"] / first["lowest"] - 1, "_", color=colors[spread], alpha=0.6)
        others = group[group["minimum"] > 0]
        right.plot(others["place"], others["loss"] / others["lowest"] - 1, ".", color=colors[spread])
    right.set(yscale="log", xlabel="rank $k$", ylabel="loss above the lowest minimum, relative")
    right.set_xticks(sorted(minima["rank"].unique()))
    style.label_panels(axes[0])
    return figure


@style.styled
def recoveries(runs: pd.DataFrame) -> Figure:
    """N4: share of seeds recovered to 1e-6, by rank and share of corrupted entries, one panel a method."""
    figure, axes = style.panels(1, len(_METHODS), style.TEXT, 2.3)
    table = runs.assign(recovered=runs["error"] <= 1e-6)
    for ax, (method, name) in zip(axes[0], _METHODS.items(), strict=True):
        grid = table[table["method"] == method].pivot_table(index="rank", columns="share", values="recovered")
        ax.imshow(grid, vmin=0, vmax=1, cmap="viridis", origin="lower", aspect="auto")
        for (i, j), value in np.ndenumerate(grid.to_numpy()):
            ax.text(
                j, i, f"{value:.0%}", ha="center", va="center", fontsize=6, color="black" if value > 0.5 else "white"
            )
        ax.set_xticks(range(len(grid.columns)), [f"{share:g}" for share in grid.columns])
        ax.set_yticks(range(len(grid.index)), [f"{rank:g}" for rank in grid.index])
        ax.set(xlabel="share corrupted", ylabel="rank $k$", title=name)
    return figure


@style.styled
def sensing(runs: pd.DataFrame) -> Figure:
    """N5: share of seeds recovered to 1e-4 against the number of copies of one measurement, a line a method."""
    figure, axes = style.panels(1, 1, style.TEXT / 2, 2.6)
    ax = axes[0, 0]
    recovered = runs.assign(recovered=runs["error"] <= 1e-4).groupby(["method", "copies"])["recovered"].mean()
    for (method, name), color in zip(_SENSING.items(), style.PALETTE, strict=False):
        line = recovered[method]
        ax.plot(line.index, line, "o-", color=color, label=name)
    ax.set_xscale("symlog", linthresh=100)
    ax.set(xlabel="copies of the first measurement", ylabel="share recovered", ylim=(-0.05, 1.05))
    ax.legend(fontsize=6)
    return figure
