"""The worked examples of docs/examples apply, touch as few files as docs/extending.md says, and do what they say."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted(path.name for path in (ROOT / "docs/examples").glob("*.patch"))


@pytest.fixture
def project(tmp_path):
    """A copy of what the examples change."""
    for folder in ("src", "config", "workflow", "tests"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__", "reference"))
    return tmp_path


def applied(project, patch):
    command = ["git", "apply", str(ROOT / "docs/examples" / patch)]
    subprocess.run(command, cwd=project, check=True, env={**os.environ, "GIT_CEILING_DIRECTORIES": str(project.parent)})


def run(project, *arguments):
    environment = {**os.environ, "PYTHONPATH": str(project / "src")}
    return subprocess.run(
        [sys.executable, *arguments], cwd=project, capture_output=True, text=True, check=True, env=environment
    ).stdout


def test_counts_of_files_are_those_of_the_patches():
    table = (ROOT / "docs/extending.md").read_text(encoding="utf-8")
    counts = dict(re.findall(r"^\| a [^|]*\(\[(\w+\.patch)\][^|]*\| (\d+) \|", table, re.MULTILINE))
    assert sorted(counts) == EXAMPLES
    assert len(counts) == len(re.findall(r"^\| a ", table, re.MULTILINE))
    for patch, count in counts.items():
        files = re.findall(
            r"^\+\+\+ b/(\S+)$", (ROOT / "docs/examples" / patch).read_text(encoding="utf-8"), re.MULTILINE
        )
        own = [file for file in files if re.fullmatch(r"config/\w+\.yaml", file)]
        assert len(files) - len(own) == int(count), (patch, files)
        assert len(own) <= 1


@pytest.mark.slow
@pytest.mark.parametrize("patch", EXAMPLES)
def test_examples_keep_the_rules_of_the_house(project, patch):
    applied(project, patch)
    rules = [
        "tests/test_layers.py",
        "tests/test_configuration.py::test_options_of_kinds_and_reference_are_in_step",
    ]
    rules += ["tests/test_configuration.py::test_families_have_their_notebooks_and_captions"]
    run(project, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-n", "0", "-c", os.devnull, "--rootdir", ".", *rules)


def test_the_heavy_ball_contracts_as_its_closed_form_says(project):
    applied(project, "new_dynamics.patch")
    program = """
import json
import numpy as np
from deepbures import BuresWasserstein, configuration, gradient_descent, grid
from deepbures.experiment import run_cell
from deepbures.heavy_ball import heavy_ball
schema = configuration.read("workflow/schemas/config.schema.yaml")
config = configuration.check(configuration.merged(["config/config.yaml", "config/heavy_ball.yaml"]))
rows = [run_cell(cell.settings, [0, 1])["contractions"].to_pylist() for cell in grid.cells(config, "heavy_ball")]
rng = np.random.default_rng(0)
loss, layers = BuresWasserstein(np.diag([3.0, 2.0, 1.0]), 0.1), [0.5 * rng.standard_normal((3, 3)) for _ in range(2)]
plain = gradient_descent(loss, layers, 0.05, 30, range(31)).excess
print(json.dumps([sum(rows, []), list(heavy_ball(loss, layers, 0.05, 0.0, 30)), list(plain)]))
"""
    rows, without, plain = json.loads(run(project, "-c", program))
    assert len(rows) == 2 * 2
    for row in rows:
        assert row["excess_final"] <= 1e-10
        assert row["measured"] == pytest.approx(row["predicted"], rel=0.03)  # complex roots: it oscillates
    np.testing.assert_allclose(without, plain, rtol=1e-10)  # β = 0 is gradient descent


def test_any_key_may_become_an_axis(project):
    applied(project, "new_axis.patch")
    block = {
        "kind": "flow",
        "loss": "bures-wasserstein",
        "dimension": 4,
        "target": {"spectrum": "zipf", "mode": "eigenvalues"},
        "initialization": {"kind": "small", "scale": 0.1},
        "seeds": 1,
        "seeds_per_job": 1,
        "grid": {"epsilon": [0.1], "smin": [0.5], "rank": [3], "depth": [2], "end_rank": [1, 3]},
        "integration": {"rtol": 1e-6, "excess_tolerance": 0, "max_time": 20, "max_steps": 500, "samples": 20},
    }
    (project / "mine.yaml").write_text(json.dumps({"experiments": {"mine": block}, "figures": {}}))
    program = """
