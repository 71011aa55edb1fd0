"""The search for critical points: what is found, from where, and how it is counted."""

import itertools

import numpy as np
import pandas as pd
import pytest
from landscape_cells import (
    LOSSES,
    frame,
    frame_of_target,
    inversions,
    loader,
    loss_of,
    missing,
    settings,
    values_in_order,
)

from deepbures.landscape import critical_point_search, critical_points
from deepbures.plotting import tables as tabulate
from deepbures.study.kinds import critical_search
from deepbures.study.run import run_cell

RELATIVE = ["start", "start_rank", "evaluations", "critical", "matched", "negative", "reached", "reached_at_rank"]


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    return loader(tmp_path_factory)


def test_every_critical_point_found_is_an_enumerated_one(tables):
    searches = tables("critical_search")["searches"]
    assert len(searches) == 2 * 2 * 2 * 4
    assert (searches["enumerated"] == 1 + 3 + 3).all()  # subsets of at most two of three directions
    assert (searches["enumerated_at_rank"] == 3).all()
    critical = searches[searches["critical"] == 1]
    assert (critical["matched"] == 1).all()
    assert (searches[searches["seed"] == 1]["critical"] == 1).mean() > 0.9
    assert len(critical) > 0.5 * len(
        searches
    )  # λ_1 and λ_2 of seed 0 differ by 0.2 %: a long valley between their points
    assert (searches[searches["critical"] == 0]["matched"] == 0).all()
    for row in critical.itertuples():
        loss = loss_of("critical_search", row.loss_name, row.epsilon, row.seed)
        assert row.gradient_norm <= 1e-9
        assert row.distance <= 1e-5
        assert row.value == pytest.approx(np.delete(missing(loss), row.kept).sum(), rel=1e-12)
        assert row.loss == pytest.approx(row.value, rel=1e-8)
        assert row.loss_minimum == pytest.approx(values_in_order(loss, 2)[0], rel=1e-12)
        # At rank k the Hessian has as many negative eigenvalues as the closed form says; below it none is asked for.
        assert row.negative == (inversions(row.kept, 3) if len(row.kept) == 2 else -1)
        assert row.escapes == critical_points.local_spectrum(loss, tuple(row.kept), row.depth, 2).escapes
    assert set(critical["kept"].map(len)) >= {1, 2}
    assert critical["kept"].map(tuple).nunique() > 4


def test_points_reached_are_counted_by_problem(tables):
    searches = tables("critical_search")["searches"]
    for _, problem in searches.groupby(["loss_name", "depth", "seed"]):
        found = set(problem[problem["matched"] == 1]["kept"].map(tuple))
        assert set(problem["reached"]) == {len(found)}
        assert set(problem["reached_at_rank"]) == {sum(len(kept) == 2 for kept in found)}


def test_searches_reach_most_of_the_points():
    # As many starts as the study has, n = 4: the median problem reached 40 % before, and a third of the searches of
    # ε = 0 ended nowhere.
    shares, shares_at_rank, critical = [], [], {}
    for loss, epsilon, rank, depth in [
        ("bures-wasserstein", 0, 2, 2),
        ("bures-wasserstein", 0, 3, 3),
        ("bures-wasserstein", 0.1, 2, 1),
        ("bures-wasserstein", 0.1, 3, 2),
        ("frobenius", 0, 3, 2),
    ]:
        cell = {"loss": loss, "epsilon": epsilon, "rank": rank, "depth": depth, "dimension": 4}
        searches = frame("critical_search", landscape={"starts": 80}, **cell)
        shares.append(searches["reached"].iloc[0] / searches["enumerated"].iloc[0])
        shares_at_rank.append(searches["reached_at_rank"].iloc[0] / searches["enumerated_at_rank"].iloc[0])
        critical.setdefault(epsilon, []).append(searches["critical"].mean())
        assert (searches["critical"] == searches["matched"]).all()
    assert np.median(shares) > 0.85
    assert np.median(shares_at_rank) > 0.9
    assert min(shares) > 0.6
    assert min(critical[0]) > 0.85


