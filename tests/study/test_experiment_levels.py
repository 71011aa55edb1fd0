"""Cells of starts with a given excess, of layers without balance or wider ones, and of single steps and points."""

import numpy as np
import pytest

from deepbures.landscape import critical_points
from deepbures.landscape.curvature import hessian
from deepbures.rates.below_full_rank import low_rank_descent_rate, low_rank_global_rate
from deepbures.rates.plateau_times import aligned_sharp_rate
from deepbures.rates.thresholds import critical_gap, proved_step
from deepbures.rates.unbalanced import layer_imbalance, unbalanced_global_rate
from deepbures.study.cell.problem import make_loss, make_start
from deepbures.study.run import checked, run_cell

SHARED = {
    "study_seed": 3,
    "loss": "bures-wasserstein",
    "dimension": 4,
    "target": {"spectrum": "zipf", "mode": "eigenvalues"},
    "epsilon": 0.1,
    "smin": 0.5,
    "rank": 2,
    "depth": 2,
}
FLOW = {"integration": {"rtol": 1e-8, "excess_tolerance": 1e-10, "max_time": 1e3, "max_steps": 1500, "samples": 30}}
DESCENT = {"descent": {"max_steps": 50, "samples": 10}}
LEVEL = {"kind": "level", "scale": 0.4}


def settings(kind, **changes):
    options = {"flow": FLOW, "layers": FLOW, "descent": DESCENT}.get(kind, {})
    return {**SHARED, **options, "kind": kind, **changes}


def frames(given, seeds=(0,)):
    return {name: table.to_pandas() for name, table in run_cell(given, list(seeds)).items()}


def problem(given, seed=0):
    typed = checked(given)
    loss = make_loss(typed, seed)
    return loss, make_start(typed, seed, loss)


@pytest.mark.parametrize("kind", ["level", "saddle"])
@pytest.mark.parametrize(("loss", "rank"), [("bures-wasserstein", 2), ("bures-wasserstein", 4), ("frobenius", 2)])
def test_a_start_has_the_fraction_of_the_gap_that_the_configuration_names(kind, loss, rank):
    for share in (1e-3, 0.9):
        given = settings("flow", loss=loss, rank=rank, initialization={"kind": kind, "scale": share})
        run = frames(given)["runs"].iloc[0]
        target, _ = problem(given)
        assert run["critical_gap"] == critical_gap(target, rank)
        assert run["excess_initial"] == pytest.approx(share * run["critical_gap"], rel=1e-7)
        assert np.isnan(run["low_rank_rate"]) == (loss == "frobenius" or rank == 4)
        assert np.isnan(run["aligned_rate"])


def test_rates_from_the_start_are_those_of_the_library():
    given = settings("flow", initialization=LEVEL)
    run, (loss, _) = frames(given)["runs"].iloc[0], problem(given)
    assert run["low_rank_rate"] == low_rank_global_rate(loss.eigenvalues, 0.1, 2, 2, run["excess_initial"]) > 0
    aligned = settings("flow", initialization={"kind": "aligned", "scale": 0.1})
    assert frames(aligned)["runs"].iloc[0]["aligned_rate"] == aligned_sharp_rate(problem(aligned)[0], 2, 2)
    given = settings("descent", depth=1, initialization=LEVEL, step_size=0.3)
    run, (loss, _) = frames(given)["runs"].iloc[0], problem(given)
    expected = low_rank_descent_rate(loss.eigenvalues, 0.1, 1, 2, run["excess_initial"], 0.3)
    assert run["low_rank_fraction"] == expected > 0


def test_a_start_needs_a_saddle():
    given = settings("flow", epsilon=100, rank=1, initialization=LEVEL)  # limited to λ_1
    with pytest.raises(ValueError, match="initialization 'level' needs λ_1 > ε"):
        run_cell(given, [0])


def test_imbalance_changes_the_layers_and_not_their_product():
    balanced, unbalanced = (
        settings("descent", rank=4, initialization={**LEVEL, "imbalance": size}, proved_step=0.5) for size in (0, 0.7)
    )
    start, other = problem(balanced)[1], problem(unbalanced)[1]
    np.testing.assert_allclose(other.network.end_to_end(), start.end_to_end, atol=1e-12)
    runs = [frames(given)["runs"].iloc[0] for given in (balanced, unbalanced)]
    assert runs[0]["imbalance_initial"] < 1e-12
    assert runs[1]["imbalance_initial"] == layer_imbalance(other.network.layers) > 0.1
    for run, given in zip(runs, (balanced, unbalanced), strict=True):
        loss, its_start = problem(given)
        assert run["eta_proved"] == proved_step(loss, its_start.network.layers)
        assert run["eta"] == 0.5 * run["eta_proved"]
    assert runs[1]["eta_proved"] < runs[0]["eta_proved"]


@pytest.mark.parametrize(("rank", "shapes"), [(4, [(7, 4), (7, 7), (4, 7)]), (2, [(2, 4), (7, 2), (4, 7)])], ids=str)
@pytest.mark.parametrize("balance", ["none", "end_to_end"])
def test_hidden_widths(rank, shapes, balance):
    start = {"kind": "xavier_normal", "balance": balance, "width": 7}
    given = settings("descent", rank=rank, depth=3, initialization=start, relative_step=0.1)
    layers = problem(given)[1].network.layers
    assert [layer.shape for layer in layers] == shapes
    assert (layer_imbalance(layers) < 1e-12) == (balance == "end_to_end")
    narrow = settings("descent", rank=rank, depth=3, initialization={**start, "width": rank}, relative_step=0.1)
    excess = [frames(each)["trajectories"]["excess"].to_numpy() for each in (given, narrow)]
    assert np.allclose(*excess, rtol=1e-9) == (balance == "end_to_end")


