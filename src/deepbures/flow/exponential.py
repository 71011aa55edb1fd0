"""φ-functions, and the weights of a polynomial under a diagonal linear flow, for exponential collocation.

For y' = f(y) with f(y) = f_n + J∘(y − y_n) + g(θ), t = t_n + θh, J a number for each entry of y and g a
polynomial with g(0) = 0, variation of constants gives (paper.md section 11; Hochbruck and Ostermann 2010)

    y(t_n + θh) = y_n + hθ φ_1(θhJ) f_n + h Σ_q q! θ^{q+1} φ_{q+1}(θhJ) a_q,    g(θ) = Σ_{q=1}^m a_q θ^q,

which is exact where f is linear, however large hJ is.
"""

from collections.abc import Sequence
from math import factorial

import numpy as np
from numpy.polynomial import Legendre, Polynomial

from ..linalg.psd import Array

#: Up to this |z| the highest φ is computed by its Taylor series and the lower ones from it; beyond it all are computed
#: upwards from e^z. The first recursion multiplies by z, the second divides by it, and each is stable on its side.
_SERIES_RADIUS = 2.0
#: Terms of the series: the next is 2^22 p!/(p + 22)! < 1e-18 of the first, for every order p ≥ 2.
_SERIES_TERMS = 22


def phi_functions(z: Array, order: int) -> list[Array]:
    """φ_0(z), …, φ_p(z), p ≥ 1, each of the shape of z: φ_0 = e^z, φ_k(z) = (φ_{k−1}(z) − 1/(k−1)!) / z.

    φ_k(z) = Σ_j z^j/(j+k)! = ∫_0^1 e^{(1−s)z} s^{k−1}/(k−1)! ds > 0. The relative error is at most 6e-15 up to order 6
    (2e-14 at order 7), for z of either sign, until e^z leaves the range of floats.
    """
    z = np.asarray(z, dtype=float)
    small = np.abs(z) < _SERIES_RADIUS
    divisor = np.where(small, 1.0, z)
    phi = [np.exp(z), np.expm1(z) / divisor]
    for k in range(2, order + 1):
        phi.append((phi[-1] - 1 / factorial(k - 1)) / divisor)
    near = z[small]
    value = np.full_like(near, 1 / factorial(order + _SERIES_TERMS))
    for k in range(_SERIES_TERMS - 1, -1, -1):
        value *= near
        value += 1 / factorial(order + k)
    for k in range(order, 0, -1):
        phi[k][small] = value
        value = value * near + 1 / factorial(k - 1)
    return phi


def lobatto_nodes(count: int) -> Array:
    """c_1 < … < c_m = 1: the m + 1 Lobatto points on [0, 1] without 0, i.e. the zeros of P'_m(2c − 1), and 1."""
    interior = Legendre.basis(count).deriv().roots()
    return np.append((np.sort(np.real(interior)) + 1) / 2, 1.0)


class Collocation:
    """Polynomials g of degree m with g(0) = 0 through m nodes, integrated under a diagonal linear flow.

    Parameters
    ----------
    count
        m ≥ 2, the number of nodes.

    Attributes
    ----------
    nodes : (m,)
        c_1 < … < c_m = 1, see `lobatto_nodes`.

    Notes
    -----
    Arrays of values at nodes, of coefficients a_q and of weights have the node or q as their first axis.
    Everything else is elementwise, so each member's result is bitwise the same as when run alone.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self.nodes = lobatto_nodes(count)
        powers = np.arange(1, count + 1)
        self._fit = np.linalg.solve(self.nodes[:, None] ** powers, np.eye(count))
        # The nodes 0, c_1, …, c_{m−1} of the last step lie at θ = (c − 1) h_last/h of the next one.
        before = np.append(0.0, self.nodes[:-1])[:, None] - 1
        self._extrapolate = np.linalg.solve(before**powers, np.eye(count))
        self._legendre = [
            Legendre.basis(degree, domain=[0, 1]).convert(kind=Polynomial, domain=[0, 1], window=[0, 1]).coef
            for degree in (count - 1, count)
        ]

    def coefficients(self, values: Array) -> list[Array]:
        """a_1, …, a_m from g at the nodes."""
        return [combine(row, values) for row in self._fit]

    def extrapolated(self, values: Array, ratio: Array) -> list[Array]:
        """a_1, …, a_m of the next step, from g at the nodes 0, c_1, …, c_{m−1} of the last one.

        Parameters
        ----------
        values : (m, ...)
            g with the linear part of the next step, so that it is 0 at the end of the last step.
        ratio
            h/h_last, broadcast against g.
        """
        return [combine(row, values) * ratio**q for q, row in enumerate(self._extrapolate, start=1)]

    def weights(self, z: Array, theta: float | Array) -> list[Array]:
        """θ φ_1(θz), and q! θ^{q+1} φ_{q+1}(θz) for q = 1, …, m, with z = hJ."""
        phi = phi_functions(theta * z, self.count + 1)
        return [theta * phi[1]] + [factorial(q) * theta ** (q + 1) * phi[q + 1] for q in range(1, self.count + 1)]

    def highest(self, coefficients: Sequence[Array]) -> tuple[Array, Array]:
        """Coefficients of the (shifted) Legendre polynomials of degree m − 1 and m in g."""
        m, (lower, upper) = self.count, self._legendre
        top = coefficients[m - 1] / upper[m]
        return (coefficients[m - 2] - top * upper[m - 1]) / lower[m - 1], top


def combine(factors: Array | Sequence[Array], terms: Array | Sequence[Array]) -> Array:
    """Σ_i a_i b_i of factors a and terms b, in this order for every entry."""
    total = factors[0] * terms[0]
    for factor, term in zip(factors[1:], terms[1:], strict=True):
        total += factor * term
    return total
