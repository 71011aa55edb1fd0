"""Figures of the landscape: Hessians, paths, expansions, escapes, the plane (F10-F13, G5, G11, G12)."""

from collections.abc import Iterator, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ..linalg.psd import Array
from ..study.results import derived
from . import frames, style


@style.lettered
def top_eigenvalue(spectra: pd.DataFrame) -> Figure:
    """F10: largest eigenvalue of the Hessian of the deep loss at critical point i, by loss; one column per depth.

    Mean and standard deviation over targets. Above: linear scale; below: logarithmic.
    """
    figure, axes = style.panels(2, spectra["depth"].nunique(), style.TEXT, 3.6, sharex=True)
    _draw_points(axes, spectra, ["largest", "largest"], logarithmic=False)
    plt.setp(axes[0], ylim=(0, None))
    plt.setp(axes[:, 0], ylabel=r"$\lambda_{\max}(\nabla^2 L^N)$")
    return figure


@style.lettered
def conditioning(spectra: pd.DataFrame) -> Figure:
    """F11: |κ_rel| = λ_max/|λ_min| and κ_abs = λ_max/min |λ| at critical point i, zero eigenvalues left out."""
    figure, axes = style.panels(2, spectra["depth"].nunique(), style.TEXT, 3.6, sharex=True, sharey="row")
    table = spectra.assign(relative_condition=spectra["relative_condition"].abs())
    _draw_points(axes, table, ["relative_condition", "absolute_condition"], logarithmic=True)
    axes[0, 0].set(yscale="log", ylabel=r"$|\kappa_{\mathrm{rel}}|$")
    axes[1, 0].set_ylabel(r"$\kappa_{\mathrm{abs}}$")
    return figure


def _draw_points(axes: Any, spectra: pd.DataFrame, columns: Sequence[str], *, logarithmic: bool) -> None:
    """Two columns of a table at the critical points, a row of panels each; the second row is logarithmic.

    A column of panels per depth, a line per loss, mean and standard deviation over targets.
    """
    for (depth, cells), panels in zip(frames.groups(spectra, "depth"), axes.T, strict=True):
        series = list(frames.by_loss(cells))
        for axis, column in zip(panels, columns, strict=True):
            for (text, part), look in zip(series, style.looks(len(series), style.distinct), strict=True):
                table = part.pivot(index="seed", columns="point", values=column)
                values = frames.band(table.to_numpy(), logarithmic=logarithmic)
                style.band(axis, table.columns, values, label=text, **look)
            axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        panels[0].set_title(frames.label(depth=depth))
        panels[1].set(yscale="log", xlabel="critical point $i$")
    axes[0, 0].figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=4)


@style.lettered
def paths(table: pd.DataFrame) -> Figure:
    """F12: the loss on segments from critical point i to i + 1, straight in W or straight in the layers.

    Above: (L − L_0) / (L_P − L_0) along both; below: by how much the loss on the segments between layers lies
    above that on the segments between matrices, in the same unit. Mean and standard deviation over targets.
    """
    figure, axes = style.panels(2, table["loss_name"].nunique(), style.TEXT, 3.9, sharex=True, sharey="row")
    spaces = ["loss_between_matrices", "loss_between_layers"]
    for (upper, lower), (name, cells) in zip(axes.T, frames.groups(table, "loss_name"), strict=True):
        upper.set_title(frames.name_of_loss(name, frames.only_value(cells, "epsilon")))
        ends = cells.groupby("seed")["loss_between_matrices"].agg(["first", "last"])
        first, last = (cells["seed"].map(ends[end]) for end in ("first", "last"))
        height = cells[spaces].sub(first, axis=0).div(last - first, axis=0)
        cells = cells[["depth", "seed", "t"]].assign(
            place=cells["pair"] + cells["t"], **height, above=height[spaces[1]] - height[spaces[0]]
        )
        for depth, cell, color in frames.colored(cells, "depth"):
            text = f"layers, {frames.label(depth=depth)}"
            upper.plot(cell.groupby("place")[spaces[1]].mean(), color=color, label=text)
            _draw_band(lower, cell, "above", color, text)
        one = cells[cells["depth"] == cells["depth"].min()]
        _draw_band(upper, one, spaces[0], style.PALETTE[1], "matrices $W$")
        upper.plot(one[one["t"] == 0].groupby("place")[spaces[0]].mean(), "o", color="black", zorder=5)
        lower.axhline(0, **style.THEORY)
        lower.set_xlabel("critical point $i$")
        lower.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes[0, 0].set_ylabel(r"$(L - L_0)\, /\, (L_P - L_0)$")
    axes[1, 0].set_ylabel("layers minus matrices")
    axes[0, 0].legend(title="segments between", title_fontsize=7)
    return figure


