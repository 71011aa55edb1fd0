"""Critical points over matrices of bounded rank, one for each index set J (paper.md section 3).

W_J = Ω_J diag(s_J)^{1/2} Vᵀ retains the directions Ω_a, a in J, of the target and leaves the others empty:
s_a = λ_a − ε > 0 for the Bures-Wasserstein loss, s_a = λ_a > 0 for the square loss. Its loss is
L(W_J) = Σ_{j∉J} c_j with the costs c_j = (√λ_j − √ε)² or λ_j² of the empty directions, so that points of one rank can
be ordered without computing matrices.
"""

import heapq
import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from ..linalg.psd import Array, equalized
from ..losses.registry import CovarianceLoss
from ..model.network import DeepLinearNetwork, check_depth

#: Largest number of index sets that `spread` enumerates in order of loss; each takes some microseconds.
MAX_WALK = 1_000_000


@dataclass(frozen=True)
class CriticalPoint:
    """The critical points of one index set J, which differ by V, a rotation of the input.

    Attributes
    ----------
    kept
        J, as increasing indices from 0; its size is the rank of the point.
    order
        Position by loss among the points that were enumerated, 0 the global minimum.
    value
        L(W_J), the sum over j not in J of (√λ_j − √ε)² or, for the square loss, λ_j².
    """

    kept: tuple[int, ...]
    order: int
    value: float


@dataclass(frozen=True, eq=False)
class LocalSpectrum:
    """Eigenvalues of minus the Jacobian of the reduced flow at W_J: rates of decay (> 0) and of escape (< 0).

    Apart from zeros they are also the eigenvalues of the Hessian of the deep loss at the balanced layers of W_J.

    Attributes
    ----------
    in_block : (r (r+1)/2,)
        Within the span of the r directions in J, all positive.
    off_block : (r (n−r),)
        Exchange of a in J for b outside, row by row; negative where λ_b > λ_a, and exactly 0 where the two agree to
        rounding: that exchange moves along a manifold of critical points.
    empty : ((k−r) (n−r),)
        Filling one of the k − r empty columns z of Z with a direction b outside J, column by column. N = 1:
        2 (1 − √(λ_b/ε)), or −4 λ_b for the square loss; N ≥ 2: 0, because S changes with z^{2N}. For ε = 0 the BW loss
        changes with √S_bb = z^N instead: N = 1: −∞, W_J is not stationary but at a kink that the flow leaves at once;
        N = 2: −2 √λ_b, so that S_bb grows like exp(8 √λ_b t); N ≥ 3: 0, the flow leaves algebraically.
    zeros
        The other entries of the Jacobian's spectrum, which has n k in all: r (r−1)/2 rotations of Z, and r (k−r).
    """

    in_block: Array
    off_block: Array
    empty: Array
    zeros: int

    @property
    def rates(self) -> Array:
        """All eigenvalues that are not zero by symmetry."""
        return np.concatenate([self.in_block, self.off_block, self.empty])

    @property
    def escape_rate(self) -> float:
        """The fastest escape, max |r| over r < 0; 0 where nothing escapes exponentially."""
        return float(max(0.0, -self.rates.min(initial=0.0)))

    @property
    def escapes(self) -> int:
        """Number of negative rates: pairs a in J, b not in J with λ_b > λ_a, and empty columns that grow exponentially.

        Empty columns count for N = 1, and for the BW loss with ε = 0 also for N = 2: (k−r) times the b with λ_b > ε.
        """
        return int(np.sum(self.rates < 0))


def index_sets(loss: CovarianceLoss, rank: int) -> Iterator[tuple[int, ...]]:
    """The index sets J of `rank` elements, lazily, in order of the loss at W_J.

    The first m of the C(n, k) sets cost O(m k log m), by best-first search: the successors of a set are those with one
    index replaced by the next one, and their loss is not lower. Ties come in order of J. There is no set if fewer than
    `rank` directions can be retained (λ_j > ε).
    """
    gain = _gain(loss)
    if not 0 <= rank <= loss.dimension:
        raise ValueError(f"rank must lie between 0 and the dimension {loss.dimension}, not {rank}")
    if rank > len(gain):
        return
    first = tuple(range(rank))
    waiting, seen = [(0.0, first)], {first}
    while waiting:
        _, J = heapq.heappop(waiting)
        yield J
        for i, a in enumerate(J):
            after = J[i + 1] if i + 1 < rank else len(gain)
            if a + 1 < after:
                successor = (*J[:i], a + 1, *J[i + 1 :])
                if successor not in seen:
                    seen.add(successor)
                    heapq.heappush(waiting, (float(gain[:rank].sum() - gain[list(successor)].sum()), successor))


