"""The real Snakemake on a tiny study: from other folders and workflows, with other settings, and what is up to date."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from projects import copy_of_project

from deepbures.study import cost

pytestmark = pytest.mark.slow

BLOCK = {
    "kind": "flow",
    "loss": "bures-wasserstein",
    "dimension": 3,
    "target": {"covariance": "own.npy"},
    "initialization": {"kind": "small", "scale": 0.01},
    "seeds": 1,
    "seeds_per_job": 1,
    "grid": {"epsilon": [0], "smin": [-1], "rank": [2], "depth": [1, 2]},
    "integration": {"rtol": 1e-6, "excess_tolerance": 1e-6, "max_time": 1000, "max_steps": 300, "samples": 10},
}
OVERLAY = {
    "study": {"results": "results/own", "figures": "figures/own", "shared_jobs": 0},
    "experiments": {"mine": BLOCK},
    "figures": {"low_rank": {"experiment": "mine", "show": {"epsilon": [0], "rank": [2], "depth": [1, 2]}}},
}
#: The whole study: nothing but this experiment.
STUDY = {**OVERLAY, "study": {**OVERLAY["study"], "seed": 1, "fail_on_violated_claims": False}}
TABLE, FIGURE = "results/own/mine/runs.parquet", "figures/own/F5_energy_levels.png"


def write(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(json.loads(json.dumps(value))))


@pytest.fixture
def project(tmp_path):
    """The project, and beside it a folder of a user."""
    folder = tmp_path / "project"
    folder.mkdir()
    copy_of_project(folder)
    user = tmp_path / "user"
    user.mkdir()
    for place in (folder, user):
        np.save(place / "own.npy", np.diag([3.0, 2.0, 1.0]))
        write(place / "own.yaml", OVERLAY)
    return folder


def snakemake(cwd: Path, project: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Call Snakemake as a user would without activating the environment: no python on the path is this one."""
    inherited = {name: os.environ[name] for name in ("OMP_NUM_THREADS", "SLURM_CONF")}  # see conftest.py
    clean = {"PATH": "/usr/bin:/bin", "HOME": str(cwd), "PYTHONPATH": str(project / "src"), **inherited}
    command = [sys.executable, "-m", "snakemake", "--cores", "1", *arguments]
    return subprocess.run(command, cwd=cwd, env={**clean, **environment}, capture_output=True, text=True, timeout=900)


def made(run: subprocess.CompletedProcess[str]) -> bool:
    assert run.returncode == 0, run.stdout[-3000:] + run.stderr[-3000:]
    return True


def planned(project: Path, *arguments: str) -> dict[str, int]:
    """Number of jobs by rule of a dry run."""
    run = snakemake(project, project, "--dry-run", "--configfile", "own.yaml", *arguments)
    assert made(run)
    table = run.stdout.split("Job stats:")[-1].split("\n\n")[0]
    counts = dict(re.findall(r"^(\w+)\s+(\d+)$", table, flags=re.MULTILINE))
    return {rule: int(count) for rule, count in counts.items() if rule not in ("total", "aggregates")}


def test_from_elsewhere_by_s_and_by_directory(project):
    user = project.parent / "user"
    run = snakemake(user, project, "-s", str(project / "Snakefile"), "--configfile", "own.yaml", "--", FIGURE)
    assert made(run)
    # Before and after it says once what it will do, and what of that to look at.
    assert run.stderr.count("To be computed") == 1
    assert re.search(r"^  flow +2 new cells +\d+ s$", run.stderr, re.M)
    assert "nothing was timed here yet" in run.stderr
    # What the kernel says is in the log of its job.
    assert "[Kernel]" not in run.stderr + run.stdout
    assert "[Kernel]" in (user / "logs/results/own/notebooks/low_rank.log").read_text()
    assert (user / FIGURE).exists()
    # The next run knows how long such jobs took.
    assert sorted(line.kind for line in cost.noted(user / "logs/costs.csv")) == ["flow", "flow", "notebook"]
    again = snakemake(user, project, "-s", str(project / "Snakefile"), "--configfile", "own.yaml", "-F", "--", FIGURE)
    assert made(again)
    assert "by what such jobs took here before" in again.stderr
    assert "2 cells are there: they are not computed again, not even with -F" in again.stderr
    other = project.parent / "other"
    other.mkdir()
    shutil.copy(user / "own.npy", other)
    assert made(snakemake(project, project, "--directory", str(other), "--configfile", "own.yaml", "--", FIGURE))
    assert (other / FIGURE).read_bytes() == (user / FIGURE).read_bytes()
    assert not (project / "results").exists()


