"""Figures of spectra along training: ranks, energy levels, eigenvalues, alignment (F4-F7, F9)."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ..linalg.psd import Array
from ..model.diagnostics import effective_rank
from ..rates.plateau_times import half_times, mode_times
from . import frames, style

#: A flow has left the first level once its loss is lower by this fraction.
_LEFT = 0.1


@style.lettered
def ranks(runs: pd.DataFrame, trajectories: pd.DataFrame) -> Figure:
    """F4: numerical and effective rank along training, by depth; dashed: the target's best rank-k approximation."""
    figure, panels = frames.panels(trajectories, "epsilon", 2.4, sharey=True)
    for axis, epsilon, cells in panels:
        cell_runs, times = runs[runs["epsilon"] == epsilon], frames.time_grid(cells)
        rank = int(frames.only_value(cell_runs, "rank"))
        for depth, cell, color in frames.colored(cells, "depth"):
            effective, numerical = (
                frames.band(frames.curves(cell, column, times, logarithmic=False), logarithmic=False)
                for column in ("effective_rank", "numerical_rank")
            )
            inside = [np.clip(values, 1, rank) for values in effective]  # where a rank can be
            style.band(axis, times, inside, color, label=frames.label(depth=depth))
            axis.plot(times, numerical[0], ":", color=color)
        optimum = []
        for run in cell_runs.drop_duplicates("seed").itertuples():
            spectrum = np.maximum(np.array(run.eigenvalues_target[:rank]) - run.epsilon_effective, 0)
            optimum.append(effective_rank(np.sqrt(spectrum)))
        axis.axhline(np.mean(optimum), **style.THEORY)
        axis.set(xscale="log", xlabel=r"time $t$", title=f"{frames.label(epsilon=epsilon, rank=rank)}")
    panels[0][0].set_ylabel("rank of $W$: effective (solid),\nnumerical (dotted)")
    panels[0][0].yaxis.set_major_locator(MaxNLocator(integer=True))
    panels[0][0].legend()
    return figure


@style.lettered
def energy_levels(runs: pd.DataFrame, trajectories: pd.DataFrame) -> Figure:
    """F5: loss of one seed along training, with the saddle values Σ_{j>i} (√λ_j − √ε)² as horizontal lines.

    Crosses, for aligned starts: predicted time (`plateau_times.mode_times`) at which eigenvalue i of S reaches half of
    its limit, and predicted loss there, where every eigenvalue follows its own equation from scale².
    """
    seed = trajectories["seed"].min()
    figure, panels = frames.panels(trajectories[trajectories["seed"] == seed], "epsilon", 2.6)
    for axis, epsilon, cells in panels:
        run = runs[(runs["epsilon"] == epsilon) & (runs["seed"] == seed)].iloc[0]
        first = float(cells["time"].max())
        for i, level in enumerate(run["energy_levels"]):
            _draw_level(axis, i, level, 1.005)
        for depth, cell, color in frames.colored(cells, "depth"):
            axis.plot(cell["time"], cell["loss"], color=color, label=frames.label(depth=depth))
            if len(run["half_times"]):
                half, there = _half_done(run, int(depth))
                axis.plot(half, there, "x", color=color, markersize=5, markeredgewidth=1.1)
            else:
                half = cell.loc[cell["loss"] < run["energy_levels"][0] * (1 - _LEFT), "time"].to_numpy()
            first = min(first, float(half.min(initial=first)))
        axis.set(xscale="log", xlabel=r"time $t$", title=f"{frames.label(epsilon=epsilon, rank=run['rank'])}, one seed")
        axis.set_xlim(left=first / 100)
    panels[0][0].set_ylabel(r"loss $L_\varepsilon$")
    panels[-1][0].legend(loc="center left", frameon=True, framealpha=1, edgecolor="none")
    return figure


def _draw_level(axis: Axes, i: int, level: float, place: float, *, named: bool = True) -> None:
    """The loss at the saddle i as a horizontal line, with its name at the right end."""
    axis.axhline(level, **style.THEORY | {"linewidth": 0.5})
    if named:
        axis.annotate(f"$i={i}$", (place, level), xycoords=("axes fraction", "data"), fontsize=5.5, va="center")


@style.styled
def relative_levels(runs: pd.DataFrame, trajectories: pd.DataFrame) -> Figure:
    """G16: excess loss of one seed over that of W = 0, one line per depth, with the levels of the saddles."""
    seed = trajectories["seed"].min()
    cells, run = trajectories[trajectories["seed"] == seed], runs[runs["seed"] == seed].iloc[0]
    levels = np.asarray(run["energy_levels"]) - run["loss_minimum"]
    figure, (axis,) = style.row(1, 2.9, style.TEXT / 1.5)
    shown = levels[:-1] / levels[0]
    for i, level in enumerate(shown):
        _draw_level(axis, i, level, 1.01, named=i < 5 or i == len(shown) - 1)
    for depth, cell, color in frames.colored(cells[cells["time"] > 0], "depth"):
        axis.plot(cell["time"], cell["excess"] / levels[0], color=color, label=frames.label(depth=depth))
    axis.set(xscale="log", yscale="log", xlabel=r"time $t$", ylabel=r"$(L - L^*)/(L(0) - L^*)$")
    axis.set_title(frames.label(epsilon=run["epsilon"], rank=run["rank"]), loc="left")
    axis.set_ylim(bottom=shown[-1] / 30)
    axis.legend()
    return figure


