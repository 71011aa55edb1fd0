"""The worked examples of docs/examples apply, touch as few files as docs/extending.md says, and do what they say.

`extending` tests run the fast tests in a copy of the project with one example applied.
"""

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
#: What a run or a developer's tools leave at the top of the project.
LEFT_BEHIND = {".git", ".snakemake", "build", "figures", "logs", "results"}


@pytest.fixture
def project(tmp_path):
    """A copy of the project."""
    for path in ROOT.iterdir():
        if path.is_file():
            shutil.copy(path, tmp_path)
        elif path.name not in LEFT_BEHIND and not (path.name[0] == "." and path.name != ".ci"):
            shutil.copytree(path, tmp_path / path.name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    return tmp_path


def applied(project, patch):
    command = ["git", "apply", str(ROOT / "docs/examples" / patch)]
    subprocess.run(command, cwd=project, check=True, env={**os.environ, "GIT_CEILING_DIRECTORIES": str(project.parent)})


def run(project, *arguments, check=True):
    environment = {**os.environ, "PYTHONPATH": str(project / "src")}
    return subprocess.run(
        [sys.executable, *arguments], cwd=project, capture_output=True, text=True, check=check, env=environment
    )


def results(project, program, *arguments):
    """What a program prints as JSON."""
    return json.loads(run(project, "-c", program, *map(json.dumps, arguments)).stdout)


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
def test_examples_apply_and_are_well_formed(project, patch):
    applied(project, patch)
    for command in (["check", "--quiet", "src"], ["format", "--check", "--quiet", "src"]):
        found = run(project, "-m", "ruff", *command, check=False)
        assert found.returncode == 0, found.stdout


@pytest.mark.extending
@pytest.mark.parametrize("patch", EXAMPLES)
def test_the_fast_tests_pass_with_an_example(project, patch):
    applied(project, patch)
    found = run(project, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-n", "auto", check=False)
    assert found.returncode == 0, "\n".join(found.stdout.splitlines()[-40:])


@pytest.mark.slow
def test_the_heavy_ball_contracts_as_its_closed_form_says(project):
    applied(project, "new_dynamics.patch")
    program = """
import json
import numpy as np
from deepbures import BuresWasserstein, gradient_descent
from deepbures.descent.heavy_ball import heavy_ball
from deepbures.study.configuration import check, merged
from deepbures.study.grid.cells import cells
from deepbures.study.run import run_cell
config = check(merged(["config/config.yaml", "config/heavy_ball.yaml"]))
rows = [run_cell(dict(cell.settings), [0, 1])["contractions"].to_pylist() for cell in cells(config, "heavy_ball")]
rng = np.random.default_rng(0)
loss, layers = BuresWasserstein(np.diag([3.0, 2.0, 1.0]), 0.1), [0.5 * rng.standard_normal((3, 3)) for _ in range(2)]
plain = gradient_descent(loss, layers, 0.05, 30, range(31)).excess
print(json.dumps([sum(rows, []), list(heavy_ball(loss, layers, 0.05, 0.0, 30)), list(plain)]))
"""
    rows, without, plain = results(project, program)
    assert len(rows) == 2 * 2
    for row in rows:
        assert row["excess_final"] <= 1e-10
        assert row["measured"] == pytest.approx(row["predicted"], rel=0.03)  # complex roots: it oscillates
    np.testing.assert_allclose(without, plain, rtol=1e-10)  # β = 0 is gradient descent


@pytest.mark.slow
def test_any_key_may_become_an_axis_and_be_drawn(project):
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
    program = """
import json, sys
from deepbures.plotting import frames
from deepbures.study.configuration import ConfigurationError, check, check_families, read
from deepbures.study.grid.cells import cells
from deepbures.study.run import run_cell
study, families = read("config/config.yaml")["study"], check_families(read("workflow/figures.yaml"))
def checked(figures):
    config = {"study": study, "experiments": {"mine": json.loads(sys.argv[1])}, "figures": figures}
    return check(config, families)
refused = []
for show in ({"end_rank": [3]}, {}):
    try:
        checked({"low_rank": {"experiment": "mine", "show": show}})
    except ConfigurationError as mistake:
        refused.append(str(mistake))
found = list(cells(checked({}), "mine"))
runs = [run_cell(dict(cell.settings), [0])["runs"].to_pylist()[0]["eigenvalues_final"] for cell in found]
print(json.dumps([[cell.path for cell in found], runs, frames.label(end_rank=2), refused]))
"""
    paths, spectra, label, refused = results(project, program, block)
    assert paths == [f"end_rank={k}/epsilon=0.1/smin=0.5/rank=3/depth=2" for k in (1, 3)]
    # The rank of W never grows along the flow.
    for spectrum, k in zip(spectra, (1, 3), strict=True):
        assert np.sum(np.array(spectrum) > 1e-10 * spectrum[0]) == k
    assert label == "$k_0 = 2$"
    # A family shows one value of it, which a study names; figures.yaml stays as it is.
    assert refused == ["figures.low_rank.show.end_rank: this family shows one value of it, not 1, 3: name one"]


@pytest.mark.slow
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
from deepbures.plotting import frames
from deepbures.study.configuration import ConfigurationError, check, read
from deepbures.study.grid.cells import cells
from deepbures.study.run import run_cell
study = read("config/config.yaml")["study"]
def checked(block):
    return check({"study": study, "experiments": {"mine": block}, "figures": {}})
block, refused = json.loads(sys.argv[1]), []
for section, key, value in (("grid", "magnitude", [0, -1]), ("landscape", "magnitude", 2)):
    try:
        checked({**block, section: {**block[section], key: value}})
    except ConfigurationError as mistake:
        refused.append(str(mistake))
found = list(cells(checked(block), "mine"))
errors = [max(run_cell(dict(cell.settings), [0])["recoveries"]["error"].to_pylist()) for cell in found]
print(json.dumps([[cell.path for cell in found], errors, refused, frames.label(magnitude=2)]))
"""
    paths, errors, refused, label = results(project, program, block)
    assert paths == [f"magnitude={m}/epsilon=0/smin=-1/rank=2/depth=1" for m in (0, 1)]
    # So few corruptions do no harm, whatever their size: other matrices, each recovered.
    assert max(errors) < 1e-6
    assert errors[0] != errors[1]
    assert refused == [
        "experiments.mine.grid.magnitude[1]: -1 must be at least 0",
        "experiments.mine.grid.magnitude: landscape.magnitude is given too; keep one of the two",
    ]
    assert label == "$m = 2$"


@pytest.mark.slow
def test_a_new_loss_works_in_flow_descent_and_every_experiment_of_the_landscape(project):
    applied(project, "new_loss.patch")
    program = """
import json
import numpy as np
from deepbures.losses.registry import LOSSES
from deepbures.study.configuration import check, merged
from deepbures.study.grid.cells import cells
from deepbures.study.run import run_cell
def first(overlays, experiment, **changes):
    config = merged(["config/config.yaml", *overlays])
    block = {**config["experiments"][experiment], **changes}
    config = check({**config, "experiments": {experiment: block}, "figures": {}})
    cell = next(iter(cells(config, experiment)))
    return {name: table.to_pandas() for name, table in run_cell(dict(cell.settings), [0]).items()}
own = ["config/relative.yaml"]
flow, descent = first(own, "relative_flow")["runs"], first(own, "relative_descent")["runs"]
hessian = first(own, "relative_hessian")["spectra"]
base = merged(["config/config.yaml"])["experiments"]
counts, grid = {}, {"epsilon": [0], "smin": [0.5], "rank": [2], "depth": [2]}
for name in ("critical_search", "expansion", "escape", "paths"):
    tables = first([], name, loss="relative-frobenius", grid=grid)
    tables.pop("fillings", None)  # of points of rank below k, which `lower_ranks` asks for
    counts[name] = min(len(table) for table in tables.values())
    if name == "critical_search":
        searches = tables["searches"]
rng = np.random.default_rng(0)
Sigma, W, V = np.diag([3.0, 2.0, 1.0]), rng.standard_normal((3, 2)), rng.standard_normal((3, 2))
loss, h = LOSSES["relative-frobenius"](Sigma), 1e-6
slope = (loss.value(W + h * V) - loss.value(W - h * V)) / (2 * h)
print(json.dumps({
    "value": float(loss.value(W) - np.sum((W @ W.T - Sigma) ** 2) / np.sum(Sigma**2)),
    "slope": [float(slope), float(np.sum(loss.gradient(W) * V))],
    "stop": [*flow["stop_reason"], *descent["stop_reason"]],
    "hessian": float(hessian[["spectrum_error", "value_error", "gradient_norm"]].to_numpy().max()),
    "searches": [int(searches["critical"].sum()), int(searches["matched"].sum())],
    "counts": counts,
}))
"""
    found = results(project, program)
    assert found["value"] == pytest.approx(0, abs=1e-14)
    assert found["slope"][0] == pytest.approx(found["slope"][1], rel=1e-7)
    assert found["stop"] == ["converged", "converged"]
    assert found["hessian"] < 1e-12
    assert found["searches"][0] == found["searches"][1] > 0
    assert min(found["counts"].values()) > 0


@pytest.mark.slow
def test_a_figure_of_an_old_family_is_promised_and_drawn(project):
    applied(project, "new_figure.patch")
    program = """
import json
import pandas as pd
from deepbures.plotting import neighbours
from deepbures.study.configuration import check_families, read
families = check_families(read("workflow/figures.yaml"))
methods = ("frobenius", "scaled", "bures-wasserstein")
rows = [(2, method, share, steps) for steps, method in enumerate(methods, 10) for share in (0.1, 0.2)]
figure = neighbours.recovery_steps(pd.DataFrame(rows, columns=["rank", "method", "share", "steps"]))
lines = sorted(line.get_ydata().tolist() for line in figure.axes[0].lines)
print(json.dumps([families["sparse"]["figures"]["N8_recovery_steps"]["caption"], lines]))
"""
    caption, lines = results(project, program)
    assert caption.startswith("Steps until a recovery ends")
    assert lines == [[10, 10], [11, 11], [12, 12]]
    assert '\\"N8_recovery_steps\\")' in (project / "workflow/notebooks/sparse.ipynb").read_text(encoding="utf-8")
