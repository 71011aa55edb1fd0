"""The statements of the study, each confronted with all results that bear on it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Sequence
from dataclasses import asdict
from html import escape
from pathlib import Path

import numpy as np
import pandas as pd

from . import critical, neighbours, sampling, training
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
    "page",
    "read",
    "table",
]

#: Every statement, in the order of the table: that in which they are written.
STATEMENTS = tuple(
    value
    for module in (critical, training, sampling, neighbours)
    for value in vars(module).values()
    if isinstance(value, Statement)
)


def evaluate(study: Study, names: Container[str] | None = None) -> list[Claim]:
    """Test every statement on a study, or those with the given names."""
    kinds = {"", *(tables.kind for tables in study.experiments.values())}
    made = [statement for statement in STATEMENTS if statement.kind in kinds]
    return [judge(statement, study) for statement in made if names is None or statement.name in names]


def table(claims: Sequence[Claim]) -> pd.DataFrame:
    """One row per claim."""
    return pd.DataFrame([asdict(claim) for claim in claims])


def read(path: str | Path) -> pd.DataFrame:
    """The `table` of claims that a study wrote."""
    return pd.read_csv(path, keep_default_na=False, na_values=[""]).fillna({"refuted": ""})


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
        verdict = claim.verdict
        if verdict == "violated":
            verdict = f"**violated** in {claim.violations:,} cases" + (claim.refuted and f", as {claim.refuted} proves")
        cells = (f"{claim.statement}: {formula}", claim.source, counts, worst, f"{claim.tolerance:.2g}", share, verdict)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def explanation(claims: pd.DataFrame) -> str:
    """How each claim in the `table` was tested, and what the test can detect, as a list in Markdown."""
    lines = [f"- *{claim.name}*: {claim.test} It sees {claim.sees}." for claim in claims.itertuples()]
    return "\n".join(lines) + "\n"


#: How the page of `page` looks, wherever it is shown.
_STYLE = """
.found { font: 14px/1.4 sans-serif; color: #1f2937; max-width: 1100px; overflow-x: auto; }
.found h2 { font-size: 18px; margin: 12px 0 4px; }
.found img { width: 100%; max-width: 1000px; margin: 8px 0; }
.found table { border-collapse: collapse; width: 100%; }
.found th, .found td { text-align: left; vertical-align: top; padding: 4px 10px 4px 0; border-top: 1px solid #e5e7eb; }
.found small { color: #4b5563; }
.found .holds { color: #047857; }
.found .violated { color: #b91c1c; font-weight: bold; }
@media (max-width: 1000px) {
  .found table { font-size: 0.75em; }
  .found small { overflow-wrap: anywhere; }
}
"""


def page(claims: pd.DataFrame, picture: str | None = None) -> str:
    """What a study found, in HTML: the main figure (PNG, base64), and the `table` of claims with what each detects."""
    verdicts = Counter(claim.verdict.partition(":")[0] for claim in claims.itertuples())
    counts = ", ".join(f"{number} {verdict.replace('holds', 'hold')}" for verdict, number in verdicts.items())
    figure = (
        f'<h2>Main figure</h2><img src="data:image/png;base64,{picture}" '
        'alt="measured, sharp and global rates">'
        "<p>(a) Decay rate of the excess loss in its tail against depth; dashed: the closed-form sharp rate. (b) The "
        "same for every cell. (c) Measured rate, global rate and that of the bound of the authors' program, over the "
        "sharp rate.</p>"
        if picture
        else ""
    )
    rows = []
    for claim in claims.itertuples():
        verdict, _, reason = claim.verdict.partition(":")
        if verdict == "violated" and claim.refuted:
            reason = f"as {claim.refuted} proves"
        worst = "" if np.isnan(claim.worst_deviation) else f"{claim.worst_deviation:.2g} of {claim.tolerance:.2g} "
        unit = (
            f"{worst}<small>{escape(claim.unit)}; {claim.cases:,} cases</small>" if worst else "<small>no cases</small>"
        )
        rows.append(
            f"<tr><td>{escape(claim.statement)}<br><small>{escape(claim.formula)}</small></td>"
            f"<td>{escape(claim.source)}</td>"
            f'<td><span class="{verdict.split()[0]}">{escape(verdict)}</span><br><small>{escape(reason)}</small></td>'
            f"<td>{unit}</td><td><small>{escape(claim.sees)}</small></td></tr>"
        )
    return (
        f'<meta charset="utf-8"><style>{_STYLE}</style><div class="found">{figure}<h2>Claims: {escape(counts)}</h2>'
        "<table><tr><th>statement</th><th>whose</th><th>verdict</th><th>worst of allowed</th>"
        "<th>the test sees</th></tr>"
        f"{''.join(rows)}</table></div>\n"
    )


#: The table of claims stands between these lines of a page.
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
