"""Experiments on the landscape: their tables against closed forms, and the summaries and figures made of them."""

import functools
import itertools
import json
from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from collected import collect_cells
from matplotlib.figure import Figure
from matplotlib.mathtext import MathTextParser
from matplotlib.text import Text

from deepbures import critical_points, derived, provenance
from deepbures.code_digest import code_digest
from deepbures.experiment import checked, run_cell
from deepbures.experiment.kinds import blow_up, critical_search, escape, expansion, hessian
from deepbures.experiment.kinds import kind as kind_of
from deepbures.experiment.problem import make_loss
from deepbures.gradient_flow import gradient_flow
from deepbures.grid import cells
from deepbures.initialization import draw_network
from deepbures.landscape import network_hessian
from deepbures.network import DeepLinearNetwork
from deepbures.plotting import frames, landscape
from deepbures.plotting import tables as tabulate

LOSSES = ["bures-wasserstein", "frobenius"]
ZIPF = {"spectrum": "zipf", "mode": "eigenvalues"}
#: What each kind looks at, and its axes beyond smin = 0.5: small, but with all that its figures show.
BLOCKS = {
    "hessian": ({"points": 6}, {"loss_name": LOSSES, "epsilon": [0, 0.1], "rank": [2], "depth": [1, 2, 3]}),
    "blow_up": (
        {"singular_values": [1, 1e-2, 1e-3, 1e-5], "vanishing": [1, 2]},
        {"epsilon": [0, 0.01, 0.1], "rank": [2, 4], "depth": [1, 2]},
    ),
    "paths": ({"points": 4, "samples": 5}, {"loss_name": LOSSES, "epsilon": [0], "rank": [2], "depth": [1, 2, 3]}),
    "expansion": ({"samples": 9, "reach": 0.02}, {"epsilon": [0, 0.1], "rank": [2], "depth": [1, 3]}),
    "escape": ({"points": 3, "perturbation": 1e-4}, {"epsilon": [0.1], "rank": [2], "depth": [1, 2]}),
    "surface": ({"starts": 4, "samples": 5}, {"epsilon": [0, 0.1], "rank": [1], "depth": [1, 3]}),
    "critical_search": ({"starts": 2}, {"loss_name": LOSSES, "epsilon": [0.1], "rank": [2], "depth": [1, 2]}),
}
DIMENSIONS = {"escape": 3, "surface": 2, "critical_search": 3}
SEEDS = {"hessian": 2, "blow_up": 2, "paths": 2, "critical_search": 2}
KINDS = list(BLOCKS)


def study(kind):
    """Configuration of one small experiment of a kind, of its own name."""
    options, grid = BLOCKS[kind]
    block = {"kind": kind, "dimension": DIMENSIONS.get(kind, 4), "target": ZIPF, "landscape": options}
    if "loss_name" not in grid:
        block["loss"] = "bures-wasserstein"
    return {"study": {"seed": 9}, "experiments": {kind: {**block, "grid": {**grid, "smin": [0.5]}}}}


def settings(kind, landscape=None, **changes):
    """Settings of one cell, two layers where nothing else is said."""
    options, grid = BLOCKS[kind]
    return {
        "study_seed": 9,
        "kind": kind,
        "loss": "bures-wasserstein",
        "dimension": DIMENSIONS.get(kind, 4),
        "target": ZIPF,
        "landscape": {**options, **(landscape or {})},
        "epsilon": 0.1,
        "smin": 0.5,
        "rank": grid["rank"][0],
        "depth": 2,
        **changes,
    }


def frame(kind, seeds=(0,), **changes):
    """The (first) table of one cell."""
    return next(iter(run_cell(settings(kind, **changes), seeds).values())).to_pandas()


