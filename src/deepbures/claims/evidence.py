"""Statements, the cases of a study that bear on them, and the verdict.

A statement selects its cases from the aggregates and gives the deviation of each in a unit of the problem itself. It
holds if no deviation exceeds its tolerance, is violated if one does, and is not testable if there are no cases, or if
no case could have contradicted it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from ..study.grid.axes import axes_of
from ..study.results import parquet
from .mutation import Mutation

#: Source of a statement: the paper's abstract; the authors' program, with its constants and conventions; our
#: reconstruction of the paper's theorems from both, because we did not have its body; our own results; and what we
#: conjecture, where a search found no violation.
Source = Literal["abstract", "program", "reconstructed", "ours", "conjecture (ours)"]
SOURCES: tuple[Source, ...] = ("abstract", "program", "reconstructed", "ours", "conjecture (ours)")

#: A column, or a mask of rows, from a table; and the cases of a statement in a study, see `Statement`.
Column = Callable[[pd.DataFrame], pd.Series]
Cases = Callable[["Study"], Iterator[pd.DataFrame]]

#: Rounding of a recorded loss, relative to L(0).
LOSS_ROUNDING = 1e-12
#: A promised decay below this many roundings of the loss is no case.
_POWER = 1e6
#: Below this fraction of L(0) − L* the rounding of W ends every decay.
_FLOOR = 1e-24
#: Columns of vectors that no statement reads; the first holds n² numbers a run.
_UNREAD = ("alignment", "eigenvalues_initial")
#: Rows of trajectories that are in memory at a time, about.
_BLOCK = 100_000
#: A bound can be tested if it promises at least this fraction of the measured decay in one of its cases.
_LEAST_SHARE = 0.01


@dataclass(frozen=True, kw_only=True)
class Stated:
    """A statement in words and as a formula, and its test.

    Attributes
    ----------
    name, source
        Short name; one of `SOURCES`, ours unless another is named.
    statement, formula
        The statement with its scope, as a sentence and as a formula.
    test
        The comparison made in each case.
    unit, tolerance
        Unit of a deviation, and the largest deviation allowed.
    refuted
        For a statement known to be false, the place of the proved counterexample: the statement should be violated.
    """

    name: str
    source: Source = "ours"
    statement: str
    formula: str
    test: str
    unit: str
    tolerance: float
    refuted: str = ""


@dataclass(frozen=True, kw_only=True)
class Statement(Stated):
    """A statement, with the function that finds its cases in a study.

    Attributes
    ----------
    cases
        Frames with one row per case: the axes, `experiment` and `seed` of its run, and its `deviation` (NaN: a
        violation). A bound on the decay of the excess loss gives `promised` and `fell` instead, the natural logarithms
        of the promised and of the measured decay factor; its deviation is (1 − fell/promised)_+.
    mutations
        Small changes of the subject of the statement, each of which must turn the verdict.
    bound
        Whether the statement is such a bound.
    kind
        Kind of experiment that the statement is about; a study without such experiments omits it. Empty for statements
        about several kinds.
    """

    cases: Cases
    mutations: tuple[Mutation, ...] = ()
    bound: bool = False
    kind: str = ""


#: A bound on the decay of the excess loss.
Bound = partial(Statement, unit="the promised decay (logarithms)", tolerance=1e-3, bound=True)


@dataclass(frozen=True, kw_only=True)
class Claim(Stated):
    """A statement with its verdict on a study.

    Attributes
    ----------
    cases, runs, targets
        Number of cases, of runs with a case, and of independent targets of these runs.
    violations
        Number of cases with a deviation above the tolerance.
    worst_deviation
        The largest deviation; NaN without cases.
    share, largest_share
        For a bound: median and maximum over the cases of promised / measured decay, in logarithms; else NaN.
    verdict
        `holds`, `violated`, or `not testable here: ` and the reason.
    detects
        The mutations that turned the verdict, and those that did not (see `power`); empty if they were not run.
    """

    cases: int
    runs: int
    targets: int
    violations: int
    worst_deviation: float
    share: float
    largest_share: float
    verdict: str
    detects: str = ""


@dataclass(frozen=True)
class Tables:
    """The tables of an experiment.

    Attributes
    ----------
    folder, kind
        Folder of the aggregates, and the kind of the experiment.
    target
        Name of the random stream of the targets, or of the single target.
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
        self._kind, self._once = "", functools.cache(self._whole)

    def tables(self, kind: str, table: str, columns: Sequence[str] | None = None) -> Iterator[pd.DataFrame]:
        """One table of each experiment of a kind, with the experiment's name; read once, and whole without `columns`.

        Grid points that denote the same problem have rows of their own in the aggregates; only the first is returned:
        of every table for the ε of the square loss, which has none, and of `runs` for each ε that was limited. With
        `columns`, a large table is returned in blocks of all rows of several cells, with these columns and the axes.
        """
        if kind != self._kind:  # whole tables of one kind are in memory at a time
            self._kind = kind
            self._once.cache_clear()
        for name in (name for name, tables in self.experiments.items() if tables.kind == kind):
            yield from filter(len, [self._once(name, table)] if columns is None else self._blocks(name, table, columns))

    def training(self, kind: str, columns: Sequence[str]) -> Iterator[tuple[pd.DataFrame, pd.DataFrame]]:
        """Blocks of trajectories with the given columns, each after the table of runs of its experiment."""
        runs = {frame["experiment"].iat[0]: frame for frame in self.tables(kind, "runs")}
        for block in self.tables(kind, "trajectories", columns):
            yield runs[block["experiment"].iat[0]], block

    def _whole(self, name: str, table: str) -> pd.DataFrame:
        path = self._path(name, table)
        frame = parquet.read(path, [column for column in parquet.Table(path).columns if column not in _UNREAD])
        if "loss_name" in frame:
            square = frame["loss_name"] == "frobenius"
            frame = frame[~square | (frame["epsilon"] == frame["epsilon"].min())]
        if table == "runs":
            problem = [axis if axis != "epsilon" else "epsilon_effective" for axis in axes_of(frame.columns)]
            frame = frame.drop_duplicates([*problem, "seed"])
        return self._named(name, frame)

    def _blocks(self, name: str, table: str, columns: Sequence[str]) -> Iterator[pd.DataFrame]:
        file = parquet.Table(self._path(name, table))
        for block in file.blocks([*axes_of(file.columns), "seed", *columns], {}, _BLOCK):
            yield self._named(name, block.to_pandas())

    def _path(self, name: str, table: str) -> Path:
        return Path(self.experiments[name].folder) / f"{table}.parquet"

    def _named(self, name: str, frame: pd.DataFrame) -> pd.DataFrame:
        names = [*self.experiments]
        return frame.assign(experiment=pd.Categorical.from_codes([names.index(name)] * len(frame), names))

    def targets(self, cases: pd.DataFrame) -> int:
        """Number of independent targets of some cases; targets of one stream that differ only in smin count once."""
        pairs = cases[["experiment", "seed"]].drop_duplicates()
        tables = pairs["experiment"].map(self.experiments.get)
        return len({(one.target, seed if one.drawn else None) for one, seed in zip(tables, pairs["seed"], strict=True)})


