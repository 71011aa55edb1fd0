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
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from projects import computed_cells, contents, copy_of_project, edit, planned, run_jobs, snakemake

from deepbures.study.results.parts import Part

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
    assert computed_cells(folder) == {"convergence": 6, "descent": 6}
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


def written(folder: Path, pattern: str = "*/.cells/**/*.partial") -> set[str]:
    """Cells that were computed and are not collected yet."""
    return {key for path in folder.glob(f"results/small/{pattern}") for key in Part(path)}


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
        for path in [*folder.glob("results/small/*/*.parquet"), *folder.glob("results/small/*/.cells/**/*.part*")]:
            if rng.random() < 0.8:  # there is always work to be killed in
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


#: Put on the path of a job, kills it in the middle of writing a cell, the first time.
KILLS_ITSELF = """
import os, signal, sys

if "run" in sys.orig_argv:
    from deepbures.study.results.store import Job

    write = Job.add

    def killed(self, *cell):
        write(self, *cell)
        if not os.path.exists("killed"):
            open("killed", "w").close()
            os.truncate(self._partial, self._partial.stat().st_size - 100)
            os.kill(os.getpid(), signal.SIGKILL)

    Job.add = killed
"""
#: Put on the path of a job, lets collecting fail.
FAILS = """
import sys

if "collect" in sys.orig_argv:
    sys.exit("no room")
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
    assert sum(computed_cells(folder).values()) == 12
    run = snakemake(folder, *AGGREGATES)
    assert run.returncode == 0, run.stderr[-2000:]
    assert aggregates(folder) == undisturbed
    assert sum(computed_cells(folder).values()) == 1


@pytest.mark.parametrize("then", ["again", "a cell is added", "the code is changed"])
def test_a_failed_collect_loses_nothing_whatever_is_changed_before_the_next_try(finished_small, undisturbed, then):
    # All numbers are in the parts then: the tables of before are deleted when collecting starts.
    folder, before = finished_small, "depth: [1, 2, 10]"
    edit(folder / "tiny.yaml", before, "depth: [1, 2, 3, 10]")
    (folder / "src/sitecustomize.py").write_text(FAILS)
    assert start(folder).wait(timeout=300) != 0
    assert "no room" in (folder / "run.log").read_text()
    assert not (folder / AGGREGATES[0]).exists()
    (folder / "src/sitecustomize.py").unlink()
    assert computed_cells(folder) == {"convergence": 2}
    if then == "a cell is added":
        edit(folder / "tiny.yaml", "depth: [1, 2, 3, 10]", "depth: [1, 2, 3, 10, 20]")
    elif then == "the code is changed":
        with (folder / "src/deepbures/flow/run.py").open("a") as module:
            module.write("\nEDITED = 1\n")
    assert snakemake(folder, *AGGREGATES).returncode == 0
    new = {"again": {}, "a cell is added": {"convergence": 2}}
    assert computed_cells(folder) == new.get(
        then, {"convergence": 8, "descent": 6}
    )  # descent is compared with the flow
    if then != "the code is changed":
        added = "depth: [1, 2, 3, 10]" if then == "again" else "depth: [1, 2, 3, 10, 20]"
        edit(folder / "tiny.yaml", added, before)
        assert snakemake(folder, *AGGREGATES).returncode == 0
        assert computed_cells(folder) == {}
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
    while not written(folder) and process.poll() is None:
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
    assert len(written(folder, "mine/.cells/**/*.partial")) == 2 * 2  # rank 6, both ε and depths
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
    program = [sys.executable, "-m", "deepbures"]
    listing = [*program, "cells", "config/config.yaml", "tiny.yaml", "--experiment", "convergence"]
    listed = subprocess.run(listing, cwd=folder, capture_output=True, text=True, check=True).stdout
    cell = json.dumps({**json.loads(listed.splitlines()[0].split("\t")[1]), "depth": 3})
    command = [*program, "run", "--seeds", "0-1", "--part", "results/small/convergence/.cells/plan/new.part"]
    small = subprocess.run(
        [*command, "--cell", cell],
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
    assert contents(folder, "results/**/*.part") == {}
    assert [path for path in folder.glob("results/**/.*") if path.is_file()] == []
    subprocess.run([*command, "--cell", cell], cwd=folder, check=True, capture_output=True)
    assert len(Part(folder / "results/small/convergence/.cells/plan/new.part")._records) == 1


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
        table = pq.read_table(other, partitioning=None) if other.suffix == ".parquet" else pa.table({"a": [1]})
        pq.write_table(table.replace_schema_metadata(None), path)
    else:
        shutil.copyfile(other, path)


@pytest.mark.parametrize(
    ("how", "shared"), [("truncated", 0), ("changed", 0), ("foreign", 0), ("of another cell", 0), ("changed", 2)]
)
def test_a_broken_part_is_named_and_made_again(tmp_path, undisturbed, how, shared):
    folder = project(tmp_path, shared)
    (folder / "src/sitecustomize.py").write_text(FAILS)
    assert start(folder).wait(timeout=300) != 0
    (folder / "src/sitecustomize.py").unlink()
    computed_cells(folder)
    one, other = sorted(folder.glob("results/small/convergence/.cells/**/*.part"))[:2]
    damage(one, how, other)
    run = snakemake(folder, *AGGREGATES)
    assert run.returncode != 0
    (line,) = [line for line in run.stderr.splitlines() if "delete it and run again" in line]
    named = folder / line.removeprefix("deepbures: ").split(" ")[0]
    assert named == one or how == "of another cell"
    assert "Traceback" not in run.stderr
    shutil.rmtree(named) if named.is_dir() else named.unlink()
    again = snakemake(folder, *AGGREGATES)
    assert again.returncode == 0, again.stderr[-2000:]
    assert aggregates(folder) == undisturbed
    assert computed_cells(folder) == ({"convergence": 6} if named != one else {})  # its job has its partial file


@pytest.mark.parametrize("how", ["truncated", "changed", "foreign"])
def test_a_broken_table_is_named_and_its_cells_are_made_again(finished_small, undisturbed, how):
    folder = finished_small
    table = folder / "results/small/convergence/trajectories.parquet"
    damage(table, how, table)
    edit(folder / "tiny.yaml", "depth: [1, 2, 10]", "depth: [1, 10]")
    run = snakemake(folder, *AGGREGATES)
    assert run.returncode != 0
    logs = "".join(path.read_text() for path in folder.glob("logs/results/small/convergence/**/*.log"))
    message = "results/small/convergence/trajectories.parquet is broken"
    (line, *_) = [line for line in (run.stderr + logs).splitlines() if message in line]
    assert line.endswith("delete it")
    assert "Traceback" not in run.stderr + logs
    computed_cells(folder)
    table.unlink()
    edit(folder / "tiny.yaml", "depth: [1, 10]", "depth: [1, 2, 10]")
    again = snakemake(folder, *AGGREGATES)
    assert again.returncode == 0, again.stderr[-2000:]
    assert aggregates(folder) == undisturbed
    # Of the changed table, one cell was in a group of rows that is whole.
    assert computed_cells(folder) == {"convergence": 5 if how == "changed" else 6}


def test_a_deleted_table_is_made_again(finished_small, undisturbed):
    (finished_small / AGGREGATES[0]).unlink()
    assert run_jobs(planned(finished_small, *AGGREGATES)) == {"convergence": 6}
    assert snakemake(finished_small, *AGGREGATES).returncode == 0
    assert aggregates(finished_small) == undisturbed
    assert computed_cells(finished_small) == {"convergence": 6}


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
    while not written(folder) and first.poll() is None:
        time.sleep(0.1)
    second = snakemake(folder, *AGGREGATES)
    assert first.poll() is None
    assert second.returncode != 0
    assert "Directory cannot be locked" in second.stderr
    # A dry run of another configuration changes nothing for the first.
    (folder / "other.yaml").write_text((folder / "tiny.yaml").read_text().replace("[1, 2, 10]", "[1, 10]"))
    assert run_jobs(planned(folder, "--nolock", *AGGREGATES, config="other.yaml"))["convergence"] == 4
    assert first.poll() is None
    assert first.wait(timeout=300) == 0
    assert aggregates(folder) == undisturbed
    assert run_jobs(planned(folder, *AGGREGATES)) == {}


def test_code_that_is_changed_during_a_run_is_not_recorded_as_the_planned_one(tmp_path, undisturbed):
    folder = project(tmp_path)
    (folder / "src/sitecustomize.py").write_text(WAITS)
    process, module = start(folder), folder / "src/deepbures/flow/run.py"
    while not written(folder) and process.poll() is None:
        time.sleep(0.1)
    before = module.read_text()
    module.write_text(before + "\nEDITED = 1\n")
    assert process.wait(timeout=300) != 0
    logs = "".join(path.read_text() for path in folder.glob("logs/results/small/convergence/**/*.log"))
    assert "deepbures: the code was changed after this run was planned: run again" in logs
    module.write_text(before)
    run = snakemake(folder, *AGGREGATES)
    assert run.returncode == 0, run.stderr[-2000:]
    assert aggregates(folder) == undisturbed
