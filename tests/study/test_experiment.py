"""One cell: deterministic, independent of its neighbours, in the shape that its schemas say."""

import json
from dataclasses import fields

import numpy as np
import pandas as pd
import pytest
from cells import SETTINGS, SMALL

from deepbures.__main__ import main
from deepbures.losses import closed_form_rates
from deepbures.losses.registry import BuresWasserstein, Frobenius
from deepbures.model.trajectory import StopReason
from deepbures.rates.measured import tail_slope
from deepbures.rates.program_constants import Constants
from deepbures.study import run as experiment
from deepbures.study.cell.problem import make_loss, make_start
from deepbures.study.grid.cells import cells
from deepbures.study.kinds import kind as kind_of
from deepbures.study.results import provenance
from deepbures.study.results.code_digest import code_digest
from deepbures.study.results.parts import Part
from deepbures.study.results.store import Store, key_of, part_of
from deepbures.study.run import checked, complete, roots, run_cell

DESCENT = {
    "kind": "descent",
    "descent": {"max_steps": 300, "samples": 20, "excess_tolerance": 1e-3},
    "relative_step": 0.2,
}
NORMAL = {"initialization": {"kind": "normal", "balance": "none"}}
VARIANTS = [
    {},
    {"epsilon": 0},
    SMALL,
    {**SMALL, "loss": "frobenius", "integration": {**SETTINGS["integration"], "max_steps": 100}},
    {"depth": 1},
    DESCENT,
    {**DESCENT, "epsilon": 0, "depth": 1},
    {**DESCENT, **SMALL, "loss": "frobenius"},
    {**DESCENT, **SMALL, "depth": 1},
    {**DESCENT, **NORMAL, "epsilon": 0, "depth": 4, "relative_step": 3},  # seeds that diverge after 4, 5 and 12 steps
]


def rows(table):
    return table.to_pylist()


# --- Determinism ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("change", VARIANTS)
def test_cell_is_deterministic_bit_for_bit(change):
    first, second = (run_cell({**SETTINGS, **change}, range(2)) for _ in range(2))
    assert first.keys() == second.keys()
    for name, one in first.items():
        assert repr(rows(one)) == repr(rows(second[name]))  # repr: NaN equals NaN
        assert one.schema.equals(second[name].schema, check_metadata=True)


@pytest.mark.parametrize("change", VARIANTS)
def test_seeds_do_not_depend_on_their_block(change):
    # 0-1 together, and 0 and 1 alone, are the same rows, whatever ends first.
    settings = {**SETTINGS, **change}
    together, zero, one = run_cell(settings, range(2)), run_cell(settings, [0]), run_cell(settings, [1])
    for name, table in together.items():
        assert repr(rows(table)) == repr(rows(zero[name]) + rows(one[name]))
    assert len({row["target_trace"] for row in rows(together["runs"])}) == 2


def test_targets_and_starts_are_shared_between_cells():
    # One target per (seed, smin), whatever ε and depth; the stream of a start depends on neither.
    base = make_loss(checked(SETTINGS), 0)
    np.testing.assert_array_equal(
        make_loss(checked({**SETTINGS, "epsilon": 0.5, "depth": 9}), 0).covariance, base.covariance
    )
    higher = make_loss(checked({**SETTINGS, "smin": 1.5}), 0)
    np.testing.assert_allclose(higher.covariance - base.covariance, np.eye(6), atol=1e-13)
    small = {**SETTINGS, **SMALL}
    start = make_start(checked(small), 0, base).end_to_end
    other = {**small, "epsilon": 0.5, "depth": 9, "smin": 1.5}
    np.testing.assert_array_equal(make_start(checked(other), 0, make_loss(checked(other), 0)).end_to_end, start)
    assert np.abs(make_start(checked(small), 1, base).end_to_end - start).max() > 1e-4


def test_study_seed_changes_everything():
    one, other = make_loss(checked(SETTINGS), 0), make_loss(checked({**SETTINGS, "study_seed": 6}), 0)
    assert np.abs(one.covariance - other.covariance).max() > 0.1


# --- Contents ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("change", VARIANTS)
def test_tables_have_their_schemas(change):
    settings = {**SETTINGS, **change}
    tables, schemas = run_cell(settings, [3, 5]), kind_of(settings["kind"]).TABLES
    assert list(tables) == list(schemas) == ["runs", "trajectories"]
    for name, table in tables.items():
        assert table.schema.equals(schemas[name], check_metadata=False)
        table.validate(full=True)
    runs, samples = tables.values()
    assert runs["seed"].to_pylist() == [3, 5]
    assert set(samples["seed"].to_pylist()) == {3, 5}
    for row in rows(runs):
        assert len(row["energy_levels"]) == settings["rank"] + 1
        for name in ("target", "initial", "final"):
            eigenvalues = row[f"eigenvalues_{name}"]
            assert len(eigenvalues) == 6
            assert eigenvalues == sorted(eigenvalues, reverse=True)
        assert len(row["alignment"]) == 6 * settings["rank"]
    assert {len(row["eigenvalue_distances"]) for row in rows(samples)} == {settings["rank"]}


