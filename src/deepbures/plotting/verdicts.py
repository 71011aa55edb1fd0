"""Figure of the claims."""

import re

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from . import style

_VERDICTS = {"holds": ("o", style.PALETTE[2]), "violated": ("X", style.PALETTE[1]), "not testable here": ("s", "0.6")}


@style.styled
def claims(table: pd.DataFrame) -> Figure:
    """One row per claim: worst deviation over the one allowed (log scale), marker and colour by verdict.

    A deviation of 0 is drawn at the left edge; with a tolerance of 0 any other one is drawn at the right edge.
    """
    figure, (axis,) = style.row(1, 0.24 * len(table) + 0.9)
    low, high = 1e-6, 1e3
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = np.where(table["worst_deviation"] == 0, 0.0, table["worst_deviation"] / table["tolerance"])
    places = np.clip(np.where(np.isnan(ratios), high, ratios), low, high)
    axis.axvline(1, color="0.6", linewidth=0.8, zorder=0)
    for row, (claim, place) in enumerate(zip(table.itertuples(), places, strict=True)):
        marker, color = _VERDICTS[claim.verdict.partition(":")[0]]
        if claim.cases:
            axis.plot([low, place], [row, row], color="0.88", linewidth=0.8, zorder=1)
            axis.plot(place, row, marker, color=color, markersize=5)
        text = f"{claim.cases:,} cases, {claim.runs:,} runs, {claim.targets:,} targets" if claim.cases else "no cases"
        axis.text(1.02, row, text, transform=axis.get_yaxis_transform(), va="center", fontsize=6)
    axis.set(xscale="log", xlim=(0.7 * low, 1.5 * high), ylim=(len(table) - 0.5, -0.5))
    axis.set_xlabel("worst deviation / largest that the claim allows")
    axis.set_yticks(range(len(table)), [_typeset(f"{claim.name} ({claim.source})") for claim in table.itertuples()])
    axis.tick_params(axis="y", length=0)
    points = {"linestyle": "none", "markersize": 3.5}
    looks = [(text, {**points, "marker": marker, "color": color}) for text, (marker, color) in _VERDICTS.items()]
    style.key(figure, looks, loc="outside lower center", ncols=len(looks), fontsize=7)
    return figure


def _typeset(name: str) -> str:
    """A name with its symbols, such as W_J, as formulas."""
    return re.sub(r"\b([A-Z])_([A-Z0-9])\b", r"$\1_\2$", name)
