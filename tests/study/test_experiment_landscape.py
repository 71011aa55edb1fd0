"""Experiments on the landscape: their tables against closed forms."""

import functools
import itertools
from types import SimpleNamespace

import numpy as np
import pytest
from landscape_cells import (
    KINDS,
    LOSSES,
    all_sets,
    frame,
    frame_of_target,
    inversions,
    loader,
    loss_of,
    missing,
    rows,
    settings,
    values_in_order,
)

from deepbures.flow.gradient_flow import gradient_flow
from deepbures.landscape import critical_points
from deepbures.study.grid.cells import cells
from deepbures.study.kinds import blow_up, critical_search, escape, expansion
from deepbures.study.kinds import kind as kind_of
from deepbures.study.run import run_cell


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    return loader(tmp_path_factory)


# --- Every kind -------------------------------------------------------------------------------------------------

#: Tables that an option of their kind asks for (see test_experiment_levels).
OPTIONAL = {"bounds", "fillings"}
VARIANTS = [
    ("hessian", {}),
    ("hessian", {"loss": "frobenius", "depth": 1}),
    ("blow_up", {}),
    ("blow_up", {"depth": 1, "rank": 4}),
    ("paths", {}),
    ("expansion", {"landscape": {"samples": 3}}),
    ("expansion", {"landscape": {"samples": 3}, "epsilon": 0, "depth": 1}),
    ("escape", {"landscape": {"points": 2, "perturbation": 1e-2}, "dimension": 2, "rank": 1}),
    ("surface", {"landscape": {"starts": 2}, "depth": 1}),
    ("critical_search", {"landscape": {"starts": 2}, "depth": 1}),
]


@pytest.mark.parametrize(("kind", "changes"), VARIANTS)
def test_cell_has_the_tables_of_its_kind_bit_for_bit_whatever_its_block(kind, changes):
    # Seeds 0 and 2 together, and each alone in a second run, are the same rows; each has its own target.
    cell = settings(kind, **changes)
    together, zero, two = run_cell(cell, [0, 2]), run_cell(cell, [0]), run_cell(cell, [2])
    assert list(together) == list(kind_of(kind).TABLES)
    for name, table in together.items():
        assert table.schema.equals(kind_of(kind).TABLES[name], check_metadata=False)
        table.validate(full=True)
        assert repr(rows(table)) == repr(rows(zero[name]) + rows(two[name]))  # repr: NaN equals NaN
        if len(table) or name not in OPTIONAL:
            assert repr(rows(zero[name])).replace("'seed': 0", "'seed': 2") != repr(rows(two[name]))


@pytest.mark.parametrize("kind", ["blow_up", "expansion", "critical_search"])
def test_what_is_drawn_besides_the_target_depends_on_the_seed_of_the_study(monkeypatch, kind):
    # On one and the same target.
    loss, module = loss_of(kind), {"blow_up": blow_up, "expansion": expansion, "critical_search": critical_search}[kind]
    monkeypatch.setattr(module, "make_loss", lambda settings, seed: loss)
    few = {"landscape": {"starts": 2, "samples": 3}, "depth": 1, "rank": 2}
    numbers = [frame(kind, seeds, study_seed=seed, **few) for seeds, seed in (([0], 9), ([0], 8), ([1], 9))]
    assert numbers[0].equals(frame(kind, **few))
    for one, other in itertools.combinations(numbers, 2):
        assert not one.drop(columns="seed").equals(other.drop(columns="seed"))


@pytest.mark.parametrize("kind", KINDS)
def test_shipped_cells_run(shipped, kind):
    # The first and the last cell of the smoke study, one seed, a few points.
    config = shipped("smoke.yaml")
    few = {"points": 2, "starts": 2, "samples": 3, "singular_values": [1, 1e-4]}
    found = cells(config, kind)
    for cell in {cell.path: cell for cell in (found[0], found[-1])}.values():
        options = {key: few.get(key, value) for key, value in cell.settings["landscape"].items()}
        computed = run_cell({**cell.settings, "landscape": options}, [0])
        assert all(len(table) for name, table in computed.items() if name not in OPTIONAL)