def critical_points(loss: CovarianceLoss, rank: int, *, lower_ranks: bool = False) -> Iterator[CriticalPoint]:
    """The critical points over matrices of rank ≤ k, in order of their loss, lazily.

    Parameters
    ----------
    loss
        With one target. Where positive eigenvalues agree to rounding there is a continuum of critical points. The ones
        along the given eigenvectors are returned; those that differ only in tied directions have the same loss (to
        rounding) and come in order of J.
    rank
        k.
    lower_ranks
        Include the points with fewer than k directions, down to W = 0. They are critical points of every deep network
        with N ≥ 2, and for ε > 0 of the matrix loss, too.

    Notes
    -----
    If fewer than k of the λ_j exceed ε, no point has rank k; the minimum then has a lower rank, and all points
    are enumerated as with `lower_ranks`.
    """
    _one_target(loss)
    available = len(_gain(loss))
    if not 1 <= rank <= loss.dimension:
        raise ValueError(f"rank must lie between 1 and the dimension {loss.dimension}, not {rank}")
    ranks = range(min(rank, available) + 1) if lower_ranks or available < rank else [rank]
    merged = heapq.merge(*(_ordered(loss, r) for r in ranks))
    for order, (_, kept) in enumerate(merged):
        yield CriticalPoint(kept, order, value(loss, kept))


def count(loss: CovarianceLoss, rank: int, *, lower_ranks: bool = False) -> int:
    """Number of `critical_points`: C(m, k) for m directions that can be retained, or the sum over ranks ≤ k."""
    available = len(_gain(loss))
    if lower_ranks or available < rank:
        return sum(math.comb(available, r) for r in range(min(rank, available) + 1))
    return math.comb(available, rank)


def spread(loss: CovarianceLoss, rank: int, number: int, *, lower_ranks: bool = False) -> list[CriticalPoint]:
    """`number` of the critical points, spread evenly over their order from the global minimum to the last one.

    All of them if there are no more than that.

    Raises
    ------
    ValueError
        If there are more than a million points in all, which have to be enumerated.
    """
    total = count(loss, rank, lower_ranks=lower_ranks)
    if total > MAX_WALK:
        raise ValueError(
            f"rank {rank} of dimension {loss.dimension} has {total} critical points, more than the {MAX_WALK} "
            "that can be put in order; take the first ones of critical_points(loss, rank) instead"
        )
    if number < 1:
        raise ValueError(f"number must be at least 1, not {number}")
    orders = np.unique(np.linspace(0, total - 1, min(number, total)).round().astype(int))
    points = critical_points(loss, rank, lower_ranks=lower_ranks)
    steps = np.diff(orders, prepend=-1) - 1
    return [next(islice(points, int(skipped), None)) for skipped in steps]


def value(loss: CovarianceLoss, kept: tuple[int, ...]) -> float:
    """L(W_J) = Σ_{j∉J} c_j, c_j the costs of the empty directions."""
    return float(np.delete(loss.empty_costs(), _indices(loss, kept)).sum())


def factor(loss: CovarianceLoss, kept: tuple[int, ...], width: int | None = None) -> Array:
    """W_J = Ω_J diag(s_J)^{1/2}, the point with V = I, (n, width): |J| columns, then zeros."""
    vectors, values = _factors(loss, kept, len(kept) if width is None else width)
    return vectors * values


def network(
    loss: CovarianceLoss, kept: tuple[int, ...], depth: int, width: int, input_dimension: int | None = None
) -> DeepLinearNetwork:
    """Balanced layers of W_J: W_1 = s^{1/2N} [I 0], inner layers diag(s^{1/2N}), W_N = Ω_J s^{1/2N}.

    Parameters
    ----------
    loss, kept
        The loss, and J as in `CriticalPoint`.
    depth
        N. One layer is n × k, see `DeepLinearNetwork.of_factors`.
    width
        k ≥ |J|, the inner width. The other k − |J| columns are exactly zero.
    input_dimension
        d_0 ≥ k for N ≥ 2; default n.
    """
    d_0 = loss.dimension if input_dimension is None else input_dimension
    if d_0 < width and depth > 1:
        raise ValueError(f"input_dimension must be at least the width {width}, not {d_0}")
    return DeepLinearNetwork.of_factors(*_factors(loss, kept, width), np.eye(width, d_0), depth)


def _factors(loss: CovarianceLoss, kept: tuple[int, ...], width: int) -> tuple[Array, Array]:
    """Left singular vectors (n, k) and singular values (k,) of W_J: |J| of each, then zeros."""
    J = _indices(loss, kept)
    if width < len(J):
        raise ValueError(f"width must be at least the rank of the point, {len(J)}, not {width}")
    vectors, values = np.zeros((loss.dimension, width)), np.zeros(width)
    vectors[:, : len(J)], values[: len(J)] = loss.eigenvector_columns(J), np.sqrt(_retained_spectrum(loss)[J])
    return vectors, values


