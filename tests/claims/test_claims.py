"""Claims hold on a small study, and each is violated by a table that contradicts it."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from claims_study import STUDY, claims_of, make
from collected import write_table

from deepbures import claims
from deepbures.__main__ import main
from deepbures.claims.evidence import SOURCES, judge
from deepbures.study.results.code_digest import code_digest
from deepbures.study.results.parquet import Table
from deepbures.study.run import roots

ROOT = Path(__file__).parents[2]
#: For each claim a table and how to contradict it there: a column, and its values from the table.
CONTRADICTIONS = {
    "minimiser": ("search/trials", "excess", lambda t: -1e-9),
    "curvature at the minimiser": ("hessian/spectra", "smallest", lambda t: -1e-6 * t["largest"]),
    "W_J is critical": ("hessian/spectra", "gradient_norm", lambda t: 1e-8),
    "there are no other critical points": ("search/searches", "matched", lambda t: 0),
    "critical values": ("hessian/spectra", "value_error", lambda t: 1e-10),
    "saddles": ("hessian/spectra", "negative", lambda t: t["negative"] + 1),
    "local spectrum": ("hessian/spectra", "spectrum_error", lambda t: 1e-6),
    "blow-up": ("blow_up/curvatures", "smallest", lambda t: -(t["sigma"] ** -0.4)),
    "blow-up exponent": ("blow_up/curvatures", "smallest", lambda t: -(t["sigma"] ** -1.02)),
    "blow-up constant": ("blow_up/curvatures", "smallest", lambda t: 1.002 * t["smallest"]),
    "smoothing": ("blow_up/curvatures", "smallest", lambda t: 0.9 * t["smallest"]),  # above its level, too
    "escape rates": ("escape/escapes", "measured_rate", lambda t: 1.002 * t["measured_rate"]),
    "convergence of the flow": ("flows/runs", "excess_final", lambda t: 1e-5 * t["excess_initial"]),
    "bound of the flow": ("bounded/runs", "bound_rate", lambda t: 1.5 * t["sharp_rate"]),
    "bound of the flow where W keeps the margin": ("bounded/runs", "bound_rate", lambda t: 1.5 * t["sharp_rate"]),
    "global rate of the flow": ("flows/runs", "global_rate", lambda t: 1.02 * t["sharp_rate"]),
    "margin kept": ("flows/trajectories", "least_singular_value", lambda t: 0.0),
    "loss falls": ("flows/trajectories", "excess", lambda t: one_sample(t["excess"], 1.5)),
    "algebraic tail": ("at_the_edge/runs", "excess_final", lambda t: 1.2 * t["excess_final"]),
    "plateau times": ("aligned/runs", "half_times", lambda t: t["half_times"].map(lambda times: 1.02 * times)),
    "finite samples": ("samples/sampling", "expected", lambda t: 1.5 * t["expected"]),
    "sharp rate": ("flows/runs", "sharp_rate", lambda t: 1.002 * t["sharp_rate"]),
    "Polyak-Łojasiewicz equality": (
        "flows/trajectories",
        "gradient_norm",
        lambda t: one_sample(t["gradient_norm"], 1.5),
    ),
    "contraction of descent": ("allowed/runs", "descent_rate", lambda t: 100 * t["descent_rate"]),
    "contraction of one layer": ("allowed/runs", "descent_global_rate", lambda t: 2 * t["descent_global_rate"]),
    "stable step": ("steps/runs", "stop_reason", lambda t: "converged"),
    "descent to flow": ("to_flow/runs", "flow_error", lambda t: t["eta"] ** 1.1),
    "drift from balance": ("to_flow/runs", "balancedness_final", lambda t: t["eta"] ** 1.1),
    "Bures-Wasserstein against square loss": (
        "losses/runs",
        "settling_time",
        lambda t: t["eta"] * (1 + (t["loss_name"] != "frobenius")),
    ),
}


#: Columns of these tables that can lack a number.
FLOATS = {column for _, column, _ in CONTRADICTIONS.values()} - {"matched", "negative", "stop_reason", "half_times"}


def one_sample(values, factor):
    """The second record of a table multiplied by a factor."""
    return values.where(np.arange(len(values)) != 1, factor * values)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Folder with the aggregates of a small study."""
    return make(tmp_path_factory.mktemp("study"))