# --- Paths ------------------------------------------------------------------------------------------------------


def test_paths_lead_from_one_critical_value_to_the_next(tables):
    for (name, depth, seed), cell in tables("paths")["paths"].groupby(["loss_name", "depth", "seed"]):
        loss = loss_of("paths", name, 0, seed)
        values = np.array(values_in_order(loss, 2))[[0, 2, 3, 5]]  # 4 of the 6, spread over their order
        assert cell["pair"].tolist() == np.repeat([0, 1, 2], 5).tolist()
        assert cell["t"].tolist() == [0, 0.25, 0.5, 0.75, 1] * 3
        for column in ("loss_between_matrices", "loss_between_layers"):
            along = cell[column].to_numpy().reshape(3, 5)
            np.testing.assert_allclose(along[:, 0], values[:-1], rtol=1e-12)
            np.testing.assert_allclose(along[:, -1], values[1:], rtol=1e-12)
        between = cell["loss_between_matrices"] - cell["loss_between_layers"]
        inside = between[(cell["t"] > 0) & (cell["t"] < 1)].abs()
        assert (between.abs().max() < 1e-12) == (depth == 1)
        assert depth == 1 or inside.max() > 1e-3


@pytest.mark.parametrize("loss", LOSSES)
def test_half_way_between_critical_points_are_their_means(loss):
    # Of W_J and W_J' with V = I; of each layer, s^{1/2N} in the first, the inner and the last one.
    found = frame("paths", loss=loss, depth=3, landscape={"points": 6, "samples": 3}).query("t == 0.5")
    target = loss_of("paths", loss)
    sets = sorted(all_sets(target, 2), key=lambda J: np.delete(missing(target), J).sum())
    kept = target.eigenvalues - (0.1 if loss == "bures-wasserstein" else 0)

    def mean(layer):
        return [(layer(J) + layer(K)) / 2 for J, K in itertools.pairwise(map(list, sets))]

    root = kept ** (1 / 6)
    matrices = mean(lambda J: target.eigenvectors[:, J] * np.sqrt(kept[J]))
    last, inner = mean(lambda J: target.eigenvectors[:, J] * root[J]), mean(lambda J: np.diag(root[J]))
    layers = [upper @ middle @ middle for upper, middle in zip(last, inner, strict=True)]  # the first one is [inner 0]
    np.testing.assert_allclose(found["loss_between_matrices"], target.value(np.stack(matrices)), rtol=1e-10)
    np.testing.assert_allclose(found["loss_between_layers"], target.value(np.stack(layers)), rtol=1e-10)


@pytest.mark.parametrize("epsilon", [0, 0.1])
def test_paths_of_full_rank_lead_through_lower_ranks(epsilon):
    # k = n = 2 has one point of rank 2: the four points of all ranks, from the minimum to W = 0.
    found = frame("paths", dimension=2, rank=2, epsilon=epsilon)
    loss = loss_of("paths", epsilon=epsilon, dimension=2)
    levels = sorted(missing(loss)[list(J)].sum() for J in ((), (0,), (1,), (0, 1)))
    assert found["pair"].unique().tolist() == [0, 1, 2]
    for column in ("loss_between_matrices", "loss_between_layers"):
        ends = found[found["t"].isin([0, 1])][column].to_numpy().reshape(3, 2)
        np.testing.assert_allclose(ends[:, 0], levels[:-1], rtol=1e-12, atol=1e-14)
        np.testing.assert_allclose(ends[:, 1], levels[1:], rtol=1e-12, atol=1e-14)


# --- Second-order models ----------------------------------------------------------------------------------------


def lines_of(tables):
    found = tables("expansion")["lines"]
    yield from found.groupby(["epsilon", "depth", "place", "line"], sort=False)


def test_every_cell_has_its_places_and_lines(tables):
    names = [(place, line) for _, _, place, line in (key for key, _ in lines_of(tables))]
    every = [(place, line) for place in ("minimum", "saddle", "random start") for line in ("random", "eigenvector")]
    assert names == every * 4
    assert (expansion.PLACES, expansion.LINES) == (("minimum", "saddle", "random start"), ("random", "eigenvector"))


