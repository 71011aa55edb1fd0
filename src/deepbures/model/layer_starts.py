"""Layers with the end-to-end matrix of balanced ones: without balance, or wider."""

from collections.abc import Sequence

import numpy as np

from ..linalg.psd import Array, symmetrize


def without_balance(rng: np.random.Generator, layers: Sequence[Array], size: float) -> list[Array]:
    """W_j ↦ C_j W_j C_{j−1}^{-1}, with C_0 = I, C_N = I and C_j = exp(size · A_j): the same W, another balance.

    A_j is a Gaussian symmetric matrix of spectral norm 1, so that the condition of C_j is at most e^{2 size}.

    Parameters
    ----------
    rng
        Stream of the draw.
    layers : N arrays (d_j, d_{j−1})
        W_1, …, W_N. One layer stays as it is.
    size
        ≥ 0; 0 gives the layers themselves.
    """
    changed = [np.array(layer) for layer in layers]
    for j in range(len(layers) - 1):
        width = changed[j].shape[0]
        A = symmetrize(rng.standard_normal((width, width)))
        values, vectors = np.linalg.eigh(A)
        values = size * values / max(np.abs(values).max(), np.finfo(float).tiny)
        changed[j] = (vectors * np.exp(values)) @ (vectors.T @ changed[j])
        changed[j + 1] = (changed[j + 1] @ vectors * np.exp(-values)) @ vectors.T
    return changed


def widened(layers: Sequence[Array], width: int) -> list[Array]:
    """The layers with every hidden width raised to h by rows and columns of zeros: the same W, and the same balance.

    The flow and descent never fill these: ∂L/∂W_j has zeros there, too, because the layers beside are zero. So S(t)
    from balanced layers does not depend on h (paper.md section 4, ours).

    Raises
    ------
    ValueError
        If h is below a hidden width.
    """
    widest = max((layer.shape[0] for layer in layers[:-1]), default=width)
    if width < widest:
        raise ValueError(f"width must be at least the hidden width {widest}, not {width}")
    last = len(layers) - 1
    padded = []
    for j, layer in enumerate(layers):
        rows = width - layer.shape[0] if j < last else 0
        columns = width - layer.shape[1] if j > 0 else 0
        padded.append(np.pad(layer, ((0, rows), (0, columns))))
    return padded
