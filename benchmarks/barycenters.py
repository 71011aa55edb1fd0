"""Bures-Wasserstein barycenters beside pyriemann, at about the same residual: python benchmarks/barycenters.py

50 random covariances. CPU times, medians of alternating runs, one thread. The residual is |Σ_i w_i K_i − S|/|S| with
K_i = (S^{1/2} Σ_i S^{1/2})^{1/2}; pyriemann gets the loosest tolerance at which it reaches three times ours.
"""

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import statistics
import time
import warnings

import numpy as np
from pyriemann.geometry.mean import mean_wasserstein
from timing import once

from deepbures.neighbours.barycenter import barycenter, draw_covariances

REPEATS = 3


def residual(covariances: np.ndarray, S: np.ndarray) -> float:
    s, V = np.linalg.eigh(S)
    root = (V * np.sqrt(s)) @ V.T
    squares, Q = np.linalg.eigh(root @ covariances @ root)
    mean = ((Q * np.sqrt(np.maximum(squares, 0))[:, None, :]) @ Q.mT).mean(axis=0)
    return float(np.linalg.norm(mean - S) / np.linalg.norm(S))


def main() -> None:
    warnings.simplefilter("ignore")  # pyriemann's own, where it does not converge
    print("| n | spread | residual | ms | pyriemann: residual | ms | ratio |\n|---|---|---|---|---|---|---|")
    for n in (20, 100):
        for spread in (0.5, 1.5):
            covariances = draw_covariances(np.random.default_rng(0), 50, n, spread)
            ours = residual(covariances, barycenter(covariances))
            for tolerance in 10.0 ** -np.arange(6, 17):
                theirs = residual(covariances, mean_wasserstein(covariances, tol=tolerance, maxiter=500))
                if theirs <= 3 * ours:
                    break
            times = [
                (
                    once(lambda: barycenter(covariances), time.process_time),
                    once(lambda: mean_wasserstein(covariances, tol=tolerance, maxiter=500), time.process_time),
                )
                for _ in range(REPEATS)
            ]
            a, b = (1000 * statistics.median(column) for column in zip(*times, strict=True))
            print(f"| {n} | {spread} | {ours:.1e} | {a:.1f} | {theirs:.1e} | {b:.1f} | {a / b:.2f} |", flush=True)


if __name__ == "__main__":
    main()