def test_the_flow_of_layers_has_the_columns_of_the_library():
    start = {"kind": "level", "scale": 0.3, "imbalance": 0.2}
    given = settings("layers", rank=4, depth=2, initialization=start)
    tables, (loss, start) = frames(given, [0, 1]), problem(given)
    run = tables["runs"].iloc[0]
    assert run["imbalance_initial"] == layer_imbalance(start.network.layers)
    expected = unbalanced_global_rate(loss.eigenvalues, 0.1, run["loss_initial"], start.network.layers)
    assert run["unbalanced_rate"] == expected > 0
    assert (tables["runs"]["stop_reason"] == "converged").all()
    assert tables["trajectories"]["imbalance_drift"].max() < 1e-7
    for seed, one in tables["trajectories"].groupby("seed"):
        promised = -tables["runs"].set_index("seed")["unbalanced_rate"][seed] * one["time"]
        assert (np.log(one["excess"] / one["excess"].iloc[0]) <= promised + 1e-9).all()


@pytest.mark.parametrize(
    ("loss", "epsilon", "depth", "expected"),
    [
        ("bures-wasserstein", 0, 2, lambda b: -2 * np.sqrt(b)),
        ("bures-wasserstein", 0.1, 1, lambda b: 2 * (1 - np.sqrt(b / 0.1))),
        ("bures-wasserstein", 0.1, 2, lambda b: 0.0),
        ("bures-wasserstein", 0, 3, lambda b: 0.0),
        ("frobenius", 0, 1, lambda b: -4 * b),
        ("frobenius", 0, 2, lambda b: 0.0),
    ],
)
def test_empty_columns_fill_at_their_rates(loss, epsilon, depth, expected):
    landscape = {"points": 12, "perturbation": 1e-5, "lower_ranks": True}
    given = settings("escape", loss=loss, epsilon=epsilon, depth=depth, landscape=landscape)
    table, (target, points) = frames(given)["fillings"], (make_loss(checked(given), 0), None)
    points = [p for p in critical_points.critical_points(target, 2, lower_ranks=True) if len(p.kept) < 2]
    assert {tuple(kept) for kept in table["kept"]} == {p.kept for p in points}
    for row in table.itertuples():
        assert row.direction == min(set(range(4)) - set(row.kept))
        closed = expected(target.eigenvalues[row.direction])
        assert row.filling_rate == pytest.approx(closed, rel=1e-12)
        assert row.measured_rate == pytest.approx(row.growth_rate, rel=1e-5)
        # S_bb = z^{2N} grows like exp(2 N r t): at N = 2 without smoothing with 8 √λ_b.
        assert row.measured_rate == pytest.approx(-closed, rel=1e-4, abs=0.3 * target.eigenvalues[0])


def test_a_kink_has_no_fillings():
    landscape = {"points": 12, "perturbation": 1e-5, "lower_ranks": True}
    given = settings("escape", epsilon=0, depth=1, landscape=landscape)
    assert frames(given)["fillings"].empty
    assert frames({**given, "epsilon": 0.1, "landscape": {**landscape, "lower_ranks": False}})["fillings"].empty


def test_hessians_at_random_matrices_stand_beside_their_bounds():
    given = settings("hessian", depth=1, landscape={"points": 2, "matrices": 12})
    table, loss = frames(given)["bounds"], make_loss(checked(given), 0)
    assert set(table["rank_of_point"]) == {0, 1, 2}
    assert (table["upper_bound"] == 2).all()
    np.testing.assert_allclose(table["lower_bound"], 2 * (1 - np.sqrt(loss.eigenvalues[0] / 0.1)), rtol=1e-12)
    at_zero = table[table["rank_of_point"] == 0].iloc[0]
    expected = np.linalg.eigvalsh(hessian(loss, np.zeros((4, 2))))
    np.testing.assert_allclose(at_zero[["smallest", "largest"]].to_numpy(float), expected[[0, -1]], rtol=1e-9)
    np.testing.assert_allclose(at_zero["level"], 2 * (1 - np.sqrt(loss.eigenvalues[0] / 0.1)), rtol=1e-9)
    assert frames({**given, "epsilon": 0})["bounds"].empty
    assert frames({**given, "depth": 2})["bounds"].empty


def test_single_steps_keep_the_promise_and_use_it_up():
    landscape = {"conditions": [1, 100], "shares": [0, 0.5], "step_shares": [0.5, 1], "starts": 8, "steps": 15}
    for n, attained in ((1, 0.999), (2, 0.9)):
        given = settings("deep_steps", smin=-1, epsilon=0, rank=n, landscape=landscape)
        table = frames(given)["steps"]
        assert len(table) == (1 if n == 1 else 2) * 2 * 2 * 8
        assert table["aligned"].mean() == (1 if n == 1 else 0.5)
        used = table["promised"] / table["fell"]
        assert attained < used.max() <= 1 + 1e-6
        assert (table["fraction"] > 0).all()
