"""The mutations beside a claim: how they change tables, and that what they report is what was seen."""

import numpy as np
import pandas as pd
import pytest

from deepbures.claims import Mutation, Study, Tables, detections
from deepbures.claims.evidence import Bound, Statement
from deepbures.claims.mutation import replaced, scaled, shifted, tilted, where
from deepbures.claims.power import Remembered, with_power

FRAME = pd.DataFrame({"x": [1.0, 10.0], "y": [2.0, 4.0], "many": [np.array([1.0, 2.0]), np.array([3.0])]})


class Given(Study):
    """A study of tables in memory."""

    def __init__(self, **tables):
        super().__init__({"one": Tables("", "flow")})
        self.given, self.read = tables, 0

    def tables(self, kind, table, columns=None):
        self.read += 1
        yield self.given[table].assign(experiment="one", seed=range(len(self.given[table])))


def statement(**changes):
    given = {
        "name": "rate",
        "source": "ours",
        "statement": "measured = expected",
        "formula": "a = b",
        "test": "both",
        "unit": "the rate",
        "tolerance": 0.02,
        "cases": lambda study: (t.assign(deviation=(t["y"] / t["x"] - 1).abs()) for t in study.tables("flow", "runs")),
    }
    return Statement(**{**given, **changes})


@pytest.mark.parametrize(
    ("change", "column", "amount", "expected"),
    [
        (scaled, "y", 0.5, [3, 6]),
        (shifted(), "y", 0.5, [2.5, 4.5]),
        (shifted("x"), "y", -0.1, [1.9, 3]),
        (tilted("x"), "y", 2.0, [0.02, 4]),  # y ~ x^p becomes y ~ x^(p + 2), the same at the largest x
        (where(lambda table: table["x"] > 1), "y", 0.5, [2, 6]),
    ],
)
def test_changes_by_their_formulas(change, column, amount, expected):
    np.testing.assert_allclose(Mutation("", "runs", column, amount, change)(FRAME, 1)[column], expected)


def test_other_values_replace_a_column():
    mutation = replaced("all of it", "runs", "y", lambda table: table["x"])
    np.testing.assert_array_equal(mutation(FRAME, 1)["y"], FRAME["x"])
    assert (mutation.described((1,)), mutation.directions, mutation.verdict) == ("all of it", (1,), "violated")


def test_vectors_are_scaled_entry_by_entry():
    many = Mutation("", "runs", "many", 1.0)(FRAME, 1)["many"]
    assert [list(vector) for vector in many] == [[2, 4], [6]]


def test_the_column_of_detections_is_what_was_seen():
    study = Given(runs=pd.DataFrame({"x": [1.0, 1.0], "y": [1.0, 1.01]}))
    mutations = (
        Mutation("rate", "runs", "y", 0.1),
        Mutation("expected", "runs", "x", 0.015),
        Mutation("z", "runs", "z"),
    )
    claim = with_power(statement(mutations=mutations), study)
    # 1.01 / 1.015 and 1 / 1.015 are within 2 %, 1.01 / 0.985 is not; a column that the claim does not read is not seen.
    assert claim.detects == "rate ± 10 %; expected − 1.5 %; not expected + 1.5 %; not z"
    assert claim.verdict == "holds"
    assert study.read == 1  # the table is read once, however many the mutations are


def test_a_claim_without_cases_or_with_another_verdict_detects_nothing():
    mutation = Mutation("rate", "runs", "y", 0.1)
    assert with_power(statement(mutations=(mutation,)), Given(runs=FRAME[:0])).detects == "nothing: no case"
    violated = Given(runs=pd.DataFrame({"x": [1.0], "y": [2.0]}))
    claim, found = detections(statement(mutations=(mutation,)), violated)
    assert claim.verdict == "violated"
    assert [(one.verdict, one.seen) for one in found] == [("violated", False)] * 2


def test_a_bound_says_whether_it_is_attained():
    def cases(study):
        for t in study.tables("flow", "runs"):
            yield t.assign(promised=t["x"], fell=t["y"])

    bound = Bound(
        **{key: getattr(statement(), key) for key in ("name", "source", "statement", "formula", "test")}, cases=cases
    )
    assert with_power(bound, Given(runs=FRAME[:1])).detects == (
        "not attained: it promises at most 0.5 of the measured decay"
    )
    assert with_power(bound, Given(runs=FRAME.assign(y=FRAME["x"]))).detects == "nothing"


def test_amounts_are_written_with_sign_and_unit():
    assert Mutation("rate", "", "", 0.005).described((1, -1)) == "rate ± 0.5 %"
    assert Mutation("order", "", "", 0.02, unit="").described((-1,)) == "order − 0.02"
    assert Mutation("value", "", "", 1e-3, unit="λ_1").described((1,)) == "value + 0.001 λ_1"
    assert Mutation("rate", "", "", 7.0, unit="×").described((1,)) == "rate × 8"
    assert Mutation("rate", "", "", 7.0, unit="×").directions == (1,)
    assert Mutation("all of it", "", "").described((1,)) == "all of it"


def test_what_is_too_large_to_be_remembered_is_read_again():
    given = Given(runs=FRAME, trajectories=FRAME)
    room = FRAME.assign(experiment="one", seed=0).memory_usage(deep=True).sum() + 1
    study = Remembered(given, room)
    for table, reads in (("runs", 1), ("runs", 1), ("trajectories", 2), ("trajectories", 3), ("runs", 3)):
        (frame,) = study.tables("flow", table)
        assert list(frame["y"]) == [2, 4]
        assert given.read == reads
