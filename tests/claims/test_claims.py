"""Claims hold on a small study, and each is violated by a table that contradicts it."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from claims_study import STUDY, claims_of, make
from collected import write_table

from deepbures import claims
from deepbures.__main__ import main
from deepbures.claims import minibatch, neighbours, smoothing
from deepbures.claims.evidence import SOURCES, Statement, judge
from deepbures.claims.mutation import replaced
from deepbures.claims.power import Mutated, Remembered
from deepbures.study.results.code_digest import code_digest
from deepbures.study.results.parquet import Table
from deepbures.study.run import roots

pytestmark = pytest.mark.xdist_group("claims")  # one worker makes the small study
ROOT = Path(__file__).parents[2]
#: About the neighbours and what lies beyond the paper, whose claims are tested with their kinds.
ELSEWHERE = {
    statement.name
    for module in (minibatch, neighbours, smoothing)
    for statement in vars(module).values()
    if isinstance(statement, Statement)
}
STATEMENTS = {one.name: one for one in claims.STATEMENTS if one.name not in ELSEWHERE}


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Folder with the aggregates of a small study."""
    return make(tmp_path_factory.mktemp("study"))


@pytest.fixture(scope="module")
def found(study):
    """All claims on the small study, by name."""
    return claims_of(study)


@pytest.fixture(scope="module")
def tables(study):
    """The small study in memory."""
    return Remembered(claims.Study({name: claims.Tables(study / name, STUDY[name][0], "4 zipf") for name in STUDY}))


def judged(tables, name, table, column, values):
    """A claim on the study with other values of one column, a function of its table."""
    return judge(STATEMENTS[name], Mutated(tables, replaced("", table, column, values), 1))


def test_every_claim_holds_on_a_small_study_unless_it_is_refuted(found):
    for name in STATEMENTS:
        claim = found[name]
        assert claim.verdict == ("violated" if claim.refuted else "holds"), claim
        assert (claim.worst_deviation <= claim.tolerance) == (claim.violations == 0) == (not claim.refuted)
        assert claim.cases >= claim.runs >= claim.targets > 0


def test_the_bound_of_the_flow_is_violated_where_epsilon_is_the_least_eigenvalue(found):
    # n = 1, λ = ε = 1, W(0) = 0.5: the counterexample of docs/paper.md; W does not keep its margin there.
    bound, repaired, tight = (
        found[name]
        for name in ("bound of the flow", "bound of the flow where W keeps the margin", "global rate of the flow")
    )
    assert bound.verdict == "violated"
    assert "as docs/paper.md section 8 proves" in claims.markdown(claims.table([bound]))
    assert repaired.verdict == tight.verdict == "holds"


def test_the_contraction_of_descent_is_violated_where_epsilon_is_the_least_eigenvalue(found):
    # n = 1, λ = ε = 1, W(0) = 0.1, the largest step that the program's conditions allow.
    assert found["contraction of descent"].verdict == "violated"
    assert found["contraction of descent"].refuted
    assert found["contraction of one layer"].verdict == "holds"


@pytest.mark.parametrize("name", STATEMENTS)
def test_every_mutation_of_a_claim_turns_its_verdict(tables, name):
    """What a claim says that it detects, it detects, on tables that the study's own writer wrote."""
    claim, found = claims.detections(STATEMENTS[name], tables)
    assert found, "a claim needs a mutation"
    assert claim.verdict == ("violated" if claim.refuted else "holds")
    assert [(one.mutation.described((one.sign,)), one.verdict) for one in found if not one.seen] == []


@pytest.mark.parametrize("name", STATEMENTS)
def test_a_missing_number_is_no_agreement(tables, name):
    def missing(value):
        return "" if isinstance(value, str) else np.nan * value

    whole = judge(STATEMENTS[name], tables)
    for place in dict.fromkeys((mutation.table, mutation.column) for mutation in STATEMENTS[name].mutations):
        claim = judged(tables, name, *place, lambda table, column=place[1]: table[column].map(missing))
        assert claim.verdict == "violated" or claim.cases == 0 < whole.cases


def test_a_count_that_was_not_made_is_no_case(tables):
    claim = judged(tables, "saddles", "spectra", "negative", lambda table: -1)
    assert claim.cases == 0
    assert claim.verdict.startswith("not testable here")


def test_a_bound_that_promises_next_to_nothing_is_not_testable(tables):
    claim, none = (
        judged(tables, "global rate of the flow", "runs", "global_rate", lambda t, c=c: c * t["global_rate"])
        for c in (1e-4, 1e-12)
    )
    assert claim.cases > 0
    assert claim.largest_share < 0.01
    assert claim.verdict.startswith("not testable here: the bound promises ")
    assert none.cases == 0


def test_the_share_of_the_promise_is_that_of_the_measured_fall(tables):
    whole, half = (
        judged(tables, "global rate of the flow", "runs", "global_rate", lambda t, c=c: c * t["global_rate"])
        for c in (1, 0.5)
    )
    assert half.largest_share == pytest.approx(whole.largest_share / 2, rel=1e-6)
    assert half.worst_deviation < whole.worst_deviation <= 1e-3


