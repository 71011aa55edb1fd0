"""The table of claims as Markdown, as an HTML page, and inside an existing page."""

from collections import Counter
from typing import Any

import numpy as np
import pandas as pd
from jinja2 import Template


def markdown(claims: pd.DataFrame) -> str:
    """The `table` of claims in Markdown."""
    lines = [
        "| statement | source | cases (runs, targets) | worst deviation | allowed | promised / measured decay "
        "| verdict | changes that it detects |",
        "|---|---|---|---|---|---|---|---|",
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
        lines.append(f"| {' | '.join([*cells, claim.detects])} |")
    return "\n".join(lines) + "\n"


def explanation(claims: pd.DataFrame) -> str:
    """How each claim in the `table` was tested, as a list in Markdown."""
    lines = [f"- *{claim.name}*: {claim.test}" for claim in claims.itertuples()]
    return "\n".join(lines) + "\n"


_PAGE = Template(
    """\
<meta charset="utf-8">
<style>
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
</style>
<div class="found">
{%- if picture %}
<h2>Main figure</h2>
<img src="data:image/png;base64,{{ picture }}" alt="measured, sharp and global rates">
<p>(a) Decay rate of the excess loss in its tail against depth; dashed: the sharp rate in closed form. (b) The same for
every cell. (c) Measured rate, global rate and the rate of the bound of the authors' program, divided by the sharp
rate.</p>
{%- endif %}
<h2>Claims: {{ counts }}</h2>
<table><tr><th>statement</th><th>source</th><th>verdict</th><th>worst of allowed</th><th>detects</th></tr>
{%- for claim, verdict, reason, worst in rows %}
<tr><td>{{ claim.statement }}<br><small>{{ claim.formula }}</small></td><td>{{ claim.source }}</td>
<td><span class="{{ verdict.split()[0] }}">{{ verdict }}</span><br><small>{{ reason }}</small></td>
<td>{{ worst }}<small>{{ claim.unit ~ "; {:,} cases".format(claim.cases) if worst else "no cases" }}</small></td>
<td><small>{{ claim.detects }}</small></td></tr>
{%- endfor %}
</table></div>
""",
    autoescape=True,
)


def page(claims: pd.DataFrame, picture: str | None = None) -> str:
    """The findings of a study in HTML: the main figure (PNG in base64), and the `table` of claims."""
    verdicts = Counter(verdict.partition(":")[0] for verdict in claims["verdict"])
    counts = ", ".join(f"{number} {verdict.replace('holds', 'hold')}" for verdict, number in verdicts.items())
    return _PAGE.render(counts=counts, picture=picture, rows=[_row(claim) for claim in claims.itertuples()]) + "\n"


def _row(claim: Any) -> tuple[Any, str, str, str]:
    """A claim, its verdict, the reason for it, and the worst deviation beside the one allowed."""
    verdict, _, reason = claim.verdict.partition(":")
    if verdict == "violated" and claim.refuted:
        reason = f"as {claim.refuted} proves"
    worst = "" if np.isnan(claim.worst_deviation) else f"{claim.worst_deviation:.2g} of {claim.tolerance:.2g} "
    return claim, verdict, reason, worst


#: The table of claims stands between these lines of a page.
_BEGIN, _END = "<!-- claims: begin -->", "<!-- claims: end -->"


def insert(page: str, claims: pd.DataFrame) -> str:
    """The page with the `table` of claims between its marker lines.

    Raises
    ------
    ValueError
        If the page lacks a marker line.
    """
    before, begin, rest = page.partition(_BEGIN)
    _, end, after = rest.partition(_END)
    if not (begin and end):
        raise ValueError(f"the page needs the lines {_BEGIN} and {_END}, between which the table goes")
    return f"{before}{_BEGIN}\n\n{markdown(claims)}\n{_END}{after}"
