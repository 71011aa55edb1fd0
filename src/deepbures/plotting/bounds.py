"""Where the bounds of the flow hold, and how tight they are (G2 for small dimensions)."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..rates.predicted import flow_bound, global_bound
from ..study.results import derived
from . import frames, style

#: An excess loss violates a bound if it exceeds it by more than this fraction; flows have a tolerance of 1e-9 per step.
ROUNDING = 1e-6
#: Least promised decay of log (L − L*) that is drawn.
PROMISE = 1e-6
_PROGRAM, _OURS, _SHARP = style.PALETTE[1], style.PALETTE[2], style.PALETTE[0]


def with_violations(runs: pd.DataFrame, trajectories: pd.DataFrame) -> pd.DataFrame:
    """Runs with `violated`: whether a sample with t > 0 lies above (L(0) − L*) exp(−bound_rate t), where c > 0."""
    keys = frames.keys_of(runs)
    samples = trajectories[trajectories["time"] > 0].merge(runs[[*keys, "bound_rate", "excess_initial"]], on=keys)
    with np.errstate(divide="ignore"):
        lag = samples["bound_rate"] * samples["time"] + np.log(samples["excess"] / samples["excess_initial"])
    worst = lag.groupby([samples[key] for key in keys]).max().rename("lag")
    violated = runs[keys].join(worst, on=keys)["lag"] > np.log1p(ROUNDING)
    return runs.assign(violated=violated & (runs["margin"] > 0))


@style.lettered
def where_bounds_hold(runs: pd.DataFrame, trajectories: pd.DataFrame) -> Figure:
    """G2 in a small dimension: violations of the program's bound, the global bound, and the measured decay.

    (a) One flow that violates the program's bound, and the two bounds. (b) Rates at the least depth against ε/λ_n, in
    units of the sharp one at ε = 0: sharp; of the global theorem, for starts at or above the optimum's least
    eigenvalue; measured in the tail; of the program's bound, the largest. (c) Promised over measured decay of
    log (L − L*) since t = 0, its largest over a run's samples, against the decay promised until the run's end: above 1
    the bound is violated. (d, …) The plane ε/λ_n × c/√λ_n, one panel per depth.
    """
    runs = with_violations(runs.drop_duplicates(frames.keys_of(runs)), trajectories)
    inside = runs[(runs["margin"] > 0) & (runs["excess_initial"] > 0)]
    depths = list(frames.groups(inside, "depth"))
    figure, axes = style.panels(2, max(3, len(depths)), style.TEXT, 4.6)
    _draw_flow(axes[0, 0], inside, trajectories)
    _draw_rates(axes[0, 1], inside)
    _draw_use(axes[0, 2], inside, trajectories)
    for axis, (_, cells) in zip(axes[1], depths, strict=False):
        _draw_plane(axis, cells)
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
    keys = frames.keys_of(inside)
    curve = trajectories[np.logical_and.reduce([trajectories[key] == run[key] for key in keys])]
    curve = curve[curve["time"] > 0]
    times = np.geomspace(curve["time"].min(), curve["time"].max(), 300)
    axis.plot(curve["time"], curve["excess"], color=_SHARP, label="flow")
    program = flow_bound(times, run["excess_initial"], run["bound_rate"])
    axis.plot(times, program, "--", color=_PROGRAM, linewidth=0.9, label="program's bound")
    ours = global_bound(times, run["loss_initial"], run["global_rate"])
    axis.plot(times, ours, "-.", color=_OURS, linewidth=0.9, label="global bound")
    lowest, highest = curve["excess"].min(), curve["excess"].max()
    axis.set(xscale="log", yscale="log", xlabel=r"time $t$", ylabel=r"excess loss $L_\varepsilon - L^*$")
    axis.set_ylim(max(lowest / 30, 1e-12 * highest), 5 * highest)
    axis.legend(loc="lower left", fontsize=6)
    relative = run["epsilon_effective"] / run["lambda_min"]
    margin = run["margin"] / np.sqrt(run["lambda_min"])
    text = rf"$\varepsilon = {relative:.3g}\,\lambda_n$, $c = {margin:.2g}\sqrt{{\lambda_n}}$"
    axis.set_title(f"{frames.label(depth=run['depth'])}, {text}", fontsize=7)


def _draw_plane(axis: Axes, inside: pd.DataFrame) -> None:
    """Violations of the program's bound, and where it is proved, over ε/λ_n × c/√λ_n."""
    x = inside["epsilon_effective"] / inside["lambda_min"]
    y = inside["margin"] / np.sqrt(inside["lambda_min"])
    proved, violated = inside["bound_is_proved"] == 1, inside["violated"]
    open_points = {"color": _SHARP, "fillstyle": "none", "markersize": 2.6, "markeredgewidth": 0.5}
    for text, chosen, marker, shift, points in (  # side by side, because they are many at each ε
        ("violated", violated, "x", 0.014, {"color": _PROGRAM, "markersize": 3, "zorder": 3}),
        ("proved", proved & ~violated, "o", -0.014, {"color": _OURS, "markersize": 2.2}),
        ("holds, not proved", ~proved & ~violated, "o", 0, open_points),
    ):
        axis.plot(x[chosen] + shift, y[chosen], marker, label=f"{text} ({chosen.sum()})", **points)
    axis.set(xlabel=r"$\varepsilon / \lambda_n$", ylim=(0, 1.42), xlim=(-0.05, 1.05))
    axis.set_title(frames.label_of_cell(inside, ["depth"]))
    axis.legend(loc="upper left", fontsize=6, ncols=1, handletextpad=0.2)


