"""Target covariances that are not drawn: from a file with a covariance or samples, or from a data set."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from .matrix_files import read_matrix
from .psd import INPUT_TOLERANCE, Array, spectrum, symmetrize

#: Keys of a target in a file: a covariance (n, n), or samples (m, n), one a row; and of all that is not drawn.
FILES = ("covariance", "samples")
KINDS = (*FILES, "dataset")
DATASETS = ("digits",)


def is_drawn(target: Mapping[str, Any]) -> bool:
    """Whether the targets of a configuration are drawn, one for each seed."""
    return not any(kind in target for kind in KINDS)


def file_of(target: Mapping[str, Any]) -> str | None:
    """The file that a target of a configuration comes from, if any."""
    return target.get("covariance", target.get("samples"))


def stream_of(dimension: int, target: Mapping[str, Any]) -> dict[str, Any]:
    """Which `target`s of experiments are the same draws, by a name, and whether each seed has one (`drawn`)."""
    if is_drawn(target):
        return {"target": f"{dimension} {target['spectrum']}", "drawn": True}
    return {"target": str(file_of(target) or target["dataset"]), "drawn": False}


def samples_of(dataset: str) -> Array:
    """Samples of a data set, one a row: `digits`, the 1,797 images of 8 × 8 pixels that come with scikit-learn.

    Raises
    ------
    ValueError
        On an unknown name, or where scikit-learn is not installed.
    """
    if dataset not in DATASETS:
        raise ValueError(f"dataset must be one of {', '.join(DATASETS)}, not {dataset!r}")
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise ValueError("the data set digits comes with scikit-learn: pip install 'deepbures[digits]'") from None
    return np.asarray(load_digits().data, dtype=float)


def read_target(target: Mapping[str, Any], dimension: int) -> Array:
    """Covariance Σ0 of a target that is not drawn.

    Parameters
    ----------
    target
        With the key `dataset`: one of `DATASETS`. With `covariance` or `samples`: path of a file that
        `matrix_files.read_matrix` reads.
    dimension
        n, which the file must agree with.

    Returns
    -------
    (n, n)
        The covariance; of samples, the mean of (x − mean)(x − mean)ᵀ (maximum likelihood).

    Raises
    ------
    ValueError
        In one line, if the file is missing, of another format or dimension, not finite, or, a covariance, not
        symmetric positive semidefinite.
    """
    dataset, covariance = target.get("dataset"), "covariance" in target
    name = str(dataset or file_of(target))
    if dataset is None:
        matrix, precision = read_matrix(name, dimension, square=covariance)
    else:
        matrix, precision = samples_of(dataset), float(np.finfo(float).eps)
    if covariance and matrix.shape[0] != matrix.shape[1]:
        raise ValueError(f"{name}: a covariance must be a square matrix, not of shape {matrix.shape}")
    if not covariance and matrix.shape[0] < 2:
        raise ValueError(f"{name}: an estimate needs at least 2 samples (rows), not {matrix.shape[0]}")
    if not covariance and not np.ptp(matrix, axis=0).any():
        raise ValueError(f"{name}: all samples are equal: their covariance is zero")
    if matrix.shape[1] != dimension:
        raise ValueError(f"{name}: it is of dimension {matrix.shape[1]}, but the experiment of dimension {dimension}")
    if covariance:
        return _without_rounding(name, matrix, precision)
    centred = np.where(np.ptp(matrix, axis=0) > 0, matrix - matrix.mean(axis=0), 0)  # a constant is exactly its mean
    with np.errstate(over="ignore", invalid="ignore"):  # it is refused as not finite then
        matrix = symmetrize(centred.T @ centred / len(centred))
    spectrum(name, matrix)
    return matrix


def _without_rounding(name: str, matrix: Array, precision: float) -> Array:
    """A covariance that is positive semidefinite up to the rounding with which it was stored, made so in float64.

    Entries that are rounded by a share u of the largest one, a, move an eigenvalue by about 2 √n u a at most. Where
    one is negative within that, those below n u λ_1 cannot be told from zero, and are set to it.
    """
    n, eps = len(matrix), float(np.finfo(float).eps)
    if precision <= eps:
        spectrum(name, matrix)
        return symmetrize(matrix)
    tolerance = max(10.0, 2 * n**0.5) * precision
    scale = np.abs(matrix).max()
    asymmetry = np.abs(matrix - matrix.T).max()
    if asymmetry > max(tolerance, INPUT_TOLERANCE) * scale:
        raise ValueError(f"{name} must be symmetric, but entries differ from their transpose by up to {asymmetry:.3g}")
    matrix = symmetrize(matrix)
    eigenvalues, eigenvectors = np.linalg.eigh(matrix)
    if eigenvalues[0] < -max(tolerance, INPUT_TOLERANCE) * scale:
        raise ValueError(f"{name} must be positive semidefinite, but its smallest eigenvalue is {eigenvalues[0]:.6g}")
    if eigenvalues[0] >= 0:
        return matrix
    kept = np.where(eigenvalues > n * precision * eigenvalues[-1], eigenvalues, 0)
    return symmetrize((eigenvectors * kept) @ eigenvectors.T)