def each(kind: str, table: str, cases: Callable[[pd.DataFrame], pd.DataFrame]) -> Cases:
    """Cases that a function selects from one table of each experiment of a kind."""
    return lambda study: map(cases, study.tables(kind, table))


def off(cases: pd.DataFrame, measured: str, expected: str) -> pd.DataFrame:
    """Cases with the deviation |measured / expected − 1|."""
    return cases.assign(deviation=(cases[measured] / cases[expected] - 1).abs())


def keys_of(frame: pd.DataFrame) -> list[str]:
    """Columns that identify a run: experiment, axes, seed."""
    return ["experiment", *axes_of(frame.columns), "seed"]


def with_runs(trajectories: pd.DataFrame, runs: pd.DataFrame, columns: Sequence[str]) -> pd.DataFrame:
    """Trajectories of the given runs, with the given columns of the runs."""
    keys = keys_of(runs)
    return trajectories.merge(runs[[*keys, *columns]], on=keys)


def above_rounding(trajectories: pd.DataFrame) -> pd.Series:
    """Whether the excess loss of a record is above the rounding of W, below which no bound can be tested (NaN: yes)."""
    return ~(trajectories["excess"] <= _FLOOR * trajectories["excess_initial"])


def decayed(records: pd.DataFrame, promised: pd.Series) -> pd.DataFrame:
    """Cases of a bound: the promised logarithm of the decay factor, and the measured one, log (L(0) − L*)/(L − L*)."""
    with np.errstate(divide="ignore"):
        return records.assign(promised=promised, fell=np.log(records["excess_initial"] / records["excess"]))