def test_models_touch_the_loss_to_second_order(tables):
    # loss − model = O(t³): half the distance, an eighth of the error, or less where the third derivative vanishes.
    for _, line in lines_of(tables):
        assert line["loss"].iloc[4] == line["model"].iloc[4] == line["numerical_model"].iloc[4]
        error = (line["loss"] - line["model"]).abs().to_numpy()
        curved = line["curvature"].abs().iloc[0] * line["distance"].max() ** 2
        assert (error[[0, 8]] < 0.1 * curved).all()
        floor = 1e-13 * line["loss"].max()
        # The larger one of both sides: there the third and the fourth order do not cancel.
        assert error[[2, 6]].max() <= error[[0, 8]].max() / 7 + floor
        assert error[[3, 5]].max() <= error[[2, 6]].max() / 7 + floor


def test_closed_form_and_numerical_derivatives_agree(tables):
    for _, line in lines_of(tables):
        assert line["curvature"].nunique() == line["numerical_curvature"].nunique() == 1
        largest = line["curvature"].abs().iloc[0]
        np.testing.assert_allclose(line["numerical_curvature"], line["curvature"], rtol=1e-6, atol=1e-6 * largest)
        np.testing.assert_allclose(line["numerical_model"], line["model"], rtol=1e-9)
        assert (line["numerical_curvature"] != line["curvature"]).all()


def test_slope_vanishes_at_critical_places_alone(tables):
    for (*_, place, _), line in lines_of(tables):
        model, distance = line["model"].to_numpy(), line["distance"].to_numpy()
        slope = (model[8] - model[0]) / (distance[8] - distance[0])
        assert abs(slope) < 1e-10 if place != "random start" else abs(slope) > 1e-3


def test_eigenvector_has_the_extreme_curvature(tables):
    # At the minimum the largest eigenvalue, at the saddle the most negative one, as in the closed form.
    for (epsilon, depth, place, line), part in lines_of(tables):
        curvature = part["curvature"].iloc[0]
        if place == "random start":
            continue
        loss = loss_of("expansion", epsilon=epsilon)
        order = {"minimum": 0, "saddle": 2}[place]  # of 6
        value = values_in_order(loss, 2)[order]
        assert part["loss"].iloc[4] == pytest.approx(value, rel=1e-12)
        kept = min(all_sets(loss, 2), key=lambda J, loss=loss, value=value: abs(critical_points.value(loss, J) - value))
        rates = critical_points.local_spectrum(loss, kept, depth, 2).rates
        if line == "random":
            assert rates.min() < curvature < rates.max()
        else:
            assert curvature == pytest.approx(rates.max() if place == "minimum" else rates.min(), rel=1e-9)


def test_lines_reach_a_share_of_the_norm_of_all_parameters(tables):
    # ‖(W_1, …, W_N)‖² = N Σ s^{1/N} at the balanced layers of a critical point.
    for (epsilon, depth, place, _), line in lines_of(tables):
        distance = line["distance"].to_numpy()
        np.testing.assert_allclose(distance, distance[-1] * np.linspace(-1, 1, 9), rtol=1e-14, atol=1e-16)
        if place == "minimum":
            kept = loss_of("expansion").eigenvalues[:2] - epsilon
            assert distance[-1] == pytest.approx(0.02 * np.sqrt(depth * np.sum(kept ** (1 / depth))), rel=1e-12)


