"""Cells of gradient descent: each column against the library, called directly for one seed."""

import numpy as np
import pandas as pd
import pytest

from deepbures.descent.gradient_descent import gradient_descent
from deepbures.flow.gradient_flow import gradient_flow
from deepbures.model.diagnostics import squared_bures_distance
from deepbures.rates.predicted import descent_contraction, rates_at_minimum, stable_step
from deepbures.rates.program_constants import program_constants
from deepbures.study.cell.problem import make_loss, make_start
from deepbures.study.grid.cells import cells
from deepbures.study.kinds.descent import stack_of
from deepbures.study.run import checked, run_cell, run_cells

SETTINGS = {
    "study_seed": 7,
    "kind": "descent",
    "loss": "bures-wasserstein",
    "dimension": 5,
    "target": {"spectrum": "zipf", "mode": "eigenvalues"},
    "initialization": {"kind": "close"},
    "descent": {"max_steps": 200, "samples": 10},
    "epsilon": 0.1,
    "smin": 0.5,
    "rank": 5,
    "depth": 3,
    "relative_step": 0.3,
}
LOW_RANK = {"rank": 2, "initialization": {"kind": "normal", "balance": "end_to_end"}}
AS_DRAWN = {"initialization": {"kind": "xavier_normal", "balance": "none"}}
FIXED = {key: value for key, value in SETTINGS.items() if key != "relative_step"} | {"step_size": 1e-3}
VARIANTS = {
    "close": {},
    "unsmoothed": {"epsilon": 0},
    "low-rank": LOW_RANK,
    "low-rank-one-layer": {**LOW_RANK, "depth": 1},
    "as-drawn": AS_DRAWN,
    "frobenius": {**LOW_RANK, "loss": "frobenius", "epsilon": 0},
    "frobenius-one-layer": {**LOW_RANK, "loss": "frobenius", "epsilon": 0, "depth": 1},
}


def run(settings, seeds=(0,)):
    """Rows of both tables."""
    tables = run_cell(settings, seeds)
    return tables["runs"].to_pylist(), tables["trajectories"].to_pylist()


def column(rows, name):
    return np.array([row[name] for row in rows])


def descend(settings, seed, step_size, n_steps, record_steps):
    """What the cell should have computed for a seed: loss, start, trajectory."""
    loss = make_loss(checked(settings), seed)
    start = make_start(checked(settings), seed, loss)
    return loss, start, gradient_descent(loss, start.network, step_size, n_steps, record_steps)


@pytest.mark.parametrize("change", VARIANTS.values(), ids=VARIANTS)
def test_columns_are_those_of_the_library(change):
    settings = {**SETTINGS, **change}
    runs, samples = run(settings, [3])
    row, steps = runs[0], column(samples, "step")
    rank, depth = settings["rank"], settings["depth"]
    loss, start, found = descend(settings, 3, row["eta"], 200, steps)
    # η, 2/λ_max and max_r (1 − η r)², from the local rates at the minimum.
    rates = rates_at_minimum(loss, depth, rank)
    assert row["eta_stable"] == stable_step(rates) == 2 / rates.max()
    assert row["eta"] == 0.3 * row["eta_stable"]
    assert row["contraction"] == descent_contraction(rates, row["eta"])
    assert row["sharp_rate"] == 2 * rates.min()
    # The trajectory, at time η · step.
    np.testing.assert_allclose(column(samples, "time"), row["eta"] * steps, rtol=1e-15)
    for name in ("loss", "excess", "gradient_norm", "balancedness"):
        np.testing.assert_allclose(column(samples, name), getattr(found, name), rtol=1e-12, atol=1e-300)
    S = found.factors @ found.factors.mT
    minimum, _ = loss.minimum(rank)
    distance = np.linalg.norm(S - minimum, axis=(-2, -1))
    np.testing.assert_allclose(column(samples, "covariance_distance"), distance, rtol=1e-10, atol=1e-14)
    optimum = loss.eigenvectors * np.sqrt(loss.minimum_spectrum(rank))
    bures = squared_bures_distance(found.factors, optimum)
    # A sum of squares of entries with errors of eps: what is near 0 is known to eps times its root.
    assert (np.abs(column(samples, "squared_bures") - bures) <= 1e-8 * bures + 1e-14 * np.sqrt(bures) + 1e-28).all()
    # The run: its first and last record.
    ends = {
        "excess_initial": found.excess[0],
        "excess_final": found.excess[-1],
        "loss_final": found.loss[-1],
        "balancedness_initial": start.network.balancedness(),
        "balancedness_final": found.balancedness[-1],
        "time_final": 200 * row["eta"],
    }
    for name, value in ends.items():
        assert row[name] == pytest.approx(value, rel=1e-12, abs=1e-14), name
    assert row["loss_initial"] == pytest.approx(found.loss[0], rel=1e-11)
    assert (row["steps"], row["evaluations"], row["stop_reason"]) == (200, 201, "step budget")
    assert np.isnan(row["flow_error"])
    descending = np.linalg.eigvalsh(found.final)[::-1]
    np.testing.assert_allclose(row["eigenvalues_final"], descending, rtol=1e-8, atol=1e-12)
    if settings["loss"] == "bures-wasserstein":
        constants = program_constants(loss.eigenvalues, loss.epsilon, depth, row["loss_initial"], rank=rank)
        np.testing.assert_equal(row["descent_rate"], constants.descent_rate)
        np.testing.assert_equal(row["log10_eta_2"], constants.log10_eta_2)


