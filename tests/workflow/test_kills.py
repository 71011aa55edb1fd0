"""Forty kills at random moments: of a job, a script, a kernel, Snakemake, or all. The next run gives the same bytes."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from projects import copy_of_project, snakemake

pytestmark = pytest.mark.faults

#: Flows and descents in jobs of their own, one notebook, claims and pages.
STUDY = """
study: {seed: 1, results: results, figures: figures, fail_on_violated_claims: false}
experiments:
  flows:
    kind: flow
    loss: bures-wasserstein
    dimension: 6
    target: {spectrum: zipf, mode: eigenvalues}
    initialization: {kind: small, scale: 0.5}
    seeds: 2
    seeds_per_job: 2
    grid: {epsilon: [0, 0.1], smin: [0.5], rank: [6], depth: [1, 10]}
    integration: {rtol: 1.0e-6, excess_tolerance: 1.0e-10, max_time: 1000, max_steps: 500, samples: 20}
  descents:
    kind: descent
    loss: bures-wasserstein
    dimension: 6
    target: {spectrum: zipf, mode: eigenvalues}
    initialization: {kind: small, scale: 0.5}
    seeds: 2
    seeds_per_job: 2
    grid: {epsilon: [0.1], smin: [0.5], rank: [6], depth: [1, 2], relative_step: [0.25, 0.95]}
    descent: {max_steps: 500, excess_tolerance: 1.0e-10, samples: 20}
figures:
  constants: {experiment: flows}
"""
#: What the command line of a victim holds, and what is deleted so that it has work; other results with it, at random.
VICTIMS = {
    "job": ("deepbures\0run", "results/flows/runs.parquet"),
    "script": ("/scripts/", "results/claims.csv"),
    "kernel": ("deepbures.process.kernel", "results/tables/T2_constants.csv"),
    "Snakemake": ("", "results/descents/runs.parquet"),
    "everything": ("", "results/descents/runs.parquet"),
}
TIMES = 8


def start(folder: Path) -> subprocess.Popen:
    """Snakemake, as a shell starts it."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    command = [sys.executable, "-m", "snakemake", "--cores", "2"]
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(folder / "src")}
    with (folder / "run.log").open("ab") as log:
        return subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log, start_new_session=True)


def below(pid: int) -> dict[int, str]:
    """The command lines of all processes that a process started."""
    parents, lines = {}, {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            line = (folder / "cmdline").read_bytes().decode(errors="replace")
            parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            lines[int(folder.name)] = line
    found, new = set(), {pid}
    while new:
        new = {child for child, parent in parents.items() if parent in new} - found
        found |= new
    return {child: lines[child] for child in found}


def until(holds: Callable[[], object], seconds: float) -> None:
    """Wait until something holds, or for so long."""
    deadline = time.monotonic() + seconds
    while not holds() and time.monotonic() < deadline:
        time.sleep(0.02)


def kill(process: subprocess.Popen, victim: str, part: str, moment: float) -> bool:
    """Kill the victim a moment after it was started; whether it was there. All others end by themselves."""

    def chosen() -> list[int]:
        return [pid for pid, line in below(process.pid).items() if part in line]

    until(lambda: process.poll() is not None or chosen(), 120)
    time.sleep(moment)
    others = below(process.pid)
    pids = [process.pid] if victim == "Snakemake" else chosen()[:1]
    if victim == "everything":
        pids = [process.pid, *others]
    killed = process.poll() is None and bool(pids)
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.wait(timeout=300)
    until(lambda: not any(Path("/proc", str(pid)).exists() for pid in others), 120)
    return killed


def made(folder: Path) -> dict[str, bytes]:
    """All results but executed notebooks, which hold the time of each of their cells, and stamps."""
    files = (path for name in ("results", "figures") for path in folder.glob(f"{name}/**/*") if path.is_file())
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in files
        if path.suffix != ".ipynb" and ".wanted" not in path.parts
    }


@pytest.mark.parametrize("victim", VICTIMS)
def test_whatever_is_killed_the_next_run_gives_the_same_bytes(tmp_path, victim):
    folder, rng, killed = copy_of_project(tmp_path), np.random.default_rng(len(victim)), 0
    (folder / "config/config.yaml").write_text(STUDY)
    first = snakemake(folder, config=None)
    assert first.returncode == 0, first.stderr[-2000:]
    undisturbed = made(folder)
    part, result = VICTIMS[victim]
    for _ in range(TIMES):
        (folder / result).unlink()
        for path in folder.glob("results/*/*.*"):
            if rng.random() < 0.2:
                path.unlink(missing_ok=True)
        killed += kill(start(folder), victim, part, rng.uniform(0, 1 if part else 8))
        if victim in ("Snakemake", "everything"):
            assert snakemake(folder, "--unlock", config=None).returncode == 0
        again = snakemake(folder, config=None)
        assert again.returncode == 0, again.stderr[-2000:]
        assert made(folder) == undisturbed
    assert killed >= TIMES // 2, killed
    print(f"{victim}: {killed} kills")
