"""Figures of spectra along training: ranks, energy levels, eigenvalues, alignment (F4-F7, F9)."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from ..linalg.psd import Array
from ..model.diagnostics import effective_rank
from ..rates.plateau_times import half_times, mode_times
from . import frames, style


@style.lettered
def ranks(runs: pd.DataFrame, trajectories: pd.DataFrame) -> Figure:
    """F4: numerical and effective rank along training, by depth; dashed: the target's best rank-k approximation."""
    epsilons = sorted(trajectories["epsilon"].unique())
    figure, axes = style.panels(1, len(epsilons), style.TEXT, 2.4, sharey=True)
    for axis, epsilon in zip(axes[0], epsilons, strict=True):
        cells, cell_runs = trajectories[trajectories["epsilon"] == epsilon], runs[runs["epsilon"] == epsilon]
        times = frames.time_grid(cells)
        for depth, cell, color in frames.colored(cells, "depth"):
            for column, line in (("effective_rank", "-"), ("numerical_rank", ":")):
                mean, low, high = frames.band(frames.curves(cell, column, times, logarithmic=False), logarithmic=False)
                axis.plot(times, mean, line, color=color, label=frames.label(depth=depth) if line == "-" else None)
                if line == "-":
                    axis.fill_between(times, low, high, color=color, **style.BAND)
        rank = int(frames.only_value(cell_runs, "rank"))
        optimum = [
            effective_rank(np.sqrt(np.maximum(np.array(row.eigenvalues_target[:rank]) - row.epsilon_effective, 0)))
            for row in cell_runs.drop_duplicates("seed").itertuples()
        ]
        axis.axhline(np.mean(optimum), **style.THEORY)
        axis.set(xscale="log", xlabel=r"time $t$", title=f"{frames.label(epsilon=epsilon, rank=rank)}")
    axes[0, 0].set_ylabel("rank of $W$: effective (solid),\nnumerical (dotted)")
    axes[0, 0].legend()
    return figure


@style.lettered
def energy_levels(runs: pd.DataFrame, trajectories: pd.DataFrame) -> Figure:
    """F5: loss of one seed along training, with the saddle values Σ_{j>i} (√λ_j − √ε)² as horizontal lines.

    Crosses: predicted time (`aligned_flow.mode_times`) at which eigenvalue i of S reaches half of its limit, and
    predicted loss there, if every eigenvalue follows its own equation from scale²: exact for aligned starts,
    approximate for random ones.
    """
    epsilons = sorted(trajectories["epsilon"].unique())
    figure, axes = style.panels(1, len(epsilons), style.TEXT, 2.6)
    seed = trajectories["seed"].min()
    for axis, epsilon in zip(axes[0], epsilons, strict=True):
        cells = trajectories[(trajectories["epsilon"] == epsilon) & (trajectories["seed"] == seed)]
        run = runs[(runs["epsilon"] == epsilon) & (runs["seed"] == seed)].iloc[0]
        first = float(cells["time"].max())
        for i, level in enumerate(run["energy_levels"]):
            axis.axhline(level, **style.THEORY | {"linewidth": 0.5})
            axis.annotate(f"$i={i}$", (1.005, level), xycoords=("axes fraction", "data"), fontsize=5.5, va="center")
        for depth, cell, color in frames.colored(cells, "depth"):
            axis.plot(cell["time"], cell["loss"], color=color, label=frames.label(depth=depth))
            half, there = _half_done(run, int(depth))
            axis.plot(half, there, "x", color=color, markersize=5, markeredgewidth=1.1)
            first = min(first, float(half.min(initial=first)))
        axis.set(xscale="log", xlabel=r"time $t$", title=f"{frames.label(epsilon=epsilon, rank=run['rank'])}, one seed")
        axis.set_xlim(left=first / 100)
    axes[0, 0].set_ylabel(r"loss $L_\varepsilon$")
    axes[0, -1].legend(loc="center left", frameon=True, framealpha=1, edgecolor="none")
    return figure


@style.styled
def relative_levels(runs: pd.DataFrame, trajectories: pd.DataFrame) -> Figure:
    """G16: excess loss of one seed over that of W = 0, one line per depth, with the levels of the saddles."""
    seed = trajectories["seed"].min()
    cells, run = trajectories[trajectories["seed"] == seed], runs[runs["seed"] == seed].iloc[0]
    levels = np.asarray(run["energy_levels"]) - run["loss_minimum"]
    figure, axes = style.panels(1, 1, style.TEXT / 1.5, 2.9)
    axis = axes[0, 0]
    shown = levels[:-1] / levels[0]
    for i, level in enumerate(shown):
        axis.axhline(level, **style.THEORY | {"linewidth": 0.5})
        if i < 5 or i == len(shown) - 1:
            axis.annotate(f"$i={i}$", (1.01, level), xycoords=("axes fraction", "data"), fontsize=5.5, va="center")
    for depth, cell, color in frames.colored(cells[cells["time"] > 0], "depth"):
        axis.plot(cell["time"], cell["excess"] / levels[0], color=color, label=frames.label(depth=depth))
    axis.set(xscale="log", yscale="log", xlabel=r"time $t$", ylabel=r"$(L - L^*)/(L(0) - L^*)$")
    axis.set_title(frames.label(epsilon=run["epsilon"], rank=run["rank"]))
    axis.set_ylim(bottom=shown[-1] / 30)
    axis.legend()
    return figure


