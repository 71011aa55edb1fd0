"""The kinds of the neighbours on small grids: their configuration, their tables, and the claims on them."""

import numpy as np
import pandas as pd
import pytest
from collected import tables_in

from deepbures.claims import Study, Tables, detections, neighbours
from deepbures.neighbours.barycenter import barycenter
from deepbures.plotting import neighbours as figures
from deepbures.study import configuration
from deepbures.study.grid.cells import cells
from deepbures.study.run import run_cell

STATEMENTS = {
    "scaled": [
        neighbours.ONE_STEP,
        neighbours.DESCENT_LEMMA,
        neighbours.SCALED_TAILS,
        neighbours.QUADRATIC,
        neighbours.TENTHS,
        neighbours.EXPONENTS,
    ],
    "barycenter": [neighbours.BARYCENTER_RATE, neighbours.BARYCENTER_FOUND],
    "sparse": [neighbours.FEW_CORRUPTIONS],
    "sensing": [neighbours.REWEIGHTED, neighbours.UNWEIGHTED],
}
SMALL = {
    "scaled": {
        "grid": {"depth": [1, 2, 10]},
        "landscape": {"conditions": [1, 100, 10000], "shares": [0, 0.5], "start_kinds": ["gaussian", "nystrom"]},
    },
    "barycenter": {"grid": {"rank": [1, 5], "depth": [1]}, "landscape": {"spreads": [1, 2], "starts": 10}},
    "sparse": {"grid": {"rank": [3]}, "landscape": {"corrupted": [0.04]}},
    "sensing": {"landscape": {"copies": [0, 10000]}},
}


def small(shipped, kind):
    config = shipped("neighbours.yaml")
    block = config["experiments"][kind]
    for section, changes in SMALL[kind].items():
        block[section].update(changes)
    return config


@pytest.mark.parametrize("kind", [pytest.param(kind, marks=[pytest.mark.slow] * (kind == "scaled")) for kind in SMALL])
def test_claims_hold_and_every_mutation_turns_their_verdicts(shipped, tmp_path, kind):
    tables_in(tmp_path, small(shipped, kind), kind, 1)
    study = Study({kind: Tables(tmp_path, kind, kind)})
    for statement in STATEMENTS[kind]:
        claim, found = detections(statement, study)
        assert (claim.verdict, claim.cases > 0) == ("holds", True), (claim.name, claim.verdict, claim.worst_deviation)
        assert found
        assert all(one.seen for one in found), [one for one in found if not one.seen]


@pytest.fixture
def from_files(shipped, tmp_path, monkeypatch, rng):
    """The barycenter block on two files of samples, one of them singular."""
    monkeypatch.chdir(tmp_path)
    samples = [rng.standard_normal((40, 5)), rng.standard_normal((4, 5))]
    for name, array in zip("ab", samples, strict=True):
        np.save(f"{name}.npy", array)
    config = shipped("neighbours.yaml")
    block = config["experiments"]["barycenter"]
    block["target"] = {"barycenter": {"samples": ["a.npy", "b.npy"], "weights": [3, 1]}}
    block["grid"] |= {"rank": [1, 5], "depth": [2]}
    block["landscape"] = {"starts": 5, "max_steps": 200}
    return config, samples


def test_descent_ends_at_the_barycenter_of_files(from_files):
    config, samples = from_files
    checked = configuration.check(config)
    expected = barycenter([np.cov(X.T, bias=True) for X in samples], [0.75, 0.25])
    full = cells(checked, "barycenter")[1]
    rows = run_cell(dict(full.settings), range(2))["barycenters"].to_pandas()
    np.testing.assert_allclose(rows["trace"], np.trace(expected), rtol=1e-10)
    assert rows["converged"].all()
    assert (rows["distance"] < 1e-8).all()
    assert rows["spread"].isna().all()