@pytest.mark.parametrize("change", VARIANTS.values(), ids=VARIANTS)
def test_plane_holds_the_covariance_along_two_eigenvectors(change):
    # Entries Ω_iᵀ S Ω_j, i, j = 1, 2.
    settings = {**SETTINGS, **change}
    row = run(settings)[0][0]
    loss, start, found = descend(settings, 0, row["eta"], 200, [200])
    plane = loss.eigenvectors[:, :2]
    W = start.network.end_to_end()
    np.testing.assert_allclose(np.reshape(row["plane_initial"], (2, 2)), plane.T @ W @ W.T @ plane, rtol=1e-10)
    np.testing.assert_allclose(
        np.reshape(row["plane_final"], (2, 2)), plane.T @ found.final @ plane, rtol=1e-8, atol=1e-12
    )


def test_plane_of_a_run_that_converged_is_that_of_the_optimum():
    # diag(λ_1 − ε, λ_2 − ε).
    row = run({**SETTINGS, "descent": {"max_steps": 2000, "samples": 5, "excess_tolerance": 1e-20}})[0][0]
    assert row["stop_reason"] == "converged"
    expected = np.diag(np.array(row["eigenvalues_target"][:2]) - 0.1)
    np.testing.assert_allclose(np.reshape(row["plane_final"], (2, 2)), expected, atol=1e-9)


def test_seeds_do_not_depend_on_their_block():
    # Four seeds together, of which some converge, one by one, and in other blocks: the same rows, bit for bit.
    settings = {**SETTINGS, "descent": {"max_steps": 15, "samples": 8, "excess_tolerance": 1e-3}}
    blocks = ([range(4)], [[seed] for seed in range(4)], [[0, 1, 2], [3]])
    tables = [[run(settings, block) for block in split] for split in blocks]
    whole = [[row for part in split for row in part[table]] for split in tables for table in (0, 1)]
    assert repr(whole[0]) == repr(whole[2]) == repr(whole[4])
    assert repr(whole[1]) == repr(whole[3]) == repr(whole[5])
    assert {row["stop_reason"] for row in whole[0]} == {"converged", "step budget"}
    assert {row["steps"] for row in whole[0]} == {10, 15}


# --- Steps and records ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("end_time", "step_size", "steps"), [(0.2, 1e-3, 200), (0.3, 1e-4, 3000), (0.7, 0.1, 7)])
def test_end_time_over_step_size_is_the_number_of_steps(end_time, step_size, steps):
    # In floats, 0.3 / 1e-4 is 2999.9999999999995, and 0.7 / 0.1 is 6.999999999999999.
    options = {"end_time": end_time, "samples": 5}
    row = run({**FIXED, "step_size": step_size, "depth": 1, "descent": options})[0][0]
    assert (row["steps"], row["eta"]) == (steps, step_size)
    assert row["time_final"] == pytest.approx(end_time, rel=1e-12)