@pytest.mark.parametrize(("change", "shapes"), [({"depth": 1}, [(4, 2)]), ({"depth": 3}, [(2, 4), (2, 2), (4, 2)])])
def test_directions_are_unit_vectors_in_the_space_of_all_layers(monkeypatch, change, shapes):
    seen = []
    right = expansion.directional_derivatives

    def derivatives(loss, layers, direction):
        seen.append((layers, direction))
        return right(loss, layers, direction)

    monkeypatch.setattr(expansion, "directional_derivatives", derivatives)
    frame("expansion", **change)
    assert len(seen) == 6
    for layers, direction in seen:
        assert [W.shape for W in layers] == [V.shape for V in direction] == shapes
        assert np.sum([np.sum(V**2) for V in direction]) == pytest.approx(1, rel=1e-12)
    random = [direction for _, direction in seen[::2]]
    assert all(np.abs(a[0] - b[0]).max() > 1e-3 for a, b in itertools.combinations(random, 2))
    for _, direction in seen[1::2]:  # an eigenvector has no sign: its largest entry is positive
        entries = np.concatenate([V.ravel() for V in direction])
        assert entries[np.argmax(np.abs(entries))] > 0
    # The random start is a balanced Gaussian one, of rank k.
    layers = seen[-1][0]
    for lower, upper in itertools.pairwise(layers):
        np.testing.assert_allclose(upper.T @ upper, lower @ lower.T, atol=1e-12)
    W = functools.reduce(lambda product, layer: layer @ product, layers)
    assert np.linalg.matrix_rank(W) == 2


@pytest.mark.parametrize(
    ("change", "places"),
    [
        (
            {"dimension": 2, "rank": 1},
            ["minimum", "saddle", "random start"],
        ),  # two points: the other one, not the first
        ({"dimension": 3, "rank": 3}, ["minimum", "random start"]),  # one point of rank n: no saddle
        ({"dimension": 1, "rank": 1}, ["minimum", "random start"]),
    ],
)
@pytest.mark.parametrize("epsilon", [0, 0.1])
def test_minimum_is_never_called_a_saddle(change, places, epsilon):
    lines = frame("expansion", epsilon=epsilon, **change)
    assert lines["place"].unique().tolist() == places
    loss = loss_of("expansion", epsilon=epsilon, **change)
    values = values_in_order(loss, change["rank"])
    at_place = lines[lines["distance"].abs() < 1e-12].groupby("place")["loss"].first()
    assert at_place["minimum"] == pytest.approx(values[0], rel=1e-12, abs=1e-12)
    if "saddle" in places:
        assert at_place["saddle"] == pytest.approx(values[1], rel=1e-12)
        adversarial = lines[(lines["place"] == "saddle") & (lines["line"] == "eigenvector")]
        assert (adversarial["curvature"] < 0).all()


@pytest.mark.parametrize("epsilon", [0, 0.1])
def test_tied_minima_are_no_saddles(tmp_path, make_target, epsilon):
    # λ = (3, 3, 3, 1), k = 1: three minima come before the saddle, and the middle of the order is one of them.
    covariance = make_target([3.0, 3.0, 3.0, 1.0], diagonal=True)
    lines = frame_of_target(tmp_path, "expansion", covariance, rank=1, epsilon=epsilon)
    saddle = lines[(lines["place"] == "saddle") & (lines["line"] == "eigenvector")]
    assert (saddle["curvature"] < 0).all()
    middle = saddle[saddle["distance"].abs() < 1e-12]["loss"].iloc[0]
    assert middle == pytest.approx(3 * (np.sqrt(3) - np.sqrt(epsilon)) ** 2, rel=1e-12)


# --- Escapes ----------------------------------------------------------------------------------------------------


def test_flow_leaves_saddles_at_the_closed_form_rate(tables):
    escapes = tables("escape")["escapes"]
    assert len(escapes) == 2 * 3
    saddles = escapes[escapes["escapes"] > 0]
    assert saddles["point"].tolist() == [1, 2] * 2
    np.testing.assert_allclose(saddles["measured_rate"], saddles["escape_rate"], rtol=1e-3)
    # And stays for about ln(1/δ) / rate.
    np.testing.assert_allclose(saddles["plateau_time"] * saddles["escape_rate"], np.log(1e4), rtol=0.3)
    assert (escapes["perturbation"] == 1e-4).all()
    loss = loss_of("escape")
    for row in escapes.itertuples():
        assert row.value == pytest.approx(values_in_order(loss, 2)[row.order], rel=1e-12)
        assert row.loss_minimum == pytest.approx(values_in_order(loss, 2)[0], rel=1e-12)
        assert row.escapes == inversions(row.kept, 3) == np.sum(row.rates < 0)
        assert (np.diff(row.rates) >= 0).all()
        spectrum = critical_points.local_spectrum(loss, tuple(row.kept), row.depth, 2)
        np.testing.assert_allclose(row.rates, np.sort(spectrum.rates), rtol=1e-14)
        assert row.escape_rate == max(0, -row.rates[0])


