"""Where the bounds of the flow hold, and how much of them is used (G2 for small dimensions)."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..rates.measured import worst_ratio
from ..rates.predicted import flow_bound, global_bound
from ..study.grid.axes import axes_of
from ..study.results import derived
from . import frames, style

#: An excess loss counts as above a bound if it is larger by this share: flows are followed to a relative 1e-9 per step.
ROUNDING = 1e-6
#: A promised fall of log (L − L*) is considered from here on.
PROMISE = 1e-6
_PROGRAM, _OURS, _SHARP = style.PALETTE[1], style.PALETTE[2], style.PALETTE[0]


def with_ratios(runs: pd.DataFrame, trajectories: pd.DataFrame) -> pd.DataFrame:
    """Runs with the worst (L − L*) / bound over their samples: of the program's bound, and of the global one.

    `program_ratio` is that of (L(0) − L*) exp(−bound_rate t) where c > 0, `global_ratio` that of
    L(0) exp(−global_rate t); above 1 the bound is violated.
    """
    keys = [*axes_of(runs.columns), "seed"]
    curves = {key: run for key, run in trajectories.groupby(keys, sort=False)}
    ratios = []
    for row in runs.to_dict("records"):
        run = curves[tuple(row[key] for key in keys)]
        times, excess = run["time"].to_numpy(), run["excess"].to_numpy()
        program = worst_ratio(times, excess, row["bound_rate"]) if row["margin"] > 0 else np.nan
        ours = worst_ratio(times, excess, row["global_rate"], row["loss_initial"])
        ratios.append((program, ours))
    return runs.assign(**dict(zip(("program_ratio", "global_ratio"), np.array(ratios).T, strict=True)))


@style.lettered
def where_bounds_hold(runs: pd.DataFrame, trajectories: pd.DataFrame) -> Figure:
    """G2 in a small dimension: where the program's bound is violated, what the global one promises, what is measured.

    (a) One flow that violates the program's bound, and the two bounds. (b) Rates at the least depth against ε/λ_n, in
    units of the sharp one at ε = 0: sharp; of the global theorem, for starts at or above the optimum's least
    eigenvalue; measured in the tail; of the program's bound, the largest. (c) How much of the promise is used:
    the promised over the measured fall of log (L − L*) since t = 0, its largest over a run's samples, against the
    fall that is promised until the run's end: above 1 the bound is violated. (d, …) The plane ε/λ_n × c/√λ_n, one
    panel per depth.
    """
    runs = with_ratios(runs.drop_duplicates([*axes_of(runs.columns), "seed"]), trajectories)
    inside = runs[(runs["margin"] > 0) & (runs["excess_initial"] > 0)]
    inside = inside.assign(violated=inside["program_ratio"] > 1 + ROUNDING)
    depths = sorted(inside["depth"].unique())
    figure, axes = style.panels(2, max(3, len(depths)), style.TEXT, 4.6)
    _draw_flow(axes[0, 0], inside, trajectories)
    _draw_rates(axes[0, 1], inside)
    _draw_use(axes[0, 2], inside, trajectories)
    for axis, depth in zip(axes[1, : len(depths)], depths, strict=True):
        _draw_plane(axis, inside[inside["depth"] == depth])
        axis.set_title(frames.label(depth=depth))
    for axis in [*axes[0, 3:], *axes[1, len(depths) :]]:
        axis.set_visible(False)
    axes[1, 0].set_ylabel(r"margin $c / \sqrt{\lambda_n}$")
    return figure


def _draw_flow(axis: Axes, inside: pd.DataFrame, trajectories: pd.DataFrame) -> None:
    """The flow that violates the program's bound most clearly, and the two bounds."""
    broken = inside[inside["violated"]]
    above = broken[broken["least_singular_value_initial"] ** 2 >= broken["lambda_min"] - broken["epsilon_effective"]]
    chosen = next(table for table in (above, broken, inside) if len(table))
    run = chosen.loc[(chosen["margin"] * np.sqrt(chosen["excess_initial"])).idxmax()]
    keys = [*axes_of(inside.columns), "seed"]
    curve = trajectories[np.logical_and.reduce([trajectories[key] == run[key] for key in keys])]
    curve = curve[curve["time"] > 0]
    times = np.geomspace(curve["time"].min(), curve["time"].max(), 300)
    axis.plot(curve["time"], curve["excess"], color=_SHARP, label="flow")
    bounds = {
        "program's bound": (flow_bound(times, run["excess_initial"], run["bound_rate"]), _PROGRAM, "--"),
        "global bound": (global_bound(times, run["loss_initial"], run["global_rate"]), _OURS, "-."),
    }
    for text, (bound, color, line) in bounds.items():
        axis.plot(times, bound, line, color=color, linewidth=0.9, label=text)
    lowest, highest = curve["excess"].min(), curve["excess"].max()
    axis.set(xscale="log", yscale="log", xlabel=r"time $t$", ylabel=r"excess loss $L_\varepsilon - L^*$")
    axis.set_ylim(max(lowest / 30, 1e-12 * highest), 5 * highest)
    axis.legend(loc="lower left", fontsize=6)
    share = run["epsilon_effective"] / run["lambda_min"]
    margin = run["margin"] / np.sqrt(run["lambda_min"])
    axis.set_title(
        rf"$N = {run['depth']}$, $\varepsilon = {share:.3g}\,\lambda_n$, $c = {margin:.2g}\sqrt{{\lambda_n}}$",
        fontsize=7,
    )


