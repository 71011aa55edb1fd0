"""What a claim detects: its verdict where the recorded numbers are changed by the mutations beside it."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import pandas as pd

from .evidence import Claim, Statement, Study, judge, outcome, tested
from .mutation import Mutation

#: A bound is attained where the promised decay is at least this fraction of the measured one.
_ATTAINED = 0.99
#: Bytes of tables in memory for the mutations of one statement; what is larger is read again for each.
_ROOM = 2**27


@dataclass(frozen=True)
class Detection:
    """The verdict on a claim after one mutation in one direction.

    Attributes
    ----------
    claim, mutation, sign
        Name of the claim, the mutation, and the sign of its amount.
    verdict
        The verdict on the changed tables.
    seen
        Whether the mutation turned the verdict to the one that it must lead to.
    """

    claim: str
    mutation: Mutation
    sign: int
    verdict: str
    seen: bool


class Remembered(Study):
    """A study that reads each table once, as long as what it remembers takes less than a limit in bytes."""

    def __init__(self, study: Study, room: float = _ROOM) -> None:
        super().__init__(study.experiments)
        self._study, self._room = study, room
        self._read: dict[tuple[str, ...], list[pd.DataFrame]] = {}

    def tables(self, kind: str, table: str, columns: Sequence[str] | None = None) -> Iterator[pd.DataFrame]:
        """As `Study.tables`."""
        key = (kind, table, *(["*"] if columns is None else columns))
        if key in self._read:
            yield from self._read[key]
            return
        frames: list[pd.DataFrame] = []
        room = self._room
        for frame in self._study.tables(kind, table, columns):
            room -= frame.memory_usage(deep=True).sum()
            frames = [*frames, frame] if room > 0 else []
            yield frame
        if room > 0:
            self._read[key], self._room = frames, room


class Mutated(Study):
    """A study with the column of a mutation changed, in the direction of the sign."""

    def __init__(self, study: Study, mutation: Mutation, sign: int) -> None:
        super().__init__(study.experiments)
        self._study, self._mutation, self._sign = study, mutation, sign

    def tables(self, kind: str, table: str, columns: Sequence[str] | None = None) -> Iterator[pd.DataFrame]:
        """As `Study.tables`."""
        for frame in self._study.tables(kind, table, columns):
            changed = table == self._mutation.table and self._mutation.column in frame
            yield self._mutation(frame, self._sign) if changed else frame


def detections(statement: Statement, study: Study) -> tuple[Claim, list[Detection]]:
    """The verdict on a statement, and that after each of its mutations in each of its directions."""
    tables = Remembered(study)
    claim = judge(statement, tables)
    found = []
    for mutation in statement.mutations:
        for sign in mutation.directions:
            cases = tested(statement, Mutated(tables, mutation, sign))
            verdict = outcome(statement, _until_violated(cases, statement.tolerance))["verdict"]
            seen = claim.verdict != verdict == mutation.verdict and claim.cases > 0
            found.append(Detection(statement.name, mutation, sign, verdict, seen))
    return claim, found


def _until_violated(parts: Iterable[pd.DataFrame], tolerance: float) -> Iterator[pd.DataFrame]:
    """The blocks of cases up to the first with a violation, which decides the verdict."""
    for part in parts:
        yield part
        if not (part["deviation"] <= tolerance).all():
            return


def with_power(statement: Statement, study: Study) -> Claim:
    """The verdict on a statement, with what it was seen to detect."""
    claim, found = detections(statement, study)
    return replace(claim, detects=_summary(claim, found))


def _summary(claim: Claim, found: Sequence[Detection]) -> str:
    """'closed-form rate ± 1 %; not plateau time − 0.5 %'; of a bound also whether it is attained."""
    if not claim.cases:
        return "nothing: no case"
    parts = []
    for seen, start in ((True, ""), (False, "not ")):
        for mutation in dict.fromkeys(detection.mutation for detection in found):
            signs = tuple(one.sign for one in found if one.mutation is mutation and one.seen is seen)
            parts += [start + mutation.described(signs)] if signs else []
    if claim.largest_share < _ATTAINED:
        parts.append(f"not attained: it promises at most {claim.largest_share:.2g} of the measured decay")
    return "; ".join(parts) or "nothing"