def test_minimum_is_not_left(tables):
    minimum = tables("escape")["escapes"].query("point == 0")
    assert minimum[["measured_rate", "plateau_time"]].isna().all(axis=None)
    assert (minimum[["escapes", "escape_rate", "order"]] == 0).all(axis=None)


@pytest.mark.parametrize("change", [{"loss": "frobenius"}, {"epsilon": 0, "depth": 3}])
def test_other_losses_are_left_at_their_rates_too(change):
    saddle = frame("escape", landscape={"points": 2}, **change).iloc[1]
    assert saddle["escapes"] == 2
    assert saddle["measured_rate"] == pytest.approx(saddle["escape_rate"], rel=1e-3)


def starts_of(monkeypatch, **change):
    """Starts of the flows of a cell, and with what options the last one is followed."""
    found, options = [], {}

    def flows(loss, starts, depth, **given):
        found.extend(starts)
        options.update(given, depth=depth)
        times = np.linspace(0, 1, 9)
        return [
            SimpleNamespace(times=times, loss=np.full(9, loss.value(W)), factors=np.exp(times)[:, None, None] * W)
            for W in starts
        ]

    with monkeypatch.context() as patch:
        patch.setattr(escape, "gradient_flows", flows)
        frame("escape", **change)
    return found, options


def test_perturbation_is_common_to_all_depths_and_smoothings(monkeypatch):
    # W_J + δ ‖W_J‖ E, ‖E‖ = 1, E one for each seed and J.
    noises = {}
    changes = {"depth": 1}, {"depth": 3}, {"epsilon": 0}, {"landscape": {"perturbation": 1e-2}}, {"loss": "frobenius"}
    for change in changes:
        starts, _ = starts_of(monkeypatch, **change)
        loss = loss_of("escape", change.get("loss", LOSSES[0]), change.get("epsilon", 0.1))
        delta = change.get("landscape", {}).get("perturbation", 1e-4)
        saddles = [point.kept for point in critical_points.critical_points(loss, 2)][1:]
        for kept, W in zip(saddles, starts, strict=True):
            W_J = critical_points.factor(loss, kept, 2)
            E = (W - W_J) / (delta * np.linalg.norm(W_J))
            assert np.linalg.norm(E) == pytest.approx(1, rel=1e-9)
            noises.setdefault(kept, []).append(E)
    assert set(noises) == {(0, 2), (1, 2)}
    for same in noises.values():
        np.testing.assert_allclose(same, [same[0]] * 5, atol=1e-9)
    assert np.abs(noises[0, 2][0] - noises[1, 2][0]).max() > 0.01


def test_plateau_ends_where_the_loss_has_fallen_by_a_hundredth(tables, monkeypatch):
    row = tables("escape")["escapes"].query("depth == 2 and point == 2").iloc[0]
    (*_, W), options = starts_of(monkeypatch)
    assert options["max_time"][-1] == pytest.approx(1.5 * np.log(1e4) / row["escape_rate"], rel=1e-12)
    assert (options["depth"], options["rank"]) == (2, 2)
    flow = gradient_flow(loss_of("escape"), W, 2, [row["plateau_time"]], rank=2)
    drop = (row["value"] - flow.loss[-1]) / (row["value"] - row["loss_minimum"])
    assert drop == pytest.approx(0.01, rel=0.02)


def test_flow_that_has_no_time_to_leave_has_no_plateau(monkeypatch):
    monkeypatch.setattr(escape, "HORIZON", 0.5)
    saddle = frame("escape", landscape={"points": 2}, depth=1).iloc[1]
    assert np.isnan(saddle["plateau_time"])
    assert saddle["measured_rate"] == pytest.approx(saddle["escape_rate"], rel=1e-3)


