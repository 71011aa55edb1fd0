"""One BLAS thread, pinned before NumPy is loaded, and what the tests share."""

import os

for _name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_name] = "1"
# `make test` is itself a make: one that a test starts must not take itself for its child, and print where it enters.
for _name in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS"):
    os.environ.pop(_name, None)
# Where Slurm is installed and does not run, its plugin makes each start of Snakemake wait 9 s for an answer.
os.environ["SLURM_CONF"] = os.devnull

import copy  # noqa: E402
import functools  # noqa: E402
import tracemalloc  # noqa: E402
from contextlib import contextmanager  # noqa: E402
from pathlib import Path  # noqa: E402

import numpy as np  # noqa: E402
import pytest  # noqa: E402
import yaml  # noqa: E402

ROOT = Path(__file__).parent.parent


@functools.cache
def _configuration(name):
    return yaml.safe_load((ROOT / "config" / name).read_text(encoding="utf-8"))


def _merge(base, overlay):
    """Lay one configuration over another as Snakemake does: recursively, lists replaced."""
    for key, value in overlay.items():
        if isinstance(value, dict) and isinstance(base.get(key), dict):
            _merge(base[key], value)
        else:
            base[key] = value
    return base


@pytest.fixture
def rng():
    return np.random.default_rng(2303)


@pytest.fixture(scope="session")
def make_target():
    """Factory of covariances with a known spectrum, in a random basis (or a diagonal one)."""

    def make(eigenvalues, seed=0, diagonal=False):
        eigenvalues = np.asarray(eigenvalues, dtype=float)
        if diagonal:
            return np.diag(eigenvalues)
        basis, _ = np.linalg.qr(np.random.default_rng(seed).standard_normal((len(eigenvalues),) * 2))
        covariance = (basis * eigenvalues) @ basis.T
        return (covariance + covariance.T) / 2

    return make


@pytest.fixture(scope="session")
def reference():
    """Loader of a reference case by name, as a dict."""

    def load(name):
        with np.load(Path(__file__).parent / "reference" / f"{name}.npz", allow_pickle=False) as file:
            return {key: file[key] if file[key].ndim else file[key].item() for key in file.files}

    return load


@pytest.fixture(scope="session")
def families():
    """The families of figures."""
    return yaml.safe_load((ROOT / "workflow/figures.yaml").read_text(encoding="utf-8"))


@pytest.fixture
def shipped():
    """Loader of the shipped configuration, a fresh copy each time, with overlays from config/ merged over it."""

    def load(*overlays):
        merged = {}
        for name in ("config.yaml", *overlays):
            _merge(merged, copy.deepcopy(_configuration(name)))
        return merged

    return load


@pytest.fixture
def traced():
    """Context that fails if more memory than the given bytes was taken at one time."""

    @contextmanager
    def watch(limit):
        tracemalloc.start()
        try:
            yield
            assert tracemalloc.get_traced_memory()[1] < limit
        finally:
            tracemalloc.stop()

    return watch
