"""Statements about layers: without balance, of other widths, and in single steps of deep descent."""

from collections.abc import Iterator
from functools import partial

import pandas as pd

from .evidence import Bound, Cases, Statement, Study, decays, each, keys_of, with_runs
from .mutation import Mutation, shifted, where

_Layers, _LayersBound = partial(Statement, kind="layers"), partial(Bound, kind="layers")
_StepBound = partial(Bound, kind="deep_steps")


def _drift(study: Study) -> Iterator[pd.DataFrame]:
    for runs, trajectories in study.training("layers", ["imbalance_drift"]):
        merged = with_runs(trajectories, runs, ["imbalance_initial", "lambda_max"])
        unit = merged["imbalance_initial"] + merged["lambda_max"] ** (1 / merged["depth"])
        yield merged.assign(deviation=merged["imbalance_drift"] / unit)


CONSERVED = _Layers(
    name="imbalance is conserved",
    statement="Gradient flow conserves the imbalance of all neighbouring layers",
    formula="W_{j+1}ᵀ W_{j+1} − W_j W_jᵀ = D_j at all times",
    test="Every record of flows of layers, by an integrator that does not know it.",
    unit="max_j ‖D_j‖ + λ_1^{1/N}",
    tolerance=1e-6,
    mutations=(Mutation("drift", "trajectories", "imbalance_drift", 1e-3, shifted(), "", (1,)),),
    cases=_drift,
)

TWO_LAYERS = _LayersBound(
    name="two layers without balance",
    statement="For N = 2, k = n, widths of at least n and from every start with c > √ε, the loss decays at least at a "
    "closed-form rate, whatever the imbalance",
    formula="L(t) ≤ L(0) exp(−4 (μ + ν) (1 − ε/c²) t); μ, ν = (√(d² + 4 s) − d)/2 at d = d_∓, s = c² − ε",
    test="Every record of every such flow; a theorem, proved in docs/paper.md.",
    mutations=(Mutation("rate", "runs", "unbalanced_rate", 0.01, signs=(1,)),),
    cases=decays("unbalanced_rate", lambda runs: (runs["depth"] == 2) & (runs["unbalanced_rate"] > 0), "layers"),
)

DEEP_LAYERS = _LayersBound(
    name="deep layers without balance",
    statement="For N ≥ 3, k = n, widths of at least n and from every start with c > √ε and a small imbalance, the loss "
    "decays at least at a closed-form rate",
    formula="L(t) ≤ L(0) exp(−4 Σ_j a_j b_j (1 − ε/c²) t), with a_j, b_j of docs/paper.md section 8",
    test="Every record of every such flow for which the rate is positive; a theorem, proved in docs/paper.md.",
    mutations=(Mutation("rate", "runs", "unbalanced_rate", 0.01, signs=(1,)),),
    cases=decays("unbalanced_rate", lambda runs: (runs["depth"] > 2) & (runs["unbalanced_rate"] > 0), "layers"),
)


def _steps(aligned: int) -> Cases:
    def chosen(steps: pd.DataFrame) -> pd.DataFrame:
        return steps[(steps["aligned"] == aligned) & (steps["promised"] > 0)]

    return each("deep_steps", "steps", chosen)


_FRACTION = "L⁺ ≤ (1 − η (1 − q/2) 4 N m^{2−1/N}/(m + ε)) L, η = q/(2 N M^{1−1/N}), q ≤ 1"

ALIGNED_STEPS = _StepBound(
    name="deep descent from aligned starts",
    statement="For k = n and from every balanced start along the target's eigenvectors, each step of deep descent "
    "removes at least a closed-form fraction of the loss",
    formula=_FRACTION,
    test="The step of the least fall relative to the promise, of descents from starts above and below the optimum; a "
    "theorem, proved in docs/paper.md.",
    mutations=(Mutation("fraction", "steps", "promised", 0.01, signs=(1,)),),
    cases=_steps(1),
)

DEEP_STEPS = _StepBound(
    name="deep descent",
    source="conjecture (ours)",
    statement="For k = n and from every balanced start, each step of deep descent removes at least that fraction",
    formula=_FRACTION,
    test="The step of the least fall relative to the promise, of descents from starts in random directions from the "
    "minimum, n = 2 to 5, condition numbers up to 10⁴, N up to 100. One step below 1 refutes it.",
    mutations=(Mutation("fraction", "steps", "promised", 0.02, signs=(1,)),),
    cases=_steps(0),
)


def _widest(table: pd.DataFrame) -> pd.Series:
    """Mask of the largest hidden width."""
    return table["width"] == table["width"].max() if "width" in table else pd.Series(False, table.index)


def _widths(study: Study) -> Iterator[pd.DataFrame]:
    for runs, trajectories in study.training("descent", ["step", "covariance_distance"]):
        if not {"width", "balance"} <= {*runs.columns}:
            continue
        merged = with_runs(trajectories, runs[runs["balance"] != "none"], ["lambda_max"])
        keys = [*(key for key in keys_of(merged) if key != "width"), "step"]
        distance = merged.groupby(keys, observed=True)["covariance_distance"]
        apart = (merged["covariance_distance"] - distance.transform("first")).abs() / merged["lambda_max"]
        yield merged.assign(deviation=apart)[distance.transform("size") > 1]


WIDTH = Statement(
    kind="descent",
    name="hidden width",
    statement="From balanced layers of one end-to-end matrix, descent takes S through the same covariances for every "
    "hidden width h ≥ k",
    formula="S_i does not depend on h",
    test="‖S − S*‖ at the same steps of descents that differ in h, paired by start.",
    unit="λ_1",
    tolerance=1e-10,
    mutations=(
        Mutation(
            "distance at the largest width", "trajectories", "covariance_distance", 1e-8, where(_widest, shifted()), ""
        ),
    ),
    cases=_widths,
)
