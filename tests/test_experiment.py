"""One cell: deterministic, independent of its neighbours, in the shape that its schemas say."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest

from deepbures import store
from deepbures.__main__ import main
from deepbures.experiment import make_loss, make_start, run_cell
from deepbures.grid import cells
from deepbures.losses import BuresWasserstein, Frobenius

SETTINGS = {
    "study_seed": 5,
    "dynamics": "flow",
    "loss": "bures-wasserstein",
    "dimension": 6,
    "target": {"spectrum": "zipf", "mode": "eigenvalues"},
    "initialization": {"kind": "close"},
    "integration": {"rtol": 1e-6, "excess_tolerance": 1e-12, "max_time": 100, "max_steps": 500, "samples": 20},
    "epsilon": 0.1,
    "smin": 0.5,
    "rank": 6,
    "depth": 3,
}
SMALL = {"initialization": {"kind": "small", "scale": 0.01}, "rank": 2}
VARIANTS = [{}, {"epsilon": 0}, SMALL, {**SMALL, "loss": "frobenius"}, {"depth": 1}]


def rows(table):
    return table.to_pylist()


# --- Determinism ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("change", VARIANTS)
def test_cell_is_deterministic_bit_for_bit(change):
    first, second = (run_cell({**SETTINGS, **change}, range(2)) for _ in range(2))
    for one, other in zip(first, second, strict=True):
        assert repr(rows(one)) == repr(rows(other))  # repr: NaN equals NaN
        assert one.schema.equals(other.schema, check_metadata=True)


@pytest.mark.parametrize("change", VARIANTS)
def test_seeds_do_not_depend_on_their_block(change):
    # 0-1 together, and 0 and 1 alone, are the same rows.
    settings = {**SETTINGS, **change}
    together, zero, one = run_cell(settings, range(2)), run_cell(settings, [0]), run_cell(settings, [1])
    for table, first, second in zip(together, zero, one, strict=True):
        assert repr(rows(table)) == repr(rows(first) + rows(second))
    assert rows(zero[0])[0]["target_trace"] != rows(one[0])[0]["target_trace"]


def test_targets_and_starts_are_shared_between_cells():
    # One target per (seed, smin), whatever ε and depth; the stream of a start depends on neither.
    base = make_loss(SETTINGS, 0)
    np.testing.assert_array_equal(make_loss({**SETTINGS, "epsilon": 0.5, "depth": 9}, 0).covariance, base.covariance)
    higher = make_loss({**SETTINGS, "smin": 1.5}, 0)
    np.testing.assert_allclose(higher.covariance - base.covariance, np.eye(6), atol=1e-13)
    small = {**SETTINGS, **SMALL}
    start = make_start(small, 0, base).end_to_end
    other = {**small, "epsilon": 0.5, "depth": 9, "smin": 1.5}
    np.testing.assert_array_equal(make_start(other, 0, make_loss(other, 0)).end_to_end, start)
    assert np.abs(make_start(small, 1, base).end_to_end - start).max() > 1e-4


def test_study_seed_changes_everything():
    one, other = make_loss(SETTINGS, 0), make_loss({**SETTINGS, "study_seed": 6}, 0)
    assert np.abs(one.covariance - other.covariance).max() > 0.1


# --- Contents ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("change", VARIANTS)
def test_tables_have_their_schemas(change):
    settings = {**SETTINGS, **change}
    runs, samples = run_cell(settings, [3, 5])
    assert runs.schema.equals(store.RUNS, check_metadata=False)
    assert samples.schema.equals(store.TRAJECTORIES, check_metadata=False)
    assert runs["seed"].to_pylist() == [3, 5]
    assert set(samples["seed"].to_pylist()) == {3, 5}
    metadata = json.loads(runs.schema.metadata[b"deepbures"])
    assert metadata["cell"] == settings
    assert metadata["code"] == store.code_digest("experiment")
    for row in rows(runs):
        assert len(row["energy_levels"]) == settings["rank"] + 1
        for name in ("target", "initial", "final"):
            eigenvalues = row[f"eigenvalues_{name}"]
            assert len(eigenvalues) == 6
            assert eigenvalues == sorted(eigenvalues, reverse=True)
        assert len(row["alignment"]) == 6 * settings["rank"]
    assert {len(row["eigenvalue_distances"]) for row in rows(samples)} == {settings["rank"]}


def test_run_agrees_with_its_trajectory():
    runs, samples = run_cell(SETTINGS, [0])
    run, trajectory = rows(runs)[0], rows(samples)
    assert run["stop_reason"] == "converged"
    assert run["excess_final"] <= 1e-12
    first, last = trajectory[0], trajectory[-1]
    assert (first["time"], last["time"]) == (0, run["time_final"])
    assert first["loss"] == pytest.approx(run["loss_initial"], rel=1e-10)
    assert (first["excess"], last["excess"]) == (run["excess_initial"], run["excess_final"])
    assert run["energy_levels"][-1] == pytest.approx(run["loss_minimum"], abs=1e-13)
    # S at the end: λ_i − ε, aligned with the target; the distances say the same.
    target = np.array(run["eigenvalues_target"])
    assert (run["lambda_max"], run["lambda_min"]) == (target[0], target[-1])
    assert run["target_trace"] == pytest.approx(target.sum(), rel=1e-14)
    assert target[-1] == pytest.approx(0.5 + 1 / 6, rel=1e-12)
    np.testing.assert_allclose(run["eigenvalues_final"], target - 0.1, rtol=1e-5)
    np.testing.assert_allclose(np.reshape(run["alignment"], (6, 6)), np.eye(6), atol=1e-4)
    np.testing.assert_allclose(last["eigenvalue_distances"], 0, atol=1e-5)
    assert last["covariance_distance"] < 1e-5
    assert last["squared_bures"] < 1e-11
    assert (last["numerical_rank"], first["numerical_rank"]) == (6, 6)
    # What the authors log as distance to the optimum compares S + εI with S*: it levels off at Σ (√λ − √(λ − ε))².
    logged = np.sum((np.sqrt(target) - np.sqrt(target - 0.1)) ** 2)
    assert last["squared_bures_logged"] == pytest.approx(logged, rel=1e-5)


@pytest.mark.parametrize(("epsilon", "effective"), [(0, 0), (0.3, 0.3), (1.0, 1 / 6)])
def test_epsilon_is_limited_to_the_smallest_eigenvalue(epsilon, effective):
    # min(ε, λ_n), λ_n = 1/n for smin = −1: larger ε are one and the same problem, and are recorded as such.
    settings = {**SETTINGS, "epsilon": epsilon, "smin": -1}
    assert make_loss(settings, 0).epsilon == pytest.approx(min(epsilon, 1 / 6), rel=1e-12)
    loss = make_loss({**settings, "epsilon": 0.1 if epsilon == 0.3 else epsilon}, 0)
    assert loss.epsilon <= 1 / 6 * (1 + 1e-12)
    recorded = rows(run_cell({**settings, **SMALL}, [0])[0])[0]["epsilon_effective"]
    assert recorded == pytest.approx(min(effective, 1 / 6), rel=1e-12)


def test_theory_is_left_out_for_the_frobenius_loss():
    run = rows(run_cell({**SETTINGS, **SMALL, "loss": "frobenius"}, [0])[0])[0]
    for name in ("margin", "C_0", "K", "bound_rate", "sharp_rate", "log10_eta_1"):
        assert np.isnan(run[name])
    assert run["loss_minimum"] == pytest.approx(np.sum(np.square(run["eigenvalues_target"][2:])), rel=1e-12)


def test_losses_by_name():
    assert isinstance(make_loss(SETTINGS, 0), BuresWasserstein)
    assert isinstance(make_loss({**SETTINGS, "loss": "frobenius"}, 0), Frobenius)
    with pytest.raises(ValueError, match="'close' needs the loss 'bures-wasserstein', not 'frobenius'"):
        run_cell({**SETTINGS, "loss": "frobenius"}, [0])


def test_shipped_cells_run(shipped):
    # The first and the last cell of each experiment of the smoke study, one seed.
    config = shipped("smoke.yaml")
    for experiment in config["experiments"]:
        for cell in (cells(config, experiment)[0], cells(config, experiment)[-1]):
            run = rows(run_cell(cell.settings, [0])[0])[0]
            assert run["excess_final"] < 1e-3 * run["excess_initial"]
            assert run["stop_reason"] in ("converged", "step budget")
            if run["stop_reason"] == "converged":
                assert run["excess_final"] <= cell.settings["integration"]["excess_tolerance"]
            assert experiment != "convergence" or run["stop_reason"] == "converged"


# --- Command line -----------------------------------------------------------------------------------------------


def arguments(tmp_path, **changes):
    options = {
        "cell": json.dumps(SETTINGS),
        "seeds": "0-1",
        "runs": tmp_path / "runs.parquet",
        "trajectories": tmp_path / "trajectories.parquet",
        **changes,
    }
    return ["run", *(str(word) for key, value in options.items() for word in (f"--{key}", value))]


def test_command_line_writes_what_run_cell_computes(tmp_path):
    assert main(arguments(tmp_path)) == 0
    for name, table in zip(("runs", "trajectories"), run_cell(SETTINGS, range(2)), strict=True):
        path = tmp_path / f"{name}.parquet"
        assert pq.read_table(path).equals(table)
        assert store.read_metadata(path)["cell"] == SETTINGS
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seeds": "1-0"}, "seeds must be FIRST-LAST"),
        ({"cell": json.dumps({**SETTINGS, "depth": 0})}, "depth must be an integer ≥ 1, not 0"),
        ({"cell": json.dumps({**SETTINGS, "rank": 7})}, "rank"),
        ({"cell": "{"}, "Expecting"),
    ],
    ids=["seeds", "depth", "rank", "json"],
)
def test_mistake_on_the_command_line_is_one_line(tmp_path, capsys, changes, message):
    assert main(arguments(tmp_path, **changes)) == 2
    error = capsys.readouterr().err
    assert error.startswith("deepbures: ")
    assert message in error
    assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
