"""What work is expected to take, from what it took here, and how it is said."""

import json
import subprocess
import sys

import numpy as np
import pytest

from deepbures.study import cost
from deepbures.study.cost import Spent
from deepbures.study.grid.cells import jobs
from deepbures.study.kinds import kind


def test_a_job_costs_its_start_and_every_seed_of_its_parts(shipped):
    config = shipped()
    block, jobs_ = config["experiments"]["low_rank"], jobs(config, "low_rank")
    parts = [part for some in jobs_.values() for part in some]
    expected = cost.START * len(jobs_) + kind("flow").COST * len(parts) * block["seeds_per_job"]
    assert cost.of_parts([], block, parts, len(jobs_)) == pytest.approx(expected)


def test_what_jobs_took_here_predicts_what_the_same_jobs_take_again():
    spent = [
        Spent("flow", 20, 7, 8.0),
        Spent("flow", 20, 3, 4.0),
        Spent("flow", 64, 2, 9.0),
        Spent("notebook", 0, 1, 2.0),
    ]
    assert cost.seconds(spent, "flow", 20, 2, 10) == pytest.approx(12.0)
    assert cost.seconds(spent, "flow", 64, 1, 4) == pytest.approx(18.0)
    assert cost.seconds(spent, "notebook", 0, 0, 3) == pytest.approx(6.0)


@pytest.mark.parametrize("factor", [1.0, 3.0, 0.1])
def test_a_kind_that_never_ran_here_takes_as_many_times_its_usual_time_as_the_others(factor):
    names = ("flow", "descent")
    spent = [Spent(name, 20, 10, factor * cost.seconds([], name, 20, 1, 10)) for name in names]
    for name, dimension in (("surface", 2), ("flow", 500)):
        usual = cost.seconds([], name, dimension, 3, 5)
        assert cost.seconds(spent, name, dimension, 3, 5) == pytest.approx(factor * usual)


def test_large_dimensions_take_longer():
    times = [cost.seconds([], "flow", n, 0, 1) for n in (1, 20, 64, 768, 3072)]
    assert times[0] == times[1] == kind("flow").COST
    assert sorted(times) == times
    assert 10 < times[-1] < 300  # config/images.yaml: 22 s for its longest


def test_nothing_timed_is_the_default_study_on_a_small_machine(tmp_path):
    assert cost.noted(tmp_path / "costs.csv") == []
    assert cost.seconds([], "notebook", 0, 0, 2) == 2 * cost.NOTEBOOK


def test_lines_of_several_jobs_are_read_and_broken_ones_left_out(tmp_path):
    path = tmp_path / "logs/costs.csv"
    cost.note(path, "flow", 20, 2)
    with path.open("a") as file:
        file.write("flow,2,5\nflow,2,1,nan\nother,1,1,1\nflow,1,0,1\nflow,1,-1,1\nflow,1,1,inf\n\x00\n\n")
    cost.note(path, "notebook", 0, 1)
    assert [line[:3] for line in cost.noted(path)] == [("flow", 20, 2), ("notebook", 0, 1)]
    assert all(0 < line.seconds < 1000 for line in cost.noted(path))


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
        assert spent[:3] == ("flow", 3, 2)
        assert spent.seconds > 0


@pytest.mark.parametrize(
    ("time", "said"), [(3.4, "3 s"), (59, "59 s"), (61, "1 min"), (5000, "83 min"), (9000, "2.5 h")]
)
def test_a_duration_as_one_would_say_it(time, said):
    assert cost.duration(time) == said