def test_run_agrees_with_its_trajectory():
    runs, trajectory = map(rows, run_cell(SETTINGS, [0]).values())
    run = runs[0]
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


@pytest.mark.parametrize(("epsilon", "effective"), [(0, 0), (0.3, 0.3), (1.0, 1 / 6)])
def test_epsilon_is_limited_to_the_smallest_eigenvalue(epsilon, effective):
    # min(ε, λ_k), for k = n λ_n = 1/n with smin = −1: larger ε are one and the same problem, and are recorded as such.
    settings = {**SETTINGS, "epsilon": epsilon, "smin": -1}
    assert make_loss(checked(settings), 0).epsilon == pytest.approx(min(epsilon, 1 / 6), rel=1e-12)
    loss = make_loss(checked({**settings, "epsilon": 0.1 if epsilon == 0.3 else epsilon}), 0)
    assert loss.epsilon <= 1 / 6 * (1 + 1e-12)
    # Of rank 2 < n the limit is λ_2: what is left empty needs none.
    low = {**settings, **SMALL, "integration": {**SETTINGS["integration"], "max_time": 10}}
    limit = make_loss(checked(low), 0).eigenvalues[1]
    assert limit > 1
    for asked in (epsilon, effective, 100):
        recorded = rows(run_cell({**low, "epsilon": asked}, [0])["runs"])[0]["epsilon_effective"]
        assert recorded == pytest.approx(min(asked, limit), rel=1e-12)


@pytest.mark.parametrize("kind", [{}, DESCENT])
def test_the_papers_theory_is_left_out_for_the_frobenius_loss(kind):
    run = rows(run_cell({**SETTINGS, **SMALL, **kind, "loss": "frobenius"}, [0])["runs"])[0]
    for field in fields(Constants):
        assert np.isnan(run[field.name])
    target = np.array(run["eigenvalues_target"])
    assert run["loss_minimum"] == pytest.approx(np.sum(target[2:] ** 2), rel=1e-12)
    # The sharp rate is ours: twice the smallest local rate, and what the run decays with.
    least = np.concatenate(closed_form_rates.frobenius(target, 3, [0, 1])).min()
    assert run["sharp_rate"] == pytest.approx(2 * least, rel=1e-12)


@pytest.mark.parametrize("loss", ["bures-wasserstein", "frobenius"])
def test_flow_decays_with_its_sharp_rate(loss):
    # L − L* ~ exp(−sharp_rate · t) over the last three decades of a run to 1e-12.
    settings = {**SETTINGS, **SMALL, "loss": loss, "integration": {**SETTINGS["integration"], "samples": 300}}
    runs, samples = map(rows, run_cell(settings, [0]).values())
    fit = tail_slope(*(np.array([row[name] for row in samples]) for name in ("time", "excess")))
    assert fit.slope * np.log(10) == pytest.approx(-runs[0]["sharp_rate"], rel=0.01)


def test_losses_by_name():
    assert isinstance(make_loss(checked(SETTINGS), 0), BuresWasserstein)
    assert isinstance(make_loss(checked({**SETTINGS, "loss": "frobenius"}), 0), Frobenius)
    with pytest.raises(ValueError, match="'close' needs the loss 'bures-wasserstein', not 'frobenius'"):
        run_cell({**SETTINGS, "loss": "frobenius"}, [0])


def test_shipped_cells_run(shipped):
    # The first and the last flow of each experiment of the smoke study, one seed.
    config = shipped("smoke.yaml")
    flows = [name for name, block in config["experiments"].items() if block["kind"] == "flow"]
    assert "convergence" in flows
    for flow in flows:
        for cell in (cells(config, flow)[0], cells(config, flow)[-1]):
            run = rows(run_cell(cell.settings, [0])["runs"])[0]
            if (cell.axes.get("initialization"), cell.axes.get("initial_scale")) == ("saddle", 1):
                assert run["excess_initial"] == pytest.approx(run["critical_gap"], rel=1e-9)
            elif run["sharp_rate"] > 0:
                assert run["excess_final"] < 1e-3 * run["excess_initial"]
                assert run["stop_reason"] in ("converged", "step budget", "end time")
            else:  # ε = λ_n: a power law of t
                assert 0 < run["excess_final"] < run["excess_initial"]
            assert flow != "convergence" or run["stop_reason"] == "converged"
            if run["stop_reason"] == "converged":
                assert run["excess_final"] <= cell.settings["integration"]["excess_tolerance"]