@style.lettered
def second_order_model(lines: pd.DataFrame) -> Figure:
    """F13: the deep loss along lines through all layers and its second-order models, closed form and numerical.

    Columns: where the line starts; rows: a random direction, and the eigenvector of the most negative (at the
    minimum, the largest) eigenvalue. One seed.
    """
    run = lines[lines["seed"] == lines["seed"].min()]
    places, directions = list(dict.fromkeys(run["place"])), list(dict.fromkeys(run["line"]))
    figure, axes = style.panels(len(directions), len(places), style.TEXT, 3.8, sharex="col")
    for row, line in enumerate(directions):
        for axis, place in zip(axes[row], places, strict=True):
            cell = run[(run["line"] == line) & (run["place"] == place)]
            axis.plot(cell["distance"], cell["loss"], color=style.PALETTE[0], label="loss")
            axis.plot(cell["distance"], cell["model"], **style.THEORY, label="second order, closed form")
            every = cell.iloc[:: max(len(cell) // 15, 1)]
            points = {"color": style.PALETTE[1], "fillstyle": "none", "label": "numerical derivatives"}
            axis.plot(every["distance"], every["numerical_model"], "o", **points)
            axis.set_title(f"{place}, {line}")
            axis.margins(y=0.1)
        axes[row, 0].set_ylabel("loss $L^N$")
    plt.setp(axes[-1], xlabel="distance $t$ along the line")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    figure.suptitle(f"{frames.label_of_cell(lines, ('epsilon', 'rank', 'depth'))}, one seed", fontsize=8)
    return figure


@style.lettered
def blow_up(curvatures: pd.DataFrame) -> Figure:
    """G5: the most negative eigenvalue of the Hessian where singular values of W vanish.

    (a) on matrices, below full rank, by ε, with the fitted power and, dashed, the closed form at ε = 0; (b) its level
    at σ = 0 against ε; (c) at ε = 0: square matrices with one and two vanishing singular values, and balanced layers.
    """
    figure, (smoothed, levels, unsmoothed) = style.row(3, 2.6)
    plt.setp([smoothed, unsmoothed], xscale="log", yscale="log", xlabel=r"$\sigma_{\min}(W)$")
    matrices = curvatures[curvatures["depth"] == 1]
    low = matrices[(matrices["rank"] == matrices["rank"].min()) & (matrices["vanishing"] == 1)]
    _against_sigma(smoothed, low)
    smoothed.set_title(f"matrices, {frames.label_of_cell(low, ['rank'])}")
    _levels(levels, low[low["epsilon"] > 0])
    _without_smoothing(unsmoothed, curvatures[curvatures["epsilon"] == 0])
    smoothed.set_ylabel(r"$|\lambda_{\min}(\nabla^2 L_\varepsilon)|$")
    return figure


@style.lettered
def escape_rates(escapes: pd.DataFrame) -> Figure:
    """G11: (a) rates at which the flow leaves each saddle, by depth; (b) measured against closed form; (c) plateaus."""
    left_saddles = escapes[escapes["escapes"] > 0]
    if left_saddles.empty:
        return style.without("there is no saddle of this rank at this ε")
    figure, (points, rates, plateaus) = style.row(3, 2.7)
    number, seed = left_saddles["depth"].nunique(), left_saddles["seed"].min()
    for place, (depth, cell, look) in enumerate(frames.marked(left_saddles, "depth")):
        shift = 0.16 * (place - (number - 1) / 2)
        for _, row in cell[cell["seed"] == seed].iterrows():
            escaping = -row["rates"][row["rates"] < 0]
            points.plot(np.full(len(escaping), row["point"] + shift), escaping, "_", color=look["color"], markersize=4)
        marks = {**look, "linestyle": "none", "markersize": 2.8, "alpha": 0.7}
        rates.plot(cell["escape_rate"], cell["measured_rate"], label=frames.label(depth=depth), **marks)
        plateaus.plot(1 / cell["escape_rate"], cell["plateau_time"], **marks)
    ends = left_saddles["escape_rate"].agg(["min", "max"]).to_numpy()
    rates.plot(ends, ends, **style.THEORY, label="equal")
    stays = np.log(1 / frames.only_value(left_saddles, "perturbation")) / ends
    plateaus.plot(1 / ends, stays, **style.THEORY, label=r"$\ln(1/\delta)\,/\,|r|$")
    points.set(yscale="log", xlabel="critical point $i$, by loss", ylabel=r"escape rates $-r_{ab} > 0$, one seed")
    points.xaxis.set_major_locator(MaxNLocator(integer=True))
    rates.set(xscale="log", yscale="log", xlabel=r"fastest $-r_{ab}$, closed form", ylabel="measured")
    plateaus.set(xscale="log", yscale="log", xlabel=r"1 / fastest $-r_{ab}$", ylabel="plateau time")
    *depths, equal = zip(*rates.get_legend_handles_labels(), strict=True)
    figure.legend(*zip(*depths, strict=True), loc="outside lower center", ncols=len(depths), fontsize=6.5)
    rates.legend(*([item] for item in equal))
    plateaus.legend()
    figure.suptitle(frames.label_of_cell(escapes, ("epsilon", "rank")), fontsize=8)
    return figure


@style.lettered
def whole_landscape(surface: pd.DataFrame, points: pd.DataFrame, flows: pd.DataFrame) -> Figure:
    """G12: the loss on the plane of W = (w_1, w_2), n = 2, k = 1, with its critical points and flow lines.

    Rows: depth; columns: smoothing. Black: level sets; white: gradient flows, from around 0 and from outside.
    """
    depths, epsilons = sorted(surface["depth"].unique()), sorted(surface["epsilon"].unique())
    seed, height = surface["seed"].min(), 2.9 * len(depths) + 0.3
    figure, axes = style.panels(len(depths), len(epsilons), style.TEXT, height, sharex=True, sharey=True)
    levels = np.linspace(surface["loss"].min(), surface["loss"].quantile(0.98), 22)
    for row, depth in enumerate(depths):
        for axis, epsilon in zip(axes[row], epsilons, strict=True):
            cell, marked, ways = (
                frame[(frame["depth"] == depth) & (frame["epsilon"] == epsilon) & (frame["seed"] == seed)]
                for frame in (surface, points, flows)
            )
            grid = cell.pivot(index="y", columns="x", values="loss")
            image = axis.contourf(grid.columns, grid.index, grid, levels, cmap="cividis", extend="both")
            axis.contour(grid.columns, grid.index, grid, levels[::2], colors="black", linewidths=0.25)
            for _, way in ways.groupby("start"):
                axis.plot(way["x"], way["y"], color="white", linewidth=0.9)
            edge = {"markersize": 6, "markeredgecolor": "black", "markeredgewidth": 0.6}
            for kind, marker, color, text in _kinds(marked):
                axis.plot(kind["x"], kind["y"], marker, color=color, label=text, zorder=5, **edge)
            axis.set(aspect="equal", title=frames.label(depth=depth, epsilon=epsilon))
        axes[row, 0].set_ylabel(r"$w_2$, along $\Omega_2$")
    plt.setp(axes[-1], xlabel=r"$w_1$, along $\Omega_1$")
    figure.get_layout_engine().set(rect=(0.015, 0, 0.985, 1))  # axes of equal aspect would cut their labels off
    figure.colorbar(image, ax=axes, label=r"loss $L_\varepsilon(W)$", shrink=0.7)
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure


def _kinds(points: pd.DataFrame) -> Iterator[tuple[pd.DataFrame, str, str, str]]:
    """Minima, saddles of rank 1, and W = 0, with marker, colour and name."""
    minimum = points["loss"] == points["loss"].min()
    yield points[minimum], "*", style.PALETTE[4], "minimum, $J = \\{1\\}$"
    yield points[~minimum & (points["rank_of_point"] > 0)], "s", style.PALETTE[1], "saddle, $J = \\{2\\}$"
    yield points[points["rank_of_point"] == 0], "o", style.PALETTE[3], "$W = 0$"


def _draw_band(axis: Axes, cells: pd.DataFrame, column: str, color: Any, text: str) -> None:
    """Mean and standard deviation over targets of a column along the paths."""
    table = cells.pivot_table(index="seed", columns="place", values=column)
    style.band(axis, table.columns, frames.band(table.to_numpy(), logarithmic=False), color, label=text)


def _sizes(cells: pd.DataFrame) -> tuple[Array, Array, Array, Array]:
    """σ (mean over seeds), and mean and band over seeds of |λ_min|, for one cell."""
    table = cells.assign(size=cells["smallest"].abs()).sort_values(["seed", "sigma"])
    number = table.groupby("seed").cumcount()
    sigma = table.groupby(number)["sigma"].mean().to_numpy()
    values = table.assign(number=number).pivot(index="seed", columns="number", values="size").to_numpy()
    return sigma, *frames.band(values)


def _against_sigma(axis: Axes, low: pd.DataFrame) -> None:
    """|λ_min| against σ by ε; at ε = 0 with its exponent and its closed form."""
    for epsilon, cell, color in frames.colored(low, "epsilon", style.distinct):
        sigma, *band = _sizes(cell)
        text = frames.label(epsilon=epsilon)
        if epsilon == 0:
            text += rf": $\sigma^{{{derived.exponent_at_zero(sigma, band[0]):.3f}}}$"
        style.band(axis, sigma, band, color, "o-", label=text)
        if epsilon == 0:
            closed = np.exp(np.log(cell["predicted"].abs() * cell["sigma"]).mean()) / sigma
            axis.plot(sigma, closed, **style.THEORY, label=r"$2\lambda_{\max}(A^\top P A)/(\sigma\Vert A u\Vert)$")
    axis.set_ylim(top=axis.get_ylim()[1] * 1e4)  # room for the legend
    axis.legend(fontsize=6, loc="upper right")


def _levels(axis: Axes, smoothed: pd.DataFrame) -> None:
    """Level of |λ_min| at σ = 0 against ε, with its power law, and the closed form of an empty column."""
    one = smoothed.drop_duplicates(["epsilon", "seed"])
    table = one.assign(size=one["level"].abs()).pivot(index="seed", columns="epsilon", values="size")
    band, epsilon = frames.band(table.to_numpy()), table.columns.to_numpy()
    p = derived.exponent(epsilon[:3], band[0][:3])
    style.band(axis, epsilon, band, style.PALETTE[0], "o", label=rf"measured: $\varepsilon^{{{p:.2f}}}$")
    closed = np.log(one["level_of_empty_columns"].abs()).groupby(one["epsilon"]).mean()
    axis.plot(epsilon, np.exp(closed), **style.THEORY, label=r"$2(\lambda_{\max}(T) - 1)$")
    axis.set(xscale="log", yscale="log", xlabel=r"$\varepsilon$", title=r"level at $\sigma_{\min} = 0$")
    axis.legend(fontsize=6)


def _without_smoothing(axis: Axes, unsmoothed: pd.DataFrame) -> None:
    """ε = 0: matrices by rank and number of vanishing singular values, and balanced layers of the lowest rank."""
    lowest = unsmoothed["rank"].min()
    shown = unsmoothed[(unsmoothed["depth"] == 1) | ((unsmoothed["rank"] == lowest) & (unsmoothed["vanishing"] == 1))]
    cells = shown.groupby(["depth", "rank", "vanishing"])
    for ((depth, rank, vanishing), cell), look in zip(cells, style.looks(cells.ngroups, style.distinct), strict=True):
        sigma, mean, *_ = _sizes(cell)
        text = f"{frames.label(depth=depth, rank=rank)}: {vanishing}"
        axis.plot(sigma, mean, label=text, markersize=2.5, **look)
    axis.set_title(frames.label(epsilon=0))
    axis.set_ylim(top=axis.get_ylim()[1] * 1e4)  # room for the legend
    title = {"title": "number of singular values that vanish", "title_fontsize": 5.5}
    axis.legend(fontsize=5.5, ncols=2, loc="upper center", **title)
