"""Claims hold on a small study, and each is violated by a table that contradicts it."""

import numpy as np
import pandas as pd
import pytest
from collected import collect_cells

from deepbures import claims
from deepbures.code_digest import code_digest
from deepbures.parquet import read_metadata

SHARED = {
    "study_seed": 1,
    "loss": "bures-wasserstein",
    "dimension": 4,
    "target": {"spectrum": "zipf", "mode": "eigenvalues"},
    "smin": 0.5,
    "rank": 4,
}
FLOW = {"integration": {"rtol": 1e-6, "excess_tolerance": 1e-12, "max_time": 100, "max_steps": 2000, "samples": 100}}
CLOSE, SMALL = {"initialization": {"kind": "close"}}, {"initialization": {"kind": "small", "scale": 0.1}}
STUDY = {
    "flows": ("flow", {**FLOW, **CLOSE}, [{"epsilon": 0, "depth": 1}, {"epsilon": 0.1, "depth": 3}]),
    "steps": (
        "descent",
        {"descent": {"max_steps": 400, "excess_tolerance": 1e-8, "samples": 50}, **CLOSE},
        [{"epsilon": 0.1, "depth": 2, "relative_step": step} for step in (0.5, 1.2)],
    ),
    "to_flow": (
        "descent",
        {"descent": {"end_time": 0.02, "samples": 5, "compare_with_flow": True}, **CLOSE},
        [{"epsilon": 0.1, "depth": 2, "step_size": step} for step in (1e-4, 5e-5)],
    ),
    "allowed": (
        "descent",
        {"descent": {"max_steps": 50, "samples": 10}, **CLOSE},
        [{"epsilon": 0.1, "depth": 1, "step_size": 1e-8}],
    ),
    "losses": (
        "descent",
        {"descent": {"max_steps": 3000, "excess_tolerance": 1e-8, "samples": 100}, **SMALL},
        [
            {"loss_name": loss, "loss": loss, "epsilon": 0, "depth": 2, "relative_step": 0.25}
            for loss in ("bures-wasserstein", "frobenius")
        ],
    ),
    "hessian": ("hessian", {"landscape": {"points": 3}}, [{"epsilon": 0.1, "depth": 2, "rank": 2}]),
    "blow_up": (
        "blow_up",
        {"landscape": {"singular_values": [1, 1e-2, 1e-3, 1e-4], "vanishing": [1]}},
        [{"epsilon": epsilon, "depth": 1, "rank": 2} for epsilon in (0, 0.1)],
    ),
    "escape": ("escape", {"landscape": {"points": 3, "perturbation": 1e-5}}, [{"epsilon": 0.1, "depth": 2, "rank": 2}]),
    "search": ("critical_search", {"landscape": {"starts": 4}}, [{"epsilon": 0.1, "depth": 1, "rank": 2}]),
}
#: For each claim a table and how to contradict it there: a column, and its values from the table.
CONTRADICTIONS = {
    "minimiser": ("hessian/spectra", "smallest", lambda t: -t["largest"]),
    "critical points": ("search/searches", "matched", lambda t: 0),
    "critical values": ("hessian/spectra", "value_error", lambda t: 1e-6),
    "strict saddles": ("hessian/spectra", "negative", lambda t: t["negative"] + 1),
    "bound of the flow": ("flows/trajectories", "excess", lambda t: 1e3),
    "margin kept": ("flows/trajectories", "eigenvalue_distances", lambda t: [np.full(4, -100.0)] * len(t)),
    "loss falls": ("flows/trajectories", "excess", lambda t: t["time"] + 1e-3),
    "balance": ("to_flow/runs", "balancedness_final", lambda t: t["eta"] ** 2),
    "descent to flow": ("to_flow/runs", "flow_error", lambda t: t["eta"] ** 0.5),
    "contraction of descent": ("allowed/trajectories", "excess", lambda t: t["excess"] * (1 + t["step"])),
    "blow-up": ("blow_up/curvatures", "smallest", lambda t: -1 / t["sigma"] ** 2),
    "smoothing": ("blow_up/curvatures", "smallest", lambda t: -1 / t["sigma"]),
    "Bures-Wasserstein against square loss": (
        "losses/runs",
        "settling_time",
        lambda t: t["eta"] * (1 + (t["loss_name"] != "frobenius")),
    ),
    "sharp rate": ("flows/runs", "sharp_rate", lambda t: 2 * t["sharp_rate"]),
    "Polyak-Łojasiewicz equality": ("flows/trajectories", "gradient_norm", lambda t: 1.01 * t["gradient_norm"]),
    "local spectrum": ("hessian/spectra", "spectrum_error", lambda t: 1e-6),
    "escape rates": ("escape/escapes", "measured_rate", lambda t: np.nan),
    "stable step": ("steps/runs", "stop_reason", lambda t: "converged"),
}


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Folder with the aggregates of a small study."""
    root = tmp_path_factory.mktemp("study")
    for name, (kind, own, cells) in STUDY.items():
        given = ("loss_name", "epsilon", "smin", "rank", "depth", "step_size", "relative_step")
        all_settings = [{**SHARED, **own, **cell, "kind": kind} for cell in cells]
        points = [({axis: settings[axis] for axis in given if axis in settings}, settings) for settings in all_settings]
        collect_cells(root / name, points, range(2), {"experiment": name, "seeds": 2})
    return root


def claims_of(root, names=None):
    folders = {name: (root / name, kind) for name, (kind, *_) in STUDY.items()}
    return {claim.name: claim for claim in claims.evaluate(claims.Study(folders), names)}


def test_every_claim_holds_on_a_small_study(study):
    for claim in claims_of(study).values():
        assert (claim.verdict, claim.violations) == ("holds", 0), claim
        assert claim.cases > 0
        assert claim.worst_margin >= 0


def test_every_claim_has_a_contradiction_here():
    assert {claim.name for claim in claims.evaluate(claims.Study({}))} == set(CONTRADICTIONS)


@pytest.mark.parametrize("name", CONTRADICTIONS)
def test_a_contradicting_table_violates_the_claim(study, tmp_path, name):
    where, column, change = CONTRADICTIONS[name]
    for folder in STUDY:
        (tmp_path / folder).symlink_to(study / folder)
    experiment, table = where.split("/")
    (tmp_path / experiment).unlink()
    (tmp_path / experiment).mkdir()
    for file in (study / experiment).iterdir():
        (tmp_path / experiment / file.name).symlink_to(file)
    (tmp_path / experiment / f"{table}.parquet").unlink()
    frame = pd.read_parquet(study / experiment / f"{table}.parquet")
    frame.assign(**{column: change(frame)}).to_parquet(tmp_path / experiment / f"{table}.parquet")
    claim = claims_of(tmp_path, {name})[name]
    assert claim.verdict == "violated"
    assert claim.violations > 0
    assert not claim.worst_margin >= 0


def test_a_study_without_cases_says_what_it_lacks():
    for claim in claims.evaluate(claims.Study({})):
        assert claim.cases == claim.violations == 0
        assert claim.verdict.startswith("not testable here: no ")
        assert np.isnan(claim.worst_margin)


def test_the_markdown_has_a_row_and_an_explanation_a_claim(study):
    results = list(claims_of(study).values())
    text = claims.markdown(results)
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    assert len(rows) == len(results) + 1
    assert {line.count("|") for line in rows} == {7}
    assert sum(line.startswith("- *") for line in text.splitlines()) == len(results)


def test_the_picture_has_a_row_a_claim(study):
    from deepbures.plotting import verdicts

    results = list(claims_of(study).values())
    axis = verdicts.claims(claims.table(results)).axes[0]
    assert [label.get_text().rpartition(" (")[0] for label in axis.get_yticklabels()] == [c.name for c in results]


def test_aggregates_carry_their_provenance(study):
    found = read_metadata(study / "hessian/spectra.parquet")
    assert (found["experiment"], found["seeds"], found["parts"]) == ("hessian", 2, len(STUDY["hessian"][2]))
    assert found["code"] == code_digest("experiment.kinds.hessian")
