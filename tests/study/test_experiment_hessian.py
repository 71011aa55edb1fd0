"""Hessians at critical points and their blow-up: tables of the experiments against closed forms."""

import functools
import itertools

import numpy as np
import pytest
from landscape_cells import (
    BLOCKS,
    LOSSES,
    frame,
    inversions,
    loader,
    loss_of,
    missing,
    values_in_order,
)

from deepbures.landscape import critical_points
from deepbures.landscape.curvature import network_hessian
from deepbures.model.network import DeepLinearNetwork
from deepbures.study.kinds import blow_up, hessian
from deepbures.study.results import derived


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    return loader(tmp_path_factory)


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
        error = abs(float(loss.value(W)) - row.value) / loss.eigenvalues.sum()
        assert row.value_error == pytest.approx(error, rel=1e-9)
        norm = np.linalg.norm(loss.gradient(W)) / np.sqrt(loss.eigenvalues[0])
        assert row.gradient_norm == pytest.approx(norm, rel=1e-9)
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


@pytest.mark.parametrize(("rank", "depth"), [(1, 1), (2, 1), (3, 1), (4, 1), (2, 2), (3, 3)])
def test_recorded_sigma_is_the_least_singular_value_of_the_matrix(monkeypatch, rank, depth):
    seen = []
    right = blow_up.network_hessian
    monkeypatch.setattr(blow_up, "network_hessian", lambda loss, layers: seen.append(layers) or right(loss, layers))
    found = frame("blow_up", rank=rank, depth=depth, epsilon=0, landscape={"vanishing": [1]})
    least = []
    for layers in seen:
        W = functools.reduce(lambda product, layer: layer @ product, layers)
        assert W.shape == ((4, rank) if depth == 1 else (4, 4))
        least.append(np.linalg.svd(W, compute_uv=False)[rank - 1])
    np.testing.assert_allclose(found["sigma"], least, rtol=1e-9)


@pytest.mark.parametrize(("rank", "vanishing"), [(1, 1), (2, 1), (2, 2), (3, 1), (3, 2), (4, 2), (4, 3)])
def test_curvature_is_the_predicted_one_as_sigma_vanishes(rank, vanishing):
    # λ_min = −C/σ + O(1): at σ = 1e-5 of the others to 1e-4, and ten times closer for a tenth of σ.
    sizes = [1e-3, 1e-4, 1e-5]
    found = frame(
        "blow_up", rank=rank, depth=1, epsilon=0, landscape={"singular_values": sizes, "vanishing": [vanishing]}
    )
    error = (found["smallest"] / found["predicted"] - 1).abs().to_numpy()
    assert error[2] < 1e-4
    np.testing.assert_allclose(error[:-1] / error[1:], 10, rtol=0.1)
    np.testing.assert_allclose(found["predicted"] * found["sigma"], found["predicted"].iloc[0] * found["sigma"].iloc[0])


def test_prediction_is_of_single_layers_without_smoothing(tables):
    curvatures = tables("blow_up")["curvatures"]
    unsmoothed = (curvatures["epsilon"] == 0) & (curvatures["depth"] == 1)
    assert (curvatures["predicted"].notna() == unsmoothed).all()
    # One vanishing singular value of a square matrix: no blow-up.
    square = curvatures[unsmoothed & (curvatures["rank"] == 4) & (curvatures["vanishing"] == 1)]
    assert (square["predicted"] == 0).all()
