"""Where the pipeline's time goes, for studies of 100, 1,000 and 10,000 cells: python benchmarks/pipeline.py [CELLS …]

The cells are short flows (n = 4, one seed), so that what is measured is everything else. CPU seconds are those of
all processes; wall seconds depend on the machine's other work.
"""

import os

os.environ |= {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}

import random
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import yaml

from deepbures.study import configuration
from deepbures.study.grid import cells as grid
from deepbures.study.kinds import flow
from deepbures.study.results.aggregate import collect
from deepbures.study.results.parts import record
from deepbures.study.run import run_cell

ROOT = Path(__file__).parents[1]
CORES = "2"


def study(cells: int, shared_jobs: int | None) -> dict:
    """One experiment with so many cells: depths × 2 spectra × 5 smoothings, or as near as whole numbers come."""
    shared = {} if shared_jobs is None else {"shared_jobs": shared_jobs}
    return {
        "study": {"seed": 1, "results": "results", "figures": "figures", "fail_on_violated_claims": False, **shared},
        "experiments": {
            "flows": {
                "kind": "flow",
                "loss": "bures-wasserstein",
                "dimension": 4,
                "target": {"spectrum": "zipf", "mode": "eigenvalues"},
                "initialization": {"kind": "small", "scale": 0.5},
                "seeds": 1,
                "seeds_per_job": 1,
                "grid": {
                    "epsilon": [0, 0.01, 0.02, 0.03, 0.04],
                    "smin": [0.5, 1],
                    "rank": [4],
                    "depth": list(range(1, cells // 10 + 1)),
                },
                "integration": {
                    "rtol": 1e-4,
                    "excess_tolerance": 1e-4,
                    "max_time": 100,
                    "max_steps": 30,
                    "samples": 10,
                },
            }
        },
        "figures": {"constants": {"experiment": "flows"}},
    }


def costs(function: Callable[[], object]) -> tuple[float, float]:
    """CPU and wall seconds of a call, all processes that it starts included."""

    def cpu() -> float:
        used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        return sum(one.ru_utime + one.ru_stime for one in used)

    start, cpu_start = time.perf_counter(), cpu()
    function()
    return cpu() - cpu_start, time.perf_counter() - start


def child(folder: Path, *command: str) -> Callable[[], object]:
    environment = {
        **os.environ,
        "PYTHONPATH": str(folder / "src"),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }
    return lambda: subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True)


def snakemake(folder: Path, *arguments: str) -> Callable[[], object]:
    return child(folder, sys.executable, "-m", "snakemake", "--cores", CORES, *arguments)


def row(stage: str, cpu: float, wall: float | None = None) -> None:
    print(f"| {stage} | {cpu:.2f} | {'' if wall is None else f'{wall:.2f}'} |")


@dataclass(frozen=True)
class Units:
    """CPU seconds of what every study does: a process start, Snakemake's work for a job, a collect, a notebook."""

    start: float
    scheduling: float
    collect: float
    notebook: float


def measure(cells: int, shared_jobs: int | None = None) -> Units:
    """Print the table of one study."""
    config = study(cells, shared_jobs)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for part in ("workflow", "src", "profiles"):
            shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "Snakefile", folder)
        (folder / "config").mkdir()
        (folder / "config/config.yaml").write_text(yaml.safe_dump(config))

        parts = list(grid.parts(config, "flows"))
        n_jobs = len(grid.jobs(config, "flows"))
        print(f"\n{len(parts):,} cells in {n_jobs:,} jobs:\n")
        print("| stage | CPU seconds | wall seconds |\n|---|---|---|")
        row(
            "check the configuration, make the grid",
            *costs(lambda: grid.jobs(configuration.check(config), "flows")),
        )
        row("dry run: parse, DAG", *costs(snakemake(folder, "--dry-run", "--quiet", "all")))
        runs, wall = costs(snakemake(folder, "--quiet", "all", "--", "aggregates"))
        row("all run jobs, and collecting", runs, wall)

        sample = parts[:: max(1, len(parts) // 300)]
        tables = []
        computing, _ = costs(lambda: tables.extend(run_cell(part.cell.settings, [0]) for part in sample))
        computing *= len(parts) / len(sample)
        row("of these: computing (by a sample)", computing)
        start = statistics.median(costs(child(folder, sys.executable, "-c", START))[0] for _ in range(5))
        row(f"of these: {n_jobs:,} process starts with imports, {start:.2f} each", start * n_jobs)
        part, keys = folder / ".cells/plan/job.part", [str(number) for number in range(len(tables))]
        part.parent.mkdir(parents=True)
        cells = list(zip(keys, tables, strict=True))
        writing, _ = costs(lambda: part.write_bytes(b"".join(record(key, [*cell.values()], {}) for key, cell in cells)))
        writing *= len(parts) / len(sample)
        row("of these: writing parts (by a sample)", writing)
        places = {name: folder / f"{name}.parquet" for name in flow.TABLES}
        points = [(part.cell.axes, key) for key, part in zip(keys, sample, strict=True)]
        collecting, _ = costs(lambda: collect([part], places, flow.TABLES, points, {}))
        collecting *= len(parts) / len(sample)
        row("of these: collecting (by a sample)", collecting)
        scheduling = runs - computing - start * n_jobs - writing - collecting
        row("of these: Snakemake's scheduling and records (the rest)", scheduling)
        nothing, idle = costs(snakemake(folder, "--quiet", "all", "--", "aggregates"))
        row("run again, nothing to do", nothing, idle)
        notebook, wall = costs(snakemake(folder, "--quiet", "all", "--", "results/tables/T2_constants.csv"))
        row("one notebook", notebook - nothing, wall - idle)
        overhead = runs - computing
        print(
            f"\nAll but the computing: {overhead:.0f} s of CPU, {overhead / len(parts):.3f} s a cell, "
            f"{overhead / runs:.0%} of the whole for these very short cells."
        )
        return Units(start, max(scheduling, 0) / n_jobs, collecting, notebook - nothing)


def default_study(units: Units) -> None:
    """Print what the default study costs: its computing by a sample of cells and seeds, all else by the units."""
    config = configuration.read(ROOT / "config/config.yaml")
    config = configuration.check(config)
    rng, computing, n_jobs = random.Random(0), 0.0, 0
    for name, block in config["experiments"].items():
        distinct = list({part.path: part for part in grid.parts(config, name)}.values())
        n_jobs += len(grid.jobs(config, name))
        sample = [(rng.choice(distinct).cell.settings, [rng.randrange(block["seeds"])]) for _ in range(12)]
        cpu, _ = costs(lambda: [run_cell(*one) for one in sample])
        computing += cpu / len(sample) * len(distinct) * block["seeds_per_job"]
    dry, wall = costs(lambda: subprocess.run(DRY_RUN, cwd=ROOT, check=True, capture_output=True))
    n_experiments, n_notebooks = len(config["experiments"]), len(config["figures"])
    overheads = {
        "parse, DAG": dry,
        f"{n_jobs} process starts with imports": n_jobs * units.start,
        "scheduling and records of run jobs": n_jobs * units.scheduling,
        f"{n_experiments} aggregates": n_experiments * units.collect,
        f"{n_notebooks} notebooks": n_notebooks * units.notebook,
    }
    print("\nThe default study:\n\n| stage | CPU seconds | wall seconds |\n|---|---|---|")
    row("computing (12 cells and seeds of each experiment)", computing)
    for stage, cpu in overheads.items():
        row(stage, cpu, wall if stage.startswith("parse") else None)
    overhead = sum(overheads.values())
    print(f"\nAll but the computing: {overhead:.0f} s of CPU, {overhead / (overhead + computing):.0%} of the whole.")


#: Of the default study, as if nothing were there.
DRY_RUN = (sys.executable, "-m", "snakemake", "--cores", CORES, "--dry-run", "--quiet", "all", "--forceall", "--nolock")
#: What a run job of flows loads.
START = "import deepbures.__main__, deepbures.study.results.store, deepbures.study.kinds.flow, scipy.integrate"


if __name__ == "__main__":
    units = [measure(number) for number in map(int, sys.argv[1:] or ["100", "1000", "10000"])]
    default_study(units[0])
