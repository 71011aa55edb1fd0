"""Gradients against the error of the excess loss, beside scipy's integrators: python benchmarks/work_precision.py

Writes docs/figures/work_precision.png. Every method integrates the reduced flow from the same start to the same end, at
rtol 1e-4 … 1e-10; scipy's with atol = rtol |Z|/n, which is what their users do. The error is the largest relative one
of L − L* at 20 times, against exponential collocation and DOP853 at 1e-12, which agree to 1e-6.
"""

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import numpy as np
from matplotlib.figure import Figure
from scipy.integrate import solve_ivp

from deepbures.flow.gradient_flow import gradient_flow
from deepbures.flow.reduced_flow import FactorFlow
from deepbures.losses.registry import BuresWasserstein
from deepbures.model.starts import close_start
from deepbures.model.targets import draw_target
from deepbures.plotting import style
from deepbures.study.grid.seeds import generator

FIGURE = Path(__file__).parent.parent / "docs/figures/work_precision.png"
#: n, ε, smin, N and the end of each panel; n = 8 keeps the finite differences of Radau and BDF short.
PANELS = [(8, 0.1, 1.0, 2, 3.0), (8, 0.0, -1.0, 20, 3.0)]
TOLERANCES = 10.0 ** -np.arange(4, 11)


@style.lettered
def draw() -> Figure:
    figure, axes = style.panels(1, len(PANELS), style.TEXT, 3.0)
    for axis, (n, epsilon, smin, depth, end) in zip(axes[0], PANELS, strict=True):
        loss = BuresWasserstein(draw_target(generator(0, "target", 0), n, smin), epsilon)
        W = close_start(generator(0, "start", 0), loss, n).end_to_end
        U, s, _ = np.linalg.svd(loss.eigenvectors.T @ W)
        Z = U * s ** (1 / depth)
        times = np.linspace(0, end, 21)[1:]

        def excess(F, loss=loss, n=n):
            return loss.form(n, n).excess(F)

        exact = gradient_flow(loss, W, depth, times, rtol=1e-12).excess
        other = gradient_flow(loss, W, depth, times, rtol=1e-12, method="explicit").excess
        kept = exact > 1e-12
        print(f"n = {n}, ε = {epsilon}, N = {depth}: references agree to {np.abs(other / exact - 1)[kept].max():.1e}")
        curves: dict[str, list[tuple[int, float]]] = {}
        for rtol in TOLERANCES:
            for name, method in (("exponential collocation", "auto"), ("DOP853, tolerance of the step", "explicit")):
                flow = gradient_flow(loss, W, depth, times, rtol=rtol, method=method)
                error = np.abs(flow.excess / exact - 1)[kept].max()
                curves.setdefault(name, []).append((flow.evaluations, error))
            for method in ("DOP853", "Radau", "BDF", "LSODA"):
                flow, gradients = FactorFlow(loss, depth), []

                def field(_t, z, flow=flow, gradients=gradients, n=n):
                    gradients.append(1)  # scipy does not count those of its finite differences
                    return flow.field(z.reshape(n, n)).ravel()

                atol = rtol * np.linalg.norm(Z) / n
                run = solve_ivp(field, (0, end), Z.ravel(), method, times, rtol=rtol, atol=atol)
                error = np.abs(excess(flow.factor(run.y.T.reshape(-1, n, n))) / exact - 1)[kept].max()
                curves.setdefault(f"scipy {method}", []).append((len(gradients), error))
        for name, points in curves.items():
            counts, errors = zip(*points, strict=True)
            axis.loglog(counts, errors, ".-", label=name)
            print(f"  {name}: " + ", ".join(f"{g} ({e:.0e})" for g, e in points))
        axis.set(xlabel="gradients", ylabel="largest relative error of $L - L^*$")
        axis.set_title(rf"$\varepsilon = {epsilon:g}$, $N = {depth}$")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=6.5)
    return figure


if __name__ == "__main__":
    with np.errstate(over="ignore", invalid="ignore"):
        draw().savefig(FIGURE, dpi=150)
