"""Figures of gradient descent: step sizes, the way to the flow, balance, losses (G1, G3, G4, G6, G7, G10)."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..linalg.psd import Array
from ..model.trajectory import StopReason
from ..study.results import derived
from . import frames, style

_DRIFT = r"$\max_j \Vert W_{j+1}^\top W_{j+1} - W_j W_j^\top \Vert_F$"


@style.lettered
def error_against_flow(runs: pd.DataFrame) -> Figure:
    """G3: relative distance of descent from the flow at a fixed time against η, by depth, with its fitted order."""
    return _power_laws(runs, "flow_error", r"$\Vert S - S_{\mathrm{flow}} \Vert_F / \Vert S_{\mathrm{flow}} \Vert_F$")


@style.lettered
def balancedness_drift(runs: pd.DataFrame) -> Figure:
    """G6: max_j ‖W_{j+1}ᵀ W_{j+1} − W_j W_jᵀ‖_F at a fixed time against η, from balanced starts, and its order."""
    return _power_laws(runs[runs["depth"] > 1], "balancedness_final", _DRIFT)


def _power_laws(runs: pd.DataFrame, column: str, text: str) -> Figure:
    """A column against the step size on log-log axes: a panel per smoothing, a line per depth, order in the legend."""
    figure, panels = frames.panels(runs, "epsilon", 2.6, sharey=True)
    reference_eta = np.sort(runs["step_size"].unique())
    reference = 0.5 * runs.loc[runs["step_size"] == reference_eta[0], column].min() * reference_eta / reference_eta[0]
    for axis, epsilon, cells in panels:
        for depth, cell, look in frames.marked(cells, "depth"):
            table = cell.pivot(index="seed", columns="step_size", values=column)
            eta, values = table.columns.to_numpy(), table.to_numpy()
            band = frames.band(values)
            label = f"{frames.label(depth=depth)}: order {derived.exponent(eta, band[0]):.3f}"
            style.band(axis, eta, band, label=label, **look)
        axis.plot(reference_eta, reference, **style.THEORY, label="order 1")
        axis.set_xscale("log")
        axis.set(yscale="log", xlabel=r"step size $\eta$", title=frames.label(epsilon=epsilon))
        axis.set_ylim(bottom=reference[0] / 100)  # room for the legend
        axis.legend(fontsize=6, loc="lower right")
    panels[0][0].set_ylabel(text)
    return figure


@style.lettered
def largest_stable_step(runs: pd.DataFrame) -> Figure:
    """G4: largest step size at which descent converges, 2/λ_max, and the theorem's step size, against depth.

    Right: the fraction of runs that converge, against η λ_max/2.
    """
    figure, (left, right) = style.row(2, 3.0, width_ratios=[1.2, 1])
    converged = runs.assign(
        converged=(runs["stop_reason"] == StopReason.CONVERGED).astype(float),
        eta_paper=derived.log10_theorem_step(runs),
    )
    for number, (epsilon, part, look) in enumerate(frames.marked(converged, "epsilon", style.distinct)):
        look["markersize"] = 3 if number else 6  # the first shows behind the others
        text = frames.label(epsilon=epsilon)
        _draw_largest_steps(left, part, text, look)
        right.plot(part.groupby("relative_step")["converged"].mean(), label=text, **look)
    left.set(xscale="log", xlabel="depth $N$", ylabel=r"step size $\eta$")
    left.set_yscale("symlog", linthresh=10)  # of the exponent: the theorem's steps leave the range of floats
    left.set_ylim(top=0.5)
    lowest = left.get_ylim()[0]
    ticks = range(0, -10, -1) if lowest > -8 else [0, -5, -10, -100, -1000]  # of equal distance on this axis
    style.ticks(left.yaxis, [tick for tick in ticks if tick >= lowest], lambda exponent, _: f"$10^{{{exponent:.0f}}}$")
    style.ticks(left.xaxis, sorted(runs["depth"].unique()), "{x:g}")
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=2, fontsize=6.5)
    right.axvline(1, **style.THEORY)
    right.set(xscale="log", xlabel=r"$\eta \, \lambda_{\max} / 2$", ylabel="fraction of runs that converge")
    shown = [step for step in sorted(runs["relative_step"].unique()) if step not in (0.9, 0.95)]
    style.ticks(right.xaxis, shown, "{x:.3g}")
    right.legend()
    return figure


def _draw_largest_steps(axis: Axes, part: pd.DataFrame, text: str, look: dict[str, object]) -> None:
    """Means over seeds of the logarithms at each depth; the theorem's step with its range."""
    stable = part[part["converged"] == 1].groupby(["depth", "seed"])["eta"].max()
    points = {**look, "linestyle": "none", "label": f"largest that converges, {text}"}
    axis.plot(np.log10(stable).groupby("depth").mean(), **points)
    predicted = np.log10(part.groupby("depth")["eta_stable"].mean())
    axis.plot(predicted, color=look["color"], linewidth=0.8, label=rf"$2/\lambda_{{\max}}$, {text}")
    allowed = part.groupby("depth")["eta_paper"].agg(["mean", "min", "max"])
    if allowed["mean"].notna().any():
        line = {**look, "form": "--", "fillstyle": "none", "label": f"theorem's, {text}"}
        style.band(axis, allowed.index, allowed.to_numpy().T, **line)


