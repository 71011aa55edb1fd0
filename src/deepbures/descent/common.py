"""What gradient descent and scaled descent share: checks of their input, and factors of at most k columns."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from ..linalg.psd import Array
from ..linalg.thin import is_thin
from ..losses.base import check_loss
from ..losses.registry import CovarianceLoss
from ..model.network import DeepLinearNetwork


def checked_network(loss: CovarianceLoss, layers: DeepLinearNetwork | Sequence[ArrayLike]) -> DeepLinearNetwork:
    """The layers as a network; ValueError unless `loss` is a loss, and the last layer has n rows."""
    check_loss(loss)
    network = layers if isinstance(layers, DeepLinearNetwork) else DeepLinearNetwork(layers)
    rows = network.layers[-1].shape[-2]
    if rows != loss.dimension:
        raise ValueError(
            f"the last of the layers must have {loss.dimension} rows, as many as the covariance, not {rows}"
        )
    return network


def check_ends(n_steps: int, excess_tolerance: float) -> None:
    """Raise ValueError unless the number of steps and the tolerance of L − L* are in range."""
    if isinstance(n_steps, bool) or not (isinstance(n_steps, (int, np.integer)) and n_steps >= 0):
        raise ValueError(f"n_steps must be an integer ≥ 0, not {n_steps!r}")
    if not (isinstance(excess_tolerance, (int, float, np.number)) and 0 <= excess_tolerance < np.inf):
        raise ValueError(f"excess_tolerance must be a finite number ≥ 0, not {short(excess_tolerance)}")


def short(value: object) -> str:
    """The value on one line of at most 60 characters, for a message."""
    text = " ".join(repr(value).split())
    return text if len(text) <= 60 else text[:57] + "..."


def with_columns(W: Array, rank: int) -> Array:
    """A factor of W Wᵀ with at most k columns, for W (..., n, d_0) of rank k up to rounding errors; never W itself."""
    if W.shape[-1] <= rank:
        return W.copy()  # a network of one layer would change it in place
    U, sigma, _ = np.linalg.svd(W, full_matrices=False)
    return (U * sigma[..., None, :])[..., :rank]


def in_row_space(layers: Sequence[Array]) -> tuple[list[Array], Array | None]:
    """Layers with Rᵀ (..., d_1, d_1) in place of W_1 = Rᵀ Qᵀ (..., d_1, d_0), and Qᵀ; d_1 ≪ d_0, else W_1 and None.

    Descent stays in the row space of W_1, with the same losses and norms of gradients.
    """
    first, *others = layers
    if not others or not is_thin(first.shape[-1], first.shape[-2]):
        return list(layers), None
    Q, R = np.linalg.qr(first.mT)
    return [R.mT.copy(), *others], Q.mT