def _half_done(run: pd.Series, depth: int) -> tuple[Array, Array]:
    """Predicted times at which each eigenvalue of S reaches half of its limit, and the predicted loss at these times.

    Every eigenvalue follows its own equation from scale²; the loss is what the empty directions and the difference
    of each root from its target add.
    """
    rank, epsilon, initial = int(run["rank"]), float(run["epsilon_effective"]), float(run["start_scale"]) ** 2
    kept = np.asarray(run["eigenvalues_target"])[:rank]
    kept = kept[kept - epsilon > 2 * initial]
    shares = np.concatenate([np.geomspace(1e-6, 0.5, 25), 1 - np.geomspace(0.5, 1e-6, 25)[1:]])
    s = initial + (kept - epsilon - initial)[:, None] * shares
    half = half_times(kept, epsilon, depth, initial)
    tables = ((mode_times(float(value), epsilon, depth, initial, row), row) for value, row in zip(kept, s, strict=True))
    there = np.array([np.interp(half, times, row, left=initial) for times, row in tables])
    lacking = (np.sqrt(kept[:, None]) - np.sqrt(there + epsilon)) ** 2
    return half, run["loss_minimum"] + lacking.sum(axis=0)


@style.lettered
def eigenvalue_distances(trajectories: pd.DataFrame) -> Figure:
    """F6: |s_i² − s*_i| along training, s*_i = (λ_i − ε)_+, by index i; one panel per depth, mean over seeds."""
    depths = sorted(trajectories["depth"].unique())
    figure, axes = style.panels(1, len(depths), style.TEXT, 2.4, sharey=True)
    for axis, depth in zip(axes[0], depths, strict=True):
        cell = trajectories[trajectories["depth"] == depth]
        times = frames.time_grid(cell)
        distances = np.abs(np.stack(cell["eigenvalue_distances"].to_numpy()))
        for i, color in enumerate(style.sequential(distances.shape[1])):
            values = frames.band(frames.curves(cell.assign(distance=distances[:, i]), "distance", times))
            style.band(axis, times, values, color, label=f"$i={i + 1}$")
        epsilon, rank = frames.only_value(cell, "epsilon"), frames.only_value(cell, "rank")
        axis.set(xscale="log", yscale="log", ylim=(1e-8, None), xlabel=r"time $t$")
        axis.set_title(frames.label(depth=depth, epsilon=epsilon, rank=rank))
    axes[0, 0].set_ylabel(r"$|s_i^2 - (\lambda_i - \varepsilon)|$")
    axes[0, 0].legend(loc="lower left")
    return figure


@style.lettered
def alignment(runs: pd.DataFrame) -> Figure:
    """F7: |cos| between the model's final eigenvectors and Ω (mean over seeds), and the eigenvalue distances."""
    n = len(runs["eigenvalues_target"].iloc[0])
    cosines = np.stack(runs["alignment"].to_numpy()).reshape(len(runs), -1, n).mean(axis=0)
    figure, axes = style.panels(1, 2, style.TEXT, 2.7)
    left, right = axes[0]
    ticks = [1, *range(5, n + 1, 5)]
    image = left.imshow(cosines, cmap="cividis", vmin=0, vmax=1, extent=(0.5, n + 0.5, len(cosines) + 0.5, 0.5))
    figure.colorbar(image, ax=left, label=r"$|\cos|$", shrink=0.9)
    left.set(
        xlabel=r"eigenvector $\Omega_j$ of the target",
        ylabel="eigenvector $i$ of the model",
        xticks=ticks,
        yticks=ticks,
    )
    left.spines[:].set_visible(False)
    target, final = (np.stack(runs[name].to_numpy()) for name in ("eigenvalues_target", "eigenvalues_final"))
    distance = np.abs(final - np.maximum(target - runs["epsilon_effective"].to_numpy()[:, None], 0))[:, : len(cosines)]
    index = np.arange(1, distance.shape[1] + 1)
    floor = 1e-17 * target.max()
    right.plot(index, np.median(distance, axis=0) + floor, "o-", label="median")
    right.fill_between(
        index, distance.min(axis=0) + floor, distance.max(axis=0) + floor, **style.BAND, label="range over seeds"
    )
    right.set(
        yscale="log", xlabel="index $i$", xticks=ticks, ylabel=r"$|s_i^2 - (\lambda_i - \varepsilon)|$ at the end"
    )
    right.legend()
    figure.suptitle(frames.label_of_cell(runs), fontsize=8)
    return figure


@style.styled
def spectra(runs: pd.DataFrame) -> Figure:
    """F9: eigenvalues of target, initial and final model; mean and standard deviation (ddof 1) over seeds."""
    figure, axes = style.panels(1, 1, style.COLUMN, 2.4)
    axis = axes[0, 0]
    index = np.arange(1, len(runs["eigenvalues_target"].iloc[0]) + 1)
    shift = runs["epsilon_effective"].to_numpy()[:, None]
    series = {
        "target": (r"target $\lambda_i$", "s"),
        "initial": (r"initial model $s_i^2(0)$", "^"),
        "final": (r"final model $s_i^2$", "o"),
    }
    for (name, (text, marker)), color in zip(series.items(), style.distinct(len(series)), strict=True):
        values = frames.band(np.stack(runs[f"eigenvalues_{name}"].to_numpy()), logarithmic=False)
        style.band(axis, index, values, color, marker=marker, label=text, linewidth=0.8)
    optimum = np.maximum(np.stack(runs["eigenvalues_target"].to_numpy()) - shift, 0).mean(axis=0)
    axis.plot(index, optimum, **style.THEORY, label=r"optimum $\lambda_i - \varepsilon$")
    axis.set(xlabel="index $i$", ylabel="eigenvalue", xticks=index[::3])
    axis.set_title(frames.label_of_cell(runs), fontsize=7.5)
    axis.legend()
    return figure
