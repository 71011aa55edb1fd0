"""Target covariances from files of covariances or samples, or from a data set."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import numpy as np

from ..linalg.psd import INPUT_TOLERANCE, Array, spectrum, symmetrize
from .datasets import samples_of
from .matrix_files import read_matrix
from .moments import blocks_of, streamed_moments
from .sample_files import streamed_file
from .text_tables import TextOptions

#: Number of rows per direction among which a rank is sought, and σ/σ_1 above which a direction certainly counts.
_ROWS, _CERTAIN = 2, 1e-5


def read_target(target: Mapping[str, Any], dimension: int) -> Array:
    """Covariance Σ0 from a file or data set.

    Parameters
    ----------
    target
        With the key `dataset`: one of `DATASETS`. With `covariance` or `samples`: path of a file that
        `matrix_files.read_matrix` reads, and any of the fields of `TextOptions`, by which
        it reads text.
    dimension
        n, the dimension that the file must have.

    Returns
    -------
    (n, n)
        The covariance; for samples x_1, …, x_m, (1/m) Σ_i (x_i − x̄)(x_i − x̄)ᵀ (maximum likelihood).

    Raises
    ------
    ValueError
        In one line, if the file is missing, has another format or dimension, or is not finite; or if a covariance is
        not symmetric positive semidefinite.
    """
    if "covariance" in target:
        return _read_covariance(target["covariance"], dimension, options_of(target))
    if "samples" in target:
        return _estimate_file(target["samples"], dimension, options_of(target))
    return _estimate(target["dataset"], samples_of(target["dataset"], dimension), dimension)


def options_of(target: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of a target that say how its files are read: fields of `text_tables.TextOptions`."""
    return {option.name: target[option.name] for option in fields(TextOptions) if option.name in target}


def read_covariances(target: Mapping[str, Any], dimension: int) -> tuple[Array, Array]:
    """Covariances Σ_i whose barycenter is the target, and their weights.

    Parameters
    ----------
    target
        With the key `barycenter`, a mapping. Its key `covariances` lists files of one covariance each. Or `samples`
        lists files of samples: one file for each group; or a single file with all samples, and `groups`, a file with
        the number of the group of each row. `weights` (optional, by default equal) has one number > 0 for each
        covariance, in the order of the files or of the numbers of the groups; they are divided by their sum. Keys of
        `TextOptions` say how all of its files are read.
    dimension
        n, the dimension that the files must have.

    Returns
    -------
    covariances : (m, n, n)
    weights : (m,)
        With sum 1.

    Raises
    ------
    ValueError
        In one line, as `read_target`, or if keys, groups or weights do not fit.
    """
    given: Mapping[str, Any] = target["barycenter"]
    options = options_of(given)
    if ("covariances" in given) == ("samples" in given):
        raise ValueError("barycenter: exactly one of the keys 'covariances' and 'samples' is needed")
    if "groups" in given and len(given.get("samples", ())) != 1:
        raise ValueError("barycenter: groups need a single file of samples, whose rows they label")
    if "covariances" in given:
        found = [_read_covariance(file, dimension, options) for file in given["covariances"]]
    elif "groups" in given:
        found = _by_group(given["samples"][0], given["groups"], dimension, options)
    else:
        found = [_estimate_file(file, dimension, options) for file in given["samples"]]
    for number, matrix in enumerate(found, start=1):
        if not matrix.any():
            raise ValueError(f"barycenter: matrix {number} of {len(found)}: its covariance is zero")
    weights = np.asarray(given.get("weights", [1] * len(found)), dtype=float)
    if weights.shape != (len(found),) or not (weights > 0).all():
        raise ValueError(f"barycenter: weights must be {len(found)} numbers > 0, not {given['weights']}")
    return np.array(found), weights / weights.sum()


def _by_group(name: str, groups: str, dimension: int, options: dict[str, Any]) -> list[Array]:
    """The covariance of each group of rows, in the order of their numbers."""
    samples, numbers = (read_matrix(file, **options).values for file in (name, groups))
    if numbers.shape != (len(samples), 1):
        raise ValueError(f"{groups}: it must hold one number for each of the {len(samples)} rows of {name}")
    labels = numbers[:, 0]
    if (labels != np.round(labels)).any():
        raise ValueError(f"{groups}: groups must be whole numbers, not {labels[labels != np.round(labels)][0]:g}")
    return [_estimate(f"{name}, group {g:g}", samples[labels == g], dimension) for g in np.unique(labels)]


