"""Samples of trained generators: in a plane (F8), as images (G9) and as patches (G15)."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from ..linalg.psd import Array
from . import frames, style

#: Number of samples in each cloud of F8.
_CLOUD = 400
#: Number of images in a row.
_IMAGES = 8


@style.lettered
def samples_in_plane(runs: pd.DataFrame) -> Figure:
    """F8: samples of target and generator before and after training, along Ω_1 and Ω_2, with 2σ ellipses; one run."""
    run = runs.iloc[0]
    target = np.diag(run["eigenvalues_target"][:2])
    figure, axes = style.row(2, 2.9, sharex=True, sharey=True)
    white = np.random.default_rng(0).standard_normal((2, _CLOUD, 2))
    angle = np.linspace(0, 2 * np.pi, 200)
    circle = np.stack([np.cos(angle), np.sin(angle)])
    for axis, name, title in zip(axes, ("initial", "final"), ("before training", "after training"), strict=True):
        generated = np.reshape(run[f"plane_{name}"], (2, 2))
        for covariance, points, color, text in (
            (target, white[0], style.PALETTE[5], "target"),
            (generated, white[1], style.PALETTE[1], "generated"),
        ):
            values, vectors = np.linalg.eigh(covariance)
            root = vectors * np.sqrt(np.maximum(values, 0))
            axis.plot(*(points @ root.T).T, ".", color=color, markersize=1.8, alpha=0.5)
            axis.plot(*(2 * root @ circle), color=color, label=text)
        axis.set(xlabel=r"coordinate along $\Omega_1$", aspect="equal", title=title)
    axes[0].set_ylabel(r"coordinate along $\Omega_2$")
    axes[0].legend(loc="upper right")
    figure.suptitle(f"{frames.label_of_cell(runs.iloc[:1])}, one seed", fontsize=8)
    return figure


@style.styled
def patches(runs: pd.DataFrame, samples: Array, shape: tuple[int, int], seed: int = 0) -> Figure:
    """G15: eigenvalues of target and trained models, one per rank; patches of the data, and generated at each rank.

    Parameters
    ----------
    runs
        Runs that differ in rank, with their factors; one seed is shown.
    samples : (m, n)
        The data, from 0 to 1; its mean is added to the generated samples.
    shape
        Side and channels of a patch.
    seed
        Seed of the noise. A model of lower rank uses the first of the same numbers.
    """
    shown = runs[runs["seed"] == runs["seed"].min()].sort_values("rank")
    n, mean = samples.shape[1], samples.mean(axis=0)
    rng = np.random.default_rng(seed)
    noise = rng.standard_normal((_IMAGES, int(shown["rank"].max())))
    rows = {"data": samples[rng.choice(len(samples), _IMAGES, replace=False)]}
    figure, axis, right = _spectra_and_images(0.7 * len(shown) + 1.1)
    index = np.arange(1, n + 1)
    axis.plot(index, np.asarray(shown.iloc[0]["eigenvalues_target"]), color="black", linewidth=0.9, label="target")
    sizes = np.linspace(7, 2.5, len(shown))  # the first show behind the others
    for run, color, size in zip(shown.to_dict("records"), style.sequential(len(shown)), sizes, strict=True):
        k = int(run["rank"])
        name = frames.label(rank=k)
        axis.plot(index[:k], np.asarray(run["eigenvalues_final"])[:k], "o", color=color, markersize=size, label=name)
        rows[f"generated, {name}"] = mean + noise[:, :k] @ np.reshape(run["factor_final"], (n, k)).T
    run = shown.iloc[0]
    epsilon = float(run["epsilon_effective"])
    if epsilon:
        axis.axhline(epsilon, color=style.PALETTE[1], linewidth=0.9, linestyle=":", label=r"$\varepsilon$")
    axis.set(xscale="log", yscale="log", xlabel="index $i$", ylabel="eigenvalue")
    axis.set_title(f"(a) $n = {n:,}$", loc="left")
    axis.legend()
    side, channels = shape
    size = (side, side, 3) if channels == 3 else (side, side)
    _draw_rows(right, {name: np.clip(row, 0, 1) for name, row in rows.items()}, size, cmap="gray", vmin=0, vmax=1)
    right.suptitle(f"(b) {frames.label(epsilon=run['epsilon'], depth=run['depth'])}", fontsize=8, x=0.02, ha="left")
    return figure


@style.styled
def images(runs: pd.DataFrame, samples: Array, seed: int = 0) -> Figure:
    """G9: eigenvalues of target, initial and final model; images of the data, and generated before and after training.

    Parameters
    ----------
    runs
        Runs of one cell, with their factors; the first is shown.
    samples : (m, n)
        The data; its mean is added to the generated samples, because the generator has mean 0. n is a square.
    seed
        Seed of the noise, which is the same before and after.
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
    figure, axis, right = _spectra_and_images(2.6)
    index = np.arange(1, n + 1)
    for name, marker, color in zip(("target", "final", "initial"), "so^", style.PALETTE[:3], strict=True):
        values = np.asarray(run[f"eigenvalues_{name}"])
        shown = values > 1e-12 * values[0]
        axis.plot(index[shown], values[shown], marker, color=color, label=name, markersize=2.5)
    axis.axvline(k + 0.5, **style.THEORY)
    axis.set(yscale="log", xlabel="index $i$", ylabel="eigenvalue", title=f"(a) {frames.label(rank=k)}")
    axis.legend()
    _draw_rows(right, rows, (side, side), cmap="Greys", vmin=samples.min(), vmax=samples.max())
    right.suptitle(f"(b) {frames.label(epsilon=run['epsilon'], depth=run['depth'])}", fontsize=8, x=0.02, ha="left")
    return figure


def _spectra_and_images(height: float) -> tuple[Figure, Any, Any]:
    """Figure of the width of the text, its axes on the left, and its part on the right."""
    figure = style.empty(style.TEXT, height)
    left, right = figure.subfigures(1, 2, width_ratios=[1, 1.4])
    return figure, left.subplots(), right


def _draw_rows(figure: Any, rows: Mapping[str, Array], shape: tuple[int, ...], **options: Any) -> None:
    """Images of a shape, a row under each name."""
    for axes, (name, pictures) in zip(figure.subplots(len(rows), _IMAGES, squeeze=False), rows.items(), strict=True):
        for axis, image in zip(axes, pictures, strict=True):
            axis.imshow(image.reshape(shape), **options)
            axis.set(xticks=[], yticks=[])
            axis.spines[:].set_visible(False)
        axes[0].set_title(name, loc="left", fontsize=7.5)
