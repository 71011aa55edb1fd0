"""Convergence slopes d log10(L − L*)/dt of a recorded loss curve, in decades per unit time (negative: decay)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ..linalg.psd import Array

#: The authors' constants (paper.md section 7): sampling interval, band of log10 |L − L*|, window, horizon.
SAMPLING = 1e-4
BAND = (-3.5, -2.0)
WINDOW = 0.1
HORIZON = 3.0
#: A tail is settled where the slopes of the two halves of its window agree to this relative difference. For a sum of
#: two exponentials with a settled tail, of which the slower one contributes 99 % of the last value, the fit gives the
#: slower rate to 0.6 %.
SETTLED = 0.005
#: If the ratio of successive differences of the rate exceeds this, they are not extrapolated as an exponential.
_SLOWEST_DECAY = 0.9
#: Fraction of the last time at which the fit of a power law begins, so that it covers half a decade.
POWER_LAW_START = 10**-0.5


class SlopeFit(NamedTuple):
    """Slope of log10(L − L*) against time, r² of the regression, and its interval; NaN where there is none."""

    slope: float
    r_squared: float
    start: float
    end: float

    @classmethod
    def none(cls) -> SlopeFit:
        """The fit of a curve that has no such slope: all NaN."""
        return cls(*[float("nan")] * 4)


def authors_slope(times: Array, excess: Array, step_size: float) -> SlopeFit:
    """Convergence slope by the authors' definition (paper.md section 7), for samples at every step.

    Take y = log10 |L − L*|, finite values only; every s-th value of its exponentially weighted mean of span s = 1e-4/η;
    the longest run of these with −3.5 < y < −2; and the regression of the raw y on t over the 0.1 time units that end
    at the last sample of that run.

    Parameters
    ----------
    times, excess : (m,)
        t and L − L* at consecutive steps, spaced by `step_size`.
    step_size
        η ≤ 1e-4. A flow may be sampled at η = 1e-4, where the mean is y itself.
    """
    y, finite = _log10_finite(excess)
    t = np.asarray(times)[finite]
    span = max(round(SAMPLING / step_size), 1)
    smooth = _weighted_mean(y, span)[::span]
    inside = (smooth > BAND[0]) & (smooth < BAND[1])
    if not inside.any():
        return SlopeFit.none()
    edges = np.flatnonzero(np.diff(np.concatenate([[False], inside, [False]])))
    starts, stops = edges[::2], edges[1::2]
    last = (stops[np.argmax(stops - starts)] - 1) * span
    first = max(last - round(WINDOW / step_size), 0)
    return _regress(t[first : last + 1], y[first : last + 1])


def authors_slope_of_flow(times: Array, excess: Array, gradient_norm: Array) -> SlopeFit:
    """The authors' slope of a gradient flow, sampled every 1e-4 up to their horizon t = 3.

    Parameters
    ----------
    times, excess, gradient_norm : (m,)
        Samples of the flow, from t = 0. Between them log10(L − L*) is interpolated by cubics with the exact
        derivative dL/dt = −‖∇L^N‖².
    """
    from scipy.interpolate import CubicHermiteSpline  # imported here: it takes a tenth of a second to load

    positive = excess > 0
    times, excess, gradient_norm = times[positive], excess[positive], gradient_norm[positive]
    if len(times) < 2:
        return SlopeFit.none()
    y = np.log10(excess)
    derivative = -(gradient_norm**2) / (excess * np.log(10))
    below = np.flatnonzero(y < BAND[0])
    end = min(HORIZON, times[below[0]] if below.size else times[-1])
    t = np.arange(0, end + SAMPLING / 2, SAMPLING)
    return authors_slope(t, 10 ** CubicHermiteSpline(times, y, derivative)(t), SAMPLING)


def authors_slope_of_descent(times: Array, excess: Array) -> SlopeFit:
    """The authors' slope of gradient descent recorded at even times, every 1e-4 or more often; else NaN."""
    spacing = np.diff(times)
    if len(spacing) < 3 or spacing[0] > SAMPLING * (1 + 1e-9) or not np.allclose(spacing[:-1], spacing[0], rtol=1e-6):
        return SlopeFit.none()
    return authors_slope(times, excess, spacing[0])