def test_targets_of_one_stream_count_once(study):
    runs = claims_of(study, {"sharp rate"})["sharp rate"]
    assert runs.targets == 2
    experiments = {name: claims.Tables(study / name, STUDY[name][0], "file", drawn=False) for name in STUDY}
    assert claims.evaluate(claims.Study(experiments), {"sharp rate"})[0].targets == 1


def test_a_study_without_cases_says_what_it_lacks():
    of_no_kind = {statement.name for statement in claims.STATEMENTS if not statement.kind}
    assert {claim.name for claim in claims.evaluate(claims.Study({}))} == of_no_kind
    for claim in (judge(statement, claims.Study({})) for statement in claims.STATEMENTS):
        assert claim.cases == claim.violations == claim.runs == claim.targets == 0
        assert claim.verdict.startswith("not testable here: ")
        assert claim.verdict.partition(": ")[2]
        assert np.isnan(claim.worst_deviation)


def test_every_statement_gives_its_source_and_its_unit():
    for statement in claims.STATEMENTS:
        assert statement.source in SOURCES
        assert statement.unit
        assert statement.tolerance >= 0


def test_the_markdown_has_a_row_and_an_explanation_a_claim(found):
    results = claims.table(list(found.values()))
    rows = claims.markdown(results).splitlines()
    assert len(rows) == len(results) + 2
    assert {line.count("|") for line in rows} == {9}
    assert claims.explanation(results).count("\n- *") == len(results) - 1


def test_the_table_goes_into_a_page(found, tmp_path, capsys):
    results = claims.table(list(found.values()))
    page = tmp_path / "page.md"
    results.to_csv(tmp_path / "claims.csv", index=False)
    page.write_text("above\n<!-- claims: begin -->\nwhat was there\n<!-- claims: end -->\nbelow\n", encoding="utf-8")
    for _ in range(2):  # again gives the same
        assert main(["claims", str(tmp_path / "claims.csv"), str(page)]) == 0
    text = page.read_text(encoding="utf-8")
    assert text.startswith("above\n")
    assert text.endswith("\nbelow\n")
    assert "what was there" not in text
    assert claims.markdown(claims.read(tmp_path / "claims.csv")) in text
    page.write_text("nothing", encoding="utf-8")
    assert main(["claims", str(tmp_path / "claims.csv"), str(page)]) == 2
    assert "needs the lines" in capsys.readouterr().err


def test_the_command_lists_what_is_detected_and_fails_on_what_is_not(study, tmp_path, capsys):
    overlay = tmp_path / "overlay.yaml"
    overlay.write_text(f"study: {{results: {tmp_path}, only: [blow_up]}}\n", encoding="utf-8")
    command = ["claims", "--power", str(ROOT / "config/config.yaml"), str(overlay)]
    (tmp_path / "blow_up").symlink_to(study / "blow_up")
    assert main(command) == 0
    listed = capsys.readouterr().out
    assert "smoothing: holds\n    detected  level + 1 %: violated\n    detected  level − 1 %: violated\n" in listed
    (tmp_path / "blow_up").unlink()
    table = pd.read_parquet(study / "blow_up/curvatures.parquet")
    (tmp_path / "blow_up").mkdir()
    write_table(tmp_path / "blow_up/curvatures.parquet", table.assign(level=1.1 * table["level"]))
    assert main(command) == 2
    assert "not detected: smoothing (level + 1 %), smoothing (level − 1 %)" in capsys.readouterr().err


def test_the_readme_states_the_claims_as_they_are_tested(found):
    """Its table is that of docs/claims.csv, whose statements and verdicts are those of the code on a small study."""
    published = claims.read(ROOT / "docs/claims.csv")
    assert claims.markdown(published) in (ROOT / "README.md").read_text(encoding="utf-8")
    small = claims.table([found[name] for name in STATEMENTS]).set_index("name")
    published = published.set_index("name")
    assert list(published.index) == list(small.index)
    for column in ("source", "statement", "formula", "test", "unit", "tolerance", "refuted", "verdict"):
        assert published[column].to_dict() == small[column].to_dict()


def test_the_page_has_every_statement_with_its_verdict_and_no_address(found):
    results = claims.table(list(found.values()))
    page = claims.page(results, "cGljdHVyZQ==")
    assert page.count("<tr>") == len(results) + 1
    assert page.count('class="holds"') == (results["verdict"] == "holds").sum() > 0
    assert 'src="data:image/png;base64,cGljdHVyZQ=="' in page
    assert "http" not in page
    assert "<img" not in claims.page(results)
    spoilt = results.assign(statement="a < b", verdict="violated")
    assert claims.page(spoilt).count("a &lt; b") == claims.page(spoilt).count('class="violated"') == len(results)


def test_the_picture_has_a_row_a_claim(found):
    from deepbures.plotting import verdicts

    results = list(found.values())
    axis = verdicts.claims(claims.table(results)).axes[0]
    labels = [label.get_text() for label in axis.get_yticklabels()]
    assert [label.replace("$", "") for label in labels] == [f"{c.name} ({c.source})" for c in results]
    assert not any("_" in label for label in labels if "$" not in label)  # symbols are typeset


def test_aggregates_carry_their_provenance(study):
    found = Table(study / "hessian/spectra.parquet").metadata
    assert (found["experiment"], found["seeds"], found["parts"]) == ("hessian", 2, len(STUDY["hessian"][2]))
    assert found["code"] == code_digest(*roots("hessian"))
