"""Flows of random covariances, beside scipy's LSODA: python benchmarks/random_flows.py [--cases 200] [--lsoda plain]

Spectra, n, rank, ε/λ_k, start and N of a case depend on its number alone. Both methods integrate the reduced flow to
L − L* = 1e-10 of the loss's unit, this package at rtol 1e-6. LSODA takes the loosest of some tolerances at which its
excess is about as accurate: the largest error relative to LSODA at 1e-11, at times at which ten decades of the excess
are reached, is at most ten times ours. `--lsoda plain` takes LSODA at 1e-6, which is faster and not as accurate. Each
run has a budget of CPU time. The last lines give the reasons for stopping, medians and ratios.
"""

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import argparse
import signal
import time
from collections import Counter
from typing import NamedTuple

import numpy as np
from scipy.integrate import LSODA

from deepbures.flow.gradient_flow import gradient_flow
from deepbures.flow.reduced_flow import FactorFlow
from deepbures.losses import BuresWasserstein

SPECTRA = ("zipf", "exponential", "fast exponential", "power 2", "clustered", "random")
STARTS = ("gaussian", "large", "close", "1e-1", "1e-2", "1e-4", "1e-8")
TOLERANCE, END = 1e-10, 1e12
#: Relative and absolute tolerances that LSODA is tried with.
LSODA_TOLERANCES = (1e-6, 1e-7, 1e-8, 1e-9)


class Case(NamedTuple):
    """A problem: spectrum, n, k, ε/λ_k, start, N, and the seed of what is random in it."""

    spectrum: str
    dimension: int
    rank: int
    ratio: float
    start: str
    depth: int
    seed: int


class Result(NamedTuple):
    """How a run ended; `times` and `excess` are those of its steps, or of the given times."""

    reason: str
    gradients: int
    seconds: float
    times: np.ndarray
    excess: np.ndarray


def draw(number: int) -> Case:
    rng = np.random.default_rng([26, number])
    n = int(rng.choice([3, 5, 10, 20]))
    k = n if rng.random() < 0.25 else int(rng.integers(1, n))
    ratio, depth = float(rng.choice([0, 0.1, 0.5, 0.9, 0.99, 1.0])), int(rng.choice([1, 2, 3, 10, 100, 1000]))
    return Case(str(rng.choice(SPECTRA)), n, k, ratio, str(rng.choice(STARTS)), depth, number)