def changed(study, destination, where, **columns):
    """Folder of the same study with some columns of one table changed."""
    destination.mkdir(exist_ok=True)
    for folder in STUDY:
        (destination / folder).symlink_to(study / folder)
    experiment, table = where.split("/")
    (destination / experiment).unlink()
    (destination / experiment).mkdir()
    for file in (study / experiment).iterdir():
        (destination / experiment / file.name).symlink_to(file)
    (destination / experiment / f"{table}.parquet").unlink()
    frame = pd.read_parquet(study / experiment / f"{table}.parquet")
    frame = frame.assign(**{name: change(frame) for name, change in columns.items()})
    write_table(destination / experiment / f"{table}.parquet", frame)
    return destination


#: Where the bounds of the authors' program are false, as docs/paper.md proves.
BROKEN = {"broken", "broken_steps"}


def test_every_claim_holds_on_a_small_study(study):
    for claim in claims_of(study, CONTRADICTIONS, set(STUDY) - BROKEN).values():
        assert (claim.verdict, claim.violations) == ("holds", 0), claim
        assert claim.worst_deviation <= claim.tolerance
        assert claim.cases >= claim.runs >= claim.targets > 0


def test_the_bound_of_the_flow_is_violated_where_epsilon_is_the_least_eigenvalue(study):
    # n = 1, λ = ε = 1, W(0) = 0.5: the counterexample of docs/paper.md; W does not keep its margin there.
    bound, repaired, tight = (
        claims_of(study)[name]
        for name in ("bound of the flow", "bound of the flow where W keeps the margin", "global rate of the flow")
    )
    assert bound.verdict == "violated"
    assert "as docs/paper.md section 8 proves" in claims.markdown(claims.table([bound]))
    assert repaired.verdict == tight.verdict == "holds"


def test_the_contraction_of_descent_is_violated_where_epsilon_is_the_least_eigenvalue(study):
    # n = 1, λ = ε = 1, W(0) = 0.1, the largest step that the program's conditions allow.
    found = claims_of(study)
    assert found["contraction of descent"].verdict == "violated"
    assert found["contraction of descent"].refuted
    assert found["contraction of one layer"].verdict == "holds"


def test_every_published_claim_has_a_contradiction_here():
    assert set(CONTRADICTIONS) == set(claims.read(ROOT / "docs/claims.csv")["name"])


@pytest.mark.parametrize("name", CONTRADICTIONS)
def test_a_contradicting_table_violates_the_claim(study, tmp_path, name):
    where, column, change = CONTRADICTIONS[name]
    folders = set(STUDY) - BROKEN
    claim = claims_of(changed(study, tmp_path / "study", where, **{column: change}), {name}, folders)[name]
    assert claim.verdict == "violated"
    assert claim.violations > 0
    assert not claim.worst_deviation <= claim.tolerance


@pytest.mark.parametrize("name", [name for name, (_, column, _) in CONTRADICTIONS.items() if column in FLOATS])
def test_a_missing_number_is_no_agreement(study, tmp_path, name):
    where, column, _ = CONTRADICTIONS[name]
    experiment = where.partition("/")[0]
    whole = claims_of(study, {name}, {experiment})[name]
    broken = changed(study, tmp_path / "study", where, **{column: lambda t: np.nan})
    claim = claims_of(broken, {name}, {experiment})[name]
    assert claim.verdict == "violated" or claim.cases == 0 < whole.cases


def test_a_count_that_was_not_made_is_no_case(study, tmp_path):
    broken = changed(study, tmp_path / "study", "hessian/spectra", negative=lambda t: -1)
    claim = claims_of(broken, {"saddles"})["saddles"]
    assert claim.cases == 0
    assert claim.verdict.startswith("not testable here")