def _half_done(run: pd.Series, depth: int) -> tuple[Array, Array]:
    """Predicted times at which each eigenvalue of S reaches half of its limit, and the predicted loss at these times.

    Every eigenvalue s follows its own equation from scale²; the loss is L* + Σ (√λ − √(s + ε))².
    """
    rank, epsilon, initial = int(run["rank"]), float(run["epsilon_effective"]), float(run["start_scale"]) ** 2
    learnt = np.asarray(run["eigenvalues_target"])[:rank]
    learnt = learnt[learnt - epsilon > 2 * initial]
    grid = np.concatenate([np.geomspace(1e-6, 0.5, 25), 1 - np.geomspace(0.5, 1e-6, 25)[1:]])
    s = initial + (learnt - epsilon - initial)[:, None] * grid
    half = half_times(learnt, epsilon, depth, initial)
    tables = ((mode_times(float(top), epsilon, depth, initial, row), row) for top, row in zip(learnt, s, strict=True))
    there = np.array([np.interp(half, times, row, left=initial) for times, row in tables])
    lacking = (np.sqrt(learnt[:, None]) - np.sqrt(there + epsilon)) ** 2
    return half, run["loss_minimum"] + lacking.sum(axis=0)


@style.lettered
def eigenvalue_distances(trajectories: pd.DataFrame) -> Figure:
    """F6: |s_i² − s*_i| along training, s*_i = (λ_i − ε)_+, by index i; one panel per depth, mean over seeds."""
    figure, panels = frames.panels(trajectories, "depth", 2.4, sharey=True)
    for axis, _, cell in panels:
        times = frames.time_grid(cell)
        distances = np.abs(np.stack(cell["eigenvalue_distances"].to_numpy()))
        for i, color in enumerate(style.sequential(distances.shape[1])):
            values = frames.band(frames.curves(cell.assign(distance=distances[:, i]), "distance", times))
            style.band(axis, times, values, color, label=f"$i={i + 1}$")
        axis.set(xscale="log", yscale="log", xlabel=r"time $t$")
        axis.set_title(frames.label_of_cell(cell, ("depth", "epsilon", "rank")))
    panels[0][0].set_ylim(bottom=1e-8)  # of all panels, above which they show whole bands
    panels[0][0].set_ylabel(r"$|s_i^2 - (\lambda_i - \varepsilon)|$")
    panels[0][0].legend(loc="lower left")
    return figure


@style.lettered
def alignment(runs: pd.DataFrame) -> Figure:
    """F7: |cos| between the model's final eigenvectors and Ω (mean over seeds), and the eigenvalue distances."""
    n = len(runs["eigenvalues_target"].iloc[0])
    cosines = np.stack(runs["alignment"].to_numpy()).reshape(len(runs), -1, n).mean(axis=0)
    figure, (left, right) = style.row(2, 2.7)
    ticks = [1, *range(5, n + 1, 5)]
    image = left.imshow(cosines, cmap="cividis", vmin=0, vmax=1, extent=(0.5, n + 0.5, len(cosines) + 0.5, 0.5))
    figure.colorbar(image, ax=left, label=r"$|\cos|$", shrink=0.9)
    left.set(xlabel=r"eigenvector $\Omega_j$ of the target", ylabel="eigenvector $i$ of the model")
    left.set(xticks=ticks, yticks=ticks)
    left.spines[:].set_visible(False)
    target, final = (np.stack(runs[name].to_numpy()) for name in ("eigenvalues_target", "eigenvalues_final"))
    distance = np.abs(final - np.maximum(target - runs["epsilon_effective"].to_numpy()[:, None], 0))[:, : len(cosines)]
    index = np.arange(1, distance.shape[1] + 1)
    distance += 1e-17 * target.max()  # rounding, for the logarithms
    right.plot(index, np.median(distance, axis=0), "o-", label="median")
    right.fill_between(index, distance.min(axis=0), distance.max(axis=0), **style.BAND, label="range over seeds")
    right.set(yscale="log", xlabel="index $i$", xticks=ticks)
    right.set_ylabel(r"$|s_i^2 - (\lambda_i - \varepsilon)|$ at the end")
    right.legend()
    figure.suptitle(frames.label_of_cell(runs), fontsize=8)
    return figure


@style.styled
def spectra(runs: pd.DataFrame) -> Figure:
    """F9: eigenvalues of target, initial and final model; mean and standard deviation (ddof 1) over seeds."""
    figure, (axis,) = style.row(1, 2.4)
    index = np.arange(1, len(runs["eigenvalues_target"].iloc[0]) + 1)
    shift = runs["epsilon_effective"].to_numpy()[:, None]
    texts = [r"target $\lambda_i$", r"initial model $s_i^2(0)$", r"final model $s_i^2$"]
    for name, text, marker, color in zip(("target", "initial", "final"), texts, "s^o", style.PALETTE, strict=False):
        values = frames.band(np.stack(runs[f"eigenvalues_{name}"].to_numpy()), logarithmic=False)
        style.band(axis, index, values, color, marker=marker, label=text, linewidth=0.8)
    optimum = np.maximum(np.stack(runs["eigenvalues_target"].to_numpy()) - shift, 0).mean(axis=0)
    axis.plot(index, optimum, **style.THEORY, label=r"optimum $\lambda_i - \varepsilon$")
    axis.set(xlabel="index $i$", ylabel="eigenvalue", xticks=index[::3])
    axis.set_title(frames.label_of_cell(runs), fontsize=7.5)
    axis.legend()
    return figure