def _draw_plane(axis: Axes, inside: pd.DataFrame) -> None:
    """Violations of the program's bound, and where it is proved, over ε/λ_n × c/√λ_n."""
    x = inside["epsilon_effective"] / inside["lambda_min"]
    y = inside["margin"] / np.sqrt(inside["lambda_min"])
    proved, violated = inside["bound_is_proved"] == 1, inside["violated"]
    kinds = {
        "violated": (violated, {"marker": "x", "color": _PROGRAM, "markersize": 3.5}),
        "proved": (proved & ~violated, {"marker": "o", "color": _OURS, "markersize": 2.6}),
        "holds, not proved": (
            ~proved & ~violated,
            {"marker": "o", "color": _SHARP, "fillstyle": "none", "markersize": 3.8, "markeredgewidth": 0.6},
        ),
    }
    for text, (chosen, points) in kinds.items():
        axis.plot(x[chosen], y[chosen], linestyle="none", label=f"{text} ({chosen.sum()})", **points)
    axis.set(xlabel=r"$\varepsilon / \lambda_n$", ylim=(0, 1.42), xlim=(-0.05, 1.05))
    axis.legend(loc="upper left", fontsize=6, ncols=1, handletextpad=0.2)


def _draw_use(axis: Axes, inside: pd.DataFrame, trajectories: pd.DataFrame) -> None:
    """Promised over measured fall of log (L − L*), the largest of each run, against the whole promised fall."""
    keys = [*axes_of(inside.columns), "seed"]
    later = trajectories[(trajectories["time"] > 0) & (trajectories["excess"] > 0)]
    columns = ["bound_rate", "global_rate", "excess_initial", "loss_initial", "time_final"]
    merged = later[[*keys, "time", "excess"]].merge(inside[[*keys, *columns]], on=keys)
    for rate, initial, text, points in (
        ("bound_rate", "excess_initial", "program's bound", {"color": _PROGRAM, "marker": "x"}),
        ("global_rate", "loss_initial", "global bound", {"color": _OURS, "marker": "s", "fillstyle": "none"}),
    ):
        measured = np.log(merged[initial] / merged["excess"])
        promised = merged[rate] * merged["time"]
        shown = (promised > PROMISE) & (measured > 0)
        use = (promised / measured)[shown].groupby([merged[key][shown] for key in keys]).max()
        fall = (merged[rate] * merged["time_final"])[shown].groupby([merged[key][shown] for key in keys]).max()
        axis.plot(fall, use, linestyle="none", markersize=2.5, markeredgewidth=0.6, label=text, **points)
    axis.axhline(1, **style.THEORY)
    axis.set(xscale="log", yscale="log", xlabel="promised fall (e-folds)", ylabel="promised / measured fall")
    axis.legend(loc="lower right", fontsize=6, handletextpad=0.2)


def _draw_rates(axis: Axes, inside: pd.DataFrame) -> None:
    """Rates against ε/λ_n at each depth, in units of the sharp one at ε = 0."""
    depth = int(inside["depth"].min())
    cells = inside[inside["depth"] == depth]
    unit = 4 * depth * cells["lambda_min"] ** (1 - 1 / depth)
    share = (cells["epsilon_effective"] / cells["lambda_min"]).round(9)
    full = cells["least_singular_value_initial"] ** 2 >= (cells["lambda_min"] - cells["epsilon_effective"]) * (1 - 1e-9)
    measured = derived.tail_rate(cells).where(cells["in_tail"] == 1)
    series = {
        "sharp": ((cells["sharp_rate"] / unit).groupby(share).median(), {"color": "black", "linestyle": "--"}),
        "global, full start": (
            (cells["global_rate"] / unit)[full].groupby(share[full]).median(),
            {"color": _OURS, "marker": "s", "linestyle": "none", "markersize": 3},
        ),
        "measured": (
            (measured / unit).groupby(share).median(),
            {"color": _SHARP, "marker": "o", "linestyle": "none", "fillstyle": "none", "markersize": 5},
        ),
        "program's, largest": (
            (cells["bound_rate"] / unit).groupby(share).max(),
            {"color": _PROGRAM, "marker": "^", "linewidth": 0.9},
        ),
    }
    for text, (values, line) in series.items():
        axis.plot(values.index, values, label=text, **line)
    axis.set(xlabel=r"$\varepsilon / \lambda_n$", ylabel=r"rate / $4 N \lambda_n^{1 - 1/N}$", ylim=(-0.04, None))
    axis.set_title(frames.label(depth=depth))
    axis.legend(fontsize=6)
