"""CPU time of a gradient against n (G17)."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from ..study.results.derived import exponent
from . import style


@style.lettered
def time_against_n(timings: pd.DataFrame) -> Figure:
    """G17: (a) CPU time of a smoothed gradient in both forms, with fitted exponents; (b) their difference.

    Exponents are fitted over the three largest n of each form, where the terms of lower order matter least.
    """
    figure, (left, right) = style.row(2, 2.5)
    seconds = timings.groupby(["form", "n"])["seconds"].median()
    for form, color, marker in zip(("dense", "linear"), style.PALETTE, "so", strict=False):
        line = seconds[form]
        n, time = line.index.to_numpy(float), line.to_numpy()
        p = exponent(n[-3:], time[-3:])
        left.plot(n, 1e3 * time, marker + "-", color=color, label=f"{form}: $n^{{{p:.2f}}}$")
    left.set(xscale="log", yscale="log", xlabel="$n$", ylabel="CPU time of a gradient, ms")
    left.legend()
    both = timings[timings["form"] == "dense"].groupby("n")["difference"].max()
    right.plot(both.index, both, "o-", color=style.PALETTE[2])
    right.axhline(float(np.finfo(float).eps), **style.THEORY)
    right.set(xscale="log", yscale="log", xlabel="$n$", ylabel="difference of the forms, relative")
    right.set_ylim(1e-16, max(1e-13, 10 * both.max()))
    dimensions = np.unique(timings["n"])
    for axis in (left, right):
        axis.set_xticks(dimensions, [f"{n:,}" for n in dimensions], fontsize=6)
        axis.set_xticks([], minor=True)
    return figure
