"""Where bits may differ: with another BLAS kernel, without vector instructions; within the bounds of docs/faults.md."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from deepbures.study import configuration
from deepbures.study.grid import cells as grid
from deepbures.study.run import run_cell

WORK = """
import json, sys
import numpy as np
from deepbures import BuresWasserstein, gradient_flow
from deepbures.landscape.critical_points import critical_points, local_spectrum
from deepbures.model.starts import close_start
from deepbures.study.grid.seeds import generator
from deepbures.model.targets import draw_target

excess, closed = [], []
for epsilon, depth in [(0.0, 1), (0.1, 10), (0.1, 50), (0.0, 4)]:
    loss = BuresWasserstein(draw_target(generator(1, "target", 0), 12, 0.5), epsilon)
    start = close_start(generator(1, "start", 0), loss, 12).end_to_end
    flow = gradient_flow(loss, start, depth, np.geomspace(1e-3, 2, 30) / depth, rtol=1e-7)
    excess.append(flow.excess.tolist())
    for point, _ in zip(critical_points(loss, 3), range(5)):
        closed.append([point.value, *local_spectrum(loss, point.kept, depth, 3).rates.tolist()])
json.dump({"excess": excess, "closed": closed}, sys.stdout)
"""


def computed(**environment: str) -> dict[str, list[list[float]]]:
    run = subprocess.run(
        [sys.executable, "-c", WORK], env={**os.environ, **environment}, capture_output=True, text=True, check=True
    )
    return json.loads(run.stdout)


@pytest.fixture(scope="module")
def here():
    return computed()


def test_a_second_process_gives_the_same_bits(here):
    assert computed() == here


@pytest.mark.slow
def test_a_cell_gives_the_same_bits_whatever_ran_before_it(shipped):
    # Every experiment of the smoke study again and again in one process, with other memory in between.
    config = configuration.check(shipped("smoke.yaml"))
    cells = [list(grid.parts(config, name))[-1].cell.settings for name in config["experiments"]]

    def tables(settings):
        return {name: repr(table.to_pylist()) for name, table in run_cell(settings, [0, 1]).items()}

    first = [tables(settings) for settings in cells]
    rng = np.random.default_rng(1)
    for settings, expected in reversed(list(zip(cells, first, strict=True))):
        for _ in range(3 if settings["kind"] == "critical_search" else 1):
            memory = [np.empty(size) for size in rng.integers(1, 2000, 100)]
            assert tables(settings) == expected, settings["kind"]
            del memory


OTHERS = {
    "Prescott": {"OPENBLAS_CORETYPE": "Prescott"},
    "Sandybridge": {"OPENBLAS_CORETYPE": "Sandybridge"},
    "baseline": {"NPY_DISABLE_CPU_FEATURES": "X86_V3 X86_V4 AVX512_ICL AVX512_SPR"},
}


@pytest.fixture(scope="module")
def elsewhere():
    return {name: computed(**environment) for name, environment in OTHERS.items()}


def test_other_kernels_give_other_bits(here, elsewhere):
    assert any(other != here for other in elsewhere.values())  # else the next test compares nothing


@pytest.mark.parametrize("name", OTHERS)
def test_another_kernel_agrees_within_the_documented_bound(here, elsewhere, name):
    other = elsewhere[name]
    for mine, theirs in zip(here["excess"], other["excess"], strict=True):
        mine, theirs = np.array(mine), np.array(theirs)
        above = mine > 1e-10 * mine[0]
        assert above.sum() >= 10
        np.testing.assert_allclose(theirs[above], mine[above], rtol=1e-8)
    for mine, theirs in zip(here["closed"], other["closed"], strict=True):
        np.testing.assert_allclose(theirs, mine, rtol=1e-12, atol=1e-12 * np.abs(mine).max())
