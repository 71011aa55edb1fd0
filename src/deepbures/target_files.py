"""Target covariances from files: a covariance, or samples from which it is estimated."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from .psd import Array, finite_array, spectrum, symmetrize

#: Keys of a target that name a file: a covariance (n, n), or samples (m, n), one a row.
KINDS = ("covariance", "samples")
FORMATS = (".npy", ".csv", ".parquet")


def file_of(target: Mapping[str, Any]) -> str | None:
    """The file that a target of a configuration comes from; None if it is drawn."""
    return next((target[kind] for kind in KINDS if kind in target), None)


def read_target(target: Mapping[str, Any], dimension: int) -> Array:
    """Covariance Σ0 of a target that names a file.

    Parameters
    ----------
    target
        With the key `covariance` or `samples`: path of a `.npy` array, a `.csv` file of numbers with commas and
        without headings, or a `.parquet` table, whose rows are those of the array.
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
    path = Path(str(file_of(target)))
    array = _read(path)
    if "samples" in target:
        if array.shape[0] < 2:
            raise ValueError(f"{path}: an estimate needs at least 2 samples (rows), not {array.shape[0]}")
        centred = array - array.mean(axis=0)
        array = centred.T @ centred / len(centred)
    elif array.shape[0] != array.shape[1]:
        raise ValueError(f"{path}: a covariance must be a square matrix, not of shape {array.shape}")
    if array.shape[1] != dimension:
        raise ValueError(f"{path}: it is of dimension {array.shape[1]}, but the experiment of dimension {dimension}")
    spectrum(str(path), array)
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
            array = np.loadtxt(path, delimiter=",", ndmin=2)
        else:
            import pyarrow.parquet as pq

            table = pq.read_table(path, partitioning=None)
            array = np.column_stack([column.to_numpy() for column in table.columns])
    except (ValueError, OSError, TypeError) as error:
        raise ValueError(f"{path}: cannot be read as {path.suffix[1:]}: {' '.join(str(error).split())}") from None
    array = finite_array(str(path), array, 1)
    if array.ndim != 2:
        raise ValueError(f"{path}: it must hold a matrix, not an array of shape {array.shape}")
    return array.astype(float)