def test_a_bound_that_promises_next_to_nothing_is_not_testable(study, tmp_path):
    name = "global rate of the flow"
    broken = changed(study, tmp_path / "a", "flows/runs", global_rate=lambda t: 1e-4 * t["global_rate"])
    claim = claims_of(broken, {name}, {"flows"})[name]
    assert claim.cases > 0
    assert claim.largest_share < 0.01
    assert claim.verdict.startswith("not testable here: the bound promises ")
    broken = changed(study, tmp_path / "b", "flows/runs", global_rate=lambda t: 1e-12 * t["global_rate"])
    assert claims_of(broken, {name}, {"flows"})[name].cases == 0


def test_the_share_of_the_promise_is_that_of_the_measured_fall(study, tmp_path):
    name = "global rate of the flow"
    whole = claims_of(study, {name}, {"flows"})[name]
    broken = changed(study, tmp_path / "a", "flows/runs", global_rate=lambda t: 0.5 * t["global_rate"])
    half = claims_of(broken, {name}, {"flows"})[name]
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


def test_every_statement_gives_its_source_and_the_power_of_its_test():
    for statement in claims.STATEMENTS:
        assert statement.source in SOURCES
        assert statement.sees
        assert statement.unit
        assert statement.tolerance >= 0


def test_the_markdown_has_a_row_and_an_explanation_a_claim(study):
    results = claims.table(list(claims_of(study).values()))
    rows = claims.markdown(results).splitlines()
    assert len(rows) == len(results) + 2
    assert {line.count("|") for line in rows} == {8}
    assert claims.explanation(results).count("\n- *") == len(results) - 1


def test_the_table_goes_into_a_page(study, tmp_path, capsys):
    results = claims.table(list(claims_of(study).values()))
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


def test_the_readme_states_the_claims_as_they_are_tested(study):
    """Its table is that of docs/claims.csv, whose statements and verdicts are those of the code on a small study."""
    published = claims.read(ROOT / "docs/claims.csv")
    assert claims.markdown(published) in (ROOT / "README.md").read_text(encoding="utf-8")
    small = claims.table(list(claims_of(study, CONTRADICTIONS).values())).set_index("name")
    published = published.set_index("name")
    assert list(published.index) == list(small.index)
    for column in ("source", "statement", "formula", "test", "unit", "tolerance", "sees", "refuted", "verdict"):
        assert published[column].to_dict() == small[column].to_dict()


def test_the_page_has_every_statement_with_its_verdict_and_no_address(study):
    results = claims.table(list(claims_of(study).values()))
    page = claims.page(results, "cGljdHVyZQ==")
    assert page.count("<tr>") == len(results) + 1
    assert page.count('class="holds"') == (results["verdict"] == "holds").sum() > 0
    assert 'src="data:image/png;base64,cGljdHVyZQ=="' in page
    assert "http" not in page
    assert "<img" not in claims.page(results)
    spoilt = results.assign(statement="a < b", verdict="violated")
    assert claims.page(spoilt).count("a &lt; b") == claims.page(spoilt).count('class="violated"') == len(results)


def test_the_picture_has_a_row_a_claim(study):
    from deepbures.plotting import verdicts

    results = list(claims_of(study).values())
    axis = verdicts.claims(claims.table(results)).axes[0]
    labels = [label.get_text().rpartition(" (")[0] for label in axis.get_yticklabels()]
    assert [label.replace("$", "") for label in labels] == [c.name for c in results]
    assert not any("_" in label for label in labels if "$" not in label)  # symbols are typeset


def test_aggregates_carry_their_provenance(study):
    found = Table(study / "hessian/spectra.parquet").metadata
    assert (found["experiment"], found["seeds"], found["parts"]) == ("hessian", 2, len(STUDY["hessian"][2]))
    assert found["code"] == code_digest(*roots("hessian"))
