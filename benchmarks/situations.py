"""Ten situations from open and closed issues of other packages, there and here: python benchmarks/situations.py

Each is a small case with a closed form, which both are compared with. The environment needs PyTorch and JAX, and any of
POT, geomstats, ott-jax, torchmetrics, pytorch-fid and pyriemann; what is missing is reported as not installed.
"""

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import ast
import importlib.util
import time
import tracemalloc
import warnings
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import scipy.linalg

from deepbures import (
    BuresWasserstein,
    LowRankCovariance,
    barycenter,
    frechet_distance,
    sample_moments,
    squared_distance,
)

PACKAGES = ("numpy", "scipy", "POT", "geomstats", "ott-jax", "jax", "torch", "torchmetrics", "pytorch-fid", "pyriemann")


def outcome(compute: Callable[[], object]) -> str:
    """What a computation gives, or how it fails."""
    try:
        return str(compute())
    except ImportError as error:
        return f"not installed ({error.name})"
    except (ValueError, TypeError, np.linalg.LinAlgError) as error:
        return f"{type(error).__name__}: {str(error).splitlines()[0]}"


def off(found: object, expected: object) -> str:
    """Relative error, in the Frobenius norm."""
    found, expected = np.asarray(found, dtype=float), np.asarray(expected, dtype=float)
    if np.isnan(found).any():
        return "NaN"
    error = np.linalg.norm(found - expected) / np.linalg.norm(expected)
    return f"off by {error:.0e}" if error else "exact"


def costs(compute: Callable[[], object]) -> tuple[object, str]:
    """The result of a computation with its time and largest memory."""
    tracemalloc.start()
    start = time.perf_counter()
    result = compute()
    seconds, peak = time.perf_counter() - start, tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return result, f"{seconds:.2f} s, {peak / 1e6:.1f} MB"


def pot_singular(rng):
    """`bures_distance` of singular sample covariances: 60 samples in 128 dimensions, B = 2.25 A, so d² = tr A/4."""
    A = np.cov(rng.standard_normal((60, 128)).T)
    distance = np.sqrt(np.trace(A)) / 2

    def there():
        import ot

        return f"d {off(ot.gaussian.bures_distance(A, 2.25 * A), distance)} (NumPy)"

    return there, lambda: f"d {off(np.sqrt(squared_distance(A, 2.25 * A)), distance)}"


def pot_low_rank(rng):
    """Low rank plus a floor in 1,024 dimensions, ten directions in common: d² is a sum over eigenvalues."""
    n, k, floors = 1024, 10, (0.1, 0.1001)
    U, _ = np.linalg.qr(rng.standard_normal((n, k)))
    spectra = np.geomspace(10, 1, k), np.geomspace(10, 1, k) * 1.001
    tops = [np.sqrt(s + f) for s, f in zip(spectra, floors, strict=True)]
    squared = np.sum((tops[0] - tops[1]) ** 2) + (n - k) * (np.sqrt(floors[0]) - np.sqrt(floors[1])) ** 2

    def there():
        import ot

        zero, variances = np.zeros(n), [np.array(f) for f in floors]
        d, cost = costs(lambda: ot.gaussian.bures_wasserstein_distance_hd(zero, zero, U, U, *spectra, *variances))
        return f"d² {off(d**2, squared)}; {cost}"

    def here():
        A, B = (LowRankCovariance(U * np.sqrt(s), f) for s, f in zip(spectra, floors, strict=True))
        found, cost = costs(lambda: squared_distance(A, B))
        return f"d² {off(found, squared)}; {cost}"

    return there, here


def geomstats_module(name):
    vars(np).setdefault("trapz", np.trapezoid)  # geomstats 2.8 imports a name that NumPy 2.4 no longer has
    return importlib.import_module(f"geomstats.geometry.{name}")


def geomstats_to_itself(rng):
    """d(A, A), of 20 regular matrices of dimension 20: 0."""
    X = rng.standard_normal((20, 20, 40))
    A = X @ X.mT

    def there():
        spd = geomstats_module("spd_matrices")
        space = spd.SPDMatrices(20, equip=False)
        space.equip_with_metric(spd.SPDBuresWassersteinMetric)
        return f"up to {np.max(space.metric.dist(A, A)):.0e}"

    return there, lambda: f"up to {np.sqrt(squared_distance(A, A).max()):.0e}"