@pytest.mark.parametrize(
    ("drop", "time"), [([-1, 1e-3, 1e-1], 1.5), ([0, 0.1, 1], 1), ([0.1, 1, 1], None), ([0, 1e-3, 5e-3], None)]
)
def test_crossings_are_interpolated_in_the_logarithm(drop, time):
    found = escape._first_crossing(np.arange(3.0), np.array(drop), 1e-2)
    assert np.isnan(found) if time is None else found == pytest.approx(time, rel=1e-2)


def test_escape_at_full_rank_has_the_minimum_alone():
    escapes = frame("escape", rank=3)
    assert len(escapes) == 1
    assert escapes["escapes"].tolist() == [0]
    assert escapes[["measured_rate", "plateau_time"]].isna().all(axis=None)


def test_empty_column_fills_at_its_rate(tmp_path):
    # ε = λ_n, k = n, N = 1: no point has rank n, and W = 0 is left at 2 (√(λ_1/ε) − 1), by a column that fills.
    covariance = np.diag([3.0, 1.5, 1.0])
    changes = {"rank": 3, "depth": 1, "epsilon": 1.0, "landscape": {"points": 4, "perturbation": 1e-5}}
    escapes = frame_of_target(tmp_path, "escape", covariance, **changes)
    left = escapes[(escapes["escapes"] > 0) & (escapes["kept"].map(len) > 0)]
    assert len(left) >= 2
    for row in left.itertuples():
        outside = max(value for j, value in enumerate([3.0, 1.5, 1.0]) if j not in row.kept)
        assert row.escape_rate == pytest.approx(2 * (np.sqrt(outside) - 1), rel=1e-12)
        assert row.measured_rate == pytest.approx(row.escape_rate, rel=2e-3)


# --- The plane --------------------------------------------------------------------------------------------------


def planes(tables, name):
    yield from tables("surface")[name].groupby(["epsilon", "depth"])


def test_surface_is_the_loss_on_a_square(tables):
    for (epsilon, _), cell in planes(tables, "surface"):
        loss = loss_of("surface", epsilon=epsilon)
        side = 1.4 * np.sqrt(loss.eigenvalues[0]) * np.array([-1, -0.5, 0, 0.5, 1])
        np.testing.assert_allclose(cell.pivot(index="y", columns="x", values="loss").index, side, atol=1e-14)
        np.testing.assert_allclose(np.unique(cell["x"]), side, atol=1e-14)
        for x, y, value in cell[["x", "y", "loss"]].to_numpy():
            assert value == pytest.approx(float(loss.value(loss.eigenvectors @ [[x], [y]])), rel=1e-12)


def test_points_of_the_plane_are_critical_and_symmetric(tables):
    for (epsilon, depth), cell in planes(tables, "points"):
        loss = loss_of("surface", epsilon=epsilon)
        places = sorted(zip(cell["x"].round(12) + 0.0, cell["y"].round(12) + 0.0, strict=True))
        assert places == sorted((-x + 0.0, -y + 0.0) for x, y in places)
        assert sorted(cell["rank_of_point"]) == [0, 1, 1, 1, 1]
        for row in cell.itertuples():
            W = loss.eigenvectors @ [[row.x], [row.y]]
            assert float(loss.value(W)) == pytest.approx(row.loss, rel=1e-12)
            if epsilon or row.rank_of_point:
                np.testing.assert_allclose(loss.gradient(W), 0, atol=1e-12)
            assert (row.x**2 + row.y**2 > 0.1) == row.rank_of_point
        minima = cell[cell["loss"] == cell["loss"].min()]
        np.testing.assert_allclose(minima["y"], 0, atol=1e-14)
        np.testing.assert_allclose(minima["x"].abs(), np.sqrt(loss.eigenvalues[0] - epsilon), rtol=1e-12)
        # None leads out of the minimum, one out of the saddle; out of 0 both for one layer, and none for several.
        by_rank = cell.sort_values(["rank_of_point", "loss"])["escapes"].tolist()
        assert by_rank == [2 if depth == 1 else 0, 0, 0, 1, 1]