def test_record_every_keeps_every_so_many_steps_and_the_last():
    _, samples = run({**SETTINGS, "descent": {"max_steps": 95, "record_every": 10}})
    assert column(samples, "step").tolist() == [*range(0, 100, 10), 95]


def test_samples_are_spread_over_the_logarithm_of_the_step():
    # 10^{0, 1/2, 1, …, 3}, the start, and the last step.
    _, samples = run({**SETTINGS, "descent": {"max_steps": 1000, "samples": 7}})
    assert column(samples, "step").tolist() == [0, 1, 3, 10, 32, 100, 316, 1000]


def test_run_ends_where_the_excess_reaches_its_tolerance():
    options = {"max_steps": 1000, "record_every": 100, "excess_tolerance": 1e-6}
    runs, samples = run({**SETTINGS, "descent": options}, range(3))
    for row in runs:
        mine = [sample for sample in samples if sample["seed"] == row["seed"]]
        assert (row["stop_reason"], mine[-1]["step"]) == ("converged", row["steps"])
        assert row["excess_final"] == mine[-1]["excess"] <= 1e-6 < mine[-2]["excess"]
        assert row["steps"] < 1000
    assert len({row["steps"] for row in runs}) > 1
    # Its last record is where it converged, in the table of each run only its own.
    assert all(sample["step"] % 100 == 0 or sample["excess"] <= 1e-6 for sample in samples)


def test_one_layer_below_full_rank_has_a_narrow_input():
    # d_0 = k: F is the layer itself, and descent ends at the best rank-k covariance.
    settings = {**SETTINGS, **LOW_RANK, "depth": 1, "descent": {"max_steps": 3000, "samples": 5}}
    row, last = run(settings)[0][0], run(settings)[1][-1]
    target = np.array(row["eigenvalues_target"])
    np.testing.assert_allclose(row["eigenvalues_final"], [*(target[:2] - 0.1), 0, 0, 0], atol=1e-10)
    assert last["numerical_rank"] == 2
    assert (row["balancedness_initial"], row["balancedness_final"]) == (0, 0)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("change", [*VARIANTS.values(), {"depth": 10}], ids=[*VARIANTS, "deep"])
def test_run_that_diverges_has_finite_rows(change):
    settings = {**SETTINGS, **change, "relative_step": 50, "descent": {"max_steps": 500, "samples": 300}}
    runs, samples = run(settings, range(3))
    assert "diverged" in column(runs, "stop_reason")
    for row in runs:
        mine = [sample for sample in samples if sample["seed"] == row["seed"]]
        assert mine[0]["step"] == 0
        assert mine[-1]["step"] <= row["steps"]
        assert row["excess_final"] == mine[-1]["excess"]
        assert row["contraction"] > 1
    numbers = ("loss", "excess", "gradient_norm", "balancedness", "covariance_distance", "squared_bures")
    assert all(np.isfinite(column(samples, name)).all() for name in numbers)
    finals = ("loss_final", "excess_final", "time_final", "balancedness_final")
    assert all(np.isfinite(column(runs, name)).all() for name in finals)
    assert np.isfinite([row["plane_final"] for row in runs]).all()


# --- The flow that descent follows ------------------------------------------------------------------------------


