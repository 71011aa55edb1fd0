"""Sampling error of a covariance, and training on a sample (G13)."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from . import frames, style


@style.lettered
def finite_sample(sampling: pd.DataFrame, training: pd.DataFrame) -> Figure:
    """G13: sampling error B²(Σ̂, Σ0) against the number m of samples, and overfitting of Σ̂.

    (a) Mean over draws and seeds, one standard error (ddof 1) within a seed; dashed: its first order in 1/m,
    (1/m) Σ_ij λ_i λ_j (1 + δ_ij) / (2 (λ_i + λ_j)). (b) Training on Σ̂ for one seed: the training loss (dotted) keeps
    falling, the loss against Σ0 (solid) levels off near B²(Σ̂, Σ0) (dashed: its first order).
    """
    figure, (left, right) = style.row(2, 2.6)
    # Relative to the first order for each seed's target, so that seeds can be averaged; drawn in units of its mean.
    expected = sampling.groupby("samples")["expected"].mean()
    relative = sampling.assign(ratio=sampling["squared_bures"] / sampling["expected"])
    by_seed = relative.groupby(["samples", "seed"])["ratio"].mean().groupby("samples")
    mean, error = by_seed.mean(), by_seed.std(ddof=1) / np.sqrt(by_seed.count())
    points = {"fmt": "o", "color": style.PALETTE[0], "capsize": 2, "label": "measured"}
    left.errorbar(mean.index, mean * expected, error * expected, **points)
    text = r"$\frac{1}{m}\sum_{ij}\frac{\lambda_i\lambda_j(1+\delta_{ij})}{2(\lambda_i+\lambda_j)}$"
    left.plot(expected, **style.THEORY, label=text)
    left.set(xscale="log", yscale="log", xlabel="number of samples $m$")
    left.set_ylabel(r"mean of $\mathcal{B}^2(\hat\Sigma, \Sigma_0)$")
    left.legend()
    seed = training["seed"].min()
    runs = training[(training["seed"] == seed) & (training["time"] > 0)]
    sizes = sorted(runs["samples"].unique())
    shown = sizes[:: max(1, (len(sizes) - 1) // 3)]
    own = sampling[sampling["seed"] == seed].groupby("samples")["expected"].first()
    for m, color in zip(shown, style.sequential(len(shown)), strict=True):
        run = runs[runs["samples"] == m]
        right.plot(run["time"], run["population_loss"], color=color, label=f"$m = {m}$")
        right.plot(run["time"], run["loss"], ":", color=color, linewidth=0.8)
        right.axhline(own[m], **style.THEORY | {"color": color})
    lowest = own[shown[-1]]
    right.set(xscale="log", yscale="log", xlabel=r"time $t$", ylabel="loss", ylim=(lowest / 1e4, None))
    right.set_xlim(right=runs.loc[runs["loss"] > lowest / 100, "time"].max())
    right.set_title("solid: against $\\Sigma_0$; dotted: against $\\hat\\Sigma$", fontsize=7)
    right.legend(loc="lower left")
    return figure


def summary(sampling: pd.DataFrame) -> pd.DataFrame:
    """One row per sample size m: B²(Σ̂, Σ0), its first order in 1/m, and their ratio; means over draws, then seeds."""
    per_seed = sampling.groupby(["samples", "seed"])[["squared_bures", "expected"]].mean().reset_index()
    per_seed["ratio"] = per_seed["squared_bures"] / per_seed["expected"]
    return frames.over_seeds(per_seed, ["squared_bures", "expected", "ratio"], within=["samples"])
