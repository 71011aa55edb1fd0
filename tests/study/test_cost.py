"""What work is expected to take, from what it took here, and how it is said."""

import json
import subprocess
import sys

import numpy as np
import pytest
from cases import each

from deepbures.study import cost
from deepbures.study.cost import Costs, Spent
from deepbures.study.grid.cells import jobs
from deepbures.study.kinds import kind


def test_a_job_costs_its_start_and_every_seed_of_its_parts(shipped):
    config = shipped()
    costs = Costs()
    of_jobs = [costs.of_job("flow", parts) for parts in jobs(config, "low_rank").values()]
    block = config["experiments"]["low_rank"]
    cells = sum(map(len, jobs(config, "low_rank").values())) * block["seeds_per_job"]
    assert sum(of_jobs) == pytest.approx(cost.START * len(of_jobs) + kind("flow").COST * cells)


def test_what_jobs_took_here_predicts_what_the_same_jobs_take_again(shipped):
    # Twice the usual time for flows, half of it for notebooks: the sum over the same jobs is what they took.
    spent = [Spent("flow", 7, 0.4, 7.0), Spent("flow", 3, 0.6, 3.0), Spent("notebook", 1, 0.0, 2.0)]
    costs = Costs.measured(spent)
    assert costs.of_run("flow") * 10 == pytest.approx(10.0)
    assert costs.of_run("notebook") == pytest.approx(2.0)
    assert costs.start == pytest.approx(0.5)


@each("factor", [1.0, 3.0, 0.1])
def test_a_kind_that_never_ran_here_takes_as_many_times_its_usual_time_as_the_others(factor):
    spent = [Spent(name, 10, 1.0, factor * kind(name).COST * 10) for name in ("flow", "descent")]
    assert Costs.measured(spent).of_run("surface") == pytest.approx(factor * kind("surface").COST)


def test_nothing_timed_is_the_default_study_on_a_small_machine(tmp_path):
    assert cost.noted(tmp_path / "costs.csv") == []
    assert Costs.measured([]) == Costs()
    assert Costs().of_run("notebook") == cost.OTHERS["notebook"]


def test_lines_of_several_jobs_are_read_and_broken_ones_left_out(tmp_path):
    path = tmp_path / "logs/costs.csv"
    spent = [Spent("flow", 2, 0.5, 1.25), Spent("notebook", 1, 0.0, 3.5)]
    cost.note(path, spent[0])
    with path.open("a") as file:
        file.write("flow,2,0.5\nflow,2,nan,1\nother,1,1,1\nflow,0,1,1\nflow,-1,1,1\nflow,1,1,inf\n\x00\n\n")
    cost.note(path, spent[1])
    assert cost.noted(path) == spent


def test_the_command_line_notes_what_it_computed_and_not_what_it_found(tmp_path):
    np.save(tmp_path / "own.npy", np.diag([3.0, 2.0, 1.0]))
    settings = {
        "study_seed": 1,
        "kind": "flow",
        "loss": "bures-wasserstein",
        "dimension": 3,
        "target": {"covariance": str(tmp_path / "own.npy")},
        "initialization": {"kind": "small", "scale": 0.1},
        "integration": {"rtol": 1e-6, "excess_tolerance": 1e-6, "max_time": 100, "max_steps": 1000, "samples": 5},
        **{"epsilon": 0, "smin": -1, "rank": 3, "depth": 2},
    }
    files = [f"--part={tmp_path / 'a.part'}", f"--costs={tmp_path / 'costs'}"]
    command = [sys.executable, "-m", "deepbures", "run", "--cell", json.dumps(settings), "--seeds", "0-1", *files]
    for _ in range(2):
        subprocess.run(command, check=True, capture_output=True, timeout=120)
        (spent,) = cost.noted(tmp_path / "costs")
        assert (spent.kind, spent.runs) == ("flow", 2)
        assert spent.start > 0


@each(("time", "said"), [(3.4, "3 s"), (59, "59 s"), (61, "1 min"), (5000, "83 min"), (9000, "2.5 h")])
def test_a_duration_as_one_would_say_it(time, said):
    assert cost.duration(time) == said
