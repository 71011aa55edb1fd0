"""Small changes of recorded numbers, beside a claim: each must turn its verdict."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

#: New values of a column, from its table, its name and the signed amount of the change.
Change = Callable[[pd.DataFrame, str, float], Any]


def scaled(table: pd.DataFrame, column: str, amount: float) -> pd.Series:
    """Multiply by 1 + amount, entry by entry in a column of vectors."""
    return (1 + amount) * table[column]


def raised(table: pd.DataFrame, column: str, amount: float) -> pd.Series:
    """Raise to the power 1 + amount: multiplies the logarithm."""
    return table[column] ** (1 + amount)


def shifted(unit: str | float = 1.0) -> Change:
    """Add the amount times a unit: a number, or another column of the table."""
    return lambda table, column, amount: table[column] + amount * (table[unit] if isinstance(unit, str) else unit)


def tilted(by: str) -> Change:
    """Add the amount to the exponent of a power law in another column x: y (x / x_max)^amount, where x > 0."""

    def change(table: pd.DataFrame, column: str, amount: float) -> pd.Series:
        x = (table[by] / table[by].max()).where(table[by] > 0, 1.0)
        return table[column] * x**amount

    return change


def where(rows: Callable[[pd.DataFrame], Any], change: Change = scaled) -> Change:
    """Change only the rows of a mask, which is a function of the table."""
    return lambda table, column, amount: np.where(rows(table), change(table, column, amount), table[column])


@dataclass(frozen=True)
class Mutation:
    """A small change of the subject of a claim, which must turn its verdict.

    Attributes
    ----------
    subject
        What is changed, in words: 'closed-form rate'.
    table, column
        Where it is recorded; the column must be one that the claim reads. A claim about several kinds of experiment is
        judged on all of them with this column changed.
    amount
        Size of the change: 0.01 is 1 %. None for a change that `subject` describes completely.
    change
        How the amount changes the column: `scaled` by default.
    unit
        How the amount is written: '%', '×' (the factor 1 + amount), or the unit of a shift.
    signs
        Directions in which the verdict must turn: both for an equality, one for a bound.
    verdict
        What the verdict must become: 'holds' only for a statement that is known to be false.
    """

    subject: str
    table: str
    column: str
    amount: float | None = None
    change: Change = scaled
    unit: str = "%"
    signs: tuple[int, ...] = (1, -1)
    verdict: str = "violated"

    @property
    def directions(self) -> tuple[int, ...]:
        """The signs of the amount; one for a change without an amount."""
        return (1,) if self.amount is None or self.unit == "×" else self.signs

    def __call__(self, table: pd.DataFrame, sign: int) -> pd.DataFrame:
        """The table with the column changed."""
        return table.assign(**{self.column: self.change(table, self.column, sign * (self.amount or 0.0))})

    def described(self, signs: tuple[int, ...]) -> str:
        """The change in the given directions: 'closed-form rate ± 1 %'."""
        if self.amount is None:
            return self.subject
        if self.unit == "×":
            return f"{self.subject} × {1 + self.amount:g}"
        sign = "±" if len(signs) == 2 else "+" if signs == (1,) else "−"
        size = f"{100 * self.amount:g} %" if self.unit == "%" else f"{self.amount:g} {self.unit}".rstrip()
        return f"{self.subject} {sign} {size}"


def replaced(
    subject: str, table: str, column: str, values: Callable[[pd.DataFrame], Any], verdict: str = "violated"
) -> Mutation:
    """Other values in place of a column, a function of its table; `subject` describes the change completely."""
    return Mutation(subject, table, column, change=lambda frame, _column, _amount: values(frame), verdict=verdict)