def geomstats_fixed_rank(rng):
    """Nearby matrices of rank 3 in dimension 20, B = (1 + 1e-6)² A: d² = 1e-12 tr A."""
    F = rng.standard_normal((20, 3))
    A, B, squared = F @ F.T, (1 + 1e-6) ** 2 * F @ F.T, 1e-12 * np.sum(F**2)

    def there():
        psd = geomstats_module("rank_k_psd_matrices")
        space = psd.PSDMatrices(20, 3, equip=False)
        space.equip_with_metric(psd.PSDBuresWassersteinMetric)
        return f"d² {off(space.metric.squared_dist(A, B), squared)}"

    def here():
        factors = squared_distance(LowRankCovariance(F), LowRankCovariance((1 + 1e-6) * F))
        return f"d² {off(factors, squared)} from factors, {off(squared_distance(A, B), squared)} from matrices"

    return there, here


def ott_barycenter(rng):
    """The barycenter of the issue's two diagonal covariances: (w_1 √a + w_2 √b)² on the diagonal."""
    a, b = np.array([0.3206, 0.8825, 0.1113, 0.9454, 0.0052]), np.array([0.3075, 0.8545, 0.1110, 0.9206, 0.0054])
    weights = np.array([300, 237]) / 537
    expected = (weights[0] * np.sqrt(a) + weights[1] * np.sqrt(b)) ** 2

    def there():
        import jax.numpy as jnp
        from ott.geometry import costs

        both = jnp.stack([costs.mean_and_cov_to_x(jnp.zeros(5), jnp.diag(jnp.array(s)), 5) for s in (a, b)])
        found, _ = costs.Bures(5).barycenter(jnp.array(weights), both)
        return off(np.diag(costs.x_to_means_and_covs(found, 5)[1]), expected)

    return there, lambda: off(np.diag(barycenter([np.diag(a), np.diag(b)], weights)), expected)


def aligned(rng, n=20, k=3):
    """A target, and W of rank k on its first eigenvectors: ∇L = 2 Ω_k (s − √λ)."""
    basis, _ = np.linalg.qr(rng.standard_normal((n, n)))
    eigenvalues, s = np.geomspace(10, 0.1, n), np.linspace(2, 1, k)
    W = basis[:, :k] * s
    return (basis * eigenvalues) @ basis.T, W, 2 * basis[:, :k] * (s - np.sqrt(eigenvalues[:k]))


def ott_gradient(rng):
    """The gradient of its Bures cost at W Wᵀ of rank 3 in dimension 20 (not of the issue)."""
    target, W, gradient = aligned(rng)

    def there():
        import jax
        import jax.numpy as jnp
        from ott.geometry import costs

        def cost(W, target):
            zero = jnp.zeros(20, W.dtype)
            return costs.Bures(20)(*(costs.mean_and_cov_to_x(zero, S, 20) for S in (W @ W.T, target)))

        single = off(jax.grad(cost)(jnp.array(W, jnp.float32), jnp.array(target, jnp.float32)), gradient)
        with jax.enable_x64(True):
            return f"{single} in float32, {off(jax.grad(cost)(jnp.array(W), jnp.array(target)), gradient)} in float64"

    return there, lambda: through_jax(target, W, gradient)


def through_jax(target, W, gradient):
    import jax
    import jax.numpy as jnp

    from deepbures.jax import covariance_loss

    with jax.enable_x64(True):
        return off(jax.grad(lambda W: covariance_loss(BuresWasserstein(target), W))(jnp.array(W)), gradient)


def jax_equal_eigenvalues(rng):
    """The gradient at W = I of the loss by roots from `eigh`, for Σ0 = diag(2, 2, 1, 1): 2 (I − R)."""
    target, W = np.diag([2.0, 2, 1, 1]), np.eye(4)
    gradient = 2 * (W - np.sqrt(target))

    def there():
        import jax
        import jax.numpy as jnp

        def root(S):
            eigenvalues, basis = jnp.linalg.eigh(S)
            return (basis * jnp.sqrt(eigenvalues)) @ basis.T

        def value(W):
            R, S = root(jnp.array(target)), W @ W.T
            return jnp.trace(S) - 2 * jnp.trace(root(R @ S @ R))

        with jax.enable_x64(True):
            return off(jax.grad(value)(jnp.array(W)), gradient)

    return there, lambda: through_jax(target, W, gradient)