def decays(rate: str, covered: Column, kind: str = "flow") -> Cases:
    """Promised decay rate · t and measured decay of the excess loss at all samples t > 0 of the flows covered."""

    def cases(study: Study) -> Iterator[pd.DataFrame]:
        for runs, trajectories in study.training(kind, ["time", "excess"]):
            merged = with_runs(trajectories, runs[covered(runs)], [rate, "excess_initial"])
            merged = merged[(merged["time"] > 0) & above_rounding(merged)]
            yield decayed(merged, merged[rate] * merged["time"])

    return cases


def judge(statement: Statement, study: Study) -> Claim:
    """Test a statement on a study."""
    runs, pairs = [], []

    def counted() -> Iterator[pd.DataFrame]:
        for part in tested(statement, study):
            runs.append(len(part[keys_of(part)].drop_duplicates()))
            pairs.append(part[["experiment", "seed"]].drop_duplicates())
            yield part

    found = outcome(statement, counted())
    return Claim(
        **{field.name: getattr(statement, field.name) for field in fields(Stated)},
        **found,
        runs=sum(runs),
        targets=study.targets(pd.concat(pairs)) if pairs else 0,
    )


def tested(statement: Statement, study: Study) -> Iterator[pd.DataFrame]:
    """The cases of a statement in a study with their deviations; of a large table those of one block at a time."""
    for part in statement.cases(study):
        if statement.bound:
            part = part[part["promised"] >= _POWER * LOSS_ROUNDING]
            part = part.assign(deviation=np.maximum(1 - part["fell"] / part["promised"], 0))
        if len(part):
            yield part


def outcome(statement: Statement, parts: Iterable[pd.DataFrame]) -> dict[str, Any]:
    """The attributes of a claim that follow from its cases alone: their number, violations, deviations, verdict."""
    worst, shares, cases, violations = [], [], 0, 0
    for part in parts:
        deviations = part["deviation"].to_numpy(dtype=float)
        cases += len(deviations)
        violations += int(np.sum(~(deviations <= statement.tolerance)))  # NaN is a violation
        worst.append(np.max(deviations))
        if statement.bound:
            with np.errstate(divide="ignore"):
                shares.append((part["promised"] / part["fell"].clip(lower=0)).to_numpy())
    share = largest_share = float("nan")
    if shares:
        ratios = np.concatenate(shares)
        largest_share, share = float(np.max(ratios)), float(np.median(ratios, overwrite_input=True))
    if violations:
        verdict = "violated"
    elif not cases:
        verdict = "not testable here: no experiment has such a case"
    elif largest_share < _LEAST_SHARE:
        verdict = f"not testable here: the bound promises at most {largest_share:.1g} of the measured decay"
    else:
        verdict = "holds"
    return {
        "cases": cases,
        "violations": violations,
        "worst_deviation": float(np.max(worst)) if worst else float("nan"),
        "share": share,
        "largest_share": largest_share,
        "verdict": verdict,
    }