def settling_time(times: Array, excess: Array, factor: float = 1e-6) -> float:
    """First time at which L − L* is at most `factor` times its initial value; NaN if there is none.

    Between samples log(L − L*) is interpolated linearly.
    """
    level = factor * excess[0]
    below = np.flatnonzero(excess <= level)
    if not below.size:
        return float("nan")
    i = below[0]
    if i == 0 or excess[i] <= 0:
        return float(times[i])
    fraction = np.log(excess[i - 1] / level) / np.log(excess[i - 1] / excess[i])
    return float(times[i - 1] + fraction * (times[i] - times[i - 1]))


def tail_slope(times: Array, excess: Array, decades: float = 3.0) -> SlopeFit:
    """Slope of log10(L − L*) on t over the last `decades` of decay, to compare with the asymptotic rate of theory.

    Parameters
    ----------
    times, excess : (m,)
        Samples of a run that ended in its exponential tail, above the noise floor.
    decades
        How far above the last sample, in powers of ten, the regression begins.
    """
    t, y = _tail(times, excess, decades)
    return _regress(t, y)


def tail_drift(times: Array, excess: Array, decades: float = 3.0) -> float:
    """Relative change of the slope within the tail: |slope_1/slope_2 − 1| for the two halves of its window.

    Each half covers `decades`/2 of decay. In the end L − L* is a sum of exponentials with positive weights, and its
    slope flattens steadily to that of the slowest one. So a drift above `SETTLED` shows that the tail is not reached.
    A small drift does not show that it is: a slow direction with a tiny weight has no effect on it (see the column
    `slowest_share`). NaN where there is no tail.
    """
    t, y = _tail(times, excess, decades)
    if not len(y):
        return float("nan")
    middle = int(np.searchsorted(-y, -(y[-1] + decades / 2)))
    early, late = _regress(t[: middle + 1], y[: middle + 1]), _regress(t[middle:], y[middle:])
    return abs(early.slope / late.slope - 1)


def limit_rate(times: Array, excess: Array, gradient_norm: Array, decades: float = 2.0) -> float:
    """Limit of the rate −d log(L − L*)/dt = ‖∇L^N‖²/(L − L*) of a flow, extrapolated from its tail.

    In the end L − L* is a sum of exponentials, and its rate tends to the slowest one like an exponential. The limit is
    Aitken's r_3 + Δ_2 q/(1 − q), q = Δ_2/Δ_1, for the rates r_1, r_2, r_3 at three evenly spaced times and their
    differences Δ_1 and Δ_2. Valid for a settled tail (see `tail_drift`).

    Parameters
    ----------
    times, excess, gradient_norm : (m,)
        Samples of a flow that ended in its exponential tail.
    decades
        How far above the last sample, in powers of ten, the first of the three times is.
    """
    from scipy.interpolate import PchipInterpolator  # imported here: it takes a tenth of a second to load

    t, y, finite = _last_decades(times, excess, decades)
    if not len(t):
        return float("nan")
    rate = (gradient_norm[finite] ** 2 / excess[finite])[-len(t) :]
    start = np.interp(-(y[-1] + decades), -y, t)
    early, middle = PchipInterpolator(t, rate)([start, (start + t[-1]) / 2])
    return _extrapolated(early, middle, rate[-1])


def limit_slope(times: Array, excess: Array, decades: float = 2.0) -> float:
    """Limit of −d log(L − L*)/dt from the excess alone, extrapolated from the tail: of descent, too.

    As `limit_rate`, for the mean rates over three equal intervals: those of exponentials that decay by a factor per
    step, too, tend to the limit like an exponential. Between samples log(L − L*) is interpolated.

    Parameters
    ----------
    times, excess : (m,)
        Samples of a run that ended in its exponential tail.
    decades
        How far above the last sample, in powers of ten, the first interval begins.
    """
    from scipy.interpolate import PchipInterpolator  # imported here: it takes a tenth of a second to load

    t, y, _ = _last_decades(times, excess, decades)
    if len(t) < 4:
        return float("nan")
    edges = np.linspace(np.interp(-(y[-1] + decades), -y, t), t[-1], 4)
    return _extrapolated(*(-np.log(10) * np.diff(PchipInterpolator(t, y)(edges)) / np.diff(edges)))


def _last_decades(times: Array, excess: Array, decades: float) -> tuple[Array, Array, Array]:
    """Times and log10(L − L*) from the record before the last `decades` of decay on, and a mask of the finite values.

    Empty where the curve does not fall so far.
    """
    y, finite = _log10_finite(excess)
    t = np.asarray(times)[finite]
    if y.size == 0 or y.max() < y[-1] + decades:
        return np.empty(0), np.empty(0), finite
    first = max(int(np.flatnonzero(y >= y[-1] + decades)[-1]) - 1, 0)
    return t[first:], y[first:], finite


