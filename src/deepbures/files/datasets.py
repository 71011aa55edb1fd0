"""Samples of data sets that come with scikit-learn: digits, and patches of photographs."""

import math

import numpy as np
from numpy.typing import NDArray

from ..linalg.psd import Array

DATASETS = ("digits", "patches")
#: Patches of photographs start at multiples of 1/_STRIDES of their side.
_STRIDES = 4


def samples_of(dataset: str, dimension: int | None = None) -> Array:
    """Samples of a data set that comes with scikit-learn, one per row.

    Parameters
    ----------
    dataset
        `digits`: 1,797 images of 8 × 8 pixels, n = 64. `patches`: patches of the two photographs (427 × 640 pixels)
        with corners on a grid with a quarter of their side as spacing, in float32 from 0 to 1.
    dimension
        n, for patches: s² for s × s grey pixels, 3 s² for s × s × 3 of colour.

    Returns
    -------
    (m, n)

    Raises
    ------
    ValueError
        On an unknown name, an n for which there are no patches, or without scikit-learn.
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
        If n is of neither form.
    """
    for channels in (1, 3):
        side = math.isqrt(max(dimension, 0) // channels)
        if side * side * channels == dimension and 4 <= side <= 64:
            return side, channels
    raise ValueError(f"patches have the dimension s² (grey) or 3 s² (colour), s from 4 to 64 pixels, not {dimension}")


def _patches(photograph: NDArray[np.uint8], side: int, channels: int) -> Array:
    """Patches of one photograph, (m, s² · channels), from 0 to 1; grey is the mean of the colours."""
    pixels = photograph.astype(np.float32) / 255
    if channels == 1:
        pixels = pixels.mean(axis=-1, keepdims=True)
    windows = np.lib.stride_tricks.sliding_window_view(pixels, (side, side), axis=(0, 1))
    chosen = windows[:: side // _STRIDES, :: side // _STRIDES]  # (rows, columns, channels, s, s)
    return chosen.transpose(0, 1, 3, 4, 2).reshape(-1, side * side * channels)
