"""Value and gradient of a loss at once, beside the plain numpy form: python benchmarks/losses.py

The plain form is what one would write with one `eigh`, for ε = 0 too: T = R M^{-1/2} R with M = R (S + εI) R, and
L = tr S + tr Σ0 − 2 tr M^{1/2}. Its value has an absolute error of eps tr Σ0, its gradient one of eps cond M; the
library's value is a sum of squares. CPU times, medians of alternating runs.
"""

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import statistics
import time

import numpy as np
from timing import once

from deepbures.losses import BuresWasserstein

REPEATS = 9


def plain(covariance: np.ndarray, root: np.ndarray, W: np.ndarray, epsilon: float) -> tuple[np.ndarray, np.ndarray]:
    S = W @ W.mT + epsilon * np.eye(W.shape[-2])
    squares, Q = np.linalg.eigh(root @ S @ root)
    sigma = np.sqrt(np.maximum(squares, np.finfo(float).tiny))
    T = root @ ((Q / sigma[..., None, :]) @ Q.mT) @ root
    value = np.trace(S, axis1=-2, axis2=-1) + np.trace(covariance) - 2 * sigma.sum(axis=-1)
    return value, 2 * (W - T @ W)


def main() -> None:
    print("| matrices | n | ε | plain, ms | at once | value, then gradient |\n|---|---|---|---|---|---|")
    rng = np.random.default_rng(0)
    for count, n in ((100, 20), (1, 200)):
        A = rng.standard_normal((n, 2 * n))
        covariance = A @ A.T / (2 * n)
        eigenvalues, basis = np.linalg.eigh(covariance)
        root = (basis * np.sqrt(eigenvalues)) @ basis.T
        W = rng.standard_normal((count, n, n)) / np.sqrt(n)
        for name, epsilon in (("0", 0.0), ("λ_n/20", float(eigenvalues[0]) / 20)):
            loss = BuresWasserstein(covariance, epsilon)
            calls = (
                lambda: plain(covariance, root, W, epsilon),
                lambda: loss.value_and_gradient(W),
                lambda: (loss.value(W), loss.gradient(W)),
            )
            runs = [[once(call, time.process_time) for call in calls] for _ in range(REPEATS)]
            a, b, c = (1000 * statistics.median(column) for column in zip(*runs, strict=True))
            print(f"| {count} | {n} | {name} | {a:.2f} | {b:.2f} ({b / a:.2f}) | {c:.2f} ({c / a:.2f}) |", flush=True)


if __name__ == "__main__":
    main()