def _draw_use(axis: Axes, inside: pd.DataFrame, trajectories: pd.DataFrame) -> None:
    """Promised over measured decay of log (L − L*), the largest of each run, against the decay promised in all."""
    keys = frames.keys_of(inside)
    later = trajectories[(trajectories["time"] > 0) & (trajectories["excess"] > 0)]
    columns = ["bound_rate", "global_rate", "excess_initial", "loss_initial", "time_final"]
    merged = later[[*keys, "time", "excess"]].merge(inside[[*keys, *columns]], on=keys)
    for rate, initial, text, points in (
        ("bound_rate", "excess_initial", "program's bound", {"color": _PROGRAM, "marker": "x"}),
        ("global_rate", "loss_initial", "global bound", {"color": _OURS, "marker": "s", "fillstyle": "none"}),
    ):
        measured = np.log(merged[initial] / merged["excess"])
        promised = merged[rate] * merged["time"]
        table = merged.assign(use=promised / measured, decay=merged[rate] * merged["time_final"])
        largest = table[(promised > PROMISE) & (measured > 0)].groupby(keys)[["decay", "use"]].max()
        points |= {"linestyle": "none", "markersize": 2.5, "markeredgewidth": 0.6}
        axis.plot(largest["decay"], largest["use"], label=text, **points)
    axis.axhline(1, **style.THEORY)
    axis.set(xscale="log", yscale="log", xlabel="promised fall (e-folds)", ylabel="promised / measured fall")
    axis.legend(loc="lower right", fontsize=6, handletextpad=0.2)


def _draw_rates(axis: Axes, inside: pd.DataFrame) -> None:
    """Rates against ε/λ_n at the least depth, over the sharp one at ε = 0: medians; of the program the largest."""
    depth, cells = next(frames.groups(inside, "depth"))
    unit = 4 * depth * cells["lambda_min"] ** (1 - 1 / depth)
    x = (cells["epsilon_effective"] / cells["lambda_min"]).round(9)
    full = cells["least_singular_value_initial"] ** 2 >= (cells["lambda_min"] - cells["epsilon_effective"]) * (1 - 1e-9)
    measured = derived.tail_rate(cells).where(cells["in_tail"] == 1)
    ours = (cells["global_rate"] / unit)[full].groupby(x[full]).median()
    axis.plot((cells["sharp_rate"] / unit).groupby(x).median(), "k--", label="sharp")
    axis.plot(ours, "s", color=_OURS, markersize=3, label="global, full start")
    hollow = {"color": _SHARP, "fillstyle": "none", "markersize": 5}
    axis.plot((measured / unit).groupby(x).median(), "o", label="measured", **hollow)
    largest = (cells["bound_rate"] / unit).groupby(x).max()
    axis.plot(largest, color=_PROGRAM, marker="^", linewidth=0.9, label="program's, largest")
    axis.set(xlabel=r"$\varepsilon / \lambda_n$", ylabel=r"rate / $4 N \lambda_n^{1 - 1/N}$", ylim=(-0.04, None))
    axis.set_title(frames.label(depth=depth))
    axis.legend(fontsize=6)
