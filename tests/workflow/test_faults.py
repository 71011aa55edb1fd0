"""What breaks: jobs and runs that are killed, mistakes, full disks, broken files, two runs at once. Nothing is lost.

docs/faults.md is the table of these tests.
"""

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from projects import contents, copy_of_project, edit, planned, run_jobs, snakemake

pytestmark = pytest.mark.faults

#: Flows in jobs of their own, descents in two shared ones; no figures.
SMALL = """
study: {results: results/small, figures: figures/small, shared_jobs: SHARED, only: [convergence, descent]}
experiments:
  convergence:
    dimension: 6
    seeds: 2
    seeds_per_job: 2
    grid: {epsilon: [0, 0.1], smin: [0.5], rank: [6], depth: [1, 2, 10]}
  descent:
    dimension: 6
    seeds: 2
    seeds_per_job: 2
    grid: {epsilon: [0.1], rank: [6], depth: [1, 2, 5], relative_step: [0.25, 0.95]}
    descent: {max_steps: 500}
figures:
  trajectories: {show: {smin: [0.5], depth: [1, 10]}}
  rates: {show: {smin: [0.5]}}
"""
#: An experiment that no figure shows, some of whose cells cannot be computed.
MINE = """  mine:
    kind: flow
    loss: bures-wasserstein
    dimension: 6
    target: {spectrum: zipf, mode: eigenvalues}
    initialization: {kind: close}
    seeds: 2
    seeds_per_job: 2
    grid: {epsilon: [0, 0.1], smin: [0.5], rank: [1, 6], depth: [1, 10]}
    integration: {rtol: 1.0e-6, excess_tolerance: 1.0e-10, max_time: 1000, max_steps: 500, samples: 20}
"""
AGGREGATES = [
    f"results/small/{name}/{table}.parquet" for name in ("convergence", "descent") for table in ("runs", "trajectories")
]


def project(folder: Path, shared: int = 0) -> Path:
    copy_of_project(folder)
    (folder / "tiny.yaml").write_text(SMALL.replace("SHARED", str(shared)))
    return folder


def aggregates(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in AGGREGATES}


@pytest.fixture(scope="module")
def finished_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run without any fault."""
    folder = project(tmp_path_factory.mktemp("undisturbed"))
    run = snakemake(folder, *AGGREGATES)
    assert run.returncode == 0, run.stderr[-2000:]
    return folder


@pytest.fixture(scope="module")
def undisturbed(finished_once: Path) -> dict[str, bytes]:
    """Bytes of its aggregates."""
    return aggregates(finished_once)


@pytest.fixture
def finished_small(finished_once: Path, tmp_path: Path) -> Path:
    """A copy of it, times of files and Snakemake's records included."""
    return Path(shutil.copytree(finished_once, tmp_path / "copy"))


def start(folder: Path, *arguments: str, **environment: str) -> subprocess.Popen:
    """Snakemake in a process group of its own, as a shell starts it."""
    command = [
        sys.executable,
        "-m",
        "snakemake",
        "--cores",
        "2",
        *arguments,
        "--configfile",
        "tiny.yaml",
        "--",
        *AGGREGATES,
    ]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(folder / "src"), **environment}
    with (folder / "run.log").open("ab") as log:
        return subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            stdout=log,
            stderr=log,
            start_new_session=True,
            preexec_fn=lambda: signal.signal(
                signal.SIGINT, signal.SIG_DFL
            ),  # ignored where tests run in the background
        )


def end(process: subprocess.Popen, how: signal.Signals) -> int:
    """Send a signal to Snakemake and all its jobs, and wait for them."""
    if process.poll() is None:
        os.killpg(process.pid, how)
    return process.wait(timeout=60)


def written(folder: Path) -> set[str]:
    """Cells that were computed and are not collected yet."""
    return {path.stem for path in folder.glob("results/small/*/cells/runs/[!.]*.parquet")}


def unreadable(folder: Path) -> list[Path]:
    """Result files that cannot be read whole."""
    found = []
    for path in folder.glob("results/**/[!.]*.parquet"):
        try:
            pq.read_table(path, partitioning=None)
        except Exception:
            found.append(path)
    return found


# --- Kills ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("shared", "times"), [(0, 10), (2, 2)])
def test_a_run_killed_at_random_moments_ends_as_an_undisturbed_one(tmp_path, undisturbed, shared, times):
    folder, rng, killed = project(tmp_path, shared), np.random.default_rng(7 + shared), 0
    for _ in range(times):
        for path in [*folder.glob("results/small/**/*.parquet"), *folder.glob("results/small/**/*.json")]:
            if path.suffix == ".json" or rng.random() < 0.8:  # there is always work to be killed in
                path.unlink()
        before = written(folder)
        process = start(folder)
        while written(folder) <= before and process.poll() is None:
            time.sleep(0.02)
        time.sleep(rng.uniform(0, 1.5))
        killed += process.poll() is None
        end(process, signal.SIGKILL)
        assert unreadable(folder) == []
        assert snakemake(folder, "--unlock").returncode == 0
    assert killed >= 0.8 * times
    run = snakemake(folder, *AGGREGATES)
    assert run.returncode == 0, run.stderr[-2000:]
    assert aggregates(folder) == undisturbed