def test_flows_on_the_plane_fall_to_a_minimum(tables):
    for (epsilon, _), cell in planes(tables, "flows"):
        loss = loss_of("surface", epsilon=epsilon)
        least = values_in_order(loss, 1)[0]
        assert cell["start"].unique().tolist() == [0, 1, 2, 3]
        for _, way in cell.groupby("start"):
            assert way["time"].iloc[0] == 0
            assert (np.diff(way["time"]) > 0).all()
            assert (np.diff(way["loss"]) < 0).all()
            assert way["loss"].iloc[-1] - least <= 1e-9 * loss.eigenvalues.sum()
            W = np.einsum("ij,mj->mi", loss.eigenvectors, way[["x", "y"]].to_numpy())[..., None]
            np.testing.assert_allclose(way["loss"], loss.value(W), rtol=1e-9)
            # Neither axis is crossed: each coordinate keeps its sign, to the rounding in which it ends.
            for name in ("x", "y"):
                moved = way[name][way[name].abs() > 1e-9]
                assert (np.sign(moved) == np.sign(way[name].iloc[0])).all()


def test_flows_start_on_two_circles(tables):
    for (epsilon, _), cell in planes(tables, "flows"):
        first = cell.groupby("start")[["x", "y"]].first().to_numpy()
        scale = np.sqrt(loss_of("surface", epsilon=epsilon).eigenvalues[0])
        # Of radius 1.25 and 0.05, half a turn apart from an angle off the axes on: a factor and its negative are one
        # covariance, and two flows.
        angle = np.array([np.cos(0.11), np.sin(0.11)])
        expected = [radius * sign * angle for radius in (1.25, 0.05) for sign in (1, -1)]
        np.testing.assert_allclose(first / scale, expected, rtol=1e-9)


# --- Scale and degenerate targets -------------------------------------------------------------------------------

FEW = {"points": 3, "samples": 3, "starts": 4, "singular_values": [1, 1e-3, 1e-5]}
#: Columns without a unit, of each kind and table.
WITHOUT_UNIT = [
    ("hessian", "spectra", ["order", "negative", "zero", "positive", "escapes", "predicted_zero"]),
    ("blow_up", "curvatures", ["vanishing"]),
    ("escape", "escapes", ["order", "escapes"]),
    ("surface", "points", ["rank_of_point", "escapes"]),
    ("expansion", "lines", ["place", "line"]),
    ("paths", "paths", ["pair"]),
]


@pytest.mark.parametrize("factor", [1e12, 1e-12])
@pytest.mark.parametrize(("kind", "table", "same"), WITHOUT_UNIT, ids=[kind for kind, *_ in WITHOUT_UNIT])
@pytest.mark.filterwarnings("error")
def test_another_unit_of_the_target_changes_no_count(tmp_path, make_target, factor, kind, table, same):
    # Losses have the unit λ_1, Hessians of N = 2 layers that of rates, λ_1^{1/2}; shares have none.
    eigenvalues = [3.0, 1.0] if kind == "surface" else [3.0, 2.0, 1.0]
    rank = 1 if kind == "surface" else 2
    for epsilon in (0, 0.1):
        one, other = (
            frame_of_target(
                tmp_path,
                kind,
                c * make_target(eigenvalues),
                table=table,
                rank=rank,
                epsilon=c * epsilon,
                landscape={**FEW, "perturbation": 1e-4, "reach": 0.02},
            )
            for c in (1, factor)
        )
        assert other[same].equals(one[same])
        units = {"value": 1, "loss": 1, "model": 1, "smallest": 0.5, "largest": 0.5, "escape_rate": 0.5}
        units |= {"measured_rate": 0.5, "plateau_time": -0.5, "loss_between_layers": 1, "numerical_curvature": 0.5}
        for name in units.keys() & set(one.columns):
            unit = factor ** units[name]
            size = np.nanmax(np.abs(one[name]))
            np.testing.assert_allclose(other[name] / unit, one[name], rtol=1e-5, atol=1e-6 * size, err_msg=name)
        for name, limit in (("gradient_norm", 1e-12), ("value_error", 1e-13), ("spectrum_error", 1e-9)):
            assert name not in one or (other[name] < limit).all()