@pytest.mark.parametrize(("depth", "enumerated"), [(1, 3), (2, 7)])
def test_without_smoothing_one_layer_has_no_critical_point_of_lower_rank(depth, enumerated):
    searches = frame("critical_search", [1, 2], epsilon=0, depth=depth)
    assert (searches["enumerated"] == enumerated).all()
    assert set(searches["start_rank"]) == ({2} if depth == 1 else {1, 2})
    found = searches[searches["matched"] == 1]
    assert len(found) > 0.7 * len(searches)
    assert (found["reached"] <= enumerated).all()
    assert depth > 1 or (found["kept"].map(len) == 2).all()


def wrong_points(monkeypatch):
    """Searches that end at points which the enumeration does not know."""
    right = critical_points.nearest
    monkeypatch.setattr(critical_points, "nearest", lambda *arguments: (right(*arguments)[0], 1.0))
    return frame("critical_search", [0, 1], loss="frobenius", depth=1)


def test_point_that_is_not_enumerated_is_reported(monkeypatch):
    searches = wrong_points(monkeypatch)
    assert (searches["critical"] == 1).sum() > 3
    assert (searches[["matched", "reached", "reached_at_rank"]] == 0).all(axis=None)
    assert (searches["negative"] == -1).all()
    table = tabulate.critical_search(searches.assign(rank=2, depth=1)).iloc[0]
    assert (table["starts"], table["critical"], table["matched"]) == (8, searches["critical"].sum(), 0)
    assert table["unmatched"] == table["critical"]
    assert (table["found"], table["found_at_rank"], table["at_rank"], table["lost_rank"]) == (0, 0, 0, 0)
    assert np.isnan(table["largest_distance"])


@pytest.mark.parametrize(
    ("module", "name", "value"),
    [
        (critical_search, "GRADIENT_TOLERANCE", -1),
        (critical_point_search, "ITERATIONS", 2),
    ],
)
def test_point_with_a_gradient_is_not_critical(monkeypatch, module, name, value):
    monkeypatch.setattr(module, name, value)
    searches = frame("critical_search", depth=1)
    assert (searches[["critical", "matched"]] == 0).all(axis=None)
    assert (searches["negative"] == -1).all()
    if name == "ITERATIONS":
        assert (searches["evaluations"] <= 4).all()  # two Hessians of each width
        assert (searches["gradient_norm"] > 1e-8).all()


@pytest.mark.parametrize("depth", [1, 3])
def test_starts_know_the_scale_of_the_target_alone(depth):
    # Ranks 1, …, k in turn, singular values of √λ_1 in size, layers that are not balanced; no index set in sight.
    loss = loss_of("critical_search")
    starts = critical_search._starts(loss, depth, 2, 60, np.random.default_rng(0))
    assert sorted(starts) == [1, 2]
    for width, (numbers, layers) in starts.items():
        assert numbers == list(range(width - 1, 60, 2))
        assert [layer.shape[1:] for layer in layers] == (
            [(3, width)] if depth == 1 else [(width, 3), (width, width), (3, width)]
        )
        W = layers[0]
        for layer in layers[1:]:
            W = layer @ W
        sigma = np.linalg.svd(W, compute_uv=False)[:, :width]
        assert 0.05 < sigma.min() < 0.6
        assert 0.9 < sigma.max() < 2.5
        distances = [critical_points.nearest(loss, np.sqrt(loss.eigenvalues[0]) * w, 2)[1] for w in W]
        assert min(distances) > 0.03 * loss.eigenvalues[0]
    again = critical_search._starts(loss_of("critical_search", epsilon=0.05), depth, 2, 20, np.random.default_rng(0))
    assert all(np.array_equal(a[: len(b)], b) for a, b in zip(starts[2][1], again[2][1], strict=True))