@pytest.mark.parametrize("prefix", ["", "bures_"])
def test_as_a_module_of_another_workflow(project, prefix):
    # What snakedeploy writes, but for the place of the Snakefile.
    user = project.parent / "user"
    write(user / "config/config.yaml", STUDY)
    (user / "workflow").mkdir()
    use = f"use rule * from deepbures{f' as {prefix}*' if prefix else ''}"
    (user / "workflow/Snakefile").write_text(
        f"""
configfile: "config/config.yaml"

module deepbures:
    snakefile: "{project}/workflow/Snakefile"
    config: config

{use}
"""
    )
    run = snakemake(user, project, f"{prefix}all")
    assert made(run)
    assert "To be computed" not in run.stderr
    assert "Where to look" not in run.stderr  # the other workflow has its own words
    assert (user / FIGURE).exists()
    assert "holds" in (user / "results/own/claims.csv").read_text()
    assert "Nothing to be done" in snakemake(user, project, "--dry-run", f"{prefix}all").stdout


def test_configuration_of_the_command_line_reaches_the_results(project):
    write(project / "config/config.yaml", STUDY)
    changed = ["--config", "study={results: ./results//cli/, figures: figures/cli, seed: 3}", "--"]
    run = snakemake(project, project, *changed)
    assert made(run)
    hint = re.search(r"the same command with (--report) (results/cli/report.html)", run.stderr)
    assert made(snakemake(project, project, *hint.groups(), *changed))
    assert "F5_energy_levels" in (project / "results/cli/report.html").read_text()
    assert not (project / "results/own").exists()
    assert json.loads((project / "results/cli/provenance.json").read_text())["configuration"]["study"]["seed"] == 3
    refused = snakemake(project, project, "--config", "study={seed: 010}", "--", "aggregates")
    assert refused.returncode == 1
    assert "configuration: --config: 010: Snakemake reads 8 (YAML 1.1), YAML 1.2 reads 10: write" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_a_block_that_stands_twice_is_refused_before_any_job(project):
    for place, arguments in (("own.yaml", ["--configfile", "own.yaml"]), ("config/config.yaml", [])):
        text = (project / place).read_text()
        (project / place).write_text(f"{text}\nstudy: {{seed: 1}}\n")
        run = snakemake(project, project, "--dry-run", *arguments, "--", "aggregates")
        assert run.returncode == 1
        assert re.search(r"^configuration: .*\.yaml: not YAML: line \d+: found duplicate key .study.", run.stderr, re.M)
        assert "Traceback" not in run.stderr
        (project / place).write_text(text)


def test_the_file_of_a_target_is_hashed_once_while_the_workflow_is_read(project):
    block = {**BLOCK, "grid": {**BLOCK["grid"], "depth": list(range(1, 41)), "rank": [1, 2]}}
    write(project / "own.yaml", {**OVERLAY, "experiments": {"mine": block}})
    (project / "spy").mkdir()
    (project / "spy/sitecustomize.py").write_text(
        "import hashlib\n"
        "original = hashlib.file_digest\n"
        "def file_digest(file, *rest):\n"
        "    if str(file.name).endswith('own.npy'):\n"
        "        open('hashed', 'a').write('x')\n"
        "    return original(file, *rest)\n"
        "hashlib.file_digest = file_digest\n"
    )
    paths = f"{project / 'spy'}:{project / 'src'}"
    table = ["--", "results/own/mine/runs.parquet"]
    run = snakemake(project, project, "--dry-run", "--configfile", "own.yaml", *table, PYTHONPATH=paths)
    assert made(run)
    assert "run_mine" in run.stdout
    assert (project / "hashed").read_text() == "x"


