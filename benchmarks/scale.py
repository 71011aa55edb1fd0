"""The losses at large n beside their limits, and beside the distance of others: python benchmarks/scale.py

Everything is measured in one process, one thread; compare ratios and medians.
"""

import os

os.environ |= {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}

import functools
import time
import tracemalloc
from collections.abc import Callable

import numpy as np
import ot
import timing

from deepbures import gradient_flow
from deepbures.linalg import thin
from deepbures.losses import linear_forms
from deepbures.losses.registry import BuresWasserstein
from deepbures.model.starts import random_frame, small_start
from deepbures.study.grid.seeds import generator

EPSILON, RANK = 0.1, 10
median, once = (functools.partial(timed, clock=time.process_time) for timed in (timing.median, timing.once))


def problem(n: int, rank: int = RANK, least: float = 1e-3) -> tuple[BuresWasserstein, np.ndarray]:
    """Eigenvalues from 10 down to `least`, geometric; W Gaussian with S of the size of the target."""
    loss = BuresWasserstein.from_spectrum(np.geomspace(10, least, n), epsilon=EPSILON)
    return loss, generator(0, "start", 0).standard_normal((n, rank)) / np.sqrt(n / 10)


def dense(function: Callable[[], object]) -> Callable[[], object]:
    """The same call with the dense form at every size."""

    def call() -> object:
        kept, thin._LARGE = thin._LARGE, 10**9
        try:
            return function()
        finally:
            thin._LARGE = kept

    return call


def growth() -> None:
    """Gradient, Hessian product, excess and ε = 0 along n, with exponents; memory of the gradient."""
    sizes = (1000, 2000, 4000, 8000, 16000)
    print(f"| k = {RANK}, milliseconds at n = | {' | '.join(map(str, sizes))} | exponent |")
    print("|---|" + "---|" * (len(sizes) + 1))
    calls: dict[str, Callable[[BuresWasserstein, np.ndarray], object]] = {
        "gradient (limit at 4,000: 30 ms)": lambda loss, W: loss.gradient(W),
        "Hessian product": lambda loss, W: loss.hessian_product(W, W),
        "excess": lambda loss, W: loss.excess(W, RANK),
        "value": lambda loss, W: loss.value(W),
        "T V, V of k columns": lambda loss, W: loss.transport(W, W),
        "gradient, ε = 0": lambda loss, W: BuresWasserstein.from_spectrum(loss.eigenvalues).gradient(W),
        "excess, ε = 0": lambda loss, W: BuresWasserstein.from_spectrum(loss.eigenvalues).excess(W, RANK),
    }
    for name, call in calls.items():
        times = [median(lambda n=n: call(*problem(n))) - median(lambda n=n: problem(n)) for n in sizes]
        exponent = np.polyfit(np.log(sizes), np.log(times), 1)[0]
        print(f"| {name} | {' | '.join(f'{1e3 * t:.3g}' for t in times)} | {exponent:.2f} |")
    loss, W = problem(4000)
    points = len(list(linear_forms.Member(loss.eigenvalues, EPSILON, W).resolvents()))
    for name, call in (("gradient", loss.gradient), ("excess", lambda W: loss.excess(W, RANK))):
        tracemalloc.start()
        call(W)
        peak = tracemalloc.get_traced_memory()[1] / 8 / W.size
        tracemalloc.stop()
        print(f"\n{name} at n = 4,000: {points} nodes, at most {peak:.1f} n k doubles at a time (limit {20 * points})")


def whole_flow() -> None:
    """A flow of n = 3,072, k = 16, N = 3 from a small start to a relative excess of 1e-6; the limit is 60 s."""
    print("\n| λ_i | rtol | steps | gradients | CPU, s | ms a gradient |\n|---|---|---|---|---|---|")
    n, k, depth = 3072, 16, 3
    rtol = 1e-4
    for name, power in (("1/i", 1), ("1/i²", 2)):
        eigenvalues = 1.0 / np.arange(1, n + 1) ** power
        loss = BuresWasserstein.from_spectrum(eigenvalues, epsilon=eigenvalues[k - 1] / 10)
        start = small_start(generator(0, "start", 0, dimension=n, rank=k), n, k, 0.005, k).end_to_end
        tolerance = 1e-6 * float(loss.excess(start, k))
        begun = time.process_time()
        flow = gradient_flow(
            loss, start, depth, max_time=1e6, max_steps=3000, rtol=rtol, excess_tolerance=tolerance, samples=30
        )
        spent = time.process_time() - begun
        assert flow.stop_reason == "converged"
        gradients = flow.evaluations
        print(f"| {name} | {rtol:g} | {flow.n_steps} | {gradients} | {spent:.3g} | {1e3 * spent / gradients:.3g} |")