@pytest.fixture(autouse=True, scope="module")
def versions_looked_up_once():
    """Every cell records the versions of its packages; looking them up takes longer than most cells here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(provenance, "version", functools.cache(provenance.version))
        yield


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    """Loader of all tables of the small experiment of a kind, computed once and collected as the study does."""

    @functools.cache
    def load(kind):
        folder, config = tmp_path_factory.mktemp(kind), study(kind)
        found = cells(config, kind)
        points = [(cell.axes, cell.settings) for cell in found]
        store = collect_cells(folder, points, range(SEEDS.get(kind, 1)))
        return {name: frames.read(folder / f"{name}.parquet") for name in store.schemas}

    return load


def loss_of(kind, loss="bures-wasserstein", epsilon=0.1, seed=0, **changes):
    """The loss of a cell, with the target of a seed."""
    return make_loss(checked(settings(kind, loss=loss, epsilon=epsilon, **changes)), seed)


def missing(loss):
    """What each direction that is left empty adds to the loss (paper.md section 3)."""
    if loss.name == "frobenius":
        return loss.eigenvalues**2
    return (np.sqrt(loss.eigenvalues) - np.sqrt(loss.epsilon)) ** 2


def values_in_order(loss, rank):
    """L(W_J) over all J of `rank` elements, lowest first."""
    return sorted(missing(loss).sum() - missing(loss)[list(J)].sum() for J in all_sets(loss, rank))


def all_sets(loss, rank):
    return list(itertools.combinations(range(loss.dimension), rank))


def inversions(kept, dimension):
    """Pairs a in J, b not in J with λ_b > λ_a."""
    return sum(b < a for a in kept for b in range(dimension) if b not in kept)


def rows(table):
    return table.to_pylist()


# --- Every kind -------------------------------------------------------------------------------------------------

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
        assert repr(rows(zero[name])).replace("'seed': 0", "'seed': 2") != repr(rows(two[name]))
        metadata = json.loads(table.schema.metadata[b"deepbures"])
        assert [part["cell"] for part in metadata["parts"]] == [cell]
        assert metadata["code"] == code_digest(f"experiment.kinds.{kind}")


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
        assert all(len(table) for table in computed.values())


# --- Hessians at critical points --------------------------------------------------------------------------------


def test_spectrum_at_every_critical_point_is_the_closed_form(tables):
    # All C(4, 2) = 6 points, both losses, with and without smoothing, one to three layers.
    spectra = tables("hessian")["spectra"]
    assert len(spectra) == 2 * 2 * 3 * 2 * 6
    assert (spectra["spectrum_error"] < 1e-12).all()
    assert (spectra["value_error"] < 1e-12).all()
    assert (spectra["gradient_norm"] < 1e-12).all()
    assert (spectra["negative"] == spectra["escapes"]).all()
    assert (spectra["zero"] == spectra["predicted_zero"]).all()
    assert (spectra["negative"] + spectra["zero"] + spectra["positive"] == spectra["parameters"]).all()
    for row in spectra.itertuples():
        rates = row.rates
        assert (np.diff(rates) >= 0).all()
        assert row.largest == pytest.approx(rates[-1], rel=1e-12)
        assert row.smallest == pytest.approx(min(rates[0], 0), rel=1e-12, abs=1e-12)
        assert row.escape_rate == max(0, -rates[0])
        assert row.escapes == inversions(row.kept, 4)
        assert row.relative_condition == pytest.approx(rates[-1] / rates[0], rel=1e-10)
        assert row.absolute_condition == pytest.approx(rates[-1] / np.abs(rates).min(), rel=1e-10)
        # paper.md section 4: rescaling between the layers and rotation of the input.
        n, k, N = 4, 2, row.depth
        assert row.parameters == (n * k if N == 1 else 2 * n * k + (N - 2) * k**2)
        assert row.zero == (k * (k - 1) // 2 if N == 1 else (N - 1) * k**2 + k * (n - k) + k * (k - 1) // 2)


def test_points_are_ordered_by_their_closed_form_loss(tables):
    spectra = tables("hessian")["spectra"]
    for (name, epsilon, seed, _), cell in spectra.groupby(["loss_name", "epsilon", "seed", "depth"]):
        loss = loss_of("hessian", name, epsilon, seed)
        assert cell["point"].tolist() == cell["order"].tolist() == list(range(6))
        np.testing.assert_allclose(cell["value"], values_in_order(loss, 2), rtol=1e-12)
        for kept, value in zip(cell["kept"], cell["value"], strict=True):
            assert value == pytest.approx(np.delete(missing(loss), kept).sum(), rel=1e-12)
        assert cell["kept"].iloc[0].tolist() == [0, 1]


def test_few_points_are_spread_over_the_order_from_the_minimum_on():
    spectra = frame("hessian", landscape={"points": 3}, dimension=5)
    assert spectra["point"].tolist() == [0, 1, 2]
    assert spectra["order"].tolist() == [0, 4, 9]  # of C(5, 2) = 10
    assert (np.diff(spectra["value"]) > 0).all()
    assert spectra["escapes"].tolist()[::2] == [0, 6]


def test_without_smoothing_the_largest_eigenvalue_on_matrices_is_two(tables):
    spectra = tables("hessian")["spectra"].query("depth == 1 and loss_name == 'bures-wasserstein'")
    np.testing.assert_allclose(spectra[spectra["epsilon"] == 0]["largest"], 2, rtol=1e-12)
    assert (spectra[spectra["epsilon"] > 0]["largest"] < 2).all()


@pytest.mark.parametrize("loss", LOSSES)
def test_of_many_parameters_lanczos_finds_the_extreme_eigenvalues(monkeypatch, loss):
    changes = {"loss": loss, "depth": 3, "dimension": 5, "rank": 2}
    dense = frame("hessian", **changes)
    assert set(dense["parameters"]) == {24}
    monkeypatch.setattr(hessian, "DENSE_PARAMETERS", 24)
    assert frame("hessian", **changes).equals(dense)
    monkeypatch.setattr(hessian, "DENSE_PARAMETERS", 23)
    extreme = frame("hessian", **changes)
    scale = dense["largest"].max()
    for name in ("smallest", "largest"):
        np.testing.assert_allclose(extreme[name], dense[name], rtol=1e-9, atol=1e-9 * scale)
    assert (extreme[["negative", "zero", "positive"]] == -1).all(axis=None)
    assert (extreme["spectrum_error"] < 1e-9).all()
    saddles = dense["escapes"] > 0
    ratios = extreme["largest"] / extreme["smallest"]
    np.testing.assert_allclose(extreme["relative_condition"][saddles], ratios[saddles], rtol=1e-15)
    assert extreme["relative_condition"][~saddles].isna().all()
    assert extreme["absolute_condition"].isna().all()
    same = ["kept", "order", "value", "escapes", "escape_rate", "predicted_zero"]
    assert extreme[same].equals(dense[same])


@pytest.mark.parametrize("limit", [1500, 0], ids=["dense", "lanczos"])
def test_wrong_closed_form_is_reported(monkeypatch, limit):
    right = critical_points.local_spectrum
    monkeypatch.setattr(hessian, "DENSE_PARAMETERS", limit)
    monkeypatch.setattr(critical_points, "local_spectrum", lambda loss, kept, depth, rank: right(loss, kept, 3, rank))
    assert (frame("hessian")["spectrum_error"] > 0.1).all()


def test_point_that_is_not_critical_is_reported(monkeypatch):
    # The layers of W_J times 1.1: the loss is not L(W_J), and the gradient that of 1.21 W_J.
    right = critical_points.network

    def wrong(*arguments):
        return DeepLinearNetwork([1.1 * layer for layer in right(*arguments).layers])

    monkeypatch.setattr(critical_points, "network", wrong)
    loss = loss_of("hessian")
    for row in frame("hessian").itertuples():
        W = 1.21 * critical_points.factor(loss, tuple(row.kept), 2)
        error = abs(float(loss.value(W)) - row.value) / float(loss.value(0 * W))
        assert row.value_error == pytest.approx(error, rel=1e-9)
        assert row.gradient_norm == pytest.approx(np.linalg.norm(loss.gradient(W)), rel=1e-9)
        assert min(row.value_error, row.gradient_norm, row.spectrum_error) > 0.01


def test_missing_eigenvalue_is_an_infinite_error(monkeypatch):
    right = critical_points.local_spectrum

    def without_one(*arguments):
        spectrum = right(*arguments)
        return critical_points.LocalSpectrum(spectrum.in_block[1:], spectrum.off_block, spectrum.empty, spectrum.zeros)

    monkeypatch.setattr(critical_points, "local_spectrum", without_one)
    assert np.isinf(frame("hessian")["spectrum_error"]).all()


# --- Blow-up ----------------------------------------------------------------------------------------------------


def curvature(tables, **where):
    found = tables("blow_up")["curvatures"]
    return found[np.logical_and.reduce([found[name] == value for name, value in where.items()])]


@pytest.mark.parametrize("vanishing", [1, 2])
def test_without_smoothing_below_full_rank_curvature_grows_like_one_over_sigma(tables, vanishing):
    for _, cell in curvature(tables, epsilon=0, rank=2, depth=1, vanishing=vanishing).groupby("seed"):
        small = cell[cell["sigma"] < 0.1 * cell["sigma"].max()]
        exponent = derived.exponent_at_zero(cell["sigma"].to_numpy(), -cell["smallest"].to_numpy())
        assert exponent == pytest.approx(-1, abs=0.02)
        product = (small["sigma"] * small["smallest"]).to_numpy()
        np.testing.assert_allclose(product[1:], product[-1], rtol=0.01)
        np.testing.assert_allclose(cell["largest"], 2, rtol=1e-10)  # paper.md section 2


@pytest.mark.parametrize(
    ("where", "bounded"),
    [
        ({"rank": 4, "depth": 1, "vanishing": 1}, True),  # one vanishing singular value of a square matrix
        ({"rank": 4, "depth": 1, "vanishing": 2}, False),  # two: the polar factor turns at a rate 1/(σ_i + σ_j)
        ({"rank": 2, "depth": 2, "vanishing": 1}, True),  # balanced layers tame it
        ({"rank": 2, "depth": 2, "vanishing": 2}, True),
        ({"rank": 4, "depth": 2, "vanishing": 2}, True),
    ],
)
def test_without_smoothing_some_curvatures_stay_bounded(tables, where, bounded):
    for _, cell in curvature(tables, epsilon=0, **where).groupby("seed"):
        size = cell.sort_values("sigma")["smallest"].abs().to_numpy()
        assert (size[0] < 3 * size[-1] + 10) == bounded
        if not bounded:
            np.testing.assert_allclose(size[:2] / size[1:3], [100, 10], rtol=0.05)


def test_with_smoothing_curvature_levels_off_at_its_value_for_sigma_zero(tables):
    curvatures = curvature(tables, depth=1).query("epsilon > 0")
    least = curvatures[curvatures["sigma"] < 1e-4 * curvatures["sigma"].max()]
    np.testing.assert_allclose(least["smallest"], least["level"], rtol=1e-4)
    # In the empty columns alone there is less to gain.
    assert (curvatures["level_of_empty_columns"] >= curvatures["level"] - 1e-10).all()
    assert (curvatures["level_of_empty_columns"] < 0).all()
    # The level is one number for all σ; 2 (1 − √(λ_1/ε)) where all vanish.
    assert (curvatures.groupby(["epsilon", "rank", "vanishing", "seed"])["level"].nunique() == 1).all()
    for (epsilon, seed), cell in curvatures.query("rank == 2 and vanishing == 2").groupby(["epsilon", "seed"]):
        empty = 2 * (1 - np.sqrt(loss_of("blow_up", seed=seed).eigenvalues[0] / epsilon))
        np.testing.assert_allclose(cell["level"], empty, rtol=1e-10)
        np.testing.assert_allclose(cell["level_of_empty_columns"], empty, rtol=1e-10)


def test_levels_are_of_smoothed_matrices_alone(tables):
    curvatures = tables("blow_up")["curvatures"]
    has_level = (curvatures["epsilon"] > 0) & (curvatures["depth"] == 1)
    for name in ("level", "level_of_empty_columns"):
        assert (curvatures[name].notna() == has_level).all()
    assert frame("blow_up", loss="frobenius", depth=1)[["level", "level_of_empty_columns"]].isna().all(axis=None)


def test_curvatures_are_those_of_the_hessian(monkeypatch):
    # Its extreme eigenvalues; σ in units of √(tr Σ0 / n); the layers are balanced.
    seen = []

    def recorded(loss, layers):
        seen.append(layers)
        return network_hessian(loss, layers)

    monkeypatch.setattr(blow_up, "network_hessian", recorded)
    for change in ({}, {"epsilon": 0}, {"depth": 3}, {"loss": "frobenius"}, {"depth": 1, "rank": 4, "epsilon": 0}):
        seen.clear()
        found = frame("blow_up", **change)
        loss = loss_of("blow_up", change.get("loss", LOSSES[0]), change.get("epsilon", 0.1))
        scale = np.sqrt(np.trace(loss.covariance) / 4)
        rank = change.get("rank", 2)
        assert len(seen) == len(found) == 8
        for row, layers in zip(found.itertuples(), seen, strict=True):
            eigenvalues = np.linalg.eigvalsh(network_hessian(loss, layers))
            assert (row.smallest, row.largest) == (eigenvalues[0], eigenvalues[-1])
            W = functools.reduce(lambda product, layer: layer @ product, layers)
            sizes = [scale] * (rank - row.vanishing) + [row.sigma] * row.vanishing
            np.testing.assert_allclose(np.linalg.svd(W, compute_uv=False)[:rank], sizes, rtol=1e-9)
            assert len(layers) == change.get("depth", 2)
            for lower, upper in itertools.pairwise(layers):
                np.testing.assert_allclose(upper.T @ upper, lower @ lower.T, atol=1e-13)
        sizes = np.array(BLOCKS["blow_up"][0]["singular_values"])
        np.testing.assert_allclose(found["sigma"], np.tile(scale * sizes, 2), rtol=1e-14)
        assert found["vanishing"].tolist() == [1] * 4 + [2] * 4


def test_frames_are_common_to_all_smoothings_depths_and_singular_values(monkeypatch):
    # Σ σ_i² U_i U_iᵀ of one seed: the singular vectors of W are those of the same U whatever else changes.
    seen = []
    monkeypatch.setattr(blow_up, "network_hessian", lambda loss, layers: seen.append(layers) or np.eye(2))
    directions = []
    for change in ({}, {"epsilon": 0, "depth": 3}, {"depth": 1, "rank": 4}, {"loss": "frobenius", "smin": 1}):
        seen.clear()
        frame("blow_up", landscape={"singular_values": [0.1, 1e-2], "vanishing": [1]}, **change)
        rank = change.get("rank", 2)
        for layers in seen[:2] if change.get("depth") == 1 else seen:
            W = functools.reduce(lambda product, layer: layer @ product, layers)
            U, _, _ = np.linalg.svd(W)
            directions.append((rank, U[:, rank - 1] * np.sign(U[0, rank - 1])))  # that of the one which vanishes
    for rank in (2, 4):
        same = np.array([vector for found, vector in directions if found == rank])
        assert len(same) >= 2
        np.testing.assert_allclose(same, np.broadcast_to(same[0], same.shape), atol=1e-8)


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
        assert (error[[2, 6]] <= error[[0, 8]] / 6.5 + floor).all()
        assert (error[[3, 5]] <= error[[2, 6]] / 7 + floor).all()


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


def test_random_start_of_one_layer_keeps_its_covariance():
    # An n × n matrix of rank k as its n × k factor.
    network = draw_network(np.random.default_rng(0), 4, 1, 2, "normal", balance="end_to_end")
    W = network.end_to_end()
    (factor,) = expansion._without_idle_columns(network, 2)
    np.testing.assert_allclose(factor @ factor.T, W @ W.T, atol=1e-14)


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

    def flow(loss, W, depth, **given):
        found.append(W)
        options.update(given, depth=depth)
        times = np.linspace(0, 1, 9)
        return SimpleNamespace(times=times, loss=np.full(9, loss.value(W)), factors=np.exp(times)[:, None, None] * W)

    with monkeypatch.context() as patch:
        patch.setattr(escape, "gradient_flow", flow)
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
    assert options["max_time"] == pytest.approx(1.5 * np.log(1e4) / row["escape_rate"], rel=1e-12)
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
            assert way["loss"].iloc[-1] - least <= 1e-8
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


# --- Search for critical points ---------------------------------------------------------------------------------


def test_every_critical_point_found_is_an_enumerated_one(tables):
    searches = tables("critical_search")["searches"]
    assert len(searches) == 2 * 2 * 2 * 2
    assert (searches["enumerated"] == 1 + 3 + 3).all()  # subsets of at most two of three directions
    assert (searches["enumerated_at_rank"] == 3).all()
    critical = searches[searches["critical"] == 1]
    assert (critical["matched"] == 1).all()
    assert len(critical) > 0.8 * len(searches)
    assert (searches[searches["critical"] == 0]["matched"] == 0).all()
    for row in critical.itertuples():
        loss = loss_of("critical_search", row.loss_name, row.epsilon, row.seed)
        assert row.gradient_norm <= 1e-9 * loss.eigenvalues[0]
        assert row.distance <= 1e-5 * loss.eigenvalues[0]
        assert row.value == pytest.approx(np.delete(missing(loss), row.kept).sum(), rel=1e-12)
        assert row.loss == pytest.approx(row.value, rel=1e-8)
        assert row.loss_minimum == pytest.approx(values_in_order(loss, 2)[0], rel=1e-12)
        # At rank k the Hessian has as many negative eigenvalues as the closed form says; below it none is asked for.
        assert row.negative == (inversions(row.kept, 3) if len(row.kept) == 2 else -1)
        assert row.escapes == critical_points.local_spectrum(loss, tuple(row.kept), row.depth, 2).escapes
    assert set(critical["kept"].map(len)) == {0, 1, 2}
    assert critical["kept"].map(tuple).nunique() > 4


def test_search_ends_where_the_loss_has_no_hessian(monkeypatch):
    # ε = 0, lost rank: the layers of the last Hessian that was asked for are described, and nothing is counted.
    asked = []

    def lost(loss, layers):
        asked.append([layer.copy() for layer in layers])
        if len(asked) % 3 == 0:
            raise ValueError("W must have rank 2")
        return network_hessian(loss, layers)

    monkeypatch.setattr(critical_search, "network_hessian", lost)
    searches = frame("critical_search", epsilon=0)
    assert len(asked) == 3 * len(searches)
    assert (searches["evaluations"] == -1).all()
    assert (searches[["critical", "matched"]] == 0).all(axis=None)
    assert (searches["negative"] == -1).all()
    loss = loss_of("critical_search", epsilon=0)
    ends = [last @ first for first, last in asked[2::3]]
    np.testing.assert_allclose(searches["loss"], loss.value(np.stack(ends)), rtol=1e-12)
    assert (searches["gradient_norm"] > 1e-9).all()


def test_searches_that_lose_rank_without_smoothing_say_so():
    # There the loss has a kink: no crash, and no claim about a Hessian.
    searches = frame("critical_search", [0, 1], epsilon=0, landscape={"starts": 4})
    lost = searches[searches["evaluations"] == -1]
    assert len(lost) > 0
    assert (lost["kept"].map(len) < 2).all()
    assert (lost["negative"] == -1).all()
    assert np.isfinite(lost[["gradient_norm", "distance", "loss", "value"]]).all(axis=None)


def wrong_points(monkeypatch):
    """Searches that end at points which the enumeration does not know."""
    right = critical_points.nearest
    monkeypatch.setattr(critical_points, "nearest", lambda *arguments: (right(*arguments)[0], 1.0))
    return frame("critical_search", [0, 1], loss="frobenius", depth=1)


def test_point_that_is_not_enumerated_is_reported(monkeypatch):
    searches = wrong_points(monkeypatch)
    assert (searches["critical"] == 1).all()
    assert (searches["matched"] == 0).all()
    assert (searches["negative"] == -1).all()
    table = tabulate.critical_search(searches.assign(rank=2, depth=1)).iloc[0]
    assert (table["starts"], table["critical"], table["matched"], table["unmatched"]) == (4, 4, 0, 4)
    assert (table["found"], table["found_at_rank"], table["at_rank"], table["lost_rank"]) == (0, 0, 0, 0)
    assert np.isnan(table["largest_distance"])


@pytest.mark.parametrize(("name", "value"), [("GRADIENT_TOLERANCE", -1), ("EVALUATIONS", 2)])
def test_point_with_a_gradient_is_not_critical(monkeypatch, name, value):
    monkeypatch.setattr(critical_search, name, value)
    searches = frame("critical_search", depth=1)
    assert (searches[["critical", "matched"]] == 0).all(axis=None)
    assert (searches["negative"] == -1).all()
    if name == "EVALUATIONS":
        assert (searches["evaluations"] == 2).all()
        assert (searches["gradient_norm"] > 1e-8).all()


@pytest.mark.parametrize("depth", [1, 3])
def test_starts_of_a_search_are_gaussian_layers_of_a_random_scale(monkeypatch, depth):
    # End to end, one start at another scale is a multiple; one layer is n × k.
    found, range_of_scales = [], critical_search.SCALES

    def solve(loss, layers):
        found.append(layers)
        return layers, 1

    monkeypatch.setattr(critical_search, "_solve", solve)
    ends = {}
    for scale in (1.0, 2.0):
        monkeypatch.setattr(critical_search, "SCALES", (scale, scale))
        found.clear()
        frame("critical_search", depth=depth)
        assert len(found) == 2
        shapes = [(3, 2)] if depth == 1 else [(2, 3), (2, 2), (3, 2)]
        assert all([W.shape for W in layers] == shapes for layers in found)
        ends[scale] = [functools.reduce(lambda product, layer: layer @ product, layers) for layers in found]
    np.testing.assert_allclose(ends[2.0], 2 * np.array(ends[1.0]), rtol=1e-12)
    mean = loss_of("critical_search").eigenvalues.mean()
    assert 0.1 * mean < np.mean([np.sum(W**2) / 3 for W in ends[1.0]]) < 10 * mean
    assert range_of_scales[0] < 1 < range_of_scales[1]


# --- Tables -----------------------------------------------------------------------------------------------------


def test_table_of_hessians_has_means_over_targets(tables):
    spectra = tables("hessian")["spectra"]
    table = tabulate.hessian(spectra)
    assert table.columns[:6].tolist() == ["loss_name", "epsilon", "smin", "rank", "depth", "point"]
    assert len(table) == 2 * 2 * 3 * 6
    one = table.query("loss_name == 'frobenius' and epsilon == 0 and depth == 2 and point == 3").iloc[0]
    cell = spectra.query("loss_name == 'frobenius' and epsilon == 0 and depth == 2 and point == 3")
    for name in ("smallest", "largest", "relative_condition", "absolute_condition", "negative", "spectrum_error"):
        assert one[f"{name}_mean"] == pytest.approx(cell[name].mean(), rel=1e-12)
        assert one[f"{name}_std"] == pytest.approx(cell[name].std(ddof=0), rel=1e-12)
        assert one[f"{name}_count"] == 2
    np.testing.assert_array_equal(table["negative_mean"], table["escapes_mean"])
    np.testing.assert_array_equal(table["zero_mean"], table["predicted_zero_mean"])
    latex = tabulate.with_deviations(table, tabulate.HESSIAN)
    assert latex.columns[-5:].tolist() == ["$i$"] + [tabulate.HEADINGS[name] for name in tabulate.HESSIAN]


def test_table_of_escapes_leaves_the_minimum_out(tables):
    table = tabulate.escapes(tables("escape")["escapes"])
    assert table["point"].tolist() == [1, 2, 1, 2]
    np.testing.assert_allclose(table["measured_rate_mean"], table["escape_rate_mean"], rtol=1e-3)
    assert (table["plateau_time_count"] == 1).all()
    latex = tabulate.with_deviations(table, tabulate.ESCAPES)
    assert latex.columns[-5:].tolist() == ["$i$"] + [tabulate.HEADINGS[name] for name in tabulate.ESCAPES]


def test_table_of_the_blow_up_has_exponents_and_levels(tables):
    curvatures = tables("blow_up")["curvatures"]
    table = tabulate.blow_up(curvatures).set_index(["epsilon", "rank", "depth", "vanishing"])
    assert len(table) == 3 * 2 * 2 * 2
    assert (table["exponent_count"] == 2).all()
    found = table["exponent_mean"]
    np.testing.assert_allclose([found[0, 2, 1, 1], found[0, 2, 1, 2], found[0, 4, 1, 2]], -1, atol=0.05)
    np.testing.assert_allclose([found[0, 4, 1, 1], found[0, 2, 2, 1]], 0, atol=0.1)
    np.testing.assert_allclose(found.xs(1, level="depth").loc[0.1], 0, atol=0.1)
    cell = curvatures.query("epsilon == 0.1 and rank == 2 and depth == 1 and vanishing == 1 and sigma < 1e-2")
    levels = cell.groupby("seed")[["level", "level_of_empty_columns"]].first()
    for name in ("level", "level_of_empty_columns"):
        assert table[f"{name}_mean"][0.1, 2, 1, 1] == pytest.approx(levels[name].mean(), rel=1e-12)
        assert table[f"{name}_count"][0, 2, 1, 1] == 0
    latex = tabulate.with_deviations(table.reset_index(), tabulate.BLOW_UP)
    assert latex.columns[-4:].tolist() == ["vanish"] + [tabulate.HEADINGS[name] for name in tabulate.BLOW_UP]
    assert (latex[tabulate.HEADINGS["level"]] == "--").sum() == 24 - 8


def searched(**columns):
    """Searches in one cell of rank 2, all matched at J = {0, 1} unless said otherwise."""
    number = len(next(iter(columns.values())))
    common = {
        "seed": 0,
        "start": range(number),
        "rank": 2,
        "evaluations": 9,
        "critical": 1,
        "matched": 1,
        "distance": 1e-9,
        "negative": 0,
        "escapes": 0,
        "enumerated": 11,
        "enumerated_at_rank": 6,
    }
    made = pd.DataFrame({**common, **{name: values for name, values in columns.items() if name != "kept"}})
    made["kept"] = pd.Series(columns.get("kept", [np.array([0, 1])] * number), index=made.index)
    return made


def test_table_of_searches_counts():
    searches = searched(
        seed=[0, 0, 0, 0, 1, 1, 1, 1],
        critical=[1, 1, 1, 1, 1, 1, 0, 0],
        matched=[1, 1, 1, 1, 1, 0, 0, 0],
        evaluations=[9, 9, 9, -1, 9, 9, -1, 200],  # a search may lose rank at a critical point
        kept=[np.array(kept, dtype=int) for kept in ([0, 1], [0, 1], [0, 2], [], [0, 1], [1, 2], [3], [0, 3])],
        negative=[0, 0, 2, -1, 0, -1, -1, -1],
        escapes=[0, 0, 1, 5, 0, 2, 3, 2],
        distance=[1e-9, 1e-7, 1e-8, 0, 0, 3, 5, 7],
    )
    assert tabulate.critical_search(searches).to_dict("records") == [
        {
            "rank": 2,
            "starts": 8,
            "critical": 6,
            "matched": 5,
            "unmatched": 1,
            "lost_rank": 1,
            "at_rank": 4,
            "index_agrees": 3,
            "found": 4,  # {0, 1}, {0, 2} and ∅ of the first target, {0, 1} of the second
            "enumerated": 22,
            "found_at_rank": 3,
            "enumerated_at_rank": 12,
            "largest_distance": 1e-7,
        }
    ]


def test_table_of_searches_has_a_row_a_cell_with_nothing_found_in_one():
    table = tabulate.critical_search(
        pd.concat([searched(depth=[1, 1]), searched(depth=[2, 2], critical=0, matched=0, evaluations=-1)])
    )
    assert table["depth"].tolist() == [1, 2]
    assert table["found"].tolist() == [1, 0]
    assert table["lost_rank"].tolist() == [0, 2]
    assert table["enumerated"].tolist() == [11, 11]


def test_counts_of_searches_add_up(tables):
    searches = tables("critical_search")["searches"]
    table = tabulate.critical_search(searches)
    assert len(table) == 2 * 2
    assert (table["starts"] == 4).all()
    assert (table["critical"] == table["matched"] + table["unmatched"]).all()
    assert (table["unmatched"] == 0).all()
    assert (table["starts"] >= table["critical"] + table["lost_rank"]).all()
    assert (table["index_agrees"] == table["at_rank"]).all()
    assert table["at_rank"].sum() == ((searches["matched"] == 1) & (searches["kept"].map(len) == 2)).sum()
    assert (table["found_at_rank"] <= table["found"]).all()
    assert (table["found"] <= np.minimum(table["matched"], 14)).all()
    assert (table["enumerated"] == 2 * 7).all()
    assert (table["enumerated_at_rank"] == 2 * 3).all()


# --- Figures ----------------------------------------------------------------------------------------------------


def drawn(figure):
    """Axes of a figure whose mathematics can be typeset, closed afterwards."""
    assert isinstance(figure, Figure)
    typeset = MathTextParser("agg").parse
    assert all(typeset(text.get_text()) for text in figure.findobj(Text) if "$" in text.get_text())
    plt.close(figure)
    return figure.axes


def legend(owner):
    found = owner.legends[0] if isinstance(owner, Figure) else owner.get_legend()
    return [text.get_text() for text in found.get_texts()]


def titles(axes):
    return [axis.get_title(loc="left") for axis in axes]


def test_figure_of_the_largest_eigenvalue(tables):
    spectra = tables("hessian")["spectra"].query("depth < 3")
    before = dict(plt.rcParams)
    figure = landscape.top_eigenvalue(spectra)
    axes = drawn(figure)
    assert dict(plt.rcParams) == before
    assert titles(axes) == ["(a) $N = 1$", "(b) $N = 2$", "(c)", "(d)"]
    assert legend(figure) == [r"BW, $\varepsilon = 0$", r"BW, $\varepsilon = 0.1$", "Frobenius"]
    assert [axis.get_yscale() for axis in axes] == ["linear", "linear", "log", "log"]
    assert axes[0].get_ylabel() == axes[2].get_ylabel() == r"$\lambda_{\max}(\nabla^2 L^N)$"
    assert axes[2].get_xlabel() == axes[3].get_xlabel() == "critical point $i$"
    # Means over the targets; the square loss once, though it stands at two smoothings.
    for axis, depth in zip(axes, [1, 2, 1, 2], strict=True):
        assert len(axis.lines) == 3
        for line, query in zip(axis.lines, ["epsilon == 0", "epsilon == 0.1", "epsilon == 0"], strict=True):
            name = "frobenius" if line is axis.lines[2] else "bures-wasserstein"
            cell = spectra.query(f"{query} and depth == {depth} and loss_name == '{name}'")
            np.testing.assert_allclose(line.get_ydata(), cell.groupby("point")["largest"].mean(), rtol=1e-12)
            assert line.get_xdata().tolist() == list(range(6))


def test_figure_of_condition_numbers(tables):
    spectra = tables("hessian")["spectra"].query("depth < 3 and epsilon == 0")
    figure = landscape.conditioning(spectra)
    axes = drawn(figure)
    assert titles(axes) == ["(a) $N = 1$", "(b) $N = 2$", "(c)", "(d)"]
    assert {axis.get_yscale() for axis in axes} == {"log"}
    assert axes[0].get_ylabel() == r"$|\kappa_{\mathrm{rel}}|$"
    assert axes[2].get_ylabel() == r"$\kappa_{\mathrm{abs}}$"
    assert axes[3].get_xlabel() == "critical point $i$"
    assert legend(figure) == [r"BW, $\varepsilon = 0$", "Frobenius"]
    # Geometric means of the sizes.
    cell = spectra.query("loss_name == 'frobenius' and depth == 2")
    for axis, column in ((axes[1], "relative_condition"), (axes[3], "absolute_condition")):
        expected = np.exp(np.log(cell[column].abs()).groupby(cell["point"]).mean())
        np.testing.assert_allclose(axis.lines[1].get_ydata(), expected, rtol=1e-12)


def test_figure_of_paths(tables):
    paths = tables("paths")["paths"]
    figure = landscape.paths(paths)
    axes = drawn(figure)
    assert titles(axes) == [r"(a) BW, $\varepsilon = 0$", "(b) Frobenius", "(c)", "(d)"]
    assert axes[0].get_ylabel() == r"$(L - L_0)\, /\, (L_P - L_0)$"
    assert axes[2].get_ylabel() == "layers minus matrices"
    assert axes[2].get_xlabel() == axes[3].get_xlabel() == "critical point $i$"
    assert legend(axes[0]) == [f"layers, $N = {depth}$" for depth in (1, 2, 3)] + ["matrices $W$"]
    for axis, name in zip(axes[:2], LOSSES, strict=True):
        *layers, matrices, points = axis.lines
        for line in (*layers, matrices):  # from 0 to 1, once over each critical point
            np.testing.assert_allclose(line.get_xdata(), np.linspace(0, 3, 13), atol=1e-14)
            np.testing.assert_allclose(line.get_ydata()[[0, -1]], [0, 1], atol=1e-12)
        assert points.get_xdata().tolist() == [0, 1, 2]
        cell = paths[(paths["loss_name"] == name) & (paths["depth"] == 2) & (paths["pair"] == 1) & (paths["t"] == 0.5)]
        share = []
        for seed, value in zip(cell["seed"], cell["loss_between_layers"], strict=True):
            values = values_in_order(loss_of("paths", name, 0, seed), 2)
            share.append((value - values[0]) / (values[-1] - values[0]))
        assert layers[1].get_ydata()[6] == pytest.approx(np.mean(share), rel=1e-12)
    for axis in axes[2:]:
        one, two, three, _ = axis.lines
        np.testing.assert_allclose(one.get_ydata(), 0, atol=1e-12)
        assert np.abs(two.get_ydata()).max() > 1e-3
        np.testing.assert_allclose(three.get_ydata()[::4], 0, atol=1e-12)


def test_figure_of_second_order_models(tables):
    lines = tables("expansion")["lines"].query("epsilon == 0.1 and depth == 3")
    figure = landscape.second_order_model(lines)
    axes = drawn(figure)
    assert titles(axes) == [
        f"({letter}) {place}, {line}"
        for letter, (line, place) in zip(
            "abcdef", itertools.product(("random", "eigenvector"), ("minimum", "saddle", "random start")), strict=True
        )
    ]
    assert [axis.get_ylabel() for axis in axes] == ["loss $L^N$", "", ""] * 2
    assert [axis.get_xlabel() for axis in axes] == [""] * 3 + ["distance $t$ along the line"] * 3
    assert legend(figure) == ["loss", "second order, closed form", "numerical derivatives"]
    assert figure.get_suptitle() == r"$\varepsilon = 0.1$, $k = 2$, $N = 3$, one seed"
    cell = lines.query("place == 'saddle' and line == 'eigenvector'")
    for line, column in zip(axes[4].lines, ("loss", "model", "numerical_model"), strict=True):
        np.testing.assert_array_equal(line.get_ydata(), cell[column])
        np.testing.assert_array_equal(line.get_xdata(), cell["distance"])


def test_figure_of_one_expansion_needs_one_cell(tables):
    with pytest.raises(ValueError, match="this figure shows one value of epsilon, not 2: name it under `show`"):
        landscape.second_order_model(tables("expansion")["lines"])
    plt.close()


def test_figure_of_the_blow_up(tables):
    curvatures = tables("blow_up")["curvatures"]
    figure = landscape.blow_up(curvatures)
    axes = drawn(figure)
    assert titles(axes) == ["(a) matrices, $k = 2$", r"(b) level at $\sigma_{\min} = 0$", r"(c) $\varepsilon = 0$"]
    assert [axis.get_xlabel() for axis in axes] == [r"$\sigma_{\min}(W)$", r"$\varepsilon$", r"$\sigma_{\min}(W)$"]
    assert axes[0].get_ylabel() == r"$|\lambda_{\min}(\nabla^2 L_\varepsilon)|$"
    assert {axis.get_xscale() for axis in axes} == {axis.get_yscale() for axis in axes} == {"log"}
    unsmoothed, *smoothed = legend(axes[0])
    assert unsmoothed.startswith((r"$\varepsilon = 0$: $\sigma^{-1.0", r"$\varepsilon = 0$: $\sigma^{-0.99"))
    assert smoothed == [r"$\varepsilon = 0.01$", r"$\varepsilon = 0.1$"]
    assert legend(axes[1])[0].startswith(r"measured: $\varepsilon^{-0.")
    assert legend(axes[1])[1] == r"$2(\lambda_{\max}(T) - 1)$"
    names = [(1, 2, 1), (1, 2, 2), (1, 4, 1), (1, 4, 2), (2, 2, 1)]  # depth, rank, vanishing
    assert legend(axes[2]) == [f"$N = {depth}$, $k = {rank}$: {vanishing}" for depth, rank, vanishing in names]
    # Geometric means over the targets, by increasing σ.
    for line, (depth, rank, vanishing) in zip(axes[2].lines, names, strict=True):
        cell = curvatures.query(f"epsilon == 0 and depth == {depth} and rank == {rank} and vanishing == {vanishing}")
        sizes = cell.sort_values("sigma")["smallest"].abs().to_numpy().reshape(4, 2)
        np.testing.assert_allclose(line.get_ydata(), np.exp(np.log(sizes).mean(axis=1)), rtol=1e-10)
        assert (np.diff(line.get_xdata()) > 0).all()
    measured, closed = (line.get_ydata() for line in axes[1].lines)
    assert (measured >= closed * (1 - 1e-12)).all()
    for column, line in (("level", measured), ("level_of_empty_columns", closed)):
        cell = curvatures.query("depth == 1 and rank == 2 and vanishing == 1 and epsilon > 0")
        sizes = np.log(cell[column].abs()).groupby(cell["epsilon"]).mean()
        np.testing.assert_allclose(line, np.exp(sizes), rtol=1e-12)


def test_figure_of_escape_rates(tables):
    escapes = tables("escape")["escapes"]
    figure = landscape.escape_rates(escapes)
    axes = drawn(figure)
    assert titles(axes) == ["(a)", "(b)", "(c)"]
    assert [axis.get_xlabel() for axis in axes] == [
        "critical point $i$, by loss",
        "fastest $-r_{ab}$, closed form",
        "1 / fastest $-r_{ab}$",
    ]
    assert [axis.get_ylabel() for axis in axes] == ["escape rates $-r_{ab} > 0$, one seed", "measured", "plateau time"]
    assert legend(axes[1]) == ["$N = 1$", "$N = 2$", "equal"]
    assert legend(axes[2]) == [r"$\ln(1/\delta)\,/\,|r|$"]
    assert figure.get_suptitle() == r"$\varepsilon = 0.1$, $k = 2$"
    # One mark a rate: 1 and 2 escapes from the two saddles, at each depth.
    assert sorted(len(line.get_ydata()) for line in axes[0].lines) == [1, 1, 2, 2]
    for depth, line, stay in zip([1, 2], axes[1].lines, axes[2].lines, strict=False):
        saddles = escapes.query(f"depth == {depth} and escapes > 0")
        np.testing.assert_array_equal(line.get_xdata(), saddles["escape_rate"])
        np.testing.assert_array_equal(line.get_ydata(), saddles["measured_rate"])
        np.testing.assert_array_equal(stay.get_ydata(), saddles["plateau_time"])
    theory = axes[2].lines[-1]
    np.testing.assert_allclose(theory.get_ydata() / theory.get_xdata(), np.log(1e4), rtol=1e-12)


def test_figure_of_the_whole_landscape(tables):
    found = tables("surface")
    figure = landscape.whole_landscape(found["surface"], found["points"], found["flows"])
    axes = drawn(figure)
    panels = axes[:4]
    assert titles(panels) == [
        rf"({letter}) $N = {depth}$, $\varepsilon = {epsilon}$"
        for letter, (depth, epsilon) in zip("abcd", itertools.product((1, 3), (0, 0.1)), strict=True)
    ]
    assert [axis.get_ylabel() for axis in panels] == [r"$w_2$, along $\Omega_2$", ""] * 2
    assert [axis.get_xlabel() for axis in panels] == ["", "", *[r"$w_1$, along $\Omega_1$"] * 2]
    assert axes[4].get_ylabel() == r"loss $L_\varepsilon(W)$"
    assert legend(figure) == ["minimum, $J = \\{1\\}$", "saddle, $J = \\{2\\}$", "$W = 0$"]
    for axis, (depth, epsilon) in zip(panels, itertools.product((1, 3), (0, 0.1)), strict=True):
        *ways, minimum, saddle, origin = axis.lines
        assert len(ways) == 4
        points = found["points"].query(f"depth == {depth} and epsilon == {epsilon}")
        least = points[points["loss"] == points["loss"].min()]
        np.testing.assert_array_equal(minimum.get_xdata(), least["x"])
        assert (len(saddle.get_xdata()), origin.get_xdata().tolist(), origin.get_ydata().tolist()) == (2, [0], [0])
        flows = found["flows"].query(f"depth == {depth} and epsilon == {epsilon} and start == 2")
        np.testing.assert_array_equal(ways[2].get_xdata(), flows["x"])