def local_spectrum(loss: CovarianceLoss, kept: tuple[int, ...], depth: int, rank: int) -> LocalSpectrum:
    """The whole spectrum of the reduced flow of N layers of inner width k at W_J, in closed form.

    For the BW loss, s_a = λ_a − ε: in-block 2 (s_a + s_b)/(λ_a + λ_b) · (s_a − s_b)/(s_a^{1/N} − s_b^{1/N}), off-block
    2 s_a^{1−1/N} (λ_a − λ_b)/(λ_a + √(ε λ_b)), and in empty columns 2 (1 − √(λ_b/ε)) for N = 1, else 0; for ε = 0 they
    are −∞, −2 √λ_b and 0 at N = 1, N = 2 and N ≥ 3. Source: paper.md section 4 (`closed_form_rates`, also for the
    square loss), ours.
    """
    check_depth(depth)
    J, n = _indices(loss, kept), loss.dimension
    if not max(1, len(J)) <= rank <= n:
        raise ValueError(f"rank must lie between {max(1, len(J))} and the dimension {n}, not {rank}")
    rates, filling = loss.local_rates(depth, J), loss.filling_rates(depth, J)
    if rates is None or filling is None:
        raise ValueError(f"the local spectrum of the loss {loss.name!r} is not known in closed form")
    free = rank - len(J)
    return LocalSpectrum(*rates, np.tile(filling, free), len(J) * (len(J) - 1) // 2 + len(J) * free)


def nearest(loss: CovarianceLoss, W: Array, rank: int) -> tuple[tuple[int, ...], float]:
    """The J of the critical point of rank ≤ k that W is closest to in its diagonal blocks, and ‖W Wᵀ − S_J‖_F.

    Within each group of equal eigenvalues the block of Ωᵀ W Wᵀ Ω is diagonalised, because any orthonormal frame of the
    group consists of eigenvectors. J has the directions of which the eigenvalue (for an untied direction the diagonal
    entry) exceeds s_a/2; if these are more than k, the k with the largest ratios to s_a. The first indices of a tied
    group represent all of it, and S_J is the nearest point of the manifold. It forms n × n arrays, which are smaller
    than the dense Hessian of a search.
    """
    F = loss.to_eigenbasis(W)
    S, spectrum = F @ F.T, _retained_spectrum(loss)
    ratio, frames = np.zeros(loss.dimension), np.eye(loss.dimension)
    for group in _tied_groups(loss):
        block, Q = np.linalg.eigh(S[np.ix_(group, group)])
        ratio[group] = block[::-1] / spectrum[group]
        frames[np.ix_(group, group)] = Q[:, ::-1]
    J = sorted(int(a) for a in np.argsort(-ratio, kind="stable")[:rank] if ratio[a] > 0.5)
    return tuple(J), float(np.linalg.norm(S - (frames[:, J] * spectrum[J]) @ frames[:, J].T))


def _ordered(loss: CovarianceLoss, rank: int) -> Iterator[tuple[float, tuple[int, ...]]]:
    """Index sets in order of the loss, which precedes each; tied directions have equal costs in it."""
    costs = _tied_costs(loss)
    return ((float(np.delete(costs, J).sum()), J) for J in index_sets(loss, rank))


def _tied_spectrum(loss: CovarianceLoss) -> Array:
    """λ, with equal numbers where eigenvalues agree to rounding, with one another or with ε."""
    return equalized(loss.eigenvalues, float(loss.epsilon))


def _tied_costs(loss: CovarianceLoss) -> Array:
    """The cost of each empty direction, the same number for tied ones."""
    _, first, group = np.unique(-_tied_spectrum(loss), return_index=True, return_inverse=True)
    return loss.empty_costs()[first][group]


def _tied_groups(loss: CovarianceLoss) -> list[NDArray[np.int64]]:
    """Indices of the directions that can be retained, in groups of equal eigenvalues."""
    spectrum = _tied_spectrum(loss)[_retained_spectrum(loss) > 0]
    return np.split(np.arange(len(spectrum)), np.flatnonzero(np.diff(spectrum)) + 1) if len(spectrum) else []


def _retained_spectrum(loss: CovarianceLoss) -> Array:
    """s_a for each direction, 0 where it cannot be retained."""
    return loss.minimum_spectrum(loss.dimension)


def _gain(loss: CovarianceLoss) -> Array:
    """Decrease of the loss by each of the m directions that can be retained (the first m), largest first."""
    _one_target(loss)
    return _tied_costs(loss)[_retained_spectrum(loss) > 0]


def _one_target(loss: CovarianceLoss) -> None:
    if loss.shape != ():
        raise ValueError(f"loss must have one target, not a stack of shape {loss.shape}")


def _indices(loss: CovarianceLoss, kept: tuple[int, ...]) -> NDArray[np.int64]:
    """J as an array of integers; ValueError unless its directions are distinct and can be retained."""
    _one_target(loss)
    J = np.asarray(kept, dtype=np.int64)
    if len(set(kept)) < len(J) or np.any((J < 0) | (loss.dimension <= J)):
        raise ValueError(f"kept must hold different indices from 0 to {loss.dimension - 1}, not {tuple(kept)}")
    cannot = J[_retained_spectrum(loss)[J] == 0]
    if len(cannot):
        raise ValueError(
            f"kept must hold directions with λ_j above epsilon: index {cannot[0]} has {loss.eigenvalues[cannot[0]]:.6g}"
        )
    return J
