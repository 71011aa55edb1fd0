"""Figures of neighbouring problems (docs/neighbours): scaled descent, barycenters, low rank plus sparse, sensing."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from . import frames, style

#: Relative accuracy at which plain descent ends.
_ACCURACY = 1e-12
_LOSSES = {"bures-wasserstein": "Bures-Wasserstein", "frobenius": "square loss"}
_STARTS = {"gaussian": "Gaussian", "nystrom": "Nyström", "orthonormal": "Nyström, orthonormal"}
_METHODS = {"frobenius": "Frobenius", "scaled": "scaled", "bures-wasserstein": "Bures-Wasserstein"}
_SENSING = {"square": "square loss", "sliced": "sliced loss", "reweighted": "reweighted"}


@style.lettered
def steps_against_condition(scaled: pd.DataFrame, conditions: pd.DataFrame) -> Figure:
    """N1: steps to a relative 1e-12 against κ, plain descent (dashed) and scaled (solid), one colour per depth; k = n.

    Plain steps are ln 1e-12 over the logarithm of the contraction measured on the slowest mode, at half the largest
    stable step; one Bures-Wasserstein layer needs none of this: its step ½ is the scaled one.
    """
    figure, axes = style.row(2, 2.6)
    full = scaled[(scaled["method"] == "layerwise") & (scaled["start"] == "gaussian") & (scaled["share"] == 0)]
    full = full[(full["target_rank"] == full["rank"]) & (full["rank"] == full["rank"].max())]
    contracting = conditions[conditions["contraction"].between(0, 1, inclusive="neither")]
    for ax, (loss, name) in zip(axes, _LOSSES.items(), strict=True):
        for depth, cells, color in frames.colored(full, "depth"):
            steps = cells[cells["loss_name"] == loss].groupby("condition")["steps"].mean()
            ax.plot(steps, "o-", color=color, markersize=3, label=f"$N = {depth}$")
            plain = contracting[(contracting["loss_name"] == loss) & (contracting["depth"] == depth)]
            ax.plot(np.log(_ACCURACY) / np.log(plain.groupby("condition")["contraction"].mean()), "--", color=color)
        ax.set(xscale="log", yscale="log", xlabel=r"condition number $\kappa$ of $\Sigma_0$", ylabel="steps")
        ax.set_title(name)
        ax.minorticks_off()
    style.key(axes[0], [("scaled", {"linestyle": "-", "marker": "o"}), ("plain", {"linestyle": "--"})])
    axes[1].legend(fontsize=6)
    return figure


@style.lettered
def excess_by_start(scaled: pd.DataFrame) -> Figure:
    """N2: relative excess against the step from three starts, exact rank k < n; one line per condition, one seed.

    The largest condition number is emphasised; the unit is tr Σ0, or ‖Σ0‖² for the square loss.
    """
    figure, axes = style.row(2, 2.6)
    shown = scaled[
        (scaled["method"] == "layerwise") & (scaled["share"] == 0) & (scaled["target_rank"] == scaled["rank"])
    ]
    shown = shown[(shown["rank"] == scaled["rank"].min()) & (shown["seed"] == scaled["seed"].min())]
    depths = sorted(shown["depth"].unique())
    shown = shown[shown["depth"] == depths[min(1, len(depths) - 1)]]
    largest = shown["condition"].max()
    for ax, (loss, name) in zip(axes, _LOSSES.items(), strict=True):
        for (start, text), color in zip(_STARTS.items(), style.PALETTE, strict=False):
            runs = shown[(shown["loss_name"] == loss) & (shown["start"] == start)].sort_values("condition")
            for run in runs.itertuples():
                relative = np.maximum(np.asarray(run.excess) / run.unit, 1e-18)
                look = {"label": text} if run.condition == largest else {"alpha": 0.4}
                ax.plot(relative, color=color, **look)
        unit = r"\mathrm{tr}\,\Sigma_0" if loss == "bures-wasserstein" else r"\|\Sigma_0\|_F^2"
        ax.set(yscale="log", xlabel="step", ylabel=rf"$(L - L^*) / {unit}$", title=name)
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes[1].legend(fontsize=6, title=rf"$\kappa = {_power(largest)}$ (faint: smaller)", title_fontsize=6)
    return figure


@style.lettered
def barycenters(descents: pd.DataFrame, minima: pd.DataFrame) -> Figure:
    """N3: (a) relative excess to the barycenter by spread, a line style per depth, one seed; (b) bounded rank.

    (b) For each set of covariances the loss of every local minimum except the lowest (dots), and of the truncated
    barycenter (bar), relative to the lowest.
    """
    figure, (left, right) = style.row(2, 2.6)
    one = _with_sets(descents[descents["seed"] == descents["seed"].min()])
    depths, colors = sorted(one["depth"].unique()), _colors(pd.concat([one, _with_sets(minima)]))
    lines = ("-", "--", ":", "-.")
    for run in one.itertuples():
        relative = np.maximum(np.asarray(run.excess) / run.trace, 1e-24)
        left.plot(relative, lines[depths.index(run.depth) % len(lines)], color=colors[run.set])
    left.set(yscale="log", xlabel="step", ylabel=r"$(F - F^*)/\mathrm{tr}\,\bar\Sigma$")
    named = [(name, {"color": color}) for name, color in colors.items()]
    styles = [(f"$N = {depth}$", {"linestyle": lines[i % len(lines)]}) for i, depth in enumerate(depths)]
    blank = [("", {"linestyle": ""})] * (len(styles) - len(named))  # so that each gets a column of its own
    style.key(left, [*named, *blank, *styles], ncols=2)
    sets = _with_sets(minima)
    keys = ["set", "seed", "rank"]
    sets["lowest"] = sets.groupby(keys)["loss"].transform("min")
    order = list(colors)
    sets["place"] = sets["rank"] + [(order.index(name) - (len(order) - 1) / 2) * 0.2 for name in sets["set"]]
    for name, group in sets.groupby("set"):
        first = group.drop_duplicates(keys)
        right.plot(first["place"], first["loss_truncated"] / first["lowest"] - 1, "_", color=colors[name], alpha=0.6)
        others = group[group["minimum"] > 0]
        right.plot(others["place"], others["loss"] / others["lowest"] - 1, ".", color=colors[name])
    right.set(yscale="log", xlabel="rank $k$", ylabel="loss above the lowest minimum,\nrelative")
    right.set_xticks(sorted(minima["rank"].unique()))
    points = {"other minimum": ".", "truncated": "_"}
    style.key(right, [(name, {"linestyle": "", "marker": marker}) for name, marker in points.items()])
    return figure


@style.lettered
def loss_against_rank(minima: pd.DataFrame) -> Figure:
    """N6: loss against k, one panel per spread: truncated barycenter, lowest minimum, all limits of descent as dots.

    For each spread the seed with the most limits is shown; the area of a dot grows with the fraction of the starts
    that ended there. Dashed: the barycenter itself.
    """
    sets = _with_sets(minima)
    colors = _colors(sets)
    figure, axes = style.row(len(colors), 2.4, min(style.TEXT, style.COLUMN * len(colors)))
    for ax, name in zip(axes, colors, strict=True):
        group = sets[sets["set"] == name]
        shown = group[group["seed"] == _most_limits(group)].sort_values(["rank", "minimum"])
        lowest = shown.drop_duplicates("rank")
        ax.axhline(lowest["loss_full"].iloc[0], **style.THEORY, label="barycenter")
        ax.plot(lowest["rank"], lowest["loss_truncated"], "_", color="black", markersize=11, label="truncated")
        ax.plot(lowest["rank"], lowest["loss"], "-", color=style.PALETTE[0], label="lowest minimum")
        sizes = 3 + 20 * shown["reached"] / shown["starts"]
        ax.scatter(shown["rank"], shown["loss"], sizes, color=style.PALETTE[1], alpha=0.8, zorder=3, label="limits")
        ax.set(xlabel="rank $k$", ylabel="$F$", title=f"{name}, seed {shown['seed'].iloc[0]}")
        ax.set_xticks(sorted(shown["rank"].unique()))
        ax.margins(x=0.15)
    axes[0].legend(fontsize=6)
    return figure


@style.lettered
def spurious_minimum(planes: pd.DataFrame) -> Figure:
    """N7: a local minimum of rank 1 that is not global: (a) F on the plane of 0 and both minima; (b) F by direction.

    Shown is the set with the deepest second minimum of the least F over the length of W, the profile in (b).
    """
    figure, (left, right) = style.row(2, 2.6)
    row = _with_sets(planes).iloc[int(np.argmax([_depth(plane) for plane in planes.itertuples()]))]
    side = int(np.sqrt(len(row["losses"])))
    ticks = np.linspace(-row["reach"], row["reach"], side)
    losses = np.reshape(row["losses"], (side, side))
    left.contourf(ticks, ticks, losses, 30, cmap="cividis")
    left.contour(ticks, ticks, losses, 30, colors="white", linewidths=0.3)
    lowest, other = np.asarray(row["lowest"]), np.asarray(row["other"])
    angles = np.linspace(0, 180, len(row["profile"]))
    right.plot(angles, row["profile"], color="black")
    for point, marker, color, name in (
        (lowest, "o", style.PALETTE[1], "lowest minimum"),
        (other, "s", style.PALETTE[5], "other minimum"),
    ):
        if np.isnan(point).any():
            continue
        left.plot(*np.transpose([point, -point]), marker, color=color, markersize=5, linestyle="")
        angle = round(np.degrees(np.arctan2(point[1], point[0])), 6) % 180  # W and −W are the same
        right.plot(angle, row["loss_zero"] - point @ point, marker, color=color, label=name, clip_on=False, zorder=3)
    left.set(xlabel="towards the lowest minimum", ylabel="across", aspect="equal")
    left.set_title(f"$F$ on a plane, {row['set']}")
    right.set(xlabel="direction of $W$, degrees", ylabel="least $F$ over its length", title="by direction")
    right.set_xticks([0, 45, 90, 135, 180])
    right.legend(fontsize=6)
    return figure


@style.lettered
def recoveries(runs: pd.DataFrame) -> Figure:
    """N4: fraction of the seeds recovered to 1e-6, by rank and fraction of corrupted entries, one panel per method."""
    figure, axes = style.row(len(_METHODS), 2.3)
    table = runs.assign(recovered=runs["error"] <= 1e-6)
    for ax, (method, name) in zip(axes, _METHODS.items(), strict=True):
        grid = table[table["method"] == method].pivot_table(index="rank", columns="share", values="recovered")
        ax.imshow(grid, vmin=0, vmax=1, cmap="viridis", origin="lower", aspect="auto")
        for (i, j), value in np.ndenumerate(grid.to_numpy()):
            color = "black" if value > 0.5 else "white"
            ax.text(j, i, f"{value:.0%}", ha="center", va="center", fontsize=6, color=color)
        ax.set_xticks(range(len(grid.columns)), [f"{share:g}" for share in grid.columns])
        ax.set_yticks(range(len(grid.index)), [f"{rank:g}" for rank in grid.index])
        ax.set(xlabel="fraction corrupted", title=name)
        ax.spines[:].set_visible(False)
    axes[0].set_ylabel("rank $k$")
    return figure


@style.lettered
def sensing(runs: pd.DataFrame) -> Figure:
    """N5: fraction of the seeds recovered to 1e-4 against copies of one measurement, by method; a panel per rank."""
    width = min(style.TEXT, style.COLUMN * runs["rank"].nunique())
    recovered = runs.assign(recovered=runs["error"] <= 1e-4)
    figure, panels = frames.panels(recovered, "rank", 2.3, width=width, sharey=True)
    for ax, rank, cells in panels:
        for (method, name), look in zip(_SENSING.items(), style.looks(len(_SENSING), style.distinct), strict=True):
            line = cells[cells["method"] == method].groupby("copies")["recovered"].mean()
            ax.plot(line, label=name, **look)
        ax.set_xscale("symlog", linthresh=100)
        ax.set(xlabel="copies of the first measurement", ylim=(-0.05, 1.05), title=f"$k = {rank}$")
    panels[0][0].set_ylabel("fraction recovered")
    panels[-1][0].legend(fontsize=6, loc="center right")
    return figure


def _power(value: float) -> str:
    """10^6 for a power of ten, in mathematical type; else the number."""
    exponent = np.log10(value)
    return f"10^{{{exponent:.0f}}}" if value > 10 and exponent == round(exponent) else f"{value:g}"


def _with_sets(table: pd.DataFrame) -> pd.DataFrame:
    """The table with a column `set`: the spread of a drawn set of covariances, or "from files"."""
    names = ["from files" if np.isnan(spread) else f"spread {spread:g}" for spread in table["spread"]]
    return table.assign(set=names)


def _colors(sets: pd.DataFrame) -> dict[str, Any]:
    """A colour for each set, in the order of their spreads."""
    names = sets.sort_values("spread")["set"].unique()
    return dict(zip(names, style.sequential(len(names)), strict=True))


def _most_limits(minima: pd.DataFrame) -> int:
    """The seed with the most limits; on a tie, the one with a limit that is relatively highest above the lowest."""
    losses = minima.groupby(["seed", "rank"])["loss"]
    height = (losses.max() / losses.min() - 1).groupby("seed").max()
    return int((minima.groupby("seed").size() + height / (1 + height)).idxmax())


def _depth(plane: Any) -> float:
    """Height of the barrier around the other minimum in the profile by direction, relative to the lowest; 0 if none."""
    profile = np.asarray(plane.profile)
    if np.isnan(plane.other).any():
        return 0.0
    at = round(np.arctan2(plane.other[1], plane.other[0]) % np.pi / np.pi * (len(profile) - 1))
    return float((min(profile[:at].max(), profile[at:].max()) - profile[at]) / profile[0])
