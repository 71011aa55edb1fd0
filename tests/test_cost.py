"""What work is expected to take, and how it is said."""

import pytest
from cases import each

from deepbures import cost
from deepbures.experiment.kinds import kind
from deepbures.grid import jobs


def test_a_job_costs_its_start_and_every_seed_of_its_parts(shipped):
    config = shipped()
    of_jobs = [cost.seconds("flow", parts) for parts in jobs(config, "low_rank").values()]
    block = config["experiments"]["low_rank"]
    cells = sum(map(len, jobs(config, "low_rank").values())) * block["seeds_per_job"]
    assert sum(of_jobs) == pytest.approx(cost.START * len(of_jobs) + kind("flow").COST * cells)


@each(("time", "said"), [(3.4, "3 s"), (59, "59 s"), (61, "1 min"), (5000, "83 min"), (9000, "2.5 h")])
def test_a_duration_as_one_would_say_it(time, said):
    assert cost.duration(time) == said
