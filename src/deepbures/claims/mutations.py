"""Mutations of the claims, by name: what each must detect, in which columns, and by how much.

Rates and constants by 1 %, exponents by 0.02, values by 1e-3 of their unit, thresholds by 2 %; statistical claims by
four standard errors. A bound must be violated when it is strengthened: a rate that promises more, a value that reaches
further. (To be moved beside the claims, as a field of `Statement`.)
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from .power import Mutation, replaced, scaled, shifted, tilted


def _run(change_subject: str, column: str, amount: float, kind: str = "flow", **options: object) -> Mutation:
    return Mutation(subject=change_subject, kind=kind, changes={"runs": scaled(column)}, amount=amount, **options)  # type: ignore[arg-type]


def _one(frame: pd.DataFrame) -> pd.Series:
    """The unit of columns that are recorded in units of the problem."""
    return pd.Series(1.0, frame.index)


def _slower(frame: pd.DataFrame, amount: float) -> dict[str, pd.Series]:
    """Settling times of the Bures-Wasserstein loss, where a table has both losses."""
    if "loss_name" not in frame:
        return {}
    square = frame["loss_name"] == "frobenius"
    return {"settling_time": frame["settling_time"].where(square, (1 + amount) * frame["settling_time"])}


MUTATIONS: dict[str, tuple[Mutation, ...]] = {
    "minimiser": (
        Mutation(
            subject="the loss of every W",
            kind="critical_search",
            changes={"trials": shifted("excess", _one)},
            amount=1e-3,
            signs=(-1,),
        ),
    ),
    "curvature at the minimiser": (
        Mutation(
            subject="the least eigenvalue, in λ_max",
            kind="hessian",
            changes={"spectra": shifted("smallest", lambda frame: frame["largest"])},
            amount=1e-3,
            signs=(-1,),
        ),
    ),
    "W_J is critical": (
        Mutation(
            subject="the gradient, in √λ_1",
            kind="hessian",
            changes={"spectra": shifted("gradient_norm", _one)},
            amount=1e-3,
            signs=(1,),
        ),
    ),
    "there are no other critical points": (
        Mutation(
            subject="the distance from the enumerated point, in λ_1",
            kind="critical_search",
            changes={"searches": shifted("distance", _one)},
            amount=1e-3,
            signs=(1,),
        ),
    ),
    "critical values": (
        Mutation(
            subject="the value, in its unit",
            kind="hessian",
            changes={"spectra": shifted("value_error", _one)},
            amount=1e-3,
            signs=(1,),
        ),
    ),
    "saddles": (
        Mutation(
            subject="one negative direction",
            kind="hessian",
            changes={"spectra": shifted("negative", _one)},
            amount=1,
            graded=False,
        ),
    ),
    "local spectrum": (
        Mutation(
            subject="an eigenvalue, in λ_max",
            kind="hessian",
            changes={"spectra": shifted("spectrum_error", _one)},
            amount=1e-3,
            signs=(1,),
        ),
    ),
    "blow-up": (
        Mutation(
            subject="the exponent, −0.55 in place of −1",
            kind="blow_up",
            changes={"curvatures": tilted("smallest", "sigma")},
            amount=0.45,
            signs=(1,),
            graded=False,
        ),
    ),
    "blow-up exponent": (
        Mutation(
            subject="the exponent",
            kind="blow_up",
            changes={"curvatures": tilted("smallest", "sigma")},
            amount=0.02,
        ),
    ),
    "blow-up constant": (
        Mutation(
            subject="the closed-form constant",
            kind="blow_up",
            changes={"curvatures": scaled("predicted")},
            amount=0.01,
        ),
    ),
    "smoothing": (Mutation(subject="the level", kind="blow_up", changes={"curvatures": scaled("level")}, amount=0.02),),
    "escape rates": (
        Mutation(
            subject="the closed-form rate", kind="escape", changes={"escapes": scaled("escape_rate")}, amount=0.01
        ),
    ),
    "convergence of the flow": (
        Mutation(
            subject="the last excess, one hundredth of the first",
            kind="flow",
            changes={"runs": replaced("excess_final", lambda frame: 0.01 * frame["excess_initial"])},
            amount=1,
            signs=(1,),
            graded=False,
        ),
    ),
    "bound of the flow": (
        Mutation(
            subject="the rate, limited to the global one",
            kind="flow",
            changes={
                "runs": replaced("bound_rate", lambda frame: np.minimum(frame["bound_rate"], frame["global_rate"]))
            },
            amount=1,
            signs=(1,),
            verdict="holds",
            graded=False,
        ),
    ),
    "bound of the flow where W keeps the margin": (_run("the rate", "bound_rate", 0.02, signs=(1,)),),
    "global rate of the flow": (_run("the rate", "global_rate", 0.01, signs=(1,)),),
    "margin kept": (_run("the margin c", "margin", 0.02, signs=(1,)),),
    "loss falls": (
        Mutation(
            subject="every second record of the excess",
            kind="flow",
            changes={
                "trajectories": lambda frame, amount: {
                    "excess": frame["excess"] * (1 + amount * (np.arange(len(frame)) % 2))
                }
            },
            amount=0.05,
        ),
    ),
    "sharp rate": (_run("the closed-form rate", "sharp_rate", 0.01),),
    "algebraic tail": (_run("the constant", "excess_final", 0.01),),
    "plateau times": (_run("the closed-form time", "half_times_predicted", 0.005),),
    "Polyak-Łojasiewicz equality": (
        Mutation(subject="the gradient", kind="flow", changes={"trajectories": scaled("gradient_norm")}, amount=1e-3),
    ),
    "contraction of descent": (
        Mutation(
            subject="the rate, divided by 100",
            kind="descent",
            changes={"runs": replaced("descent_rate", lambda frame: 0.01 * frame["descent_rate"])},
            amount=1,
            signs=(1,),
            verdict="holds",
            graded=False,
        ),
    ),
    "contraction of one layer": (_run("the fraction", "descent_global_rate", 0.01, kind="descent", signs=(1,)),),
    "stable step": (_run("the largest stable step", "relative_step", 0.02, kind="descent"),),
    "descent to flow": (
        Mutation(subject="the order", kind="descent", changes={"runs": tilted("flow_error", "eta")}, amount=0.02),
    ),
    "drift from balance": (
        Mutation(
            subject="the order", kind="descent", changes={"runs": tilted("balancedness_final", "eta")}, amount=0.02
        ),
    ),
    "Bures-Wasserstein against square loss": (
        Mutation(
            subject="the steps of the Bures-Wasserstein loss, twice as many",
            kind="descent",
            changes={"runs": _slower},
            amount=1,
            signs=(1,),
            graded=False,
        ),
    ),
    "finite samples": (
        Mutation(
            subject="the closed form", kind="finite_sample", changes={"sampling": scaled("expected")}, amount=0.05
        ),
    ),
}
