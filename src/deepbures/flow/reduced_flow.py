"""The flow of all N layers from a balanced start, in coordinates of which the number does not grow with N.

`FactorFlow` follows the n×k matrix Z, for every loss. With G = Zᵀ Z and any C such that C Cᵀ = G^{N−1}, F = Z C is
a factor of the end-to-end covariance, S = F Fᵀ = Z G^{N−1} Zᵀ, and (paper.md section 4)

    dZ/dt = −∇L(F) Cᵀ,    Z(0) = U_k diag(s^{1/N})  where  W(0) = U diag(s) Vᵀ,

because the gradient at W is B(S) W: ∇L(Z C) Cᵀ = B Z G^{N−1}. It costs one decomposition, in ∇L, and about 2 log₂ N
products of k×k matrices.

`RootFlow` follows X = Z Zᵀ = S^{1/N}, or for k < n a Z of its own choice, in the target's eigenbasis:
dX/dt = −(B S + S B), which has an entrywise Jacobian near a diagonal X. `collocation` integrates this form.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..linalg.powers import geometric_sum, integer_power
from ..linalg.psd import Array, symmetrize
from ..losses.base import CovarianceLoss

#: A stage with a larger ‖F‖² is refused before any decomposition: products with it may overflow.
_OVERSHOOT = 1e100
#: Largest coefficient of a row of Z in the chosen rows.
_LARGEST_COEFFICIENT = 2.0
#: Step of the differences that replace a Jacobian, relative to |Z|: the cube root of the rounding error.
_DIFFERENCE = 1e-5
#: Rows whose least singular value is a smaller fraction of |Z| count as dependent.
_DEPENDENT = 1e-7


class FactorFlow:
    """The reduced flow dZ/dt = −∇L(F) Cᵀ of a stack of starts in Z (n × k), in the eigenbases of the targets.

    Parameters
    ----------
    loss
        Any loss, with one target for all starts or one for each.
    depth
        N.
    """

    def __init__(self, loss: CovarianceLoss, depth: int) -> None:
        self.loss, self.depth = loss, depth

    def take(self, members: NDArray[np.intp] | NDArray[np.bool_]) -> FactorFlow:
        """The flows of some members."""
        return FactorFlow(self.loss.take(members), self.depth)

    def factor(self, Z: Array) -> Array:
        """F = Z C, a factor of the end-to-end covariance; (..., n, k)."""
        return Z @ half_power(Z, self.depth)

    def field(self, Z: Array) -> Array:
        """−∇L(F) Cᵀ at Z (..., n, k); NaN for a stage that overshoots, so that the integrator shrinks the step."""
        C = half_power(Z, self.depth)
        F, refused = _without_overshoots(Z @ C)
        field = -(self.loss.form(F.shape[-1]).gradient(F) @ C.mT)
        field[refused] = np.nan
        return field

    def jacobian(self, Z: Array) -> Array:
        """Derivative of `field` at one Z (n, k), as a matrix (nk, nk) that acts on the rows of Z one after the other.

        With the symmetric root P = G^{(N−1)/2} of G^{N−1} and F = Z P, dF = dZ P + Z dP, it is
        −∇²L(F)[dF] P − ∇L(F) dP. In the eigenbasis of G = V diag(z²) Vᵀ, dP has the entries of dG times the divided
        differences (z_a^{N−1} − z_b^{N−1})/(z_a² − z_b²). Where F has not rank k to rounding and the loss no Hessian
        there (ε = 0), it consists of differences of the field instead.
        """
        n, k = Z.shape
        _, z, Vt = np.linalg.svd(Z, full_matrices=False)
        V = Vt.T
        P = (V * z ** (self.depth - 1)) @ Vt
        F, dZ = Z @ P, np.eye(n * k).reshape(n * k, n, k)
        form = self.loss.form(k)
        try:
            product = form.hessian_operator(F)
        except ValueError:
            h = _DIFFERENCE * np.linalg.norm(Z)
            return (self.field(Z + h * dZ) - self.field(Z - h * dZ)).reshape(n * k, n * k).T / (2 * h)
        differences = geometric_sum(z[:, None], z, self.depth - 1) / (z[:, None] + z)
        half = dZ.mT @ Z
        dP = V @ (differences * (Vt @ (half + half.mT) @ V)) @ Vt
        change = product(dZ @ P + Z @ dP) @ P + form.gradient(F) @ dP
        return -change.reshape(n * k, n * k).T


class RootFlow:
    """The reduced flow of a stack of starts of one rank k in X = S^{1/N}, in the eigenbases of the targets.

    For k = n the state is X, and dX/dt = −(B S + S B) with ∇L(F) = B F. For k < n it is the Z (n × k) with X = Z Zᵀ of
    which the rows H = Z_J are symmetric positive definite; J are k coordinates, which come first in the `order` of the
    coordinates (ours; paper.md section 11):

        dZ/dt = −∇L(F) Cᵀ + Z A,    A antisymmetric,    H A + A H = V_Jᵀ − V_J  with  V = −∇L(F) Cᵀ.

    The only divisors are sums of two eigenvalues of H. So columns that are still small beside others, as on a plateau,
    retain the digits that X_{:,J} loses.

    Parameters
    ----------
    loss
        One target for all starts, or one for each. Its linear part must be known (`has_linear_part`).
    depth
        N.
    order : (B, n), optional
        For k < n, the coordinates of each start, J first.
    accuracy
        Relative error allowed in the transport map of the gradient besides rounding.

    Notes
    -----
    The exact flow preserves rank and definiteness, and the state can represent rank k only. A step that ends where X_J
    or H is not positive definite is refused. So is a stage, except for even N and k = n, where F = X^{N/2} is a factor
    of X^N for indefinite X, too.
    """

    def __init__(
        self, loss: CovarianceLoss, depth: int, order: NDArray[np.intp] | None = None, accuracy: float = 0.0
    ) -> None:
        self.loss, self.depth, self.order, self.accuracy = loss, depth, order, accuracy

    def take(self, members: NDArray[np.intp] | NDArray[np.bool_]) -> RootFlow:
        """The flows of some members."""
        order = None if self.order is None else self.order[members]
        return RootFlow(self.loss.take(members), self.depth, order, self.accuracy)

    def field(self, P: Array) -> tuple[Array, Array]:
        """dX/dt for k = n, dZ/dt for k < n, at P (..., B, n, k), and ‖∇L(F)‖² (..., B); NaN where P overshoots."""
        C = None if self.order is None else half_power(P, self.depth)
        F, refused = _without_overshoots(root_factor(P, self.depth) if C is None else P @ C)
        form = self.loss.form(F.shape[-1]).to_accuracy(self.accuracy).near_diagonal()
        gradient = _reordered(form.gradient(in_eigenbasis(F, self.order)), self.order)
        if C is None:
            half = gradient @ F.mT
            field: Array = -(half + half.mT)
        else:
            field = _turned(P, -gradient @ C.mT)
        field[refused] = np.nan
        return field, np.sum(gradient * gradient, axis=(-2, -1))

    def jacobian(self, P: Array, members: NDArray[np.intp]) -> Array:
        """J, the entrywise linear part of the field near the states P of some members, (b, n, k).

        For k = n, J_ab = −D_ab Q_ab with D_ab = (x_a^N − x_b^N)/(x_a − x_b), x = diag X, and Q the `curvature` of the
        loss at s = diag S: d(B S + S B)_ab = Q_ab dS_ab. For k < n this is the Jacobian of X_ab = z_a Z_ab + Z_ab z_b,
        z the diagonal of H and 0 outside J, and that of Z_ab is J_ab − (z_a' + z_b')/(z_a + z_b), with
        z' = −b z^{2N−1} and b = diag B, the `multiplier` of the loss.
        """
        k = P.shape[-1]
        order = None if self.order is None else self.order[members]
        if order is None:
            x = np.maximum(np.diagonal(P, axis1=-2, axis2=-1), 0.0)
            spectrum = x**self.depth
        else:
            x = np.sum(P**2, axis=-1)
            spectrum = in_eigenbasis(np.sum(root_factor(P, self.depth) ** 2, axis=-1, keepdims=True), order)[..., 0]
        differences = geometric_sum(x[..., :, None], x[..., None, :k], self.depth)
        loss = self.loss.take(members)
        Q = _reordered(loss.curvature(spectrum, None if order is None else order[:, :k]), order)
        J = -differences * Q
        if order is None:
            return J
        z, speed = np.zeros_like(x), np.zeros_like(x)  # z_a, and minus its velocity
        z[..., :k] = np.sqrt(x[..., :k])
        b = _reordered(loss.multiplier(spectrum)[..., None], order)[..., :k, 0]
        speed[..., :k] = b * z[..., :k] ** (2 * self.depth - 1)
        J += (speed[..., :, None] + speed[..., None, :k]) / (z[..., :, None] + z[..., None, :k])
        return J

    def projected(self, P: Array) -> Array:
        """P (..., n, k) with its first k rows made symmetric, which rounding errors prevent."""
        k = P.shape[-1]
        if self.order is None:
            return (P + P.mT) / 2
        top = P[..., :k, :]
        return np.concatenate([(top + top.mT) / 2, P[..., k:, :]], axis=-2)

    def admissible(self, P: Array) -> NDArray[np.bool_]:
        """Whether a step may end at P: X, or H, is positive definite; (B,)."""
        return np.isfinite(_cholesky(P[..., : P.shape[-1], :])[..., -1, -1])

    def frame(self, member: int) -> NDArray[np.intp] | None:
        """The order of the coordinates of a member; None for k = n."""
        return None if self.order is None else self.order[member].copy()

    def moved(self, P: Array, members: NDArray[np.intp]) -> NDArray[np.bool_]:
        """Choose another J where the rows in J determine Z badly, and return which members these are, (b,).

        Changes P (b, n, k) in place.
        """
        changed, k = np.zeros(len(members), dtype=bool), P.shape[-1]
        if self.order is None:
            return changed
        for i, member in enumerate(members):
            order = pivoted(P[i])
            if (order[:k] != np.arange(k)).any():
                P[i] = symmetric_top(P[i][order])
                self.order[member] = self.order[member][order]
                changed[i] = True
        return changed


def pivoted(Z: Array) -> NDArray[np.intp]:
    """An order of the rows of Z, (n, k), in which the first k determine the others stably.

    Z_rest = K Z_first; rows are exchanged while a coefficient |K_ab| exceeds 2, each time of which at least doubles
    |det Z_first| (Gu and Eisenstat 1996, strong rank-revealing factorisation).
    """
    n, k = Z.shape
    order = np.arange(n)
    if k < n:
        if not np.linalg.svd(Z[:k], compute_uv=False)[-1] > _DEPENDENT * np.linalg.norm(Z):  # nearly dependent
            order = _greedy(Z)
        while True:
            rows = Z[order]
            coefficients = np.linalg.solve(rows[:k].T, rows[k:].T)  # Kᵀ, (k, n − k)
            a, b = np.unravel_index(np.argmax(np.abs(coefficients)), coefficients.shape)
            if not np.abs(coefficients[a, b]) > _LARGEST_COEFFICIENT:
                break
            order[[a, k + b]] = order[[k + b, a]]
    return order


def _greedy(Z: Array) -> NDArray[np.intp]:
    """An order of the rows by pivoted Gram-Schmidt: k times the longest remainder, then the other rows."""
    from scipy.linalg import qr  # imported here: few starts need it

    n, k = Z.shape
    picked = qr(Z.T, mode="r", pivoting=True)[1][:k]
    return np.concatenate([picked, np.setdiff1d(np.arange(n), picked)])


def root(P: Array) -> Array:
    """Z with Z Zᵀ = X: for k = n the L of X = L Lᵀ, NaN where X is not positive definite; for k < n the state."""
    return _cholesky(P) if P.shape[-2] == P.shape[-1] else P


def symmetric_top(Z: Array) -> Array:
    """Z V Uᵀ, whose first k rows are the symmetric positive semidefinite factor of those of Z, U s Vᵀ; (n, k)."""
    U, _, Vh = np.linalg.svd(Z[: Z.shape[1]])
    turned = Z @ (U @ Vh).T
    turned[: Z.shape[1]] = symmetrize(turned[: Z.shape[1]])
    return turned


def _turned(Z: Array, velocity: Array) -> Array:
    """velocity + Z A with the antisymmetric A that keeps the first k rows H of Z symmetric.

    H A + A H = V_{1..k}ᵀ − V_{1..k}, solved in the eigenbasis of H; NaN where H is not positive definite.
    """
    k = Z.shape[-1]
    top = velocity[..., :k, :]
    valid = np.asarray(np.isfinite(Z).all(axis=(-2, -1)) & np.isfinite(velocity).all(axis=(-2, -1)))
    h, V = np.linalg.eigh(np.where(valid[..., None, None], Z[..., :k, :], 0.0))
    definite: NDArray[np.bool_] = np.asarray(valid & (h[..., 0] > 0))
    h = np.where(definite[..., None], h, np.nan)
    rotation = V.mT @ (top.mT - top) @ V / (h[..., :, None] + h[..., None, :])
    return velocity + Z @ (V @ rotation @ V.mT)


def half_power(Z: Array, depth: int) -> Array:
    """C with C Cᵀ = (Zᵀ Z)^{N−1}, (..., k, k).

    For even N the odd factor Zᵀ Z is that of Zᵀ itself where Z is square, and of R_Zᵀ from a QR where not.
    """
    n, k = Z.shape[-2:]
    half, transposed = (depth - 1) // 2, Z.mT
    if depth % 2:
        return integer_power(transposed @ Z, half)
    root = transposed
    if n > k:
        root = np.linalg.qr(Z, mode="raw")[0][..., :k] * np.tri(k)  # LAPACK's geqrf, transposed
    return integer_power(transposed @ Z, half) @ root if half else root


def nearest_factor(P: Array, depth: int) -> Array:
    """`root_factor` of one state X (n, n) that is semidefinite up to an error: negative eigenvalues count as 0."""
    x, V = np.linalg.eigh(symmetrize(P))
    return V * np.sqrt(np.maximum(x, 0)) ** depth


def root_factor(P: Array, depth: int) -> Array:
    """F with F Fᵀ = S = X^N, for the state P of a `RootFlow`; NaN where there is none.

    For k = n it is X^{N/2}, or X^{(N−1)/2} L with X = L Lᵀ; else Z C with C = `half_power`.
    """
    half = depth // 2
    if P.shape[-2] == P.shape[-1]:
        if depth % 2 == 0:
            return integer_power(P, half)
        L = _cholesky(P)
        return integer_power(P, half) @ L if half else L
    return P @ half_power(P, depth)


def _without_overshoots(F: Array) -> tuple[Array, NDArray[np.bool_]]:
    """F (..., n, k) with 0 in place of matrices that are too large or NaN, and a mask of these."""
    refused = np.asarray(~(np.sum(F * F, axis=(-2, -1)) < _OVERSHOOT))
    return np.where(refused[..., None, None], 0.0, F) if refused.any() else F, refused


def _reordered(rows: Array, order: NDArray[np.intp] | None) -> Array:
    """Rows (..., B, n, d) in the order of each member, (B, n)."""
    if order is None:
        return rows
    index = np.broadcast_to(order[..., None], rows.shape)
    return np.take_along_axis(rows, index, axis=-2)


def in_eigenbasis(rows: Array, order: NDArray[np.intp] | None) -> Array:
    """Rows (..., B, n, d) back from the order of each member."""
    return rows if order is None else _reordered(rows, np.argsort(order, axis=-1))


def _cholesky(matrices: Array) -> Array:
    """L with L Lᵀ = A for each matrix of a stack, NaN where A is not positive definite."""
    try:
        return np.linalg.cholesky(matrices)
    except np.linalg.LinAlgError:
        found = np.full_like(matrices, np.nan)
        for i in np.ndindex(matrices.shape[:-2]):
            try:
                found[i] = np.linalg.cholesky(matrices[i])
            except np.linalg.LinAlgError:
                continue
        return found
