"""All statements, and their verdicts on a study."""

from collections.abc import Container, Sequence
from dataclasses import asdict
from pathlib import Path

import pandas as pd

from . import critical, descent, flow, neighbours, sampling
from .evidence import Claim, Statement, Study, judge

#: Every statement, in the order of the table, which is the order of their definitions.
STATEMENTS = tuple(
    value
    for module in (critical, flow, descent, sampling, neighbours)
    for value in vars(module).values()
    if isinstance(value, Statement)
)


def evaluate(study: Study, names: Container[str] | None = None) -> list[Claim]:
    """Test the statements about the kinds of experiment in a study, or only those with the given names."""
    kinds = {"", *(tables.kind for tables in study.experiments.values())}
    tested = [statement for statement in STATEMENTS if statement.kind in kinds]
    return [judge(statement, study) for statement in tested if names is None or statement.name in names]


def table(claims: Sequence[Claim]) -> pd.DataFrame:
    """One row per claim, with the attributes of `Claim` as columns."""
    return pd.DataFrame([asdict(claim) for claim in claims])


def read(path: str | Path) -> pd.DataFrame:
    """The `table` of claims in a CSV file that a study wrote."""
    return pd.read_csv(path, keep_default_na=False, na_values=[""]).fillna({"refuted": ""})
