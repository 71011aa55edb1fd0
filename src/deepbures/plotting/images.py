"""Images drawn from a trained generator (G9)."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from ..psd import Array
from . import frames, style

#: Images in a row.
_IMAGES = 8


@style.styled
def generated(runs: pd.DataFrame, samples: Array, seed: int = 0) -> Figure:
    """G9: eigenvalues of target, initial and final model; images of the data, and generated before and after training.

    Parameters
    ----------
    runs
        Runs of one cell, with their factors; the first is shown.
    samples : (m, n)
        The data, whose mean is added to what is generated: the generator has mean 0. n is a square.
    seed
        Of the images that are drawn; the noise is the same before and after.
    """
    run = runs.iloc[0]
    n, k = len(run["eigenvalues_target"]), int(run["rank"])
    side = round(np.sqrt(n))
    rng = np.random.default_rng(seed)
    noise = rng.standard_normal((_IMAGES, k))
    mean = samples.mean(axis=0)
    rows = {
        "data": samples[rng.choice(len(samples), _IMAGES, replace=False)],
        "before training": mean + noise @ np.reshape(run["factor_initial"], (n, k)).T,
        "after training": mean + noise @ np.reshape(run["factor_final"], (n, k)).T,
    }
    figure = style.empty(style.TEXT, 2.6)
    left, right = figure.subfigures(1, 2, width_ratios=[1, 1.4])
    axis = left.subplots()
    index = np.arange(1, n + 1)
    for name, marker, color in zip(("target", "final", "initial"), "so^", style.PALETTE[:3], strict=True):
        values = np.asarray(run[f"eigenvalues_{name}"])
        shown = values > 1e-12 * values[0]
        axis.plot(index[shown], values[shown], marker, color=color, label=name, markersize=2.5)
    axis.axvline(k + 0.5, **style.THEORY)
    axis.set(yscale="log", xlabel="index $i$", ylabel="eigenvalue", title=f"(a) {frames.label(rank=k)}")
    axis.legend()
    low, high = samples.min(), samples.max()
    grid = right.subplots(len(rows), _IMAGES, squeeze=False)
    for axes, (name, images) in zip(grid, rows.items(), strict=True):
        for image_axis, image in zip(axes, images, strict=True):
            image_axis.imshow(image.reshape(side, side), cmap="Greys", vmin=low, vmax=high)
            image_axis.set(xticks=[], yticks=[])
            image_axis.spines[:].set_visible(False)
        axes[0].set_title(name, loc="left", fontsize=7.5)
    names = {axis: run[axis] for axis in ("epsilon", "depth")}
    right.suptitle(f"(b) {frames.label(**names)}", fontsize=8)
    return figure