#: Put on the path of a job, kills it in the middle of writing, the first time.
KILLS_ITSELF = """
import os, signal
import pyarrow.parquet as pq

write = pq.ParquetWriter.write_table

def killed(self, table, **options):
    write(self, table, **options)
    if not os.path.exists("killed"):
        open("killed", "w").close()
        self.file_handle.flush()
        os.kill(os.getpid(), signal.SIGKILL)

pq.ParquetWriter.write_table = killed
"""


def test_a_job_killed_while_it_writes_is_named_and_made_again(tmp_path, undisturbed):
    folder = project(tmp_path)
    (folder / "src/sitecustomize.py").write_text(KILLS_ITSELF)
    process = start(folder)
    assert process.wait(timeout=300) != 0
    assert (folder / "killed").exists()
    log = (folder / "run.log").read_text()
    assert log.count("Error in rule run_") == 1  # the others went on
    assert unreadable(folder) == []
    assert len(contents(folder, "results/small/*/jobs/**/*.json")) == 11
    run = snakemake(folder, *AGGREGATES)
    assert run.returncode == 0, run.stderr[-2000:]
    assert aggregates(folder) == undisturbed


def test_a_shared_job_killed_while_others_join_it_is_made_again(tmp_path):
    # Its files are there from before, and its parameters are new: it must not count as done.
    killed, fresh = project(tmp_path / "killed", 1), project(tmp_path / "fresh", 1)
    assert snakemake(killed, *AGGREGATES).returncode == 0
    for folder in (killed, fresh):
        edit(folder / "tiny.yaml", "depth: [1, 2, 10]", "depth: [1, 2, 3, 10]")
    (killed / "src/sitecustomize.py").write_text(KILLS_ITSELF)
    assert start(killed).wait(timeout=300) != 0
    assert (killed / "killed").exists()
    for folder in (killed, fresh):
        run = snakemake(folder, *AGGREGATES)
        assert run.returncode == 0, run.stderr[-2000:]
    assert aggregates(killed) == aggregates(fresh)


def test_an_interrupt_leaves_nothing_half_written(tmp_path, undisturbed):
    folder = project(tmp_path)
    process = start(folder)
    while not contents(folder) and process.poll() is None:
        time.sleep(0.1)
    assert end(process, signal.SIGINT) != 0
    assert unreadable(folder) == []
    assert [path for path in folder.glob("results/**/.*") if path.is_file()] == []
    run = snakemake(folder, *AGGREGATES)  # without --unlock
    assert run.returncode == 0, run.stderr[-2000:]
    assert aggregates(folder) == undisturbed


# --- Mistakes ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shared", [0, 1])
def test_a_mistake_in_one_cell_is_named_and_the_others_go_on(tmp_path, shared):
    # A close start of rank 1 has no margin here.
    folder = project(tmp_path, shared)
    edit(folder / "tiny.yaml", "figures:\n", f"{MINE}figures:\n")
    edit(folder / "tiny.yaml", "descent]", "descent, mine]")
    wanted = [*AGGREGATES, "results/small/mine/runs.parquet"]
    run = snakemake(folder, *wanted)
    assert run.returncode != 0
    assert "Error in rule run_mine" in run.stderr
    logs = [line.split()[1] for line in run.stderr.splitlines() if line.strip().startswith("log: logs/")]
    assert any("no start close to the target has a margin" in (folder / log).read_text() for log in logs)
    assert (folder / "results/small/descent/runs.parquet").exists()
    cells = [pq.read_table(path) for path in folder.glob("results/small/mine/cells/runs/*.parquet")]
    assert sum(len(cell) for cell in cells) == 2 * 2 * 2  # rank 6, both ε and depths
    same = snakemake(folder, *wanted)
    assert same.returncode != 0
    assert "Error in rule run_mine" in same.stderr  # as often as it is asked for
    edit(folder / "tiny.yaml", "rank: [1, 6]", "rank: [6]")
    again = snakemake(folder, *wanted)
    assert again.returncode == 0, again.stderr[-2000:]


