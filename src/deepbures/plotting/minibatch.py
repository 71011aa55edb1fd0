"""Descent on fresh batches of samples (S4, S5)."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from . import frames, style

_NAMES = {"bures-wasserstein": "Bures-Wasserstein", "sinkhorn": "Sinkhorn", "frobenius": "Frobenius"}


@style.lettered
def biases(ends: pd.DataFrame) -> Figure:
    """S4: how much batches of m samples shorten each eigenvalue, by loss; dashed: to first order in 1/m."""
    figure, panels = frames.panels(ends, "loss_name", 2.5, sharey=True)
    for ax, loss, runs in panels:
        for method, fill in (("plain", "full"), ("debiased", "none")):
            some = runs[(runs["method"] == method) & (runs["depth"] == runs["depth"].min())]
            sizes = np.array(sorted(some["batch"].unique()))
            short, first = (
                np.array([_shortening(some[some["batch"] == m], column) for m in sizes])
                for column in ("end", "expected")
            )
            looks = style.looks(short.shape[1])
            for i, look in enumerate(looks):
                name = rf"$\lambda_{i + 1}$" if method == "plain" else None
                ax.plot(sizes, short[:, i], **look, linestyle="", fillstyle=fill, label=name)
                if method == "plain":
                    ax.plot(sizes, first[:, i], color=look["color"], linestyle="--", linewidth=0.9)
        ax.set(xscale="log", xlabel="samples in a batch $m$", title=_NAMES.get(loss, loss))
    panels[0][0].set_ylabel(r"$1 - s_i/\lambda_i$")
    panels[0][0].legend(fontsize=6)
    return figure


def _shortening(rows: pd.DataFrame, column: str) -> np.ndarray:
    """1 − s_i/λ_i, the mean over rows."""
    return np.mean([1 - a / b for a, b in zip(rows[column], rows["unbiased"], strict=True)], axis=0)


@style.lettered
def curves(table: pd.DataFrame) -> Figure:
    """S5: excess loss on the target against the samples seen, plain and debiased, with the floor of a finite sample."""
    shallow = table[(table["depth"] == table["depth"].min()) & (table["loss_name"] != "frobenius")]
    figure, panels = frames.panels(shallow, "loss_name", 2.6, sharey=True)
    for ax, loss, runs in panels:
        for m, some, color in frames.colored(runs, "batch"):
            for method, line in (("plain", "-"), ("debiased", "--")):
                mean = some[some["method"] == method].groupby("samples")["excess"].mean()
                ax.plot(mean, line, color=color, label=f"$m = {m}$" if method == "plain" else None)
        ax.plot(runs.groupby("samples")["floor"].mean(), color="black", linewidth=0.9, linestyle=":")
        ax.set(xscale="log", yscale="log", xlabel="samples seen", title=_NAMES.get(loss, loss))
    panels[0][0].set_ylabel("excess loss on the target")
    panels[0][0].legend(fontsize=6)
    return figure
