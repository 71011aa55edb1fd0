"""Times of the gradient flow beside its limits: python benchmarks/flow.py

Everything is measured in one process, one thread; compare ratios and medians.
"""

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import statistics
import sys
import time
from collections.abc import Callable

import numpy as np
from scipy.integrate import solve_ivp

from deepbures.flow.gradient_flow import gradient_flow, gradient_flows
from deepbures.flow.reduced_flow import FactorFlow, RootFlow
from deepbures.losses.registry import BuresWasserstein
from deepbures.model.network import DeepLinearNetwork
from deepbures.model.starts import close_start, small_start
from deepbures.model.targets import draw_target
from deepbures.study.grid.seeds import generator

N_DIMENSION = 20
EPSILONS, SMINS, DEPTHS = (0, 0.1, 0.5, 1), (-1, 0.5, 1, 2, 3, 5), (1, 2, 7, 10, 30, 50, 100)


def problem(epsilon: float, smin: float, seed: int = 0) -> tuple[BuresWasserstein, np.ndarray]:
    covariance = draw_target(generator(0, "target", seed), N_DIMENSION, smin)
    least = BuresWasserstein(covariance).eigenvalues[-1]
    loss = BuresWasserstein(covariance, min(epsilon, least))
    return loss, close_start(generator(0, "start", seed), loss, N_DIMENSION).end_to_end


