"""ε of the Bures-Wasserstein loss against the blur of the Sinkhorn loss (S1 to S3)."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from . import frames, style

#: A bias below this is drawn as this: it comes from the tolerance of descent.
_LEAST = 1e-6
#: The losses: their names, their parameter in figures, and the look of their lines.
_LOSSES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "bures-wasserstein": ("Bures-Wasserstein", r"\varepsilon", {"linestyle": "-", "marker": "o"}),
    "sinkhorn": ("Sinkhorn", r"\sigma^2", {"linestyle": "--", "marker": "s"}),
}


@style.lettered
def curvatures(table: pd.DataFrame) -> Figure:
    """S1: the most negative curvature where a singular value of W vanishes, by parameter; dotted: its bound."""
    figure, axes = style.row(2, 2.5, sharey=True)
    run = table[table["seed"] == table["seed"].min()]
    for ax, (loss, (name, symbol, _)) in zip(axes, _LOSSES.items(), strict=True):
        for parameter, line, look in frames.marked(run[run["loss"] == loss], "parameter"):
            curve = line.sort_values("sigma")
            ax.plot(curve["sigma"], -curve["smallest"], **look, label=f"${symbol} = {parameter:.2g}$")
            if np.isfinite(curve["lower_bound"].iloc[0]):
                ax.axhline(-curve["lower_bound"].iloc[0], color=look["color"], linewidth=0.6, linestyle=":")
        ax.set(xscale="log", yscale="log", xlabel=r"least singular value $\sigma_k(W)$", title=name)
        ax.set_ylim(0.1, 3 * -run["smallest"].min())
        ax.legend(fontsize=5, ncols=2)
    axes[0].set_ylabel(r"$-\lambda_{\min}(\nabla^2 L)$")
    return figure


@style.lettered
def biases(table: pd.DataFrame) -> Figure:
    """S2: bias of the end of descent, and sharp rate of the flow, against ε and σ²; medians over seeds."""
    figure, (left, right) = style.row(2, 2.5)
    for label, look, line in _lines(table[table["parameter"] > 0]):
        left.plot(line["parameter"], line["bias"], **look, label=label)
        right.plot(line["parameter"], line["sharp_rate"], **look)
    for ax, name in zip((left, right), (r"$\|S - \Sigma_k\|/\|\Sigma_k\|$ at the end", "sharp rate"), strict=True):
        ax.set(xscale="log", yscale="log", xlabel=r"$\varepsilon$ or $\sigma^2$", ylabel=name)
    left.legend(fontsize=6, handlelength=3)
    left.set_ylim(_LEAST, 1)
    return figure


@style.lettered
def costs(table: pd.DataFrame) -> Figure:
    """S3: which ε and which σ bound the curvature as well, with how many steps and what bias; medians over seeds."""
    figure, axes = style.row(3, 2.5)
    for label, look, line in _lines(table[table["parameter"] > 0]):
        axes[0].plot(-line["lower_bound"], line["steps"], **look, label=label)
        axes[1].plot(-line["lower_bound"], line["bias"], **look)
        axes[2].plot(line["bias"], line["steps"], **look)
    bound, bias = r"bound on $-\lambda_{\min}(\nabla^2 L)$", "bias at the end"
    for ax, x, y in zip(axes, (bound, bound, bias), ("steps", bias, "steps"), strict=True):
        ax.set(xscale="log", yscale="log", xlabel=x, ylabel=y)
    axes[0].legend(fontsize=5, handlelength=3)
    axes[1].set_ylim(_LEAST / 2, 1)
    axes[2].set_xlim(_LEAST / 2, 1)
    return figure


def _lines(table: pd.DataFrame) -> Iterator[tuple[str, dict[str, Any], pd.DataFrame]]:
    """Name, look and medians over seeds of each loss and depth; the parameters of a seed are in units of its λ_k."""
    for depth, cells, color in frames.colored(table, "depth"):
        for loss, (name, _, look) in _LOSSES.items():
            runs = cells[cells["loss"] == loss]
            place = runs.groupby("seed")["parameter"].rank()
            columns = ["parameter", "bias", "steps", "sharp_rate", "lower_bound"]
            runs = runs.assign(bias=runs["bias"].clip(lower=_LEAST))
            yield f"{name}, $N = {depth}$", {**look, "color": color}, runs.groupby(place)[columns].median()