# --- Command line -----------------------------------------------------------------------------------------------


def arguments(tmp_path, **changes):
    options = {"cell": json.dumps(SETTINGS), "seeds": "0-1", "part": f"{tmp_path}/a.part", **changes}
    return ["run", *(word for key, value in options.items() for word in (f"--{key}", value))]


def read(path, settings, seeds="0-1"):
    """The tables of a cell in a part."""
    made = provenance.of_code(*roots(settings["kind"]))
    store, key = Store(kind_of(settings["kind"]).TABLES, [path]), key_of(part_of(settings, seeds), made["code"])
    assert store.provenance(key) == made
    return {table: store.read(table, key) for table in store.schemas}


@pytest.mark.parametrize("change", [{}, DESCENT], ids=["flow", "descent"])
def test_command_line_writes_what_run_cell_computes(tmp_path, change):
    settings = {**SETTINGS, **change}
    assert main(arguments(tmp_path, cell=json.dumps(settings))) == 0
    written = read(tmp_path / "a.part", settings)
    for name, table in run_cell(settings, range(2)).items():
        assert repr(rows(written[name])) == repr(rows(table))
        assert written[name].schema.equals(table.schema)


def test_a_run_refuses_another_code_than_it_was_planned_with(tmp_path, capsys):
    assert main([*arguments(tmp_path), "--code", "0" * 16]) == 2
    assert capsys.readouterr().err == "deepbures: the code was changed after this run was planned: run again\n"
    assert list(tmp_path.iterdir()) == []
    assert main([*arguments(tmp_path), "--code", code_digest(*roots("flow"))]) == 0


# --- Several cells in one job -----------------------------------------------------------------------------------


@pytest.fixture
def computed(monkeypatch):
    """Depth and first seed of what run_cell is called for, as a list; the calls go through."""
    calls = []

    def counted(settings, seeds, run=run_cell):
        calls.append((settings["depth"], seeds[0]))
        return run(settings, seeds)

    monkeypatch.setattr(experiment, "run_cell", counted)
    return calls


def job(folder, *parts, name="job", **changes):
    """Make the part of a plan of its own from some (depth, seed) cells of one experiment."""
    cells = [json.dumps({**SETTINGS, **SMALL, "depth": depth, **changes}) for depth, _ in parts]
    seeds = [f"{seed}-{seed}" for _, seed in parts]
    part = folder / ".cells" / name / "job.part"
    assert main(["run", "--cell", *cells, "--seeds", *seeds, "--part", str(part)]) == 0
    return part


def test_a_job_leaves_its_cells(tmp_path):
    part = job(tmp_path, (2, 0), (3, 1))
    for depth, seed in ((2, 0), (3, 1)):
        settings = {**SETTINGS, **SMALL, "depth": depth}
        alone, found = run_cell(settings, [seed]), read(part, settings, f"{seed}-{seed}")
        assert repr({name: rows(table) for name, table in found.items()}) == repr(
            {name: rows(table) for name, table in alone.items()}
        )
    assert len(list(Part(part))) == 2


def test_a_cell_is_computed_once_whatever_job_asks_for_it(tmp_path, computed):
    job(tmp_path, (2, 0), (3, 0))
    computed.clear()
    job(tmp_path, (2, 0), (2, 1), name="another")
    assert computed == [(2, 1)]
    computed.clear()
    for number, parts in enumerate([[(2, 0)], [(2, 1), (3, 0)], [(3, 0), (2, 1), (2, 0)]]):
        assert len(list(Part(job(tmp_path, *parts, name=str(number))))) == len(parts)
    assert computed == []


@pytest.mark.parametrize("broken", ["missing", "truncated", "foreign", "other code"])
def test_what_is_broken_or_out_of_date_is_computed_again(tmp_path, computed, monkeypatch, broken):
    part = job(tmp_path, (2, 0), (3, 0))
    partial, content = part.with_suffix(".partial"), part.read_bytes()
    computed.clear()
    part.unlink()
    if broken == "missing":
        partial.unlink()
    elif broken == "truncated":
        partial.write_bytes(content[:-40])
    elif broken == "foreign":
        partial.write_bytes(b"PAR1")
    else:
        versions = provenance.of_code(*roots("flow"))
        monkeypatch.setattr(provenance, "of_code", lambda *_roots: {**versions, "code": "0" * 16})
    job(tmp_path, (2, 0), (3, 0))
    assert computed == ([(3, 0)] if broken == "truncated" else [(2, 0), (3, 0)])
    assert (part.read_bytes() == content) == (broken != "other code")