def against_dense() -> None:
    print("\n| n | k | linear, ms | dense, ms | times faster | gradients differ by |\n|---|---|---|---|---|---|")
    for n, rank in ((128, 10), (128, 21), (256, 10), (500, 10), (1000, 10), (1000, 100), (2000, 10)):
        loss, W = problem(n, rank)
        assert thin.is_thin(n, rank)
        other = dense(lambda: problem(n, rank)[0].gradient(W))  # a loss whose form is not made yet
        linear, slow = median(lambda: loss.gradient(W)), once(other)
        difference = np.abs(loss.gradient(W) - other()).max() / np.abs(loss.gradient(W)).max()
        print(f"| {n} | {rank} | {1e3 * linear:.3g} | {1e3 * slow:.4g} | {slow / linear:.1f} | {difference:.0e} |")


def newton_schulz(M: np.ndarray, iterations: int = 60) -> np.ndarray:
    """M^{1/2} by the coupled Newton-Schulz iteration (Higham 2008, section 6.7), until it stops changing."""
    size = np.linalg.norm(M)
    identity = np.eye(len(M))
    Y, Z, last = M / size, identity, np.inf
    for _ in range(iterations):
        step = (3 * identity - Z @ Y) / 2
        Y, Z = Y @ step, step @ Z
        change = float(np.linalg.norm(step - identity))
        if change < 1e-12 or change >= last < 1e-3:
            break
        last = change
    return Y * np.sqrt(size)


def against_peers() -> None:
    """L_ε(W) and its gradient: ours, POT, Newton-Schulz, and autograd through eigh where PyTorch is installed."""
    try:
        import torch
    except ImportError:
        torch = None
    print("\n| n | ours: value, ms | ours: gradient | POT: value | error | Newton-Schulz: value | error |", end="")
    print(" PyTorch: value and gradient | error |\n|" + "---|" * 9)
    for n in (256, 1024, 2048):
        loss, W = problem(n)
        value, zero = float(loss.value(W)), np.zeros(n)
        S, root = W @ W.T + EPSILON * np.eye(n), np.sqrt(loss.eigenvalues)
        target, found = loss.covariance, {}

        def pot() -> None:
            found["pot"] = ot.gaussian.bures_wasserstein_distance(zero, zero, S, target) ** 2

        def schulz() -> None:
            M = root[:, None] * S * root
            found["schulz"] = np.trace(S) + loss.eigenvalues.sum() - 2 * np.trace(newton_schulz(M))

        row = [1e3 * median(lambda: loss.value(W)), 1e3 * median(lambda: loss.gradient(W)), 1e3 * once(pot)]
        cells = [f"{t:.4g}" for t in row] + [f"{abs(found['pot'] / value - 1):.0e}"]
        cells += [f"{1e3 * once(schulz):.4g}", f"{abs(found['schulz'] / value - 1):.0e}"]
        if torch is None:
            cells += ["not installed", ""]
        else:
            torch.set_num_threads(1)
            leaf, diagonal = torch.tensor(W, requires_grad=True), torch.tensor(root)

            def autograd() -> None:
                smoothed = leaf @ leaf.T + EPSILON * torch.eye(n, dtype=torch.float64)
                mu, _ = torch.linalg.eigh(diagonal[:, None] * smoothed * diagonal)
                total = torch.trace(smoothed) + (diagonal**2).sum() - 2 * mu.clamp(min=0).sqrt().sum()
                (found["torch"],) = torch.autograd.grad(total, leaf)

            cells.append(f"{1e3 * once(autograd):.4g}")
            exact = loss.gradient(W)
            cells.append(f"{np.abs(found['torch'].numpy() - exact).max() / np.abs(exact).max():.0e}")
        print(f"| {n} | {' | '.join(cells)} |", flush=True)


def targets() -> None:
    """Fewer samples than dimensions: the thin SVD beside the covariance."""
    rng = generator(0, "target", 0)
    X = rng.standard_normal((200, 2000)) * np.geomspace(3, 0.01, 2000)
    thin = once(lambda: BuresWasserstein.from_samples(X, EPSILON))
    covariance = once(lambda: BuresWasserstein(np.cov(X, rowvar=False, bias=True), EPSILON))
    print(f"\nloss from 200 samples at n = 2,000: {thin:.2f} s by a thin SVD, {covariance:.2f} s by the covariance")
    loss = BuresWasserstein.from_samples(X, EPSILON)
    W = random_frame(rng, 2000, RANK)
    print(f"gradient on that target of rank 199: {1e3 * median(lambda: loss.gradient(W)):.3g} ms")


if __name__ == "__main__":
    growth()
    whole_flow()
    against_dense()
    against_peers()
    targets()
