"""Figures by start: rates up to the lowest saddle, the largest stable step, layers without balance (G19-G21)."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..model.trajectory import StopReason
from . import frames, style

#: Excess losses below this fraction of the start are rounding.
_FLOOR = 1e-12
_MEASURED, _PROMISED = style.PALETTE[0], style.PALETTE[2]
_OUTCOMES = {
    StopReason.CONVERGED: ("o", style.PALETTE[2], "converges"),
    StopReason.DIVERGED: ("X", style.PALETTE[1], "diverges"),
    StopReason.STEP_BUDGET: ("s", "0.6", "neither"),
}


def lasting_rate(runs: pd.DataFrame, trajectories: pd.DataFrame) -> pd.Series:
    """The largest rate r of a bound L(t) − L* ≤ E_0 exp(−r t) that the records of a run meet: min_t log (E_0/E)/t."""
    keys = frames.keys_of(runs)
    later = trajectories[trajectories["time"] > 0].merge(runs[[*keys, "excess_initial"]], on=keys)
    later = later[later["excess"] > _FLOOR * later["excess_initial"]]
    rate = np.log(later["excess_initial"] / later["excess"]) / later["time"]
    least = rate.groupby([later[key] for key in keys]).min().rename("lasting")
    return runs[keys].join(least, on=keys)["lasting"]


@style.lettered
def levels(runs: pd.DataFrame, trajectories: pd.DataFrame) -> Figure:
    """G19: the rate that is promised from the excess loss of a start, and the one that a flow keeps, over E_0/g.

    Both over the sharp rate, medians and 10 % to 90 % over targets; the saddle is at E_0 = g. One row per smoothing,
    one column per depth.
    """
    below = runs[(runs["initial_scale"] <= 1) & (runs["sharp_rate"] > 0)].drop_duplicates(frames.keys_of(runs))
    table = below.assign(
        measured=lasting_rate(below, trajectories) / below["sharp_rate"],
        promised=below["low_rank_rate"] / below["sharp_rate"],
    )
    epsilons, depths = (sorted(table[axis].unique()) for axis in ("epsilon", "depth"))
    figure, axes = style.panels(
        len(epsilons), len(depths), style.TEXT, 2.1 * len(epsilons) + 0.3, sharex=True, sharey=True
    )
    for row, epsilon in zip(axes, epsilons, strict=True):
        for axis, depth in zip(row, depths, strict=True):
            cells = table[(table["epsilon"] == epsilon) & (table["depth"] == depth)]
            _draw_levels(axis, cells)
            axis.set_title(frames.label(epsilon=epsilon, depth=depth))
        row[0].set_ylabel("rate / sharp rate")
    plt.setp(axes[-1], xlabel="$E_0 / g$")
    axes[0, 0].set_ylim(0, None)
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure


def _draw_levels(axis: Axes, cells: pd.DataFrame) -> None:
    names = {"saddle": "kept by flows on the way to the saddle", "level": "in a random direction"}
    for (kind, text), marker, color in zip(names.items(), "os", (_MEASURED, style.PALETTE[5]), strict=True):
        own = cells[cells["initialization"] == kind]
        measured = frames.quantiles(own["measured"].fillna(0.0), own["initial_scale"])
        style.band(axis, *measured, color, f"{marker}-", label=text, linewidth=0.8)
    promised = cells[cells["promised"].notna()]
    if len(promised):
        line = {"color": "black", "linewidth": 0.9, "label": "promised"}
        style.band(axis, *frames.quantiles(promised["promised"], promised["initial_scale"]), form="--", **line)


@style.lettered
def step_outcomes(runs: pd.DataFrame) -> Figure:
    """G20: outcomes of descent by start and step over 2/λ_max, areas: fractions of the seeds; one panel per depth."""
    starts = zip(runs["initialization"], runs["initial_scale"], strict=True)
    runs = runs.assign(start=[f"{frames.label(kind=kind)}, {scale:g}" for kind, scale in starts])
    names = list(dict.fromkeys(runs.sort_values(["initialization", "initial_scale"])["start"]))
    figure, panels = frames.panels(runs, "depth", 0.28 * len(names) + 1.5, sharey=True)
    steps = sorted(runs["relative_step"].unique())
    for axis, depth, cells in panels:
        for (start, step), part in cells.groupby(["start", "relative_step"]):
            fractions = part["stop_reason"].value_counts(normalize=True)
            for place, (reason, fraction) in enumerate(fractions.items()):
                marker, color, _ = _OUTCOMES[reason]
                x = steps.index(step) + 0.4 * (place - (len(fractions) - 1) / 2)
                axis.plot(
                    x, names.index(start), marker, color=color, markersize=6 * np.sqrt(fraction), markeredgewidth=0
                )
        axis.axvline(sum(step < 1 for step in steps) - 0.5, **style.THEORY)
        axis.set_xticks(range(len(steps)), [f"{step:g}" for step in steps], rotation=60, fontsize=6)
        axis.set(xlabel=r"$\eta \, \lambda_{\max} / 2$", title=frames.label(depth=depth), xlim=(-0.6, len(steps) - 0.4))
    panels[0][0].set_yticks(range(len(names)), names)
    looks = [
        (text, {"marker": marker, "color": color, "linestyle": "none"}) for marker, color, text in _OUTCOMES.values()
    ]
    style.key(figure, looks, loc="outside lower center", ncols=3, fontsize=7)
    return figure


@style.lettered
def imbalance(runs: pd.DataFrame, trajectories: pd.DataFrame) -> Figure:
    """G21: rate that flows of layers keep, and the one that is promised, over their imbalance; one panel per depth.

    Both over the sharp rate of the balanced flow; medians and 10 % to 90 % over targets. What is promised depends on
    the excess loss of the start and on the imbalance, and not on the kind of start.
    """
    table = runs.assign(
        measured=lasting_rate(runs, trajectories) / runs["sharp_rate"],
        promised=runs["unbalanced_rate"] / runs["sharp_rate"],
    )
    figure, panels = frames.panels(table, "depth", 2.4, sharey=True)
    for axis, depth, cells in panels:
        for (kind, own), color in zip(frames.groups(cells, "initialization"), style.PALETTE, strict=False):
            measured = frames.quantiles(own["measured"], own["imbalance"])
            style.band(axis, *measured, form="o-", linewidth=0.8, color=color, label=f"kept by flows, {kind}")
        promised = frames.quantiles(cells["promised"], cells["imbalance"])
        style.band(axis, *promised, form="--", linewidth=0.9, color="black", label="promised for both")
        axis.set_xscale("symlog", linthresh=1e-4)
        axis.set(xlabel=r"imbalance $\delta$", title=frames.label(depth=depth))
    panels[0][0].set(ylabel="rate / sharp rate", ylim=(0, None))
    figure.legend(*panels[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return figure
