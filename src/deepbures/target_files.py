"""Target covariances that are not drawn: from a file with a covariance or samples, or from a data set."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .matrix_files import read_matrix
from .psd import INPUT_TOLERANCE, Array, spectrum, symmetrize
from .sample_covariance import blocks_of, streamed_moments
from .sample_files import streamed_file

#: Keys of a target that is not drawn: a file with a covariance (n, n); one with samples (m, n), one a row; a data set.
KINDS = ("covariance", "samples", "dataset")
DATASETS = ("digits", "patches")
#: Patches of photographs start at every such share of their side.
_STRIDES = 4
#: Rows for each direction that a rank is looked for in, and the share of σ_1 above which it is certainly there.
_ROWS, _CERTAIN = 2, 1e-5


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


def samples_of(dataset: str, dimension: int | None = None) -> Array:
    """Samples of a data set that comes with scikit-learn, one a row.

    Parameters
    ----------
    dataset
        `digits`: 1,797 images of 8 × 8 pixels, n = 64. `patches`: all patches of the two photographs (427 × 640 pixels)
        whose corners lie on a grid of a quarter of their side, in float32 from 0 to 1.
    dimension
        n, of patches: s² for s × s grey pixels, 3 s² for s × s × 3 of colour.

    Raises
    ------
    ValueError
        On an unknown name, an n of which there are no patches, or where scikit-learn is not installed.
    """
    if dataset not in DATASETS:
        raise ValueError(f"dataset must be one of {', '.join(DATASETS)}, not {dataset!r}")
    try:
        from sklearn.datasets import load_digits, load_sample_images
    except ImportError:
        raise ValueError(f"the data set {dataset} comes with scikit-learn: pip install 'deepbures[digits]'") from None
    if dataset == "digits":
        return np.asarray(load_digits().data, dtype=float)
    side, channels = patch_shape(dimension or 0)
    return np.concatenate([_patches(photograph, side, channels) for photograph in load_sample_images().images])


def patch_shape(dimension: int) -> tuple[int, int]:
    """Side s and channels (1 grey, 3 colour) of patches of n = s² or 3 s² numbers, 4 ≤ s ≤ 64.

    Raises
    ------
    ValueError
        If there are none.
    """
    for channels in (1, 3):
        side = math.isqrt(max(dimension, 0) // channels)
        if side * side * channels == dimension and 4 <= side <= 64:
            return side, channels
    raise ValueError(
        f"patches have the dimension s² (grey) or 3 s² (colour) for a side s from 4 to 64, not {dimension}"
    )


def _patches(photograph: NDArray[np.uint8], side: int, channels: int) -> Array:
    """Patches of one photograph, (m, s² channels), from 0 to 1; grey is the mean of the colours."""
    pixels = photograph.astype(np.float32) / 255
    if channels == 1:
        pixels = pixels.mean(axis=-1, keepdims=True)
    windows = np.lib.stride_tricks.sliding_window_view(pixels, (side, side), axis=(0, 1))
    chosen = windows[:: side // _STRIDES, :: side // _STRIDES]  # (rows, columns, channels, s, s)
    return chosen.transpose(0, 1, 3, 4, 2).reshape(-1, side * side * channels)


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
    if dataset is None and not covariance and (moments := streamed_file(name)) is not None:
        _check_dimension(name, len(moments.mean), dimension)
        return moments.covariance
    if dataset is None:
        matrix, precision = read_matrix(name, dimension, square=covariance)
    else:
        matrix, precision = samples_of(dataset, dimension), float(np.finfo(float).eps)
    if covariance and matrix.shape[0] != matrix.shape[1]:
        raise ValueError(f"{name}: a covariance must be a square matrix, not of shape {matrix.shape}")
    if not covariance and matrix.shape[0] < 2:
        raise ValueError(f"{name}: an estimate needs at least 2 samples (rows), not {matrix.shape[0]}")
    if not covariance and not np.ptp(matrix, axis=0).any():
        raise ValueError(f"{name}: all samples are equal: their covariance is zero")
    _check_dimension(name, matrix.shape[1], dimension)
    if covariance:
        return _without_rounding(name, matrix, precision)
    if matrix.dtype == np.float32:  # of a size for which one copy is enough
        return streamed_moments(blocks_of(matrix), name).covariance
    centred = np.where(np.ptp(matrix, axis=0) > 0, matrix - matrix.mean(axis=0), 0)  # a constant is exactly its mean
    matrix = symmetrize(centred.T @ centred / len(centred))
    spectrum(name, matrix)
    return matrix


def _check_dimension(name: str, found: int, dimension: int) -> None:
    if found != dimension:
        raise ValueError(f"{name}: it is of dimension {found}, but the experiment of dimension {dimension}")


def target_rank(target: Mapping[str, Any], dimension: int, enough: int) -> int:
    """Rank of the covariance of a target that is not drawn; of large samples at least `enough`, if some rows have that.

    Raises
    ------
    ValueError
        As `read_target`.
    """
    if target.get("dataset") == "patches":
        samples = samples_of("patches", dimension)
        some = samples[:: max(1, len(samples) // (_ROWS * enough))].astype(float)
        sigma = np.linalg.svd(some - some.mean(axis=0), compute_uv=False)
        found = int(np.sum(sigma > _CERTAIN * sigma[0]))
        if found >= enough:
            return found
    eigenvalues, _ = spectrum("target", read_target(target, dimension))
    return int(np.sum(eigenvalues > 0))


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