@pytest.mark.parametrize("factor", [1e12, 1e-12])
def test_flows_of_another_unit_end_in_the_same_place(tmp_path, factor):
    one, other = (
        frame_of_target(tmp_path, "surface", c * np.diag([3.0, 1.0]), table="flows", rank=1, epsilon=0)
        for c in (1, factor)
    )
    last, scaled = (found.groupby("start").last() for found in (one, other))
    np.testing.assert_allclose(scaled["loss"] / factor, last["loss"], rtol=1e-7)
    np.testing.assert_allclose(scaled["x"] / np.sqrt(factor), last["x"], rtol=1e-3)
    assert (scaled["loss"] / factor - 1 < 1e-8).all()


@pytest.mark.parametrize("kind", ["hessian", "blow_up", "expansion", "escape", "paths", "critical_search"])
def test_rank_beyond_that_of_the_target_is_one_line(tmp_path, make_target, kind):
    covariance = make_target([3.0, 2.0, 1.0, 0.0], diagonal=True)
    with pytest.raises(ValueError, match=r"^rank 4 exceeds the rank 3 of the target"):
        frame_of_target(tmp_path, kind, covariance, rank=4, epsilon=0)
    assert len(frame_of_target(tmp_path, kind, covariance, rank=3, epsilon=0))


@pytest.mark.parametrize("depth", [1, 3])
@pytest.mark.parametrize(
    ("eigenvalues", "epsilon", "rank"),
    [
        ([3.0, 3.0, 1.0, 1.0], 0.1, 2),
        ([3.0, 3.0, 1.0, 1.0], 0.0, 3),
        ([3.0, 2.0, 1.0, 1e-15], 0.0, 2),
        ([3.0, 2.0, 1.0, 0.5], 0.5, 4),
        ([3.0, 2.0, 1.0, 0.5], 0.5, 3),
    ],
    ids=["ties", "ties, epsilon = 0", "condition 1e15", "epsilon = λ_n", "epsilon = λ_n, k < n"],
)
@pytest.mark.filterwarnings("error")
def test_every_kind_runs_on_degenerate_targets(tmp_path, make_target, eigenvalues, epsilon, rank, depth):
    covariance = make_target(eigenvalues, diagonal=True)
    options = {"rank": rank, "epsilon": epsilon, "depth": depth, "landscape": {**FEW, "perturbation": 1e-3}}
    spectra = frame_of_target(tmp_path, "hessian", covariance, **options)
    assert (spectra["value_error"] < 1e-12).all()
    assert (spectra["gradient_norm"] < 1e-12).all()
    assert (spectra["spectrum_error"] < 1e-8).all()
    assert (spectra["negative"] == spectra["escapes"]).all()
    first = spectra[spectra["order"] == 0]
    assert (first["escapes"] == 0).all()
    assert (first["smallest"] > -1e-9 * first["largest"]).all()
    paths = frame_of_target(tmp_path, "paths", covariance, **options)
    assert (paths["loss_between_matrices"] >= spectra["value"].iloc[0] - 1e-13 * sum(eigenvalues)).all()
    lines = frame_of_target(tmp_path, "expansion", covariance, **options)
    scale = lines["curvature"].abs().max()
    np.testing.assert_allclose(lines["numerical_curvature"], lines["curvature"], atol=1e-5 * scale)
    assert (lines[(lines["place"] == "saddle") & (lines["line"] == "eigenvector")]["curvature"] < 0).all()
    escapes = frame_of_target(tmp_path, "escape", covariance, **options)
    measured = escapes[escapes["measured_rate"].notna()]
    np.testing.assert_allclose(measured["measured_rate"], measured["escape_rate"], rtol=0.05)
    assert len(frame_of_target(tmp_path, "blow_up", covariance, **options)) == 6