# --- Scale ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("factor", [2.0**40, 2.0**-40, 1e12, 1e-12])
@pytest.mark.parametrize(("loss", "epsilon", "depth"), [(LOSSES[0], 0, 2), (LOSSES[0], 0.1, 1), (LOSSES[1], 0, 2)])
def test_another_unit_of_the_target_gives_the_same_searches(tmp_path, make_target, factor, loss, epsilon, depth):
    covariance, degree = make_target([4.0, 2.0, 0.7]), 2 if loss == LOSSES[0] else 4
    one, other = (
        {
            name: frame_of_target(tmp_path, "critical_search", c * covariance, table=name, epsilon=c * epsilon, **cell)
            for name in ("searches", "trials")
        }
        for c, cell in itertools.product((1, factor), [{"loss": loss, "depth": depth, "rank": 2}])
    )
    searches, scaled = one["searches"], other["searches"]
    assert searches["critical"].sum() > 2
    assert scaled[RELATIVE].equals(searches[RELATIVE])
    assert scaled["kept"].map(tuple).equals(searches["kept"].map(tuple))
    unit = factor ** (degree / 2)
    for name in ("loss", "loss_minimum", "value"):
        np.testing.assert_allclose(scaled[name] / unit, searches[name], rtol=1e-9)
    found = searches["critical"] == 1
    assert (scaled.loc[found, "gradient_norm"] <= 1e-9).all()
    np.testing.assert_allclose(other["trials"]["loss"] / unit, one["trials"]["loss"], rtol=1e-9)
    np.testing.assert_allclose(other["trials"]["excess"], one["trials"]["excess"], rtol=1e-6, atol=1e-14)
    if np.log2(factor) % 1 == 0:  # a power of two: to the last digit
        for name in ("gradient_norm", "distance"):
            assert scaled[name].equals(searches[name])


# --- Matrices that are not critical -----------------------------------------------------------------------------


def trials(**changes):
    return run_cell(settings("critical_search", **changes), [0, 1])["trials"].to_pandas()


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize(("loss", "epsilon"), [(LOSSES[0], 0), (LOSSES[0], 0.1), (LOSSES[1], 0)])
def test_no_trial_is_below_the_minimum_and_some_come_close(loss, epsilon, rank):
    # Gaussian matrices and perturbed minimisers, of rank ≤ k; the excess of the latter is quadratic in the distance.
    table = trials(loss=loss, epsilon=epsilon, rank=rank)
    assert table["family"].value_counts().to_dict() == {"random": 200, "near the minimiser": 200}
    assert (table["excess"] >= -1e-13).all()
    target = loss_of("critical_search", loss, epsilon)
    unit = np.sum(target.eigenvalues ** (target.degree / 2))
    first = table[table["seed"] == 0]
    np.testing.assert_allclose(first["excess"] * unit, first["loss"] - first["loss_minimum"], rtol=1e-12, atol=1e-14)
    assert first["loss_minimum"].iloc[0] == pytest.approx(values_in_order(target, rank)[0], rel=1e-12, abs=1e-12)
    near = table[table["family"] == "near the minimiser"]
    assert near["excess"].min() < 1e-10
    small = near[(near["size"] > 1e-5) & (near["size"] < 1e-2)]
    assert np.polyfit(np.log(small["size"]), np.log(small["excess"]), 1)[0] == pytest.approx(2, abs=0.1)
    assert table[table["family"] == "random"]["excess"].min() < 0.5


def test_trials_see_a_minimum_that_is_wrong_by_a_millionth(monkeypatch):
    loss = loss_of("critical_search")
    right = float(loss.minimum_value(2))
    monkeypatch.setattr(type(loss), "minimum_value", lambda self, rank: right * (1 + 1e-6))
    assert (trials()["excess"] < -1e-10).sum() > 2


