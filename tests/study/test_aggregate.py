"""From cells to one table: axes in front, slopes and settling times behind."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from collected import collect_cells

from deepbures.rates.measured import SETTLED, authors_slope_of_descent, authors_slope_of_flow, settling_time, tail_slope
from deepbures.study.kinds import kind as kind_of
from deepbures.study.results.aggregate import SLOWEST_SHARE

BASE = {
    "study_seed": 3,
    "loss": "bures-wasserstein",
    "dimension": 4,
    "target": {"spectrum": "zipf", "mode": "eigenvalues"},
    "initialization": {"kind": "close"},
    "epsilon": 0.1,
    "smin": 5,
    "rank": 4,
    "depth": 10,
}
DESCENT = {
    **BASE,
    "kind": "descent",
    "step_size": 1e-4,
    "descent": {"end_time": 0.5, "record_every": 1, "excess_tolerance": 1e-6},
}
FLOW = {
    **BASE,
    "kind": "flow",
    "integration": {"rtol": 1e-7, "excess_tolerance": 1e-12, "max_time": 100, "max_steps": 500, "samples": 100},
}
POSITION = {
    "loss_name": "bures-wasserstein",
    "initialization": "close",
    "epsilon": 0.1,
    "smin": 5.0,
    "rank": 4,
    "depth": 10,
}


def collected(folder, settings, positions=(POSITION,), seeds=(0, 1)):
    """Both tables of an experiment whose jobs have these positions, each the same cell."""
    collect_cells(folder, [(position, settings) for position in positions], seeds)
    return pq.read_table(folder / "runs.parquet"), pq.read_table(folder / "trajectories.parquet")


def curve(samples, seed):
    rows = [row for row in samples.to_pylist() if row["seed"] == seed]
    return tuple(np.array([row[name] for row in rows]) for name in ("time", "excess", "gradient_norm"))


@pytest.fixture(scope="module")
def descent(tmp_path_factory):
    return collected(tmp_path_factory.mktemp("descent"), DESCENT, [POSITION, {**POSITION, "epsilon": 0.5}])


@pytest.fixture(scope="module")
def flow(tmp_path_factory):
    return collected(tmp_path_factory.mktemp("flow"), FLOW)


def test_axes_stand_in_front_with_their_types(descent):
    types = [pa.string(), pa.string(), pa.float64(), pa.float64(), pa.int32(), pa.int32()]
    for table, schema in zip(descent, kind_of("descent").TABLES.values(), strict=True):
        assert table.column_names[:6] == list(POSITION)
        assert table.schema.types[:6] == types
        assert table.column_names[6 : 6 + len(schema)] == schema.names
        assert all(table[name].null_count == 0 for name in POSITION)


def test_each_position_has_its_rows(descent):
    # One cell may be at two positions: what is one problem is computed once.
    runs, samples = descent
    assert runs["epsilon"].to_pylist() == [0.1, 0.1, 0.5, 0.5]
    assert runs["seed"].to_pylist() == [0, 1, 0, 1]
    assert set(runs["loss_name"].to_pylist()) == set(samples["loss_name"].to_pylist()) == {"bures-wasserstein"}
    assert set(runs["initialization"].to_pylist()) == {"close"}
    assert runs["epsilon_effective"].to_pylist() == [0.1] * 4
    half = len(samples) // 2
    for name in ("step", "excess", "balancedness"):
        assert samples[name][:half].equals(samples[name][half:])


def test_names_select_rows(tmp_path):
    path = tmp_path / "trajectories.parquet"
    positions = [{**POSITION, "loss_name": name} for name in ("frobenius", "bures-wasserstein")]
    _, samples = collected(tmp_path, FLOW, positions, seeds=[0])
    square = pq.read_table(path, filters=[("loss_name", "in", ["frobenius"])])
    assert len(square) == len(samples) // 2
    assert len(pq.read_table(path, filters=[("initialization", "in", ["small"])])) == 0


def test_descent_has_the_authors_slope_of_its_records(descent):
    # Every step of η = 1e-4 is recorded: the slope is that of the samples themselves.
    runs, samples = descent
    for row in runs.to_pylist()[:2]:
        times, excess, _ = curve(samples.slice(0, len(samples) // 2), row["seed"])
        fit = authors_slope_of_descent(times, excess)
        found = tuple(row[f"authors_{field}"] for field in fit._fields)
        assert found == tuple(fit)
        assert np.isfinite(found).all()


def test_flow_has_the_authors_slope_of_its_interpolation(flow):
    runs, samples = flow
    for row in runs.to_pylist():
        fit = authors_slope_of_flow(*curve(samples, row["seed"]))
        assert tuple(row[f"authors_{field}"] for field in fit._fields) == tuple(fit)
        assert np.isfinite(fit.slope)


@pytest.mark.parametrize("kind", ["descent", "flow"])
def test_runs_have_settling_times_and_tails(request, kind):
    # First time at 1e-6 of the start; tails only of runs that converged.
    runs, samples = request.getfixturevalue(kind)
    for row in runs.to_pylist()[:2]:
        times, excess, _ = curve(samples.slice(0, len(samples) // (len(runs) // 2)), row["seed"])
        assert row["stop_reason"] == "converged"
        assert row["settling_time"] == settling_time(times, excess)
        assert 0 < row["settling_time"] < row["time_final"]
        assert row["tail_slope"] == tail_slope(times, excess).slope
        # About the sharp rate, in decades.
        assert row["tail_slope"] * np.log(10) == pytest.approx(-row["sharp_rate"], rel=0.1)


def test_descent_and_flow_agree(descent, flow):
    # η = 1e-4 is close to the flow: slopes and settling times to 1 %.
    for one, other in zip(descent[0].to_pylist()[:2], flow[0].to_pylist(), strict=True):
        for name in ("authors_slope", "settling_time"):
            assert one[name] == pytest.approx(other[name], rel=0.01)


@pytest.mark.parametrize(("tolerance", "stop_reason"), [(1e-6, "converged"), (0, "step budget")])
def test_only_runs_that_converged_have_a_tail(tmp_path, tolerance, stop_reason):
    # Both fall by six decades; records over the logarithm have no authors' slope.
    settings = {**DESCENT, "descent": {"end_time": 0.1, "samples": 300, "excess_tolerance": tolerance}}
    runs, _ = collected(tmp_path, settings)
    for row in runs.to_pylist():
        assert row["stop_reason"] == stop_reason
        assert np.isnan(row["tail_slope"]) == (stop_reason != "converged")
        assert row["settling_time"] > 0
        assert np.isnan(row["authors_slope"])


def test_run_that_has_not_fallen_far_does_not_settle(tmp_path):
    runs, _ = collected(tmp_path, {**DESCENT, "descent": {"end_time": 0.01, "samples": 20}})
    assert np.isnan(runs["settling_time"].to_numpy()).all()


def test_tails_are_told_apart(flow):
    # Settled and in the slowest direction, and only then.
    for row in flow[0].to_pylist():
        expected = row["tail_drift"] <= SETTLED and row["slowest_share"] >= SLOWEST_SHARE
        assert row["in_tail"] == int(expected)
        assert np.isnan(row["power_law_slope"])  # it converged
        if row["in_tail"]:
            assert row["tail_slope"] * np.log(10) == pytest.approx(-row["sharp_rate"], rel=0.02)


def test_a_tail_without_its_slowest_direction_is_none(tmp_path):
    # An aligned start never excites the directions off the diagonal, of which one is the slowest: its tail is another.
    aligned = {"initialization": {"kind": "aligned", "scale": 0.1}, "rank": 2, "depth": 3}
    integration = {**FLOW["integration"], "samples": 300, "max_steps": 2000}
    runs, _ = collected(tmp_path, {**FLOW, **aligned, "integration": integration}, seeds=range(3))
    for row in runs.to_pylist():
        assert row["stop_reason"] == "converged"
        assert row["slowest_share"] < 1e-6
        assert row["in_tail"] == 0
        assert abs(row["tail_slope"] * np.log(10) / row["sharp_rate"] + 1) > 0.05


def test_runs_that_end_on_their_horizon_have_a_power_law(tmp_path):
    # ε = λ_n: t^{−2} for one layer.
    settings = {**FLOW, "smin": -1, "epsilon": 1, "depth": 1}
    settings["integration"] = {**FLOW["integration"], "excess_tolerance": 0, "max_time": 1000, "max_steps": 5000}
    runs, _ = collected(tmp_path, settings)
    for row in runs.to_pylist():
        assert row["stop_reason"] == "end time"
        assert row["power_law_slope"] == pytest.approx(-2, rel=0.02)
        assert row["in_tail"] == 0
        assert np.isnan(row["tail_slope"])


def test_the_contraction_of_descent_is_that_of_its_slowest_direction(tmp_path):
    # Steps of 0.3 and 0.95 of the largest stable one: the least local rate decides, and the largest.
    for step in (0.3, 0.95):
        settings = {
            **DESCENT,
            "relative_step": step,
            "descent": {"max_steps": 5000, "samples": 300, "excess_tolerance": 1e-14},
        }
        del settings["step_size"]
        runs, _ = collected(tmp_path, settings, seeds=range(3))
        tails = [row for row in runs.to_pylist() if row["in_tail"]]
        assert tails
        for row in tails:
            assert row["limit_rate"] * row["eta"] == pytest.approx(-np.log(row["contraction"]), rel=1e-4)
