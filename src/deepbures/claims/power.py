"""What a claim detects: it is judged again on tables in which its subject is changed by a small, stated amount.

A claim that holds says little if it would also hold with its rate 5 % off. A `Mutation` names the columns that carry
the subject of a claim and how an amount changes them; `detections` applies it upwards and downwards and reports the
verdicts, `smallest_detected` the least amount of a ladder that turns the verdict to 'violated'.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from ..study.grid.axes import axes_of
from .evidence import Statement, Study, judge

#: New values of some columns of a table, from the table and the amount of the change (signed).
Change = Callable[[pd.DataFrame, float], Mapping[str, pd.Series]]
#: Amounts that `smallest_detected` tries, each way.
LADDER = (1e-4, 3e-4, 1e-3, 3e-3, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)


@dataclass(frozen=True, kw_only=True)
class Mutation:
    """A change of the subject of a claim that must turn its verdict.

    Attributes
    ----------
    subject
        What is changed, as the column 'detects' calls it: 'the closed-form rate'.
    kind
        Kind of experiment in whose tables the columns are.
    changes
        For each table, how an amount changes its columns.
    amount
        The amount at which the verdict must turn: 0.01 is 1 %.
    signs
        Directions in which it must turn: both for an equality, one for a bound.
    verdict
        What the verdict must become: 'violated'; 'holds' for a statement that is known to be false.
    graded
        Whether other amounts make sense, too; False for a change such as another exponent or constant that is named.
    """

    subject: str
    kind: str
    changes: Mapping[str, Change]
    amount: float
    signs: tuple[int, ...] = (1, -1)
    verdict: str = "violated"
    graded: bool = True


@dataclass(frozen=True)
class Detection:
    """The verdict on a claim after one mutation.

    Attributes
    ----------
    claim, subject, amount
        Name of the claim, what was changed, and by how much (signed).
    verdict
        The verdict on the changed tables.
    detected
        Whether it is the one that the mutation must lead to; False, too, where the claim has no case.
    """

    claim: str
    subject: str
    amount: float
    verdict: str
    detected: bool


class MutatedStudy(Study):
    """A study in which a mutation has changed the tables."""

    def __init__(self, study: Study, mutation: Mutation, amount: float) -> None:
        super().__init__(study.experiments)
        self.mutation, self.amount = mutation, amount

    def tables(self, kind: str, table: str, columns: Sequence[str] | None = None) -> Iterator[pd.DataFrame]:
        """As `Study.tables`, with the changed columns."""
        change = self.mutation.changes.get(table) if kind == self.mutation.kind else None
        if change is None:
            yield from super().tables(kind, table, columns)
            return
        for frame in super().tables(kind, table):
            changed = frame.assign(**change(frame, self.amount))
            kept = list(changed.columns) if columns is None else [*axes_of(frame.columns), "seed", *columns]
            yield changed[list(dict.fromkeys([*kept, "experiment"]))]


def detections(statement: Statement, study: Study, mutations: Sequence[Mutation]) -> list[Detection]:
    """The verdicts on a statement after each of its mutations, one row per direction."""
    return [
        detection(statement, study, mutation, sign * mutation.amount)
        for mutation in mutations
        for sign in mutation.signs
    ]


def detection(statement: Statement, study: Study, mutation: Mutation, amount: float) -> Detection:
    """The verdict on a statement after one mutation by this amount."""
    verdict = judge(statement, MutatedStudy(study, mutation, amount)).verdict
    return Detection(statement.name, mutation.subject, amount, verdict, verdict == mutation.verdict)


def smallest_detected(
    statement: Statement, study: Study, mutation: Mutation, sign: int, ladder: Sequence[float] = LADDER
) -> float:
    """The least amount of the ladder that is detected in this direction; NaN if none is."""
    for amount in sorted(ladder):
        if detection(statement, study, mutation, sign * amount).detected:
            return amount
    return float("nan")


def detects(statement: Statement, study: Study, mutations: Sequence[Mutation]) -> str:
    """What a claim was seen to detect: 'the closed-form rate +0.3 %, −0.3 %', or that it detects nothing."""
    found = []
    for mutation in mutations:
        if not mutation.graded:
            if all(detection(statement, study, mutation, sign * mutation.amount).detected for sign in mutation.signs):
                found.append(mutation.subject)
            continue
        amounts = [(sign, smallest_detected(statement, study, mutation, sign)) for sign in mutation.signs]
        seen = [f"{'+' if sign > 0 else '−'}{100 * amount:.3g} %" for sign, amount in amounts if not np.isnan(amount)]
        if seen:
            found.append(f"{mutation.subject} {', '.join(seen)}")
    return "; ".join(found) or "nothing"


# --- Changes ----------------------------------------------------------------------------------------------------


def scaled(*columns: str) -> Change:
    """Columns multiplied by 1 + amount, as far as a table has them; each entry of a column of lists."""

    def change(frame: pd.DataFrame, amount: float) -> dict[str, pd.Series]:
        return {name: _times(frame[name], 1 + amount) for name in columns if name in frame}

    return change


def shifted(column: str, unit: Callable[[pd.DataFrame], pd.Series]) -> Change:
    """A column moved by the amount, in a unit of the row."""
    return lambda frame, amount: {column: frame[column] + amount * unit(frame)}


def tilted(column: str, by: str) -> Change:
    """A column with the exponent of its power law in another column changed: y (x/x_max)^amount."""
    return lambda frame, amount: {column: frame[column] * (frame[by] / frame[by].max()) ** amount}


def replaced(column: str, values: Callable[[pd.DataFrame], pd.Series | str | float]) -> Change:
    """A column with other values, whatever the amount is."""
    return lambda frame, amount: {column: pd.Series(values(frame), frame.index)}


def _times(values: pd.Series, factor: float) -> pd.Series:
    if values.dtype == object:
        return values.map(lambda entry: factor * np.asarray(entry))
    return factor * values
