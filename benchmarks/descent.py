"""Times of gradient descent beside its limits, and beside a plain PyTorch loop: python benchmarks/descent.py

Everything is measured in one process, one thread; compare ratios and medians. PyTorch is optional
(`pip install "deepbures[torch]"`; on Linux take its CPU build).
"""

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import statistics
import time
from collections.abc import Callable

import numpy as np

from deepbures.descent.gradient_descent import gradient_descent
from deepbures.losses.registry import BuresWasserstein
from deepbures.model.network import DeepLinearNetwork
from deepbures.model.starts import close_start
from deepbures.model.targets import draw_target
from deepbures.study.grid.seeds import generator

try:
    import torch
except ImportError:
    torch = None

N_DIMENSION, SEEDS, STEP_SIZE = 20, 10, 1e-4
STEPS = {1: 300, 2: 300, 10: 200, 100: 40}


def problem(epsilon: float, depth: int) -> tuple[BuresWasserstein, DeepLinearNetwork]:
    covariances = np.stack([draw_target(generator(0, "target", seed), N_DIMENSION, 1.0) for seed in range(SEEDS)])
    loss = BuresWasserstein(covariances, epsilon)
    starts = [
        close_start(generator(0, "start", seed), loss.take(seed), N_DIMENSION).end_to_end for seed in range(SEEDS)
    ]
    return loss, DeepLinearNetwork.balanced(np.stack(starts), depth)


def per_step(function: Callable[[], object], steps: int, repeats: int = 5) -> float:
    """Median microseconds of a step."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return 1e6 * statistics.median(times) / steps


def torch_descent(covariance: np.ndarray, epsilon: float, layers: list[np.ndarray], steps: int) -> np.ndarray:
    """The same steps as one would write them: autograd through the layers, roots by `torch.linalg.eigh`."""
    target = torch.from_numpy(covariance)
    values, vectors = torch.linalg.eigh(target)
    R = (vectors * values.sqrt()[..., None, :]) @ vectors.mT
    noise = epsilon * torch.eye(target.shape[-1], dtype=target.dtype)
    parameters = [torch.from_numpy(layer.copy()).requires_grad_() for layer in layers]
    optimizer = torch.optim.SGD(parameters, lr=STEP_SIZE)
    for _ in range(steps):
        optimizer.zero_grad()
        W = parameters[0]
        for layer in parameters[1:]:
            W = layer @ W
        S = W @ W.mT + noise
        mu = torch.linalg.eigh(R @ S @ R).eigenvalues
        trace = (S + target).diagonal(dim1=-2, dim2=-1).sum(-1)
        loss = trace - 2 * mu.clamp_min(0).sqrt().sum(-1)
        loss.sum().backward()
        optimizer.step()
    W = parameters[0]
    for layer in parameters[1:]:
        W = layer @ W
    return W.detach().numpy()


def main() -> None:
    limits = {10: 120, 100: 1000}
    for epsilon in (0.1, 0.0):
        for depth, steps in STEPS.items():
            loss, network = problem(epsilon, depth)
            first, layers = loss.take(0), [layer[0] for layer in network.layers]
            stack = per_step(lambda: gradient_descent(loss, network, STEP_SIZE, steps, [steps]), steps * SEEDS)
            single = per_step(lambda: gradient_descent(first, layers, STEP_SIZE, steps, [steps]), steps)
            limit = f" (limit {limits[depth]})" if depth in limits else ""
            case = f"ε = {epsilon}, N = {depth}"
            print(f"{case}: {stack:.0f} µs{limit} a step and seed in a stack of {SEEDS}, {single:.0f} alone")
            if torch is None:
                print("  PyTorch: not installed (extra `torch`)")
                continue
            torch.set_num_threads(1)
            peer = per_step(lambda: torch_descent(first.covariance, epsilon, layers, steps), steps, 3)
            stacked = per_step(lambda: torch_descent(loss.covariance, epsilon, network.layers, steps), steps * SEEDS, 3)
            W = torch_descent(first.covariance, epsilon, layers, steps)
            mine = DeepLinearNetwork(gradient_descent(first, layers, STEP_SIZE, steps).layers).end_to_end()
            print(
                f"  PyTorch: {peer:.0f} µs alone ({peer / stack:.1f} times ours in a stack, {peer / single:.1f} times "
                f"ours alone), {stacked:.0f} µs in a stack ({stacked / stack:.1f} times ours); "
                f"same W to {np.abs(W - mine).max():.0e}"
            )


if __name__ == "__main__":
    main()
