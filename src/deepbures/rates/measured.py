"""Convergence slopes measured on a recorded loss curve, in decades per unit time (negative where it decays)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ..linalg.psd import Array

#: The authors' constants (paper.md section 7): sampling interval, band of log10 |L − L*|, window, horizon.
SAMPLING = 1e-4
BAND = (-3.5, -2.0)
WINDOW = 0.1
HORIZON = 3.0
#: A tail is settled where the slopes of the two halves of its window agree to this share. For a sum of two exponentials
#: whose slopes agree, and of which the slower one makes up `aggregate.SLOWEST_SHARE` of the last value, the fit gives
#: the slower rate to 0.6 %.
SETTLED = 0.005
#: Where the differences of the rate fall less than this from one to the next, they are no exponential on its way to 0.
_SLOWEST_DECAY = 0.9
#: Share of the last time at which the fit of a power law begins: it covers the last half decade.
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

    Take y = log10 |L − L*|, finite values only; its exponentially weighted mean of span s = 1e-4/η, keeping every s-th
    sample; the longest run of these with −3.5 < y < −2; and the regression of the raw y on t over the 0.1 time
    units that end at the last sample of that run.

    Parameters
    ----------
    times, excess : (m,)
        t and L − L* at consecutive steps, spaced by `step_size`.
    step_size
        η ≤ 1e-4. A flow may be sampled at η = 1e-4, where there is nothing to average.
    """
    y, kept = _log10_finite(excess)
    t = np.asarray(times)[kept]
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
    from scipy.interpolate import CubicHermiteSpline  # imported here because it takes a tenth of a second to load

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
    """The authors' slope of a run of gradient descent recorded evenly, every 1e-4 or more often; else none."""
    spacing = np.diff(times)
    if len(spacing) < 3 or spacing[0] > SAMPLING * (1 + 1e-9) or not np.allclose(spacing[:-1], spacing[0], rtol=1e-6):
        return SlopeFit.none()
    return authors_slope(times, excess, spacing[0])


def settling_time(times: Array, excess: Array, factor: float = 1e-6) -> float:
    """First time at which L − L* is at most `factor` times its initial value; NaN if it never is.

    Between samples log(L − L*) is interpolated linearly.
    """
    level = factor * excess[0]
    below = np.flatnonzero(excess <= level)
    if not below.size:
        return float("nan")
    i = below[0]
    if i == 0 or excess[i] <= 0:
        return float(times[i])
    share = np.log(excess[i - 1] / level) / np.log(excess[i - 1] / excess[i])
    return float(times[i - 1] + share * (times[i] - times[i - 1]))


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
    """How far the slope still changes within the tail: |slope of the first half of its window over the second's − 1|.

    Each half covers `decades`/2 of decay. In the end L − L* is a sum of exponentials with positive weights, and its
    slope flattens steadily to that of the slowest one. So a drift above `SETTLED` means that the tail is not reached.
    A small drift does not mean that it is: a slow direction with a tiny weight leaves no trace (see `slowest_share`
    of flows). NaN where there is no tail.
    """
    t, y = _tail(times, excess, decades)
    if not len(y):
        return float("nan")
    middle = int(np.searchsorted(-y, -(y[-1] + decades / 2)))
    early, late = _regress(t[: middle + 1], y[: middle + 1]), _regress(t[middle:], y[middle:])
    return abs(early.slope / late.slope - 1)


def limit_rate(times: Array, excess: Array, gradient_norm: Array, decades: float = 2.0) -> float:
    """Limit of the rate −d log(L − L*)/dt = ‖∇L^N‖²/(L − L*) of a flow, extrapolated from its tail.

    In the end L − L* is a sum of exponentials, and its rate tends to the slowest one like a further exponential: so
    Aitken's Δ² of the rate at three evenly spaced times finds the limit. Meant for a settled tail (see `tail_drift`).

    Parameters
    ----------
    times, excess, gradient_norm : (m,)
        Samples of a flow that ended in its exponential tail.
    decades
        How far above the last sample, in powers of ten, the first of the three times is.
    """
    from scipy.interpolate import PchipInterpolator  # imported here because it takes a tenth of a second to load

    y, kept = _log10_finite(excess)
    t, rate = np.asarray(times)[kept], gradient_norm[kept] ** 2 / excess[kept]
    if y.size == 0 or y.max() < y[-1] + decades:
        return float("nan")
    first = max(int(np.flatnonzero(y >= y[-1] + decades)[-1]) - 1, 0)
    start = np.interp(-(y[-1] + decades), -y[first:], t[first:])
    early, middle = PchipInterpolator(t[first:], rate[first:])([start, (start + t[-1]) / 2])
    change, last_change = middle - early, rate[-1] - middle
    decay = last_change / change if change else 0.0
    return float(rate[-1] + (last_change * decay / (1 - decay) if 0 < decay < _SLOWEST_DECAY else 0.0))


def power_law_tail(times: Array, excess: Array, start: float = POWER_LAW_START) -> SlopeFit:
    """Exponent p of L − L* ~ t^p: regression of log10(L − L*) on log10 t, from `start` times the last time on.

    For flows that reach their horizon without an exponential tail, as where ε = λ_n: p = −2N/(2N−1)
    (`predicted_rates.algebraic_tail`). `slope` is the exponent; `start` and `end` are times.
    """
    times, excess = np.asarray(times), np.asarray(excess)
    late = (times >= start * times[-1]) & (times > 0) & (excess > 0)
    fit = _regress(np.log10(times[late]), np.log10(excess[late]))
    return fit._replace(start=10**fit.start, end=10**fit.end)


def worst_ratio(times: Array, excess: Array, rate: float, initial: float | None = None) -> float:
    """max_t (L(t) − L*) / (initial · exp(−rate t)) over the samples with t > 0: above 1 where a bound is violated.

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
    """Times and log10 of the last `decades` of decay; empty where the curve does not fall so far."""
    y, kept = _log10_finite(excess)
    if y.size == 0 or y.max() < y[-1] + decades:
        return np.empty(0), np.empty(0)
    above = np.flatnonzero(y > y[-1] + decades)
    first = above[-1] + 1 if above.size else 0
    return np.asarray(times)[kept][first:], y[first:]


def _log10_finite(excess: Array) -> tuple[Array, Array]:
    with np.errstate(divide="ignore"):
        y = np.log10(np.abs(excess))
    kept = np.isfinite(y)
    return y[kept], kept


def _weighted_mean(y: Array, span: int) -> Array:
    """Exponentially weighted mean with weights (1 − α)^i, α = 2/(span + 1), normalised (pandas' `ewm(span)`)."""
    if span == 1:
        return y
    import pandas as pd

    return pd.Series(y).ewm(span=span).mean().to_numpy()


def _regress(t: Array, y: Array) -> SlopeFit:
    if len(t) < 3:
        return SlopeFit.none()
    dt, dy = t - t.mean(), y - y.mean()
    covariance, variance, total = dt @ dy, dt @ dt, dy @ dy
    if total == 0:
        return SlopeFit.none()
    return SlopeFit(covariance / variance, covariance**2 / (variance * total), float(t[0]), float(t[-1]))
