"""Times of Hessians beside their limits: python benchmarks/hessians.py

Everything is measured in one process, one thread; compare ratios and medians.
"""

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")


import numpy as np
from timing import median

from deepbures.landscape import critical_points
from deepbures.landscape.curvature import extreme_eigenvalues, network_hessian, network_hessian_product
from deepbures.losses.registry import BuresWasserstein
from deepbures.model.targets import draw_target
from deepbures.study.grid.seeds import generator


def main() -> None:
    for epsilon in (0.0, 0.1):
        print(f"epsilon = {epsilon}")
        for n, depth, rank in ((10, 3, 10), (10, 10, 5), (20, 3, 20)):
            loss = BuresWasserstein(draw_target(generator(0, "target", 0), n, 0.5), epsilon)
            layers = critical_points.network(loss, tuple(range(rank)), depth, rank).layers
            dense = median(lambda: network_hessian(loss, layers), 9)
            both = median(lambda: np.linalg.eigvalsh(network_hessian(loss, layers)), 5)
            size = sum(W.size for W in layers)
            limit = "  (limit 0.1 s)" if (n, depth, rank) == (10, 3, 10) else ""
            print(
                f"  dense, n={n} N={depth} k={rank}: {size} parameters {dense:.4f} s, spectrum too {both:.4f} s{limit}"
            )
        for n, depth, rank in ((20, 10, 20), (20, 50, 20), (20, 50, 10)):
            loss = BuresWasserstein(draw_target(generator(0, "target", 0), n, 0.5), epsilon)
            for name, kept in (("minimum", tuple(range(rank))), ("worst saddle", tuple(range(n - rank, n)))):
                if name != "minimum" and rank == n:
                    continue
                layers = critical_points.network(loss, kept, depth, rank).layers
                one = median(lambda: network_hessian_product(loss, layers, layers), 9)
                seconds = median(lambda: extreme_eigenvalues(loss, layers), 3)
                rates = critical_points.local_spectrum(loss, kept, depth, rank).rates
                found = np.array(extreme_eigenvalues(loss, layers))
                error = np.abs(found - [min(rates.min(), 0), rates.max()]).max() / rates.max()
                size = sum(W.size for W in layers)
                limit = "  (limit 20 s)" if (depth, rank) == (50, 20) else ""
                print(
                    f"  matrix-free, n={n} N={depth} k={rank}, {name}: {size} parameters, one product "
                    f"{1e3 * one:.2f} ms, both ends {seconds:.2f} s, off by {error:.0e} of the largest{limit}"
                )


if __name__ == "__main__":
    main()
