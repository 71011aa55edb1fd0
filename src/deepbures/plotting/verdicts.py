"""The claims as a picture."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from . import style

_VERDICTS = {"holds": ("o", style.PALETTE[2]), "violated": ("X", style.PALETTE[1]), "not testable here": ("s", "0.6")}


@style.styled
def claims(table: pd.DataFrame) -> Figure:
    """One row a claim: number of cases (logarithmic), violations beside it, marker and colour by verdict."""
    figure, axes = style.panels(1, 1, style.TEXT, 0.26 * len(table) + 0.9)
    axis = axes[0, 0]
    for place, claim in enumerate(table.itertuples()):
        marker, color = _VERDICTS[claim.verdict.partition(":")[0]]
        cases = max(claim.cases, 1)
        axis.plot([1, cases], [place, place], color="0.85", linewidth=0.8, zorder=1)
        axis.plot(cases, place, marker, color=color, markersize=5)
        text = f"{claim.cases:,} cases, {claim.violations:,} violations" if claim.cases else "no cases"
        axis.annotate(text, (cases, place), (6, 0), textcoords="offset points", va="center", fontsize=6.5)
    axis.set(xscale="log", xlim=(0.8, 60 * table["cases"].max() + 100), ylim=(len(table) - 0.5, -0.5), xlabel="cases")
    axis.set_yticks(range(len(table)), [f"{claim.name} ({claim.source})" for claim in table.itertuples()])
    axis.tick_params(axis="y", length=0)
    shown = [
        Line2D([], [], marker=marker, color=color, linestyle="none", label=text)
        for text, (marker, color) in _VERDICTS.items()
    ]
    axis.legend(handles=shown, loc="lower right")
    return figure
