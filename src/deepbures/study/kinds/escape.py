"""Rates at which the gradient flow leaves saddles."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from ...flow.gradient_flow import gradient_flow, gradient_flows
from ...landscape import critical_points
from ...landscape.curvature import check_twice_differentiable
from ...linalg.psd import Array
from ...losses.registry import CovarianceLoss
from ...model.trajectory import FlowTrajectory
from ..cell import measure
from ..cell.problem import make_loss
from ..cell.settings import Settings
from ..grid.seeds import generator
from ..results.schema import COUNT, FLOAT, VECTOR, Tables, columns, schema

#: Flows from a start near a critical point: rate of the fastest escape, predicted and measured, and plateau time; and
#: near points of rank below k, with `lower_ranks`, flows that fill an empty column z of Z, S_bb = z^{2N}, with the
#: leading direction b outside J (`direction`): d log z/dt at this perturbation, δ where z grows exponentially and else
#: √δ, measured and in closed form
#: (`growth_rate`), and the rate of the flow linearised at the point (`filling_rate`, < 0 where z grows exponentially).
TABLES = {
    "escapes": schema(
        **measure.POINT,
        **columns(FLOAT, "loss_minimum", "perturbation"),
        escapes=COUNT,
        **columns(FLOAT, "escape_rate", "measured_rate", "plateau_time"),
        rates=VECTOR,
    ),
    "fillings": schema(
        **measure.POINT,
        direction=COUNT,
        **columns(FLOAT, "perturbation", "filling_rate", "growth_rate", "measured_rate"),
    ),
}
COST = 0.3
#: A plateau ends when the loss has fallen by the first fraction of L(W_J) − L*; up to the second the flow is linear.
PLATEAU_DROP, LINEAR_DROP = 1e-2, 1e-4
#: Length of the flow in units of ln(1/δ) / (escape rate).
HORIZON = 1.5
#: A filling is measured while log z, and the logarithm of the fastest escape, grow by at most this much.
_GROWTH = 1e-3


@dataclass(frozen=True)
class Options:
    """Keys of `landscape` in the configuration; see config/README.md."""

    points: int = field(metadata={"minimum": 2})
    perturbation: float = field(metadata={"exclusiveMinimum": 0, "exclusiveMaximum": 0.1})
    lower_ranks: bool = False


OPTIONS = {"landscape": Options}


def run(settings: Settings, seed: int) -> Tables:
    """Rows of the tables `escapes`, one for each critical point, and `fillings`.

    Each flow starts at W_J + δ ‖W_J‖ G/‖G‖ with a Gaussian matrix G (n, k), with √λ_1 in place of ‖W_J‖ at W_J = 0.
    Measured values are NaN at the minimum, which no flow leaves.
    """
    rank, depth, options = settings.rank, settings.depth, settings.options["landscape"]
    loss = make_loss(settings, seed)
    check_twice_differentiable(loss, rank)
    points = critical_points.spread(loss, rank, options.points)
    spectra = [critical_points.local_spectrum(loss, point.kept, depth, rank) for point in points]
    left = [i for i, spectrum in enumerate(spectra) if spectrum.escapes]
    escapes = [(float("nan"), float("nan"))] * len(points)
    if left:
        starts = [_beside(settings, seed, loss, points[i], options.perturbation) for i in left]
        horizons = [HORIZON * np.log(1 / options.perturbation) / spectra[i].escape_rate for i in left]
        flows = gradient_flows(loss, starts, depth, rank=rank, rtol=1e-6, max_time=horizons, samples=300)
        for i, flow in zip(left, flows, strict=True):
            escapes[i] = _leave(loss, points[i], rank, spectra[i], flow)
    rows = [
        {
            "point": i,
            **asdict(point),
            "loss_minimum": float(loss.minimum_value(rank)),
            "perturbation": options.perturbation,
            "escapes": spectrum.escapes,
            "escape_rate": spectrum.escape_rate,
            "measured_rate": rate,
            "plateau_time": plateau,
            "rates": np.sort(spectrum.rates),
        }
        for i, (point, spectrum, (plateau, rate)) in enumerate(zip(points, spectra, escapes, strict=True))
    ]
    fillings = _fillings(loss, depth, rank, options) if options.lower_ranks else ()
    return {"escapes": rows, "fillings": fillings}


def _fillings(loss: CovarianceLoss, depth: int, rank: int, options: Options) -> Iterator[dict[str, Any]]:
    """One row for each point of rank below k that is stationary and has empty columns that grow.

    For ε = 0 and N = 1 there is none: W_J is a kink, which the flow leaves at once.
    """
    if loss.has_kink and depth == 1:
        return
    points = critical_points.spread(loss, rank, options.points, lower_ranks=True)
    for number, point in enumerate(points):
        leading = next(j for j in range(loss.dimension) if j not in point.kept)
        if len(point.kept) < rank and loss.minimum_spectrum(loss.dimension)[leading] > 0:
            spectrum = critical_points.local_spectrum(loss, point.kept, depth, rank)
            yield {"point": number, **asdict(point), **_filling(loss, point, leading, depth, spectrum, options)}


def _filling(
    loss: CovarianceLoss,
    point: critical_points.CriticalPoint,
    b: int,
    depth: int,
    spectrum: critical_points.LocalSpectrum,
    options: Options,
) -> dict[str, float]:
    """How an empty column fills with the direction b, from W_J + δ ‖W_J‖ Ω_b eᵀ.

    S stays diagonal, and d log z/dt = −s^{1−1/N} β_b(s) where ∇L = diag(β(s)) F in the eigenbasis of the target, at the
    geometric mean of S_bb at both ends.
    """
    rate = float(spectrum.empty.min())
    perturbation = options.perturbation if rate < 0 else np.sqrt(options.perturbation)
    W = critical_points.factor(loss, point.kept, len(point.kept) + 1)
    size = perturbation * (np.linalg.norm(W) if point.kept else np.sqrt(loss.eigenvalues[0]))
    W[:, -1] = size * loss.eigenvector_columns([b])[:, 0]
    s = np.zeros(loss.dimension)
    s[list(point.kept)] = loss.minimum_spectrum(loss.dimension)[list(point.kept)]

    def growth(filled: float) -> float:
        s[b] = filled
        return float(-(filled ** (1 - 1 / depth)) * loss.multiplier(s)[b])

    end = _GROWTH / max(growth(float(size**2)), spectrum.escape_rate)
    flow = gradient_flow(loss, W, depth, [0.0, end], rank=W.shape[1], rtol=1e-10)
    first, last = np.linalg.norm(loss.eigenvectors[:, b] @ flow.factors, axis=-1)
    return {
        "direction": b,
        "perturbation": perturbation,
        "filling_rate": rate,
        "growth_rate": growth(float(first * last)),
        "measured_rate": float(np.log(last / first)) / (depth * end),
    }


def _beside(
    settings: Settings, seed: int, loss: CovarianceLoss, point: critical_points.CriticalPoint, perturbation: float
) -> Array:
    """W_J + δ ‖W_J‖ G/‖G‖, (n, k)."""
    rng = generator(
        settings.study_seed, "perturbation", seed, dimension=loss.dimension, rank=settings.rank, kept=point.kept
    )
    W = critical_points.factor(loss, point.kept, settings.rank)
    noise = rng.standard_normal(W.shape)
    size = np.linalg.norm(W) if point.kept else np.sqrt(loss.eigenvalues[0])
    return np.asarray(W + perturbation * size / np.linalg.norm(noise) * noise)


def _leave(
    loss: CovarianceLoss,
    point: critical_points.CriticalPoint,
    rank: int,
    spectrum: critical_points.LocalSpectrum,
    flow: FlowTrajectory,
) -> tuple[float, float]:
    """Length of the plateau and measured rate of the fastest escape; NaN if the flow does not leave before its end.

    Near W_J the pairs a in J, b outside J decouple, and (Ωᵀ S Ω)_ab grows like exp(|r_ab| t). Where an empty column
    fills with the direction b, the growing quantity is the b-th row of Ωᵀ W without its projection on the rows in J.
    """
    drop = (point.value - flow.loss) / (point.value - float(loss.minimum_value(rank)))

    outside = np.delete(np.arange(loss.dimension), point.kept)
    F = loss.eigenvectors.T @ flow.factors
    if spectrum.off_block.min(initial=np.inf) <= spectrum.empty.min(initial=np.inf):
        row, column = divmod(int(np.argmin(spectrum.off_block)), len(outside))
        grown = np.abs(np.sum(F[:, point.kept[row]] * F[:, outside[column]], axis=-1))
    else:
        filling = F[:, outside[int(np.argmin(spectrum.empty)) % len(outside)], None]
        full, _ = np.linalg.qr(F[:, list(point.kept)].mT)
        grown = np.linalg.norm(filling - filling @ full @ full.mT, axis=(-2, -1))
    linear = slice(0, int(np.argmax(drop > LINEAR_DROP)) or len(drop))
    rate = float(np.polyfit(flow.times[linear], np.log(grown[linear]), 1)[0])
    return _first_crossing(flow.times, drop, PLATEAU_DROP), rate


def _first_crossing(times: Array, drop: Array, level: float) -> float:
    """Time at which `drop` first exceeds `level`, interpolated in its logarithm."""
    above = np.flatnonzero(drop > level)
    if not len(above) or above[0] == 0:
        return float("nan")
    i = above[0]
    return float(np.interp(np.log(level), np.log(np.maximum(drop[i - 1 : i + 1], 1e-300)), times[i - 1 : i + 1]))
