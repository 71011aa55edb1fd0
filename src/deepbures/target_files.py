"""Target covariances that are not drawn: from a file with a covariance or samples, or from a data set."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from .psd import Array, finite_array, spectrum, symmetrize

#: Keys of a target that is not drawn: a file with a covariance (n, n); one with samples (m, n), one a row; a data set.
KINDS = ("covariance", "samples", "dataset")
FORMATS = (".npy", ".csv", ".parquet")
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
        With the key `dataset`: one of `DATASETS`. With `covariance` or `samples`: path of a `.npy` array, a
        `.csv` file of numbers with commas and without headings, or a `.parquet` table, whose rows are those of
        the array.
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
    dataset, path = target.get("dataset"), Path(str(file_of(target)))
    array = _read(path) if dataset is None else samples_of(dataset)
    if "covariance" not in target:
        if array.shape[0] < 2:
            raise ValueError(f"{dataset or path}: an estimate needs at least 2 samples (rows), not {array.shape[0]}")
        if not np.ptp(array, axis=0).any():
            raise ValueError(f"{dataset or path}: all samples are equal: their covariance is zero")
        centred = array - array.mean(axis=0)
        array = centred.T @ centred / len(centred)
    elif array.shape[0] != array.shape[1]:
        raise ValueError(f"{path}: a covariance must be a square matrix, not of shape {array.shape}")
    if array.shape[1] != dimension:
        raise ValueError(
            f"{dataset or path}: it is of dimension {array.shape[1]}, but the experiment of dimension {dimension}"
        )
    spectrum(str(dataset or path), array)
    return symmetrize(array)


def _read(path: Path) -> Array:
    """The matrix in a file."""
    if path.suffix not in FORMATS:
        raise ValueError(f"{path}: the format must be one of {', '.join(FORMATS)}, not {path.suffix or 'none'!r}")
    if not path.is_file():
        raise ValueError(f"{path}: there is no such file")
    try:
        if path.suffix == ".npy":
            array = np.load(path, allow_pickle=False)
        elif path.suffix == ".csv":
            with warnings.catch_warnings(action="error"):  # of an empty file
                array = np.loadtxt(path, delimiter=",", ndmin=2)
        else:
            import pyarrow.parquet as pq

            table = pq.read_table(path, partitioning=None)
            array = np.column_stack([column.to_numpy() for column in table.columns])
    except (ValueError, OSError, TypeError, Warning) as error:
        raise ValueError(f"{path}: cannot be read as {path.suffix[1:]}: {' '.join(str(error).split())}") from None
    array = finite_array(str(path), array, 1)
    if array.ndim != 2:
        raise ValueError(f"{path}: it must hold a matrix, not an array of shape {array.shape}")
    return array.astype(float)
