"""Region covariances: an image represented by the covariance of the features of its pixels."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from ..linalg.psd import Array, finite_array, symmetrize

#: Features of a pixel: its position, its grey value, and the sizes of the first differences.
FEATURES = ("x", "y", "I", "|∂I/∂x|", "|∂I/∂y|")


def region_covariances(images: ArrayLike) -> Array:
    """Covariance of `FEATURES` over all pixels of each image: (m, 5, 5) for images (m, height, width).

    Region covariances are due to Tuzel, Porikli and Meer (2006), who also use second differences. Positions run from
    −1 to 1, and grey values are relative to the largest in all images. A blank image gives a singular covariance.

    Raises
    ------
    ValueError
        On images that are not finite, smaller than 2 × 2, or all zero.
    """
    pixels = finite_array("images", images, 3).astype(float)
    if pixels.ndim != 3 or min(pixels.shape[1:]) < 2:
        raise ValueError(
            f"images must have the shape (m, height, width) with at least 2 × 2 pixels, not {pixels.shape}"
        )
    largest = np.abs(pixels).max()
    if largest == 0:
        raise ValueError("images must not all be zero")
    pixels = pixels / largest
    y, x = np.meshgrid(*(np.linspace(-1, 1, size) for size in pixels.shape[1:]), indexing="ij")
    down, across = np.gradient(pixels, axis=(1, 2))
    features = np.stack(
        [*(np.broadcast_to(place, pixels.shape) for place in (x, y)), pixels, np.abs(across), np.abs(down)], axis=1
    ).reshape(len(pixels), len(FEATURES), -1)
    centred = features - features.mean(axis=-1, keepdims=True)
    return symmetrize(centred @ centred.mT / centred.shape[-1])
