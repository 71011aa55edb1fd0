"""What a claim is, and how the cases of a study become a verdict on it.

A statement looks at every case in the aggregates that bears on it and says by how much the case deviates, in a unit of
the problem itself. It holds where no deviation exceeds its tolerance, is violated where one does, and is not testable
where there are no cases, or where no case could have contradicted it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from ..study.grid.axes import axes_of
from ..study.results import parquet

#: Whose a statement is: what the paper's abstract states; constants and conventions of the authors' program; what we
#: take the paper to prove, reconstructed from both because we did not have its body; what goes beyond.
Source = Literal["abstract", "program", "reconstructed", "ours"]
SOURCES: tuple[Source, ...] = ("abstract", "program", "reconstructed", "ours")

#: Rounding of a recorded loss, as a share of L(0).
LOSS_ROUNDING = 1e-12
#: A promised fall counts as a case if it is at least this many roundings, …
_POWER = 1e6
#: … and the cases of a bound are informative if one of them uses at least this share of the measured fall.
_LEAST_SHARE = 0.01


@dataclass(frozen=True, kw_only=True)
class Stated:
    """What is claimed, and how it is tested.

    Attributes
    ----------
    name, source
        Short name; one of `SOURCES`.
    statement, formula
        In words with its scope, and as a formula.
    test
        What is compared in each case.
    unit, tolerance
        Unit of a deviation, and the largest that the claim allows.
    sees
        The smallest fault that the test would notice.
    refuted
        Where a counterexample is proved, for a statement known to be false: it should be violated.
    """

    name: str
    source: Source
    statement: str
    formula: str
    test: str
    unit: str
    tolerance: float
    sees: str
    refuted: str = ""


@dataclass(frozen=True, kw_only=True)
class Statement(Stated):
    """A claim as it is made.

    Attributes
    ----------
    missing
        What a study without cases lacks; by default an experiment of its kind.
    cases
        Frames with one row per case: the axes, `experiment` and `seed` of its run, and its `deviation` (NaN: a
        violation). For a bound, `promised` and `fell` instead: natural logarithms of the promised and of the measured
        fall of the excess loss. It deviates by the share of the promise that is missing, (1 − fell/promised)_+.
    bound
        Whether it is a bound on how far the excess loss falls.
    kind
        Kind of experiment without which a study does not make the claim; none for claims of the study itself.
    """

    cases: Callable[[Study], Iterator[pd.DataFrame]]
    missing: str = ""
    bound: bool = False
    kind: str = ""


@dataclass(frozen=True, kw_only=True)
class Claim(Stated):
    """A statement, and what a study says about it.

    Attributes
    ----------
    cases, runs, targets
        How many cases were examined, in how many runs, on how many independent targets.
    violations
        In how many cases the deviation exceeds the tolerance.
    worst_deviation
        The largest deviation; NaN without cases.
    share, largest_share
        For a bound: median and largest share of the measured fall that it had promised; else NaN.
    verdict
        `holds`, `violated`, or `not testable here: …` and why.
    """

    cases: int
    runs: int
    targets: int
    violations: int
    worst_deviation: float
    share: float
    largest_share: float
    verdict: str


@dataclass(frozen=True)
class Tables:
    """Where the tables of an experiment are, and what they are about.

    Attributes
    ----------
    folder, kind
        Folder of the aggregates, and the kind of the experiment.
    target
        Name of the stream from which the targets are drawn, or of the single target.
    drawn
        Whether each seed has a target of its own.
    """

    folder: str | Path
    kind: str
    target: str = ""
    drawn: bool = True


class Study:
    """The aggregate tables of a study, by kind of experiment."""

    def __init__(self, experiments: Mapping[str, Tables]) -> None:
        self.experiments = dict(experiments)

    def tables(self, kind: str, table: str, columns: Sequence[str] | None = None) -> Iterator[pd.DataFrame]:
        """The table of that name of each experiment of a kind, with its name, its axes and the given columns.

        Cells that are the same problem are in the tables once for each grid point; here they count once.
        """
        for name, tables in self.experiments.items():
            if tables.kind != kind:
                continue
            frame = parquet.read(Path(tables.folder) / f"{table}.parquet")
            if columns is not None:
                frame = frame[[*axes_of(frame.columns), "seed", *columns]]
            if "loss_name" in frame:
                square = frame["loss_name"] == "frobenius"
                frame = frame[~square | (frame["epsilon"] == frame["epsilon"].min())]
            if "epsilon_effective" in frame:
                problem = [axis if axis != "epsilon" else "epsilon_effective" for axis in axes_of(frame.columns)]
                frame = frame.drop_duplicates([*problem, "seed"])
            yield frame.assign(experiment=pd.Categorical([name] * len(frame), [*self.experiments]))

    def training(self, kind: str, columns: Sequence[str]) -> Iterator[tuple[pd.DataFrame, pd.DataFrame]]:
        """Runs, and samples with the given columns, of every experiment of a kind that trains."""
        return zip(self.tables(kind, "runs"), self.tables(kind, "trajectories", columns), strict=True)

    def targets(self, cases: pd.DataFrame) -> int:
        """Number of independent targets behind some cases: targets of one stream that differ in smin count once."""
        pairs = cases[["experiment", "seed"]].drop_duplicates()
        found = {
            (tables.target, seed if tables.drawn else None)
            for tables, seed in zip(pairs["experiment"].map(self.experiments.get), pairs["seed"], strict=True)
        }
        return len(found)


def each(
    kind: str, table: str, cases: Callable[[pd.DataFrame], pd.DataFrame]
) -> Callable[[Study], Iterator[pd.DataFrame]]:
    """The cases of a statement that a function finds in one table of each experiment of a kind."""
    return lambda study: map(cases, study.tables(kind, table))


def off(cases: pd.DataFrame, measured: str, expected: str) -> pd.DataFrame:
    """Cases that deviate by the share by which one column is off the other."""
    return cases.assign(deviation=(cases[measured] / cases[expected] - 1).abs())


def keys_of(frame: pd.DataFrame) -> list[str]:
    """Columns that name a run: experiment, axes, seed."""
    return ["experiment", *axes_of(frame.columns), "seed"]


def with_runs(trajectories: pd.DataFrame, runs: pd.DataFrame, columns: Sequence[str]) -> pd.DataFrame:
    """Samples of the given runs, with the given columns of the runs."""
    keys = keys_of(runs)
    return trajectories.merge(runs[[*keys, *columns]], on=keys)


def judge(statement: Statement, study: Study) -> Claim:
    """Test a statement on a study."""
    parts = [part for part in statement.cases(study) if len(part)]
    enough = True
    share = largest_share = float("nan")
    if statement.bound:
        parts = [part[part["promised"] >= _POWER * LOSS_ROUNDING] for part in parts]
        parts = [
            part.assign(deviation=np.maximum(1 - part["fell"] / part["promised"], 0)) for part in parts if len(part)
        ]
        if parts:
            with np.errstate(divide="ignore"):
                shares = np.concatenate([(part["promised"] / part["fell"].clip(lower=0)).to_numpy() for part in parts])
            share, largest_share = float(np.median(shares)), float(np.max(shares))
            enough = largest_share >= _LEAST_SHARE
    deviations = np.concatenate([part["deviation"].to_numpy(dtype=float) for part in parts]) if parts else np.array([])
    violations = int(np.sum(~(deviations <= statement.tolerance)))  # NaN is a violation
    if violations:
        verdict = "violated"
    elif not len(deviations):
        verdict = f"not testable here: {statement.missing or f'no experiment of the kind {statement.kind}'}"
    elif not enough:
        verdict = f"not testable here: it promises {largest_share:.1g} of the measured fall at most"
    else:
        verdict = "holds"
    return Claim(
        **{field.name: getattr(statement, field.name) for field in fields(Stated)},
        cases=len(deviations),
        runs=sum(len(part[keys_of(part)].drop_duplicates()) for part in parts),
        targets=study.targets(pd.concat([part[["experiment", "seed"]] for part in parts])) if parts else 0,
        violations=violations,
        worst_deviation=float(np.max(deviations)) if len(deviations) else float("nan"),
        share=share,
        largest_share=largest_share,
        verdict=verdict,
    )
