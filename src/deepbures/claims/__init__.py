"""The statements of the study, each confronted with all its results that bear on it."""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import asdict

import numpy as np
import pandas as pd

from . import landscape, neighbours, sampling, training
from .evidence import SOURCES, Claim, Statement, Study, Tables, judge

__all__ = [
    "SOURCES",
    "STATEMENTS",
    "Claim",
    "Study",
    "Tables",
    "evaluate",
    "explanation",
    "insert",
    "markdown",
    "table",
]

#: Every statement, in the order of the table.
STATEMENTS: tuple[Statement, ...] = (
    landscape.MINIMISER,
    landscape.CURVED_MINIMUM,
    landscape.ENUMERATED,
    landscape.NO_OTHERS,
    landscape.VALUES,
    landscape.SADDLES,
    landscape.LOCAL_SPECTRUM,
    landscape.BLOWS_UP,
    landscape.BLOW_UP_EXPONENT,
    landscape.BLOW_UP_CONSTANT,
    landscape.SATURATION,
    landscape.ESCAPE_RATES,
    training.FLOW_CONVERGES,
    training.FLOW_BOUND,
    training.REPAIRED_BOUND,
    training.GLOBAL_RATE,
    training.MARGIN_KEPT,
    training.LOSS_FALLS,
    training.SHARP_RATE,
    training.ALGEBRAIC_TAIL,
    training.PLATEAUS,
    training.POLYAK_LOJASIEWICZ,
    training.CONTRACTION,
    training.LAYER_CONTRACTION,
    training.STABLE_STEP,
    training.DESCENT_TO_FLOW,
    training.BALANCE,
    training.LOSSES_COMPARED,
    sampling.SAMPLING_LAW,
    neighbours.ONE_STEP,
    neighbours.SCALED_TAILS,
    neighbours.QUADRATIC,
    neighbours.EXPONENTS,
    neighbours.BARYCENTER_RATE,
    neighbours.FEW_CORRUPTIONS,
    neighbours.REWEIGHTED,
)


def evaluate(study: Study, names: Container[str] | None = None) -> list[Claim]:
    """Test every statement on a study, or those with the given names."""
    return [judge(statement, study) for statement in STATEMENTS if names is None or statement.name in names]


def table(claims: Sequence[Claim]) -> pd.DataFrame:
    """One row a claim."""
    return pd.DataFrame([asdict(claim) for claim in claims])


def markdown(claims: pd.DataFrame) -> str:
    """The `table` of claims in Markdown."""
    lines = [
        "| statement | whose | cases (runs, targets) | worst deviation | allowed | share used | verdict |",
        "|---|---|---|---|---|---|---|",
    ]
    for claim in claims.itertuples():
        formula = claim.formula.replace("|", "∣")
        counts = f"{claim.cases:,} ({claim.runs:,}, {claim.targets:,})"
        worst = "" if np.isnan(claim.worst_deviation) else f"{claim.worst_deviation:.2g} of {claim.unit}"
        share = "" if np.isnan(claim.share) else f"{claim.share:.2g}, at most {claim.largest_share:.2g}"
        verdict = claim.verdict if claim.verdict != "violated" else f"**violated** in {claim.violations:,} cases"
        cells = (f"{claim.statement}: {formula}", claim.source, counts, worst, f"{claim.tolerance:.2g}", share, verdict)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def explanation(claims: pd.DataFrame) -> str:
    """How each of the `table` of claims was tested, and what the test can see, as a list in Markdown."""
    lines = [f"- *{claim.name}*: {claim.test} It sees {claim.sees}." for claim in claims.itertuples()]
    return "\n".join(lines) + "\n"


#: Between these lines of a page stands the table of claims.
_BEGIN, _END = "<!-- claims: begin -->", "<!-- claims: end -->"


def insert(page: str, claims: pd.DataFrame) -> str:
    """The page with the `table` of claims between its marker lines.

    Raises
    ------
    ValueError
        If the page lacks them.
    """
    before, begin, rest = page.partition(_BEGIN)
    _, end, after = rest.partition(_END)
    if not (begin and end):
        raise ValueError(f"the page needs the lines {_BEGIN} and {_END}, between which the table goes")
    return f"{before}{_BEGIN}\n\n{markdown(claims)}\n{_END}{after}"