def test_sets_that_are_read_have_no_spread(from_files):
    config, _ = from_files
    config["experiments"]["barycenter"]["landscape"]["spreads"] = [1]
    with pytest.raises(
        configuration.ConfigurationError, match=r"landscape.spreads: the covariances are read from files"
    ):
        configuration.check(config)


def test_only_barycenters_have_several_targets(shipped):
    config = shipped()
    config["experiments"]["convergence"]["target"] = {"barycenter": {"covariances": ["x.npy"]}}
    with pytest.raises(configuration.ConfigurationError, match=r"target.barycenter: kind 'flow' has no such target"):
        configuration.check(config)


def test_a_plane_shows_the_minima_of_rank_one(shipped):
    # F on the plane is least at the lowest minimum, and the profile by direction passes through both minima.
    config = small(shipped, "barycenter")
    config["experiments"]["barycenter"]["landscape"]["spreads"] = [3]
    cell = cells(config, "barycenter")[0]
    tables = {name: table.to_pandas() for name, table in run_cell(dict(cell.settings), [0]).items()}
    losses, plane = tables["minima"]["loss"], tables["planes"].iloc[0]
    assert len(losses) > 1
    for point, loss in zip((plane["lowest"], plane["other"]), losses, strict=False):
        assert plane["loss_zero"] - point @ point == pytest.approx(loss, rel=1e-9)  # F = F(0) − ‖W‖² at a minimum
    assert plane["profile"].min() == pytest.approx(losses[0], rel=1e-12)
    assert losses[0] <= plane["losses"].min() < losses[0] * 1.01
    at = np.degrees(np.arctan2(*plane["other"][::-1])) % 180
    assert np.interp(at, np.arange(181), plane["profile"]) == pytest.approx(losses[1], rel=1e-3)


@pytest.fixture
def minima_and_planes(shipped):
    config = small(shipped, "barycenter")
    config["experiments"]["barycenter"]["landscape"]["spreads"] = [1, 3]
    config["experiments"]["barycenter"]["grid"]["rank"] = [1, 2]
    found = {"minima": [], "planes": []}
    for cell in cells(config, "barycenter"):
        for name, table in run_cell(dict(cell.settings), [0]).items():
            if name in found:
                found[name].append(table.to_pandas().assign(**cell.axes))
    return tuple(pd.concat(frames, ignore_index=True) for frames in found.values())


def test_every_limit_is_a_dot(minima_and_planes):
    minima, _ = minima_and_planes
    figure = figures.loss_against_rank(minima)
    for ax, spread in zip(figure.axes, (1, 3), strict=True):
        shown = minima[minima["spread"] == spread]
        dots = ax.collections[0].get_offsets()
        np.testing.assert_allclose(sorted(dots[:, 1]), sorted(shown["loss"]))
        lines = {line.get_label(): line.get_ydata() for line in ax.lines}
        np.testing.assert_allclose(lines["lowest minimum"], shown.groupby("rank")["loss"].min())
        np.testing.assert_allclose(lines["truncated"], shown.groupby("rank")["loss_truncated"].first())
        assert set(lines["barycenter"]) == set(shown["loss_full"])


def test_the_deepest_other_minimum_is_shown(minima_and_planes):
    minima, planes = minima_and_planes
    other = minima[(minima["rank"] == 1) & (minima["minimum"] == 1)]
    assert list(other["spread"]) == [3]  # of the two sets this one has another minimum
    left, right = figures.spurious_minimum(planes).axes
    assert "spread 3" in left.get_title(loc="left")
    marks = {line.get_label(): line.get_ydata()[0] for line in right.lines}
    assert marks["other minimum"] == pytest.approx(other["loss"].iloc[0], rel=1e-9)
    # without another minimum the plane is drawn with the lowest alone; a set that was read from files says so
    read = planes[planes["spread"] == 1].assign(spread=np.nan)
    left, right = figures.spurious_minimum(read).axes
    assert "from files" in left.get_title(loc="left")
    assert "other minimum" not in [line.get_label() for line in right.lines]