def seconds(function: Callable[[], object], repeats: int = 3) -> float:
    """Least of some timings."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return min(times)


def flow_over_grid() -> None:
    by_depth: dict[int, list[float]] = {depth: [] for depth in DEPTHS}
    for epsilon in EPSILONS:
        for smin in SMINS:
            loss, start = problem(epsilon, smin)
            for depth in DEPTHS:
                by_depth[depth].append(
                    seconds(
                        lambda: gradient_flow(loss, start, depth, max_time=1e3, excess_tolerance=1e-5, max_steps=500), 1
                    )
                )
    everything = [t for times in by_depth.values() for t in times]
    print(
        f"flow to an excess loss of 1e-5, n = 20, {len(everything)} settings of the authors' grid: "
        f"median {1e3 * statistics.median(everything):.0f} ms, largest {1e3 * max(everything):.0f} ms"
    )
    medians = {depth: statistics.median(times) for depth, times in by_depth.items()}
    print("  median by depth (ms): " + ", ".join(f"{depth}: {1e3 * t:.0f}" for depth, t in medians.items()))
    print(f"  depth 100 / depth 2: {medians[100] / medians[2]:.2f}")


def gradients_over_grid(depths: tuple[int, ...] = (1, 10, 40, 100)) -> None:
    """Gradients to 1e-14 in the settings of the study, by both methods; --all takes every depth of the authors."""
    options = {"rtol": 1e-6, "excess_tolerance": 1e-14, "max_time": 1000, "max_steps": 500}
    for method in ("auto", "explicit"):
        counts, budget = [], 0
        for epsilon in EPSILONS:
            for smin in (-1, *np.arange(0.5, 5.5, 0.5)):
                if smin == -1 and epsilon > 0.1:  # ε is limited to λ_n: the same problem again
                    continue
                loss, start = problem(epsilon, smin)
                for depth in depths:
                    flow = gradient_flow(loss, start, depth, samples=2, method=method, **options)
                    counts.append(flow.evaluations)
                    budget += flow.stop_reason == "step budget"
        print(
            f"gradients to 1e-14 over {len(counts)} cells of the authors' grid, {method}: mean {np.mean(counts):.0f}, "
            f"median {np.median(counts):.0f}, largest {max(counts)}; {budget} on the step budget of 500"
        )


def stacked_gradient() -> None:
    """One right-hand side for 10 seeds at 4 nodes, beside the LAPACK calls that nearly diagonal matrices save it."""
    for epsilon in (0.0, 0.1):
        problems = [problem(epsilon, 1, seed) for seed in range(10)]
        loss = BuresWasserstein(np.array([loss.covariance for loss, _ in problems]), [epsilon] * 10)
        S = np.array([one.eigenvectors.T @ W @ W.T @ one.eigenvectors for one, W in problems])
        s, U = np.linalg.eigh(S)
        for depth in (1, 2, 10, 100):
            X = np.array([(U * s[:, None] ** (1 / depth)) @ U.mT] * 4)
            flow, M = RootFlow(loss, depth), np.array([S] * 4)
            pairs = [
                (
                    seconds(lambda: flow.field(X)),
                    seconds(lambda: np.linalg.eigh(M)) + (depth % 2) * seconds(lambda: np.linalg.cholesky(M)),
                )
                for _ in range(15)
            ]
            whole, lapack = map(statistics.median, zip(*pairs, strict=True))
            print(
                f"stacked gradient, 10 seeds, 4 nodes, n = 20, ε = {epsilon}, N = {depth}: {1e3 * whole:.2f} ms, "
                f"{whole / lapack:.2f} times an eigh of each matrix, with Cholesky for odd N"
            )


def stack_against_members() -> None:
    """CPU of ten flows one by one, and as one stack."""
    options = {"rtol": 1e-6, "excess_tolerance": 1e-14, "max_time": 1000, "samples": 2}
    problems = [problem(0.1, 1, seed) for seed in range(10)]
    loss = BuresWasserstein(np.array([loss.covariance for loss, _ in problems]), [0.1] * 10)
    starts = np.array([start for _, start in problems])
    alone = seconds(lambda: [gradient_flow(one, W, 10, **options) for one, W in problems])
    together = seconds(lambda: gradient_flows(loss, starts, 10, **options))
    print(f"ten flows, ε = 0.1, N = 10: {1e3 * alone:.0f} ms one by one, {1e3 * together:.0f} ms as a stack")


def step_against_eigh() -> None:
    for epsilon in (0.0, 0.1):
        loss, start = problem(epsilon, 1)
        U, s, _ = np.linalg.svd(loss.eigenvectors.T @ start)
        M = loss.covariance
        reference = seconds(lambda: [np.linalg.eigh(M) for _ in range(2000)]) / 2000
        for depth in (1, 2, 3, 10, 100):
            Z = U * s ** (1 / depth)
            flow = FactorFlow(loss, depth)
            step = seconds(lambda flow=flow, Z=Z: [flow.field(Z) for _ in range(2000)]) / 2000
            print(
                f"gradient of the reduced flow, ε = {epsilon}, N = {depth}: {1e6 * step:.0f} µs, "
                f"{step / reference:.2f} times one 20×20 eigh ({1e6 * reference:.0f} µs)"
            )


def against_layers() -> None:
    """The same problem to the same time and tolerance by DOP853: all N layers, or the reduced flow."""
    loss, start = problem(0.1, 1)
    end = {2: 1.0, 10: 0.3, 30: 0.1, 100: 0.03}
    for depth, time_ in end.items():
        layers = DeepLinearNetwork.balanced(start, depth).layers
        shapes, sizes = [W.shape for W in layers], [W.size for W in layers]
        cuts = np.cumsum(sizes)[:-1]

        def field(_t: float, y: np.ndarray) -> np.ndarray:
            if not np.vdot(y, y) < 1e100:  # overshoot, as in the reduced flow
                return np.full_like(y, np.nan)
            network = DeepLinearNetwork(
                [part.reshape(shape) for part, shape in zip(np.split(y, cuts), shapes, strict=True)]
            )
            W = network.end_to_end()
            if not np.vdot(W, W) < 1e100:
                return np.full_like(y, np.nan)
            gradients = network.layer_gradients(loss.gradient(W))
            return -np.concatenate([gradient.ravel() for gradient in gradients])

        y = np.concatenate([W.ravel() for W in layers])
        U, s, _ = np.linalg.svd(loss.eigenvectors.T @ start)
        Z = U * s ** (1 / depth)
        flow = FactorFlow(loss, depth)
        options = {"method": "DOP853", "rtol": 1e-8, "atol": 1e-10}
        slow = seconds(lambda: solve_ivp(field, (0, time_), y, **options))
        reduced = lambda _t, z, flow=flow, shape=Z.shape: flow.field(z.reshape(shape)).ravel()  # noqa: E731
        fast = seconds(lambda: solve_ivp(reduced, (0, time_), Z.ravel(), **options))
        print(
            f"N = {depth}: layers {1e3 * slow:.0f} ms, reduced flow {1e3 * fast:.0f} ms, {slow / fast:.1f} times faster"
        )


def large() -> None:
    n, rank, depth = 500, 10, 10
    loss = BuresWasserstein(draw_target(generator(0, "target", 0), n, 0.5))
    start = small_start(generator(0, "start", 0), n, rank, 0.5).end_to_end
    begin = time.perf_counter()
    result = gradient_flow(loss, start, depth, max_time=1e4, excess_tolerance=1e-8, max_steps=5000)
    end = f"excess loss {result.excess[0]:.3g} to {result.excess[-1]:.1e}, L* = {loss.minimum_value(rank):.3g}"
    seconds_ = time.perf_counter() - begin
    print(
        f"n = {n}, rank {rank}, ε = 0, N = {depth}: {seconds_:.1f} s, {result.n_steps} steps, "
        f"{result.stop_reason}; {end}"
    )


if __name__ == "__main__":
    with np.errstate(over="ignore", invalid="ignore"):  # stages that overshoot are refused
        flow_over_grid()
        gradients_over_grid((1, 7, *range(10, 101, 5)) if "--all" in sys.argv else (1, 10, 40, 100))
        stacked_gradient()
        stack_against_members()
        step_against_eigh()
        against_layers()
        large()