def test_trials_have_every_rank_up_to_k():
    loss, seen = loss_of("critical_search"), []
    target = type(
        "Recorded", (type(loss),), {"value": lambda self, W: seen.append(W) or super(type(self), self).value(W)}
    )
    critical_search._trials(target(loss.covariance, 0.1), 3, np.random.default_rng(0))
    ranks = np.linalg.matrix_rank(seen[0][: critical_search.TRIALS])
    assert set(ranks) == {1, 2, 3}
    assert seen[0].shape == (2 * critical_search.TRIALS, 3, 3)


@pytest.mark.parametrize(
    ("eigenvalues", "epsilon", "rank", "depth", "enumerated", "at_rank"),
    [
        ([3.0, 3.0, 1.0, 1.0], 0.1, 2, 2, 1 + 2 + 3, 3),  # of two groups 0, 1 or 2 directions each
        ([3.0, 3.0, 1.0, 1.0], 0.0, 2, 1, 3, 3),
        ([2.0, 2.0, 2.0], 0.1, 2, 1, 3, 1),
        ([3.0, 3.0, 1.0, 1.0, 0.5], 0.1, 3, 2, 1 + 3 + 5 + 5, 5),
        ([3.0, 2.0, 1.0], 1.0, 3, 2, 4, 0),  # ε = λ_n: no point has rank 3
        ([3.0, 2.0, 0.0], 0.0, 2, 1, 1, 1),  # for N = 1 that of rank 2 alone is critical
        ([3.0, 2.0, 0.0], 0.0, 2, 2, 4, 1),
    ],
)
@pytest.mark.parametrize("diagonal", [True, False])
@pytest.mark.filterwarnings("error")
def test_tied_index_sets_are_one_manifold(
    tmp_path, make_target, eigenvalues, epsilon, rank, depth, enumerated, at_rank, diagonal
):
    # Every end that is critical lies on one of the manifolds, in a basis that rounding turns within each group.
    covariance = make_target(eigenvalues, diagonal=diagonal)
    cell = {"epsilon": epsilon, "rank": rank, "depth": depth, "landscape": {"starts": 24}}
    searches = frame_of_target(tmp_path, "critical_search", covariance, **cell)
    assert (searches["enumerated"] == enumerated).all()
    assert (searches["enumerated_at_rank"] == at_rank).all()
    assert searches["critical"].mean() > 0.8
    assert (searches["critical"] == searches["matched"]).all()
    assert searches["reached"].iloc[0] <= enumerated
    assert searches["reached"].iloc[0] >= 0.6 * enumerated
    counted = searches[searches["negative"] >= 0]
    assert (counted["negative"] == counted["escapes"]).all()


# --- Degenerate targets -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("depth", [1, 2])
@pytest.mark.parametrize(
    ("eigenvalues", "epsilon", "rank"),
    [
        ([2.0, 1.0, 0.5], 0.5, 3),  # ε = λ_n: direction n cannot be kept
        ([2.0, 1.0, 0.0], 0.0, 2),
        ([1.0, 0.3, 1e-15], 0.0, 3),  # condition 1e15: for N = 1 nearly all searches end at what is a kink in floats
    ],
)
@pytest.mark.filterwarnings("error")
def test_searches_of_degenerate_targets_end_at_enumerated_points(
    tmp_path, make_target, eigenvalues, epsilon, rank, depth
):
    cell = {"epsilon": epsilon, "rank": rank, "depth": depth, "landscape": {"starts": 12}}
    covariance = make_target(eigenvalues, diagonal=True)
    searches = frame_of_target(tmp_path, "critical_search", covariance, **cell)
    critical = searches[searches["critical"] == 1]
    assert len(critical) + (searches["evaluations"] == -1).sum() >= 5
    assert (critical["matched"] == 1).all()
    counted = critical[critical["negative"] >= 0]
    assert (counted["negative"] == counted["escapes"]).all()
    table = frame_of_target(tmp_path, "critical_search", covariance, table="trials", **cell)
    assert (table["excess"] >= -1e-13).all()
    assert pd.notna(searches.drop(columns="kept")).all(axis=None)