@pytest.mark.parametrize("change", [{}, {"epsilon": 0, "depth": 1}, LOW_RANK, {**LOW_RANK, "loss": "frobenius"}])
def test_flow_error_is_the_distance_from_the_flow_and_of_first_order(change):
    # ‖S − S_flow‖_F / ‖S_flow‖_F at the end time; half the step, half the error, and half the drift from balance.
    options = {"end_time": 0.1, "samples": 3, "compare_with_flow": True}
    rows = [run({**FIXED, **change, "step_size": eta, "descent": options})[0][0] for eta in (1e-3, 5e-4)]
    settings = {**FIXED, **change, "step_size": 1e-3}
    loss, start, found = descend(settings, 0, 1e-3, 100, [100])
    flow = gradient_flow(loss, start.network.end_to_end(), settings["depth"], [0.1], rtol=1e-10)
    error = np.linalg.norm(found.final - flow.final) / np.linalg.norm(flow.final)
    assert rows[0]["flow_error"] == pytest.approx(error, rel=1e-5)
    assert rows[0]["flow_error"] == pytest.approx(2 * rows[1]["flow_error"], rel=0.1)
    assert 1e-5 < error < 0.1
    drift = [row["balancedness_final"] for row in rows]
    assert drift[0] == pytest.approx(2 * drift[1], rel=0.1, abs=0)
    assert (drift[0] > 1e-8) == (settings["depth"] > 1)


def test_shipped_descents_run(shipped):
    # The first and the last cell of each experiment of the smoke study: their first 30 steps, one seed.
    config = shipped("smoke.yaml")
    descents = [name for name, block in config["experiments"].items() if block["kind"] == "descent"]
    assert {"descent", "authors"} <= set(descents)
    for experiment in descents:
        for cell in (cells(config, experiment)[0], cells(config, experiment)[-1]):
            row = run({**cell.settings, "descent": {"max_steps": 30, "samples": 5}})[0][0]
            assert row["steps"] <= 30
            if cell.settings.get("relative_step", 0) < 1:
                assert row["excess_final"] < row["excess_initial"], (experiment, cell.path)


@pytest.mark.parametrize("depth", [3, 10])  # from eight layers on, a sum over them has another order for one run
def test_cells_that_differ_in_target_start_and_step_share_a_stack_and_get_the_bits_they_get_alone(depth):
    # Some diverge, some converge, others take all steps; another depth or number of steps is another stack.
    ends = {"max_steps": 200, "samples": 10, "excess_tolerance": 1e-4}
    grid = [
        {**SETTINGS, **start, "depth": depth, "descent": ends, "smin": smin, "relative_step": step}
        for start in (AS_DRAWN, {})
        for smin, step in ((0.5, 0.3), (1, 0.9), (1.5, 3), (0.5, 0.01))
    ]
    stacks = {stack_of(checked(settings)) for settings in grid}
    assert len(stacks) == 1
    assert None not in stacks
    for other in ({"depth": 2}, {"epsilon": 0}, {"descent": {**ends, "max_steps": 100}}):
        assert stack_of(checked({**grid[0], **other})) not in stacks
    together = run_cells([(settings, [0]) for settings in grid])
    reasons = set()
    for settings, found in zip(grid, together, strict=True):
        alone = run_cell(settings, [0])
        reasons |= set(alone["runs"]["stop_reason"].to_pylist())
        for table, rows in alone.items():
            pd.testing.assert_frame_equal(found[table].to_pandas(), rows.to_pandas(), check_exact=True)
    assert reasons == {"converged", "step budget"} | ({"diverged"} if depth == 3 else set())


def test_squared_distance_to_the_target_without_smoothing_is_the_excess():
    # Recorded as L − L*, which it is for ε = 0 and k = n; elsewhere it is the distance to S*.
    for change in ({"epsilon": 0}, {"epsilon": 0, **LOW_RANK}, {}):
        settings = {**SETTINGS, **change}
        _, records = run(settings)
        eta = run(settings)[0][0]["eta"]
        steps = column(records, "step").astype(int)
        loss, _, trajectory = descend(settings, 0, eta, 200, steps)
        optimum = np.diag(np.sqrt(loss.minimum_spectrum(settings["rank"])))
        expected = squared_bures_distance(loss.to_eigenbasis(trajectory.factors), optimum)
        found = np.sqrt(column(records, "squared_bures"))
        np.testing.assert_allclose(found, np.sqrt(expected), rtol=1e-12, atol=1e-14 * np.sqrt(expected[0]))