def test_what_is_up_to_date_is_told_by_content_alone(project):
    target, own = project / "own.npy", project / "own.yaml"
    write(project / "config/config.yaml", STUDY)
    assert made(snakemake(project, project, "--configfile", "own.yaml", "--", TABLE))
    assert planned(project, "--", TABLE) == {}
    everything = {"target_file": 1, "run_mine": 2, "collect_mine": 1}
    # A target of an older date, as mv, cp -p and backups leave it.
    original = target.read_bytes()
    np.save(target, np.diag([3.0, 2.0, 0.5]))
    os.utime(target, (1e9, 1e9))
    assert planned(project, "--", TABLE) == everything
    target.write_bytes(original)
    os.utime(target, (1e9, 1e9))
    assert planned(project, "--", TABLE) == {}
    # No records: nothing is lost by it, and nothing is taken for current.
    old = (project / TABLE).read_bytes()
    shutil.rmtree(project / ".snakemake/metadata")
    assert planned(project, "--", TABLE) == {}
    np.save(target, np.diag([3.0, 2.0, 0.5]))
    os.utime(target, (1e9, 1e9))
    assert planned(project, "--", TABLE) == everything
    target.write_bytes(original)
    os.utime(target, (1e9, 1e9))
    changed = json.loads(json.dumps(OVERLAY))
    changed["experiments"]["mine"]["integration"]["rtol"] = 1e-7
    write(own, changed)
    assert planned(project, "--", TABLE) == everything
    # An aggregate of another configuration, restored with a new date over the right one.
    assert made(snakemake(project, project, "--configfile", "own.yaml", "--", TABLE))
    assert planned(project, "--", TABLE) == {}
    (project / TABLE).write_bytes(old)
    assert planned(project, "--", TABLE) == everything
    # Dates in the future, with and without records.
    assert made(snakemake(project, project, "--configfile", "own.yaml", "--", TABLE))
    os.utime(project / TABLE, (4e9, 4e9))
    assert planned(project, "--", TABLE) == {}
    os.utime(project / TABLE, (4e9, 4e9))
    write(own, OVERLAY)
    shutil.rmtree(project / ".snakemake/metadata")
    assert planned(project, "--", TABLE) == everything


def test_figures_and_claims_are_current_by_content_alone(project):
    # Snakemake's records are gone and every date is newer than what it was made from: what is stale is still seen.
    plotting, show = project / "src/deepbures/plotting/convergence.py", project / "own.yaml"
    claims, csv = project / "src/deepbures/claims/flow.py", project / "results/own/claims.csv"
    notebook, executed = project / "workflow/notebooks/low_rank.ipynb", project / "results/own/notebooks/low_rank.ipynb"
    write(project / "config/config.yaml", STUDY)
    targets = ("--", FIGURE, "results/own/opening.html", "results/own/provenance.json")
    assert made(snakemake(project, project, "--configfile", "own.yaml", *targets))
    assert planned(project, *targets) == {}
    shutil.rmtree(project / ".snakemake/metadata")
    assert planned(project, *targets) == {}
    figure, pages = {"notebook_low_rank": 1}, {"claims": 1, "pages": 1}

    def rerun(changes):
        """What is planned after changes to files, whose dates stay; the files are as before then."""
        before = {path: (path.read_bytes(), path.stat().st_mtime) for path in changes}
        for path, change in changes.items():
            path.write_bytes(change(before[path][0]))
            os.utime(path, (before[path][1],) * 2)
        plan = planned(project, *targets)
        for path, (content, date) in before.items():
            path.write_bytes(content)
            os.utime(path, (date, date))
        return plan

    def longer(content):
        return content + b"\nEDITED = 1\n"

    fewer = json.loads(json.dumps(OVERLAY))
    fewer["figures"]["low_rank"]["show"]["depth"] = [1]
    assert rerun({plotting: longer, csv: lambda text: text.replace(b"holds", b"violated", 1)}) == figure | pages
    assert rerun({show: lambda _: yaml.safe_dump(fewer).encode()}) == figure | {"pages": 1}
    assert rerun({notebook: lambda text: text.replace(b"# ", b"# The ", 1), claims: longer}) == figure | pages
    assert rerun({project / FIGURE: lambda image: image[:-1]}) == figure  # from elsewhere, or edited
    assert rerun({executed: lambda text: text.replace(b"# ", b"# The ", 1)}) == figure
    # What is asked for is made, and current then.
    (project / FIGURE).write_bytes(b"")
    assert made(snakemake(project, project, "--configfile", "own.yaml", *targets))
    assert (project / FIGURE).read_bytes()
    assert planned(project, *targets) == {}
