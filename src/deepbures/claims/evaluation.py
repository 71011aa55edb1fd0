"""All statements, and their verdicts on a study."""

from collections.abc import Container, Sequence
from dataclasses import asdict
from pathlib import Path

import pandas as pd

from . import critical, descent, flow, layers, minibatch, neighbours, records, sampling, smoothing, thresholds
from .evidence import Claim, Statement, Study, judge
from .power import with_power

#: Every statement, in the order of the table, which is the order of their definitions.
STATEMENTS = tuple(
    value
    for module in (critical, thresholds, flow, descent, layers, records, sampling, smoothing, minibatch, neighbours)
    for value in vars(module).values()
    if isinstance(value, Statement)
)


def evaluate(study: Study, names: Container[str] | None = None, *, power: bool = False) -> list[Claim]:
    """Test the statements about the kinds of experiment in a study, or only those with the given names.

    With `power`, each claim also says which of its mutations turned its verdict.
    """
    test = with_power if power else judge
    return [test(statement, study) for statement in about(study) if names is None or statement.name in names]


def about(study: Study) -> list[Statement]:
    """The statements about the kinds of experiment in a study."""
    kinds = {"", *(tables.kind for tables in study.experiments.values())}
    return [statement for statement in STATEMENTS if statement.kind in kinds]


def table(claims: Sequence[Claim]) -> pd.DataFrame:
    """One row per claim, with the attributes of `Claim` as columns."""
    return pd.DataFrame([asdict(claim) for claim in claims])


def read(path: str | Path) -> pd.DataFrame:
    """The `table` of claims in a CSV file that a study wrote."""
    texts = {"refuted": str, "detects": str}
    return pd.read_csv(path, keep_default_na=False, na_values=[""], dtype=texts).fillna(dict.fromkeys(texts, ""))