def torch_root(rng):
    """The gradient at rank 3 in dimension 20, by roots from the Newton-Schulz iteration, or from `eigh`."""
    target, W, gradient = aligned(rng)

    def through(value):
        import torch

        point = torch.tensor(W, requires_grad=True)
        value(point).backward()
        return off(point.grad, gradient)

    def newton_schulz(S, iterations):
        import torch

        size, unit = torch.linalg.norm(S), torch.eye(len(S), dtype=S.dtype)
        Y, Z = S / size, unit
        for _ in range(iterations):
            step = (3 * unit - Z @ Y) / 2
            Y, Z = Y @ step, step @ Z
        return Y * torch.sqrt(size)

    def by_eigh(S):
        import torch

        eigenvalues, basis = torch.linalg.eigh(S)
        return (basis * torch.sqrt(torch.clamp(eigenvalues, min=0))) @ basis.T

    def there():
        import torch

        def value(root):
            R = by_eigh(torch.tensor(target))
            return lambda W: torch.trace(W @ W.T) - 2 * torch.trace(root(R @ W @ W.T @ R))

        found = [f"{through(value(lambda S: newton_schulz(S, count)))} after {count}" for count in (5, 10, 100)]
        return f"{', '.join(found)} iterations; {through(value(by_eigh))} by eigh"

    def here():
        from deepbures.torch import covariance_loss

        return through(lambda W: covariance_loss(BuresWasserstein(target), W))

    return there, here


def samples(rng):
    """100 samples in 256 dimensions, and these times 1.01: d² = 1e-4 (‖x̄‖² + tr A)."""
    X = rng.standard_normal((100, 256))
    moments = [M for Z in (X, 1.01 * X) for M in (Z.mean(axis=0), np.cov(Z.T))]
    squared = 1e-4 * (np.sum(moments[0] ** 2) + np.trace(moments[1]))
    return (
        moments,
        squared,
        lambda: off(frechet_distance(*sample_moments(X, ddof=1), *sample_moments(1.01 * X, ddof=1)), squared),
    )


def torchmetrics_fid(rng):
    """The Fréchet distance by `eigvals` of the product, of 100 samples in 256 dimensions and these times 1.01."""
    moments, squared, here = samples(rng)

    def there():
        import torch
        from torchmetrics.image.fid import _compute_fid

        return off(_compute_fid(*map(torch.tensor, moments)), squared)

    return there, here


def pytorch_fid(rng):
    """The same, by `sqrtm` of the product."""
    moments, squared, here = samples(rng)

    def there():
        spec = importlib.util.find_spec("pytorch_fid")
        if spec is None:
            raise ImportError(name="pytorch-fid")
        # The function alone: the module imports torchvision.
        tree = ast.parse(Path(spec.submodule_search_locations[0], "fid_score.py").read_text(encoding="utf-8"))
        tree.body = [node for node in tree.body if getattr(node, "name", "") == "calculate_frechet_distance"]
        names = {"np": np, "linalg": scipy.linalg}
        exec(compile(tree, "fid_score.py", "exec"), names)
        return off(names["calculate_frechet_distance"](*moments), squared)

    return there, here


def pyriemann_singular(rng):
    """Covariances of 8 samples in 12 dimensions: mean of B = 2.25 A and A, (1.25)² A, and their distance √tr A/2."""
    A = np.cov(rng.standard_normal((12, 8)))
    pair, mean, distance = np.stack([A, 2.25 * A]), 1.25**2 * A, np.sqrt(np.trace(A)) / 2

    def there():
        from pyriemann.geometry.mean import mean_wasserstein

        return off(mean_wasserstein(pair), mean)

    return there, lambda: f"{off(barycenter(pair), mean)}, d {off(np.sqrt(squared_distance(*pair)), distance)}"


SITUATIONS = {
    "POT #708": pot_singular,
    "POT #814": pot_low_rank,
    "geomstats #1442": geomstats_to_itself,
    "geomstats #1362": geomstats_fixed_rank,
    "OTT #199": ott_barycenter,
    "OTT": ott_gradient,
    "JAX #669": jax_equal_eigenvalues,
    "PyTorch #25481": torch_root,
    "torchmetrics #1705": torchmetrics_fid,
    "pytorch-fid #117": pytorch_fid,
    "pyRiemann #65": pyriemann_singular,
}


def installed(name: str) -> str:
    try:
        return f"{name} {version(name)}"
    except PackageNotFoundError:
        return f"{name} not installed"


def main() -> None:
    warnings.simplefilter("ignore")
    print(f"With {', '.join(map(installed, PACKAGES))}.\n")
    print("| issue | situation | there | here |\n|---|---|---|---|")
    for issue, situation in SITUATIONS.items():
        there, here = situation(np.random.default_rng(2303))
        print(f"| {issue} | {situation.__doc__} | {outcome(there)} | {outcome(here)} |", flush=True)


if __name__ == "__main__":
    main()