@style.lettered
def contraction(runs: pd.DataFrame) -> Figure:
    """G1 for descent: measured final decay of L − L* per step against max_r (1 − η r)²; below: their ratio.

    Hollow: runs that do not end in their slowest directions, or whose layers are out of balance.
    """
    table = runs.assign(measured=derived.final_rate(runs), predicted=derived.predicted_rate(runs))
    table = table[table["measured"].notna() & (table["contraction"] < 1)]
    table = table.assign(ratio=table["measured"] / table["predicted"], settled=derived.in_balanced_tail(table))
    cells = frames.over_seeds(table, ["measured", "predicted", "ratio"], ["settled"])
    figure, ((top,), (bottom,)) = style.panels(2, 1, style.COLUMN, 3.8, sharex=True, height_ratios=[2, 1])
    for value, of_step, look in frames.marked(cells, "relative_step"):
        style_of = {**look, "linestyle": "none", "markersize": 3}
        top.plot([], [], label=frames.label(relative_step=value), **style_of)
        for settled, part in of_step.groupby("settled"):
            points = {**style_of, "fillstyle": "full" if settled else "none"}
            top.plot(part["predicted_mean"], part["measured_mean"], **points)
            bottom.errorbar(part["predicted_mean"], part["ratio_mean"], part["ratio_std"], elinewidth=0.5, **points)
    if len(cells):  # else no run ends in its tail
        ends = cells["predicted_mean"].agg(["min", "max"])
        top.plot(ends, ends, **style.THEORY)
        top.legend(fontsize=6)
    top.set(xscale="log", yscale="log", ylabel=r"measured $-\ln$ contraction per step")
    bottom.axhline(1, **style.THEORY)
    bottom.ticklabel_format(axis="y", useOffset=False)
    bottom.set(xlabel=r"$-\ln \max_r (1 - \eta r)^2$", ylabel="measured / predicted")
    return figure


@style.lettered
def without_balance(runs: pd.DataFrame, trajectories: pd.DataFrame, by: str = "initialization") -> Figure:
    """G7: excess loss and balancedness along descent, by distribution of the layers; one column per kind of balance.

    Or by another axis, such as the hidden width of the layers of one distribution (G22). Median over seeds, band from
    the least to the greatest; runs that diverge at once have no curve. In brackets: how many runs converge and diverge,
    in each column.
    """
    titles = {"none": "layers as drawn", "product": "product balanced", "end_to_end": "end-to-end balanced"}
    balances = [balance for balance in titles if balance in set(trajectories["balance"])]
    figure, axes = style.panels(2, len(balances), style.TEXT, 4.2, sharex=True, sharey="row")
    steps = np.unique(np.geomspace(1, trajectories["step"].max(), 120).round())
    names = sorted(trajectories[by].unique())
    for column, balance in enumerate(balances):
        cells = trajectories[trajectories["balance"] == balance]
        for name, color in zip(names, style.distinct(len(names)), strict=True):
            cell = cells[cells[by] == name]
            for axis, quantity in zip(axes[:, column], ("excess", "balancedness"), strict=True):
                values = _extended(frames.curves(cell, quantity, steps, against="step"))
                band = np.median(values, axis=0), values.min(axis=0), values.max(axis=0)
                style.band(axis, steps, band, color)
        axes[0, column].set(xscale="log", yscale="log", ylim=(1e-11, 1e4), title=titles[balance])
        axes[1, column].set(yscale="log", ylim=(1e-16, 1e3), xlabel="step")
    outcomes = runs.assign(of=runs["stop_reason"].map({StopReason.CONVERGED: "+", StopReason.DIVERGED: "-"}))
    counts = outcomes.groupby([by, "balance"])["of"].agg(list)
    entries = []
    for name, color in zip(names, style.distinct(len(names)), strict=True):
        ends = "; ".join(f"{counts[name, one].count('+')}, {counts[name, one].count('-')}" for one in balances)
        entries.append((f"{frames.label(**{by: name})} ({ends})", {"color": color}))
    title = {"title": "in brackets, by column: seeds that converge, diverge", "title_fontsize": 6}
    style.key(figure, entries, loc="outside lower center", ncols=3, **title)
    axes[0, 0].set_ylabel(r"excess loss $L_\varepsilon - L^*$")
    axes[1, 0].set_ylabel(_DRIFT)
    return figure


