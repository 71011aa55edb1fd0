"""What claims, tables and figures derive from the columns of runs: tails, contraction per step, power laws.

Functions take the table of runs (one row per run) and return one value per run; NaN where a run has none.
"""

import numpy as np
import pandas as pd

from ...linalg.psd import Array

#: Power laws in a vanishing singular value are fitted where it is at most this fraction of the largest one examined.
SMALL = 0.02
#: Layers are balanced up to this fraction of λ_1^{1/N}: its local rates are then those in closed form to 0.1 %.
BALANCED = 1e-3


def full_rank(runs: pd.DataFrame) -> pd.Series:
    """Whether k = n: the network can reach every covariance."""
    return runs["rank"] == runs["eigenvalues_target"].map(len)


def tail_rate(runs: pd.DataFrame) -> pd.Series:
    """Measured rate r of L − L* ~ exp(−r t) in the tail, per unit time.

    `limit_rate` where the tail is settled; elsewhere −ln 10 · `tail_slope`, the slope in decades.
    """
    return runs["limit_rate"].fillna(-runs["tail_slope"] * np.log(10))


def tail_ratio(runs: pd.DataFrame) -> pd.Series:
    """Measured over closed-form rate of the tail, `sharp_rate` = 2 min r (docs/paper.md, section 4)."""
    return tail_rate(runs) / runs["sharp_rate"]


def final_rate(runs: pd.DataFrame) -> pd.Series:
    """For descent: −ln of the measured final factor of L − L* per step, `limit_rate` times η; NaN without a limit."""
    return runs["limit_rate"] * runs["eta"]


def predicted_rate(runs: pd.DataFrame) -> pd.Series:
    """For descent: −ln max_r (1 − η r)², the same in closed form (`rates.predicted.descent_contraction`)."""
    return -np.log(runs["contraction"])


def in_balanced_tail(runs: pd.DataFrame) -> pd.Series:
    """For descent: whether a run ends in its slowest directions with balanced layers, as `predicted_rate` assumes."""
    drift = runs["balancedness_final"] / runs["lambda_max"] ** (1 / runs["depth"])
    return (runs["in_tail"] == 1) & (runs["contraction"] < 1) & (drift <= BALANCED)


def settling_steps(runs: pd.DataFrame) -> pd.Series:
    """For descent: steps until L − L* is 1e-6 of its initial value (`rates.measured.settling_time` over η)."""
    return runs["settling_time"] / runs["eta"]


def log10_theorem_step(runs: pd.DataFrame) -> pd.Series:
    """log10 min(η_1, η_2, η_3) of the descent theorem (see `program_constants.Constants`); NaN if it does not apply."""
    return runs[["log10_eta_1", "log10_eta_2", "log10_eta_3"]].min(axis=1, skipna=False)


def certified(runs: pd.DataFrame) -> pd.Series:
    """For descent: whether the descent theorem covers the run: c > 0 and η ≤ min(η_1, η_2, η_3)."""
    rounding = 1e-12  # of the logarithm and its power: the theorem's own step must count as covered
    return (runs["margin"] > 0) & (np.log10(runs["eta"]) <= log10_theorem_step(runs) + rounding)


def exponent(x: Array | pd.Series, y: Array | pd.Series) -> float:
    """Exponent p of y ~ x^p by least squares on logarithms, x, y > 0; NaN for fewer than two different x."""
    log_x, log_y = np.log(np.asarray(x, dtype=float)), np.log(np.asarray(y, dtype=float))
    if len(np.unique(log_x)) < 2:
        return float("nan")
    return float(np.polyfit(log_x, log_y, 1)[0])


def exponent_at_zero(sigma: Array | pd.Series, size: Array | pd.Series) -> float:
    """Exponent p of size ~ σ^p as σ → 0, fitted over σ ≤ 0.02 σ_max; NaN for fewer than three values there."""
    sigma, size = np.asarray(sigma, dtype=float), np.asarray(size, dtype=float)
    small = sigma <= SMALL * sigma.max()
    return exponent(sigma[small], size[small]) if small.sum() >= 3 else float("nan")


def order_at_zero(runs: pd.DataFrame, column: str) -> float:
    """Order p of column ~ η^p as η → 0, from the three smallest step sizes of one run; NaN for fewer.

    log column = c + p log η + b η through these three: the term b η removes the first correction to the power law.
    """
    smallest = runs[runs[column] > 0].nsmallest(3, "step_size")
    if len(smallest) < 3:
        return float("nan")
    eta = smallest["step_size"].to_numpy(dtype=float)
    terms = np.column_stack([np.ones(3), np.log(eta), eta / eta.max()])
    return float(np.linalg.solve(terms, np.log(smallest[column].to_numpy(dtype=float)))[1])