def test_a_full_disk_while_writing_loses_nothing(finished_small):
    # Files may hold 2,000 bytes: what is beyond is refused by the system as on a full disk.
    folder = finished_small
    before = contents(folder)
    job = sorted(folder.glob("results/small/convergence/jobs/**/*.json"))[0]
    part = next(iter(json.loads(job.read_text()).values()))
    command = [sys.executable, "-m", "deepbures", "run", "--seeds", part["seeds"]]
    command += ["--store", "results/small/convergence", "--list", "new.json"]
    small = subprocess.run(
        [*command, "--cell", json.dumps({**part["cell"], "depth": 3})],
        cwd=folder,
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000)),
    )
    assert small.returncode == 2
    assert small.stderr.splitlines()[-1].startswith("deepbures: ")
    assert "File too large" in small.stderr
    assert "Traceback" not in small.stderr
    assert contents(folder) == before
    assert not (folder / "new.json").exists()
    assert [path for path in folder.glob("results/**/.*") if path.is_file()] == []


# --- Broken and old files ---------------------------------------------------------------------------------------


def damage(path: Path, how: str, other: Path) -> None:
    """Break a result file."""
    if how == "truncated":
        path.write_bytes(path.read_bytes()[:-100])
    elif how == "changed":
        content = bytearray(path.read_bytes())
        content[len(content) // 4] ^= 0x10
        path.write_bytes(content)
    elif how == "foreign":
        pq.write_table(pq.read_table(other).replace_schema_metadata(None), path)
    else:
        shutil.copyfile(other, path)


@pytest.mark.parametrize(
    ("how", "shared"), [("truncated", 0), ("changed", 0), ("foreign", 0), ("of another cell", 0), ("changed", 2)]
)
def test_a_broken_cell_is_named_and_made_again(tmp_path, undisturbed, how, shared):
    folder = project(tmp_path, shared)
    assert snakemake(folder, "runs").returncode == 0
    one, other = sorted(folder.glob("results/small/convergence/cells/trajectories/*.parquet"))[:2]
    damage(one, how, other)
    run = snakemake(folder, *AGGREGATES)
    assert run.returncode != 0
    assert str(one.relative_to(folder)) in run.stderr
    assert "run again" in run.stderr
    assert "Traceback" not in run.stderr
    assert run_jobs(planned(folder, *AGGREGATES)) == {"convergence": 1}
    again = snakemake(folder, *AGGREGATES)
    assert again.returncode == 0, again.stderr[-2000:]
    assert aggregates(folder) == undisturbed


@pytest.mark.parametrize("how", ["truncated", "changed"])
def test_a_broken_table_is_named_and_its_cells_are_made_again(finished_small, undisturbed, how):
    folder = finished_small
    table, linked = (folder / f"results/small/convergence/{name}trajectories.parquet" for name in ("", "cells/"))
    damage(table, how, table)
    shutil.copyfile(table, linked)  # the two are one file, but in the copy of a folder
    table.unlink()
    run = snakemake(folder, *AGGREGATES)
    assert run.returncode != 0
    assert "convergence/cells/trajectories" in run.stderr
    assert "run again" in run.stderr
    assert run_jobs(planned(folder, *AGGREGATES)) == {"convergence": 6 if how == "truncated" else 1}
    again = snakemake(folder, *AGGREGATES)
    assert again.returncode == 0, again.stderr[-2000:]
    assert aggregates(folder) == undisturbed


def test_a_deleted_table_is_collected_again_without_a_run(finished_small, undisturbed):
    for name in AGGREGATES:
        (finished_small / name).unlink()
    assert run_jobs(planned(finished_small, *AGGREGATES)) == {}
    assert snakemake(finished_small, *AGGREGATES).returncode == 0
    assert aggregates(finished_small) == undisturbed


def test_a_changed_configuration_over_old_results_is_as_from_nothing(tmp_path):
    changed, fresh = project(tmp_path / "changed", 2), project(tmp_path / "fresh", 2)
    assert snakemake(changed, *AGGREGATES).returncode == 0
    for folder in (changed, fresh):
        edit(
            folder / "tiny.yaml",
            "seeds: 2\n    seeds_per_job: 2\n    grid: {epsilon: [0.1]",
            "seeds: 3\n    seeds_per_job: 3\n    grid: {epsilon: [0.1]",
        )
        edit(folder / "tiny.yaml", "max_steps: 500", "max_steps: 400")
        run = snakemake(folder, *AGGREGATES)
        assert run.returncode == 0, run.stderr[-2000:]
    assert aggregates(changed) == aggregates(fresh)


# --- Two runs ---------------------------------------------------------------------------------------------------


#: Put on the path of a job, makes it last.
WAITS = """
import sys, time

if "run" in sys.orig_argv:
    time.sleep(4)
"""


def test_two_runs_in_one_folder_do_not_meet(tmp_path, undisturbed):
    folder = project(tmp_path)
    (folder / "src/sitecustomize.py").write_text(WAITS)
    first = start(folder)
    while not contents(folder) and first.poll() is None:
        time.sleep(0.1)
    second = snakemake(folder, *AGGREGATES)
    assert first.poll() is None
    assert second.returncode != 0
    assert "Directory cannot be locked" in second.stderr
    assert first.wait(timeout=300) == 0
    assert aggregates(folder) == undisturbed