def test_cells_of_a_changed_target_are_computed_again(tmp_path, computed):
    target = tmp_path / "target.npy"
    from_file = {"target": {"covariance": str(target)}, "smin": -1}
    for covariance, expected in [(np.eye(6), 1), (np.eye(6), 0), (np.diag([6.0, 5, 4, 3, 2, 1]), 1)]:
        np.save(target, covariance)
        computed.clear()
        job(tmp_path, (2, 0), **from_file)
        assert len(computed) == expected


def test_a_mistake_in_one_cell_does_not_stop_the_others(tmp_path, computed, capsys):
    # Rank 1 with a close start has no margin; what went well is kept, and found by the next call.
    cells = [json.dumps({**SETTINGS, "depth": depth, "rank": rank}) for depth, rank in [(2, 6), (2, 1), (3, 6)]]
    part = tmp_path / "job.part"
    for expected in ([(2, 0), (2, 0), (3, 0)], [(2, 0)]):
        computed.clear()
        assert main(["run", "--cell", *cells, "--seeds", *["0-0"] * 3, "--part", str(part)]) == 2
        assert computed == expected
        error = capsys.readouterr().err
        assert error.startswith("deepbures: no start close to the target has a margin")
        assert '"rank": 1, "depth": 2' in error
        assert error.count("\n") == 1
        assert len(list(Part(tmp_path / "job.partial"))) == 2
        assert not part.exists()
    computed.clear()
    assert main(["run", "--cell", cells[0], cells[2], "--seeds", "0-0", "0-0", "--part", str(part)]) == 0
    assert computed == []
    assert len(list(Part(part))) == 2


def test_cells_of_two_kinds_are_not_put_together(tmp_path, capsys):
    cells = [json.dumps({**SETTINGS, "kind": kind}) for kind in ("flow", "descent")]
    part = ["--part", f"{tmp_path}/a.part"]
    assert main(["run", "--cell", *cells, "--seeds", "0-0", "0-0", *part]) == 2
    assert "must be of one kind, not descent, flow" in capsys.readouterr().err
    assert main(["run", "--cell", *cells, "--seeds", "0-0", *part]) == 2
    assert "each cell needs its seeds: 2 cells, 1 blocks of seeds" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seeds": "1-0"}, "seeds must be FIRST-LAST"),
        ({"cell": json.dumps({**SETTINGS, "depth": 0})}, "cell.depth: 0 must be at least 1"),
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


def test_the_log_says_what_to_change_where_runs_did_not_converge(caplog):
    short = {**SETTINGS, "integration": {**SETTINGS["integration"], "max_time": 1e-3}}
    with caplog.at_level("INFO", logger="deepbures"):
        run_cell(SETTINGS, [0])
        assert caplog.messages == []
        run_cell(short, [0, 1])
    assert caplog.messages == ["2 of 2 runs ended on end time: raise max_time to see it converge"]
    caplog.clear()
    block = {**short, "epsilon": 0.9}  # limited to λ_n = 0.67, where the tail is algebraic
    with caplog.at_level("INFO", logger="deepbures"):
        run_cell(block, [0, 1])
    (line,) = caplog.messages
    assert line.startswith("2 of 2 runs ended on end time: their tail is algebraic")
    assert all(reason.remedy for reason in StopReason if reason is not StopReason.CONVERGED)


def test_cells_that_share_a_stack_get_the_bits_they_get_alone(tmp_path):
    low = {**SETTINGS, **SMALL}
    # Of eight cells six go as two stacks, ε = 0 and ε > 0; the wrong one stops none of its stack, and is named.
    grid = [{**low, "epsilon": epsilon, "smin": smin} for smin in (0.5, 1) for epsilon in (0, 0.1, 0.2)]
    wrong = {**low, "epsilon": 0.1, "smin": 1.5, "integration": {**low["integration"], "excess_tolerance": 1e9}}
    other = {**low, "epsilon": 0.1, "depth": low["depth"] + 1}
    assert len({kind_of("flow").stack_of(checked(settings)) for settings in grid}) == 2
    assert None not in {kind_of("flow").stack_of(checked(settings)) for settings in grid}
    part, kept = tmp_path / "job.part", [(settings, range(2)) for settings in (*grid, other)]
    with pytest.raises(ValueError, match=r'"smin": 1\.5'):
        complete(part, [*kept, (wrong, range(2))])
    assert complete(part, kept) == 0
    for settings, _ in kept:
        alone, found = run_cell(settings, range(2)), read(part, settings)
        for table in kind_of("flow").TABLES:
            pd.testing.assert_frame_equal(found[table].to_pandas(), alone[table].to_pandas(), check_exact=True)