def _read_covariance(name: str, dimension: int, options: dict[str, Any]) -> Array:
    matrix, precision = read_matrix(name, square=True, **options)
    if matrix.shape[0] != matrix.shape[1]:
        shape = f"{matrix.shape}; text may need the option header or index_col"
        raise ValueError(f"{name}: a covariance must be a square matrix, not of shape {shape}")
    _check_dimension(name, matrix, dimension)
    return _without_rounding(name, matrix, precision)


def _estimate_file(name: str, dimension: int, options: dict[str, Any]) -> Array:
    """The covariance of the samples in a file; a large file is read in blocks."""
    moments = streamed_file(name, options.get("index_col", "infer"))
    if moments is None:
        return _estimate(name, read_matrix(name, **options).values, dimension)
    _check_dimension(name, moments.covariance, dimension)
    return moments.covariance


def _estimate(name: str, samples: Array, dimension: int) -> Array:
    """(1/m) Σ_i (x_i − x̄)(x_i − x̄)ᵀ over the rows x_i of the samples, (m, n)."""
    if samples.shape[0] < 2:
        raise ValueError(f"{name}: an estimate needs at least 2 samples (rows), not {samples.shape[0]}")
    varies = np.ptp(samples, axis=0) > 0
    if not varies.any():
        raise ValueError(f"{name}: all samples are equal: their covariance is zero")
    _check_dimension(name, samples, dimension)
    if samples.dtype == np.float32:  # so large that a copy in float64 is avoided
        return streamed_moments(blocks_of(samples), name).covariance
    centred = np.where(varies, samples - samples.mean(axis=0), 0)  # a constant column equals its mean exactly
    with np.errstate(over="ignore", invalid="ignore"):  # it is then refused as not finite
        matrix = symmetrize(centred.T @ centred / len(centred))
    spectrum(name, matrix)
    return matrix


def _check_dimension(name: str, matrix: Array, dimension: int) -> None:
    if matrix.shape[1] != dimension:
        raise ValueError(f"{name}: it is of dimension {matrix.shape[1]}, but the experiment of dimension {dimension}")


def target_rank(target: Mapping[str, Any], dimension: int, enough: int) -> int:
    """Rank of the covariance from a file or data set; for patches a lower bound, if it is at least `enough`.

    Raises
    ------
    ValueError
        As `read_target`.
    """
    if target.get("dataset") == "patches":
        samples = samples_of("patches", dimension)
        some = samples[:: max(1, len(samples) // (_ROWS * enough))].astype(float)
        sigma = np.linalg.svd(some - some.mean(axis=0), compute_uv=False)
        if (found := int(np.sum(sigma > _CERTAIN * sigma[0]))) >= enough:
            return found
    eigenvalues, _ = spectrum("target", read_target(target, dimension))
    return int(np.sum(eigenvalues > 0))


def _without_rounding(name: str, matrix: Array, precision: float) -> Array:
    """The positive semidefinite matrix in float64 next to a covariance that was stored with a relative precision u.

    Rounding errors up to u max|Σ_ij| in the entries change an eigenvalue by at most about 2 √n u max|Σ_ij|. If one is
    not positive, to within that bound, those below n u λ_1 cannot be distinguished from zero and become zero.
    """
    n, is_rounded = len(matrix), precision > np.finfo(float).eps
    rounding = max(10.0, 2 * n**0.5) * precision if is_rounded else 0.0
    eigenvalues, eigenvectors = spectrum(name, matrix, tolerance=max(rounding, INPUT_TOLERANCE))
    if not is_rounded or eigenvalues[-1] > 0:
        return symmetrize(matrix)
    positive = np.where(eigenvalues > n * precision * eigenvalues[0], eigenvalues, 0)
    return symmetrize((eigenvectors * positive) @ eigenvectors.T)