def problem(case: Case) -> tuple[BuresWasserstein, np.ndarray]:
    """Loss and W(0)."""
    rng, n, i = np.random.default_rng(case.seed), case.dimension, np.arange(case.dimension)
    eigenvalues = {
        "zipf": lambda: 1 / (i + 1),
        "exponential": lambda: np.exp(-i / 2),
        "fast exponential": lambda: np.exp(-1.0 * i),
        "power 2": lambda: 1 / (i + 1) ** 2,
        "clustered": lambda: np.sort(np.array([1.0, 0.3, 0.05])[3 * i // n] * (1 + 1e-3 * rng.random(n)))[::-1],
        "random": lambda: np.sort(rng.standard_normal(n) ** 2)[::-1],
    }[case.spectrum]()
    epsilon = case.ratio * eigenvalues[case.rank - 1]
    loss = BuresWasserstein.from_spectrum(eigenvalues, epsilon=epsilon)
    G, scale = rng.standard_normal((n, case.rank)), np.sqrt(eigenvalues[0] / n)
    if case.start in ("gaussian", "large"):
        return loss, (scale if case.start == "gaussian" else 10 * scale) * G
    if case.start == "close":
        return loss, np.eye(n, case.rank) * np.sqrt(eigenvalues[: case.rank] - epsilon) + 0.1 * scale * G
    return loss, float(case.start) * np.sqrt(eigenvalues[0]) * np.linalg.qr(G)[0]


def ours(case: Case, budget: float, times: np.ndarray | None = None) -> Result:
    """This package at rtol 1e-6."""
    loss, W = problem(case)

    def ring(*_: object) -> None:
        raise TimeoutError

    signal.signal(signal.SIGVTALRM, ring)
    signal.setitimer(signal.ITIMER_VIRTUAL, budget)
    begin = time.process_time()
    try:
        options = {"max_time": END, "samples": 2} if times is None else {"times": times}
        flow = gradient_flow(loss, W, case.depth, rtol=1e-6, excess_tolerance=TOLERANCE * loss.unit, **options)
    except TimeoutError:
        return Result("time", 0, budget, np.array([]), np.array([]))
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
    return Result(flow.stop_reason, flow.evaluations, time.process_time() - begin, flow.times, flow.excess)


def lsoda(case: Case, budget: float, rtol: float, times: np.ndarray | None = None) -> Result:
    """scipy's LSODA with differences for the Jacobian, atol = rtol |Z|/n; to the tolerance, or to the given times."""
    loss, W = problem(case)
    U, s, _ = np.linalg.svd(loss.to_eigenbasis(W), full_matrices=False)
    Z, flow, form = U * s ** (1 / case.depth), FactorFlow(loss, case.depth), loss.form(case.rank)
    gradients = 0

    def field(_t: float, z: np.ndarray) -> np.ndarray:
        nonlocal gradients
        gradients += 1
        velocity = flow.field(z.reshape(Z.shape)).ravel()
        return velocity if np.isfinite(velocity).all() else -1e50 * z

    def excess(z: np.ndarray) -> float:
        return float(form.excess(flow.factor(z.reshape(Z.shape))))

    begin, reason = time.process_time(), "time"
    solver = LSODA(field, 0, Z.ravel(), END, rtol=rtol, atol=rtol * np.linalg.norm(Z) / len(Z))
    visited: list[tuple[float, float]] = []
    while time.process_time() - begin < budget:
        solver.step()
        if solver.status == "failed":
            reason = "failed"
            break
        if times is None:
            visited.append((solver.t, excess(solver.y)))
        else:
            inside = times[(times > solver.t_old) & (times <= solver.t)]
            visited += [(t, excess(solver.dense_output()(t))) for t in inside]
        if times is not None and len(visited) == len(times):
            reason = "end time"
            break
        if times is None and (visited[-1][1] <= TOLERANCE * loss.unit or solver.t >= END):
            reason = "converged" if solver.t < END else "end time"
            break
    t, e = np.array(visited).reshape(-1, 2).T
    return Result(reason, gradients, time.process_time() - begin, t, e)


def as_accurate(case: Case, budget: float) -> Result | None:
    """The run of LSODA to compare with, at about our accuracy; None where no tolerance reaches it in the budget."""
    coarse = lsoda(case, budget, 1e-8)
    if coarse.reason != "converged":
        return None
    decades = np.geomspace(coarse.excess[0], coarse.excess[-1], 12)[1:-1]
    times = np.unique(coarse.times[np.searchsorted(-np.minimum.accumulate(coarse.excess), -decades)])
    exact, found = lsoda(case, 4 * budget, 1e-11, times), ours(case, budget, times)
    if exact.reason != "end time" or len(found.excess) < len(times):
        return None
    kept = exact.excess > 10 * TOLERANCE * problem(case)[0].unit
    limit = 10 * np.abs(found.excess[: len(times)] / exact.excess - 1)[kept].max(initial=0.0)
    for rtol in LSODA_TOLERANCES:
        run = lsoda(case, budget, rtol, times)
        if run.reason == "end time" and np.abs(run.excess / exact.excess - 1)[kept].max(initial=0.0) <= limit:
            return lsoda(case, budget, rtol)
    return None


def compared(case: Case, budget: float, how: str) -> tuple[Result, Result | None]:
    """Our run, and that of LSODA, one after the other."""
    run = ours(case, budget)
    if how == "none":
        return run, None
    return run, lsoda(case, budget, 1e-6) if how == "plain" else as_accurate(case, budget)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--cases", type=int, default=200)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--budget", type=float, default=5.0, help="CPU seconds for a run")
    parser.add_argument("--lsoda", choices=("accurate", "plain", "none"), default="accurate", help="plain: at 1e-6")
    arguments = parser.parse_args()
    reasons, peers, ratios, total = Counter[str](), Counter[str](), list[tuple[float, float]](), 0.0
    for number in range(arguments.first, arguments.first + arguments.cases):
        case = draw(number)
        run, peer = compared(case, arguments.budget, arguments.lsoda)
        loss, total = problem(case)[0], total + run.seconds
        tail = "" if loss.epsilon < loss.eigenvalues[case.rank - 1] else ", algebraic tail"
        reasons[run.reason + tail] += 1
        peers[str(peer.reason) if peer else "none"] += 1
        beside = f"{peer.reason}, {peer.gradients} gradients, {peer.seconds:.2f} s" if peer else "none"
        print(
            f"{tuple(case)}: {run.reason}{tail}, {run.gradients} gradients, {run.seconds:.2f} s; LSODA {beside}",
            flush=True,
        )
        if peer and run.reason == peer.reason == "converged":
            ratios.append((run.gradients / peer.gradients, run.seconds / peer.seconds))
    print(f"stopped: {dict(reasons)}; LSODA: {dict(peers)}; {total:.0f} s of CPU")
    if ratios:
        gradients, seconds = np.median(ratios, axis=0)
        print(
            f"both converged in {len(ratios)} cases: median of our gradients over those of LSODA {gradients:.2f}, "
            f"of CPU {seconds:.2f}"
        )


if __name__ == "__main__":
    with np.errstate(over="ignore", invalid="ignore"):
        main()