import json
from deepbures import configuration, grid
from deepbures.experiment import run_cell
from deepbures.plotting import frames
schema = configuration.read("workflow/schemas/config.schema.yaml")
config = configuration.check(configuration.merged(["config/config.yaml", "mine.yaml"]) | {"figures": {}})
cells = grid.cells(config, "mine")
runs = [run_cell(cell.settings, [0])["runs"].to_pylist()[0]["eigenvalues_final"] for cell in cells]
print(json.dumps([[cell.path for cell in cells], runs, frames.label(end_rank=2)]))
"""
    paths, spectra, label = json.loads(run(project, "-c", program))
    assert paths == [f"end_rank={k}/epsilon=0.1/smin=0.5/rank=3/depth=2" for k in (1, 3)]
    # The rank of W never grows along the flow.
    for spectrum, k in zip(spectra, (1, 3), strict=True):
        assert np.sum(np.array(spectrum) > 1e-10 * spectrum[0]) == k
    assert label == "$k_0 = 2$"


def test_a_new_quantity_may_become_an_axis(project):
    applied(project, "new_quantity.patch")
    block = {
        "kind": "sparse",
        "loss": "bures-wasserstein",
        "dimension": 20,
        "target": {"spectrum": "geometric", "mode": "eigenvalues"},
        "seeds": 1,
        "seeds_per_job": 1,
        "grid": {"magnitude": [0, 1], "epsilon": [0], "smin": [-1], "rank": [2], "depth": [1]},
        "landscape": {"condition": 2, "corrupted": [0.05], "max_steps": 300},
    }
    program = """
import json, sys
from deepbures import configuration, grid
from deepbures.experiment import run_cell
from deepbures.plotting import frames
schema = configuration.read("workflow/schemas/config.schema.yaml")
study = configuration.read("config/config.yaml")["study"]
def checked(block):
    return configuration.check({"study": study, "experiments": {"mine": block}, "figures": {}})
block, refused = json.loads(sys.argv[1]), []
for section, key, value in (("grid", "magnitude", [0, -1]), ("landscape", "magnitude", 2)):
    try:
        checked({**block, section: {**block[section], key: value}})
    except configuration.ConfigurationError as mistake:
        refused.append(str(mistake))
cells = grid.cells(checked(block), "mine")
errors = [max(run_cell(cell.settings, [0])["recoveries"]["error"].to_pylist()) for cell in cells]
print(json.dumps([[cell.path for cell in cells], errors, refused, frames.label(magnitude=2)]))
"""
    paths, errors, refused, label = json.loads(run(project, "-c", program, json.dumps(block)))
    assert paths == [f"magnitude={m}/epsilon=0/smin=-1/rank=2/depth=1" for m in (0, 1)]
    # So few corruptions do no harm, whatever their size: other matrices, each recovered.
    assert max(errors) < 1e-6
    assert errors[0] != errors[1]
    assert refused == [
        "experiments.mine.grid.magnitude[1]: -1 must be at least 0",
        "experiments.mine.grid.magnitude: landscape.magnitude is given too; keep one of the two",
    ]
    assert label == "$m = 2$"


def test_a_figure_of_an_old_family_is_promised_and_drawn(project):
    applied(project, "new_figure.patch")
    program = """
import json
from deepbures import configuration
from deepbures.plotting import neighbours
import pandas as pd
families = configuration.check_families(
    configuration.read("workflow/figures.yaml"), configuration.read("workflow/schemas/figures.schema.yaml")
)
methods = ("frobenius", "scaled", "bures-wasserstein")
rows = [(2, method, share, steps) for steps, method in enumerate(methods, 10) for share in (0.1, 0.2)]
figure = neighbours.recovery_steps(pd.DataFrame(rows, columns=["rank", "method", "share", "steps"]))
lines = [line.get_ydata().tolist() for line in figure.axes[0].lines]
print(json.dumps([families["sparse"]["figures"]["N8_recovery_steps"]["caption"], lines]))
"""
    caption, lines = json.loads(run(project, "-c", program))
    assert caption.startswith("Steps until a recovery ends")
    assert lines == [[10, 10], [11, 11], [12, 12]]
    assert '\\"N8_recovery_steps\\")' in (project / "workflow/notebooks/sparse.ipynb").read_text(encoding="utf-8")
