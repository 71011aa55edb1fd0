"""A claim is judged again where its subject is changed: what it then says is what it detects."""

import numpy as np
import pandas as pd
import pytest
from claims_study import STUDY, make

from deepbures import claims
from deepbures.claims.mutations import MUTATIONS
from deepbures.claims.power import (
    MutatedStudy,
    Mutation,
    detection,
    detections,
    detects,
    replaced,
    scaled,
    shifted,
    smallest_detected,
    tilted,
)

FOLDERS = ("flows", "aligned", "broken")
STATEMENTS = {statement.name: statement for statement in claims.STATEMENTS}


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    root = make(tmp_path_factory.mktemp("power"), FOLDERS)
    return claims.Study({name: claims.Tables(root / name, STUDY[name][0], "4 zipf") for name in FOLDERS})


def test_every_mutation_is_of_a_claim_and_of_its_kind():
    assert set(MUTATIONS) <= set(STATEMENTS)
    for name, mutations in MUTATIONS.items():
        assert mutations
        for mutation in mutations:
            assert STATEMENTS[name].kind in ("", mutation.kind)
            assert mutation.amount > 0
            assert mutation.verdict in ("violated", "holds")


@pytest.mark.parametrize("name", ["sharp rate", "global rate of the flow", "Polyak-Łojasiewicz equality"])
def test_a_claim_that_holds_detects_its_mutations(study, name):
    found = detections(STATEMENTS[name], study, MUTATIONS[name])
    assert len(found) == sum(len(mutation.signs) for mutation in MUTATIONS[name])
    assert all(row.detected and row.verdict == "violated" and row.claim == name for row in found)


def test_no_change_changes_no_verdict(study):
    for name in ("sharp rate", "global rate of the flow", "margin kept", "plateau times"):
        for mutation in MUTATIONS[name]:
            if mutation.graded:
                assert detection(STATEMENTS[name], study, mutation, 0.0).verdict == "holds"


def test_a_claim_that_is_silent_is_said_to_be(study):
    # Plateau times to 1 %: half a percent is not seen, 2 % is.
    statement, (mutation,) = STATEMENTS["plateau times"], MUTATIONS["plateau times"]
    assert not any(row.detected for row in detections(statement, study, (mutation,)))
    assert detection(statement, study, mutation, 0.05).detected
    least = smallest_detected(statement, study, mutation, 1)
    assert 0.005 < least <= 0.02
    assert detects(statement, study, (mutation,)).startswith(f"the closed-form time +{100 * least:g} %")
    nowhere = Mutation(subject="a column", kind="descent", changes={"runs": scaled("eta")}, amount=0.01)
    assert detects(statement, study, (nowhere,)) == "nothing"
    assert np.isnan(smallest_detected(statement, study, nowhere, -1))


def test_a_statement_that_is_false_holds_where_it_is_repaired(study):
    # The rebuilt bound is broken at n = 1, λ = ε. Limited to the global rate, which is 0 there, it is not.
    statement, (mutation,) = STATEMENTS["bound of the flow"], MUTATIONS["bound of the flow"]
    assert detection(statement, study, mutation, 1.0).verdict != "violated"


def test_only_the_changed_columns_change(study):
    (mutation,) = MUTATIONS["sharp rate"]
    for before, after in zip(
        study.tables("flow", "runs"), MutatedStudy(study, mutation, 0.01).tables("flow", "runs"), strict=True
    ):
        np.testing.assert_allclose(after["sharp_rate"], 1.01 * before["sharp_rate"])
        pd.testing.assert_frame_equal(after.drop(columns="sharp_rate"), before.drop(columns="sharp_rate"))
    for before, after in zip(
        study.tables("flow", "trajectories", ["excess"]),
        MutatedStudy(study, mutation, 0.01).tables("flow", "trajectories", ["excess"]),
        strict=True,
    ):
        pd.testing.assert_frame_equal(after, before)


def test_the_changes_by_their_formulas():
    frame = pd.DataFrame({"x": [1.0, 10.0], "y": [2.0, 4.0], "many": [[1.0, 2.0], [3.0]]})
    assert scaled("y", "absent")(frame, 0.5)["y"].tolist() == [3, 6]
    assert set(scaled("y", "absent")(frame, 0.5)) == {"y"}
    assert [list(entry) for entry in scaled("many")(frame, 1.0)["many"]] == [[2, 4], [6]]
    assert shifted("y", lambda table: table["x"])(frame, -0.1)["y"].tolist() == [1.9, 3]
    # y ~ x^p becomes y ~ x^{p + amount}
    np.testing.assert_allclose(tilted("y", "x")(frame, 2.0)["y"], [0.02, 4])
    assert replaced("y", lambda table: table["x"])(frame, 7)["y"].tolist() == [1, 10]
