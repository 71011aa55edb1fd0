"""How times grow with n, N and k, with fitted exponents; distances beside POT: python benchmarks/scaling.py

Everything is measured in one process, one thread; compare ratios and medians.
"""

import os

os.environ |= {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}

from collections.abc import Callable, Sequence

import numpy as np
import ot
from timing import median

from deepbures.descent.gradient_descent import gradient_descent
from deepbures.flow.gradient_flow import gradient_flow
from deepbures.landscape import critical_points
from deepbures.landscape.curvature import extreme_eigenvalues, network_hessian
from deepbures.losses.registry import BuresWasserstein
from deepbures.model.network import DeepLinearNetwork
from deepbures.model.starts import small_start
from deepbures.model.targets import draw_target
from deepbures.study.grid.seeds import generator

EPSILON = 0.1


def problem(n: int, rank: int) -> tuple[BuresWasserstein, np.ndarray]:
    loss = BuresWasserstein(draw_target(generator(0, "target", 0), n, 0.5), EPSILON)
    return loss, small_start(generator(0, "start", 0), n, rank, 0.5).end_to_end


def flow(n: int, depth: int, rank: int) -> Callable[[], object]:
    loss, W = problem(n, rank)
    return lambda: gradient_flow(loss, W, depth, max_time=1e3, max_steps=20, samples=2)


def descent(n: int, depth: int, rank: int) -> Callable[[], object]:
    loss, W = problem(n, rank)
    layers = DeepLinearNetwork.balanced(W, depth, rank).layers
    return lambda: gradient_descent(loss, layers, 1e-5, 50, [50])


def dense_hessian(n: int, depth: int, rank: int) -> Callable[[], object]:
    loss, _ = problem(n, rank)
    layers = critical_points.network(loss, tuple(range(rank)), depth, rank).layers
    return lambda: np.linalg.eigvalsh(network_hessian(loss, layers))


def lanczos(n: int, depth: int, rank: int) -> Callable[[], object]:
    loss, _ = problem(n, rank)
    layers = critical_points.network(loss, tuple(range(rank)), depth, rank).layers
    return lambda: extreme_eigenvalues(loss, layers)


Work = Callable[[int, int, int], Callable[[], object]]


def table(name: str, work: Work, along: str, cases: Sequence[tuple[int, int, int]]) -> None:
    """One row: milliseconds by the value of an axis, and the exponent over the last half of the values."""
    times = [median(work(*case)) for case in cases]
    values = [case["nNk".index(along)] for case in cases]
    half = len(cases) // 2
    exponent = np.polyfit(np.log(values[half:]), np.log(times[half:]), 1)[0]
    shown = ", ".join(f"{value}: {1e3 * t:.3g}" for value, t in zip(values, times, strict=True))
    fixed = ", ".join(
        f"{axis} = {cases[0]['nNk'.index(axis)]}" for axis in "nNk" if axis != along and (axis != "k" or along != "n")
    )
    print(f"| {name} | {along} ({fixed}) | {shown} | {exponent:.2f} |")


def against_pot() -> None:
    for n in (5, 20, 100):
        loss, W = problem(n, n)
        S, zero = W @ W.T + EPSILON * np.eye(n), np.zeros(n)
        ours = median(lambda: loss.value(W), 50)
        theirs = median(lambda: ot.gaussian.bures_wasserstein_distance(zero, zero, S, loss.covariance), 50)
        difference = abs(
            ot.gaussian.bures_wasserstein_distance(zero, zero, S, loss.covariance) ** 2 / loss.value(W) - 1
        )
        ratio = f"({theirs / ours:.1f} times), differ by {difference:.0e}"
        print(f"n = {n}: distance {1e6 * ours:.0f} µs, POT {1e6 * theirs:.0f} µs {ratio}")


if __name__ == "__main__":
    print("| what | along | milliseconds | exponent |\n|---|---|---|---|")
    sizes, depths, ranks = (5, 10, 20, 40, 80), (1, 3, 9, 27, 81), (2, 5, 10, 20, 40)
    for name, work in {"flow, 20 steps": flow, "descent, 50 steps": descent}.items():
        table(name, work, "n", [(n, 3, n) for n in sizes])
        table(name, work, "N", [(20, depth, 20) for depth in depths])
        table(name, work, "k", [(40, 3, rank) for rank in ranks])
    table("Hessian, whole spectrum", dense_hessian, "n", [(n, 2, n) for n in (4, 6, 8, 12, 16)])
    table("Hessian, extreme eigenvalues", lanczos, "n", [(n, 3, n) for n in (5, 10, 20, 40)])
    table("Hessian, extreme eigenvalues", lanczos, "N", [(10, depth, 10) for depth in depths])
    print()
    against_pot()