def _extended(values: Array) -> Array:
    """The curves, continued with their last value after their end."""
    return pd.DataFrame(values).ffill(axis=1).to_numpy()


@style.lettered
def loss_comparison(runs: pd.DataFrame, trajectories: pd.DataFrame, depth: int) -> Figure:
    """G10: descent on the Bures-Wasserstein and the square loss, from a small start.

    (a) Excess loss relative to its start at one depth. (b) Steps until it has decayed to 1e-6. (c) Steps near each
    saddle i, at that depth: from the middle between the energy levels i − 1 and i to that between i and i + 1. (d)
    Final decay per step; dashed: theory.
    """
    series = list(frames.by_loss(runs))
    figure, ((curves, settling), (saddles, decay)) = style.panels(2, 2, style.TEXT, 4.6)
    steps = np.unique(np.geomspace(1, trajectories["step"].max(), 300).round())
    at_depth = trajectories[trajectories["depth"] == depth]
    for (text, cells), look in zip(series, style.looks(len(series), style.distinct), strict=True):
        own = at_depth.merge(cells[["loss_name", "epsilon"]].drop_duplicates())
        relative = own.assign(excess=own["excess"] / own.groupby("seed")["excess"].transform("first"))
        band = frames.band(_extended(frames.curves(relative, "excess", steps, against="step")))
        style.band(curves, steps, band, look["color"], label=text)
        measured = derived.final_rate(cells)
        for axis, values in ((settling, derived.settling_steps(cells)), (decay, measured)):
            style.band(axis, *frames.quantiles(values, cells["depth"]), linewidth=0.8, **look)
        predicted = derived.predicted_rate(cells).where(measured.notna()).groupby(cells["depth"]).median()
        decay.plot(predicted, **{**style.THEORY, "color": look["color"]})
        stuck = _steps_at_saddles(cells[cells["depth"] == depth], own)
        middle = np.median(stuck, axis=0)
        spread = np.abs(np.quantile(stuck, [0.1, 0.9], axis=0) - middle)
        saddles.errorbar(np.arange(len(middle)), middle, spread, capsize=2, linewidth=0.8, **look)
    curves.set(xscale="log", yscale="log", xlabel="step", ylabel="excess loss / its start", ylim=(1e-9, 2))
    curves.legend()
    settling.set(yscale="log", xlabel="depth $N$", ylabel="steps to $10^{-6}$ of the start")
    saddles.set(yscale="symlog", xlabel="saddle $i$ (eigenvalues found)", ylabel="steps near it")
    plt.setp([curves, saddles], title=frames.label(depth=depth))
    saddles.set_xticks(range(int(frames.only_value(runs, "rank"))))
    decay.set(yscale="log", xlabel="depth $N$", ylabel=r"$-\ln$ contraction per step", title="dashed: theory")
    plt.setp([settling, decay], xticks=sorted(runs["depth"].unique()))
    return figure


def _steps_at_saddles(runs: pd.DataFrame, trajectories: pd.DataFrame) -> Array:
    """Steps of each run between the middles of neighbouring energy levels: (runs, k), for the saddles i = 0..k−1."""

    def steps(run: pd.Series) -> Sequence[float]:
        levels = np.asarray(run["energy_levels"])
        middles = (levels[:-1] + levels[1:]) / 2
        own = trajectories[trajectories["seed"] == run["seed"]]
        return np.diff([0, *(own.loc[own["loss"] <= middle, "step"].min() for middle in middles)])

    return np.array([steps(run) for _, run in runs.iterrows()])