def _extrapolated(early: float, middle: float, last: float) -> float:
    """Aitken's limit of three values; the last one where they do not approach a limit like an exponential."""
    change, last_change = middle - early, last - middle
    decay = last_change / change if change else 0.0
    return float(last + (last_change * decay / (1 - decay) if 0 < decay < _SLOWEST_DECAY else 0.0))


def power_law_tail(times: Array, excess: Array, start: float = POWER_LAW_START) -> SlopeFit:
    """Exponent p of L − L* ~ t^p: regression of log10(L − L*) on log10 t, from `start` times the last time on.

    For flows that reach their horizon without an exponential tail, for example where ε = λ_n, p = −2N/(2N−1)
    (`predicted.algebraic_tail`). `slope` is the exponent; `start` and `end` are times.
    """
    times, excess = np.asarray(times), np.asarray(excess)
    late = (times >= start * times[-1]) & (times > 0) & (excess > 0)
    fit = _regress(np.log10(times[late]), np.log10(excess[late]))
    return fit._replace(start=10**fit.start, end=10**fit.end)


def power_law_constant(excess: Array, gradient_norm: Array, power: float, factor: float = 4.0) -> float:
    """Constant C of a flow with L − L* ~ C t^{−p} for the given power p, extrapolated to t → ∞.

    z = d/dt (L − L*)^{−1/p} = ‖∇L^N‖² (L − L*)^{−1−1/p}/p tends to C^{−1/p}, whatever the origin of time, with a first
    correction proportional to √(L − L*). The limit is that of the line through the last record and the first one whose
    excess is at most `factor` times as large.

    Parameters
    ----------
    excess, gradient_norm : (m,)
        Samples of a flow in its algebraic tail.
    """
    i = int(np.argmax(excess <= factor * excess[-1]))
    (early, last), (x, y) = (
        gradient_norm[[i, -1]] ** 2 * excess[[i, -1]] ** (-1 - 1 / power) / power,
        excess[[i, -1]] ** 0.5,
    )
    return float((last - (early - last) / (x - y) * y) ** -power)


def worst_ratio(times: Array, excess: Array, rate: float, initial: float | None = None) -> float:
    """max_t (L(t) − L*) / (initial · exp(−rate t)) over the samples with t > 0; above 1 if the bound is violated.

    `initial` is L(0) − L* by default. NaN without samples, or without a bound.
    """
    times, excess = np.asarray(times), np.asarray(excess)
    later = times > 0
    if not later.any() or not rate >= 0:
        return float("nan")
    bound = -rate * times[later] + np.log(excess[0] if initial is None else initial)
    with np.errstate(divide="ignore", over="ignore"):  # a bound may be far below the smallest float
        return float(np.exp(np.max(np.log(np.maximum(excess[later], 0)) - bound)))


def _tail(times: Array, excess: Array, decades: float) -> tuple[Array, Array]:
    """Times and log10(L − L*) of the last `decades` of decay; empty where the curve does not fall so far."""
    y, finite = _log10_finite(excess)
    if y.size == 0 or y.max() < y[-1] + decades:
        return np.empty(0), np.empty(0)
    above = np.flatnonzero(y > y[-1] + decades)
    first = above[-1] + 1 if above.size else 0
    return np.asarray(times)[finite][first:], y[first:]


def _log10_finite(excess: Array) -> tuple[Array, Array]:
    """The finite values of log10 |L − L*|, and a mask of them."""
    with np.errstate(divide="ignore"):
        y = np.log10(np.abs(excess))
    finite = np.isfinite(y)
    return y[finite], finite


def _weighted_mean(y: Array, span: int) -> Array:
    """Exponentially weighted mean with weights (1 − α)^i, α = 2/(span + 1), normalised (pandas' `ewm(span)`)."""
    if span == 1:
        return y
    import pandas as pd

    return pd.Series(y).ewm(span=span).mean().to_numpy()


def _regress(t: Array, y: Array) -> SlopeFit:
    """Linear regression of y on t; NaN for fewer than three points or a constant y."""
    if len(t) < 3:
        return SlopeFit.none()
    dt, dy = t - t.mean(), y - y.mean()
    covariance, variance, total = dt @ dy, dt @ dt, dy @ dy
    if total == 0:
        return SlopeFit.none()
    return SlopeFit(covariance / variance, covariance**2 / (variance * total), float(t[0]), float(t[-1]))
