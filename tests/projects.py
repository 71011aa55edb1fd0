"""Copies of the project, in which tests run Snakemake on tiny grids."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from deepbures.study.grid.axes import AXES
from deepbures.study.results.parquet import Table

ROOT = Path(__file__).parents[1]
TINY = """
study: {results: results/tiny, figures: figures/tiny, shared_jobs: 0}
experiments:
  convergence:
    dimension: 4
    seeds: 2
    seeds_per_job: 2
    grid: {epsilon: [0, 0.1], smin: [0.5, 1], rank: [4], depth: [1, 10]}
  low_rank:
    dimension: 6
    seeds: 2
    seeds_per_job: 2
    grid: {epsilon: [0.1], smin: [0.5], rank: [5], depth: [1, 2]}
  descent:
    dimension: 4
    seeds: 2
    seeds_per_job: 2
    grid: {epsilon: [0, 0.1], rank: [4], depth: [1, 5], relative_step: [0.5, 1.05]}
    descent: {max_steps: 300}
  descent_low_rank:
    dimension: 4
    seeds: 2
    seeds_per_job: 1
    grid: {epsilon: [0.1], rank: [2], depth: [2], relative_step: [0.5, 1.05]}
    descent: {max_steps: 300}
  authors:
    dimension: 4
    seeds: 2
    seeds_per_job: 2
    grid: {rank: [4], depth: [10, 30], step_size: [1.0e-4]}
    descent: {end_time: 0.3, record_every: 1}
  plateaus:
    dimension: 4
    seeds: 2
    seeds_per_job: 2
    grid: {epsilon: [0.1], rank: [2], depth: [1, 2]}
  finite_sample:
    seeds: 2
    seeds_per_job: 2
    sampling: {sizes: [10, 100], draws: 5}
  bounds_n1:
    grid: {initial_scale: [0.5], epsilon: [0.5, 1], depth: [1]}
  bounds_n2:
    seeds: 2
    seeds_per_job: 2
    grid: {initial_scale: [0.1], epsilon: [0.25], depth: [1]}
  bounds_n5:
    seeds: 2
    seeds_per_job: 2
    grid: {initial_scale: [0.1], epsilon: [0.1], depth: [1]}
  certified_n1:
    grid: {initial_scale: [0.1], epsilon: [0.5], depth: [1], theorem_step: [1]}
    descent: {max_steps: 100}
  certified_n2:
    seeds: 2
    seeds_per_job: 2
    grid: {initial_scale: [0.1], epsilon: [2.75], depth: [1], theorem_step: [1]}
    descent: {max_steps: 100}
  certified_n5:
    seeds: 2
    seeds_per_job: 2
    grid: {initial_scale: [0.1], epsilon: [2.6], depth: [1], theorem_step: [1]}
    descent: {max_steps: 100}
  descent_to_flow:
    dimension: 4
    seeds: 2
    seeds_per_job: 2
    grid: {epsilon: [0.1], rank: [4], depth: [1, 5], step_size: [1.0e-3, 5.0e-4]}
  unbalanced:
    dimension: 4
    seeds: 2
    seeds_per_job: 2
    grid: {initialization: [normal, orthogonal], rank: [4], depth: [10]}
    descent: {max_steps: 400}
  loss_comparison:
    dimension: 4
    seeds: 2
    seeds_per_job: 2
    grid: {epsilon: [0, 0.1], rank: [3], depth: [1, 2]}
    descent: {max_steps: 2000}
  hessian:
    dimension: 4
    landscape: {points: 3}
    seeds: 2
    seeds_per_job: 2
    grid: {epsilon: [0.1], rank: [2], depth: [1, 3]}
  blow_up:
    dimension: 4
    landscape: {singular_values: [1, 0.01, 1.0e-3, 1.0e-4], vanishing: [1]}
    seeds: 2
    seeds_per_job: 2
    grid: {epsilon: [0, 0.1], rank: [2], depth: [1, 2]}
  paths:
    dimension: 4
    landscape: {points: 3, samples: 9}
    seeds: 2
    seeds_per_job: 2
    grid: {epsilon: [0], rank: [2], depth: [2]}
  expansion:
    dimension: 4
    landscape: {samples: 9}
    seeds: 2
    seeds_per_job: 2
    grid: {epsilon: [0.1], rank: [2], depth: [3]}
  escape:
    dimension: 4
    landscape: {points: 3}
    seeds: 2
    seeds_per_job: 2
    grid: {epsilon: [0.1], rank: [2], depth: [1, 2]}
  surface:
    landscape: {starts: 4, samples: 9}
    grid: {epsilon: [0, 0.1], depth: [1]}
  critical_search:
    landscape: {starts: 3}
    seeds: 2
    seeds_per_job: 2
    grid: {loss_name: [bures-wasserstein], epsilon: [0.1], rank: [2], depth: [1]}
  levels:
    seeds: 2
    seeds_per_job: 2
    grid: {initial_scale: [0.3, 1], epsilon: [0.1], rank: [2], depth: [1]}
  levels_full_rank:
    seeds: 2
    seeds_per_job: 2
    grid: {initial_scale: [0.3], epsilon: [0.1], depth: [1]}
  levels_descent:
    seeds: 2
    seeds_per_job: 2
    grid: {initial_scale: [0.9], epsilon: [0.1], rank: [2], depth: [1]}
    descent: {max_steps: 300}
  levels_one_layer:
    seeds: 2
    seeds_per_job: 2
    grid: {initial_scale: [0.3], epsilon: [0.1], rank: [2], step_size: [0.5]}
    descent: {max_steps: 300}
  step_starts:
    seeds: 2
    seeds_per_job: 2
    grid: {initialization: [level], epsilon: [0], depth: [2], relative_step: [0.8, 1.2]}
    descent: {max_steps: 300}
  loss_comparison_n1:
    grid: {depth: [1], relative_step: [0.95]}
  imbalance:
    seeds: 2
    seeds_per_job: 2
    grid: {initialization: [level], initial_scale: [1.0e-3], imbalance: [0, 0.5], epsilon: [0], depth: [2]}
  deep_steps:
    landscape: {conditions: [1], shares: [0], step_shares: [1], starts: 2, steps: 5}
    seeds: 1
    seeds_per_job: 1
    grid: {rank: [2], depth: [2]}
  widths:
    seeds: 2
    seeds_per_job: 2
    grid: {initialization: [xavier_normal], width: [10, 20], rank: [10]}
    descent: {max_steps: 100}
  fillings:
    landscape: {points: 3}
    seeds: 2
    seeds_per_job: 2
    grid: {loss_name: [bures-wasserstein], epsilon: [0.1], depth: [1]}
figures:
  trajectories: {show: {epsilon: [0.1], smin: [1], depth: [1, 10]}}
  rates: {show: {epsilon: [0.1], smin: [0.5, 1]}}
  spectra: {show: {epsilon: [0.1], smin: [0.5], depth: [10]}}
  low_rank: {show: {epsilon: [0.1], rank: [5], depth: [1, 2]}}
  plateaus: {show: {epsilon: [0.1], depth: [1, 2]}}
  levels: {show: {epsilon: [0.1], rank: [2], depth: [1]}}
  loss_comparison: {show: {depth: [1, 2]}}
  hessian: {show: {epsilon: [0.1], depth: [1, 3]}}
  surface: {show: {epsilon: [0, 0.1], depth: [1]}}
"""
#: Jobs of each experiment: cells times seed blocks. The square loss has no ε: two of its four cells are computed.
JOBS = {
    "convergence": 8,
    "low_rank": 2,
    "descent": 8,
    "descent_low_rank": 2 * 2,
    "authors": 2,
    "plateaus": 2,
    "finite_sample": 1,
    "bounds_n1": 2,
    "bounds_n2": 1,
    "bounds_n5": 1,
    "certified_n1": 1,
    "certified_n2": 1,
    "certified_n5": 1,
    "descent_to_flow": 4,
    "unbalanced": 2 * 3,
    "loss_comparison": 4 + 2,
    "hessian": 2 + 2,
    "blow_up": 4,
    "paths": 1 + 1,
    "expansion": 1,
    "escape": 2,
    "surface": 2,
    "critical_search": 1,
    "levels": 2 * 2,
    "levels_full_rank": 2,
    "levels_descent": 2 * 2,
    "levels_one_layer": 2,
    "step_starts": 2 * 2,
    "loss_comparison_n1": 2,
    "imbalance": 2,
    "deep_steps": 1,
    "widths": 2 * 2,
    "fillings": 1,
}


#: Tables of an experiment that has not two.
TABLES = {"blow_up": 1, "paths": 1, "expansion": 1, "deep_steps": 1, "surface": 3}


def copy_of_project(folder: Path) -> Path:
    """A working copy without results, its own sources first on the path."""
    for name in ("config", "profiles", "workflow", "src"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "Snakefile", folder)
    (folder / "tiny.yaml").write_text(TINY)
    return folder


def snakemake(folder: Path, *arguments: str, config: str | None = "tiny.yaml") -> subprocess.CompletedProcess[str]:
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(folder / "src"),
    }
    command = [sys.executable, "-m", "snakemake", "--cores", "2", *arguments]
    if config:
        command += ["--configfile", config]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=1800)


def planned(folder: Path, *arguments: str, config: str | None = "tiny.yaml") -> dict[str, int]:
    """Number of jobs by rule that a dry run lists."""
    dry = snakemake(folder, "--dry-run", *arguments, config=config)
    assert dry.returncode == 0, dry.stderr
    table = dry.stdout.split("Job stats:")[-1].split("\n\n")[0]
    return {rule: int(count) for rule, count in re.findall(r"^(\w+)\s+(\d+)$", table, flags=re.MULTILINE)}


def run_jobs(jobs: dict[str, int]) -> dict[str, int]:
    """Number of jobs that compute cells, by experiment."""
    return {rule.removeprefix("run_"): count for rule, count in jobs.items() if rule.startswith("run_")}


def new_cells(folder: Path, *configs: str) -> dict[str, int]:
    """Number of cells that `deepbures cells` calls new, by experiment."""
    command = [sys.executable, "-m", "deepbures", "cells", "config/config.yaml", *(configs or ["tiny.yaml"])]
    environment = {**os.environ, "PYTHONPATH": str(folder / "src")}
    run = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr
    rows = [line.split() for line in run.stdout.splitlines()[1:-1]]
    return {row[0]: int(row[-2]) for row in rows if row[-2] != "0"}


def computed_cells(folder: Path) -> dict[str, int]:
    """Number of cells that jobs say they computed, by experiment; their logs are deleted."""
    found: dict[str, int] = {}
    for log in sorted(folder.glob("logs/results/*/*/**/*.log")):
        for count in re.findall(r"cells are there, (\d+) are computed", log.read_text()):
            experiment = log.relative_to(folder / "logs/results").parts[1]
            found[experiment] = found.get(experiment, 0) + int(count)
        log.unlink()
    return {experiment: count for experiment, count in found.items() if count}


def contents(folder: Path, pattern: str = "results/**/*.parquet") -> dict[str, bytes]:
    files = filter(Path.is_file, sorted(folder.glob(pattern)))
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def collected_cells(folder: Path) -> dict[tuple[str, str], str]:
    """Every number of every cell, by table and key."""
    found = {}
    for path in sorted(folder.glob("results/tiny/*/*.parquet")):
        table = Table(path)
        columns = [name for name in table.columns if name not in AXES]
        found |= {(str(path.relative_to(folder)), key): repr(table.cell(key, columns).to_pylist()) for key in table}
    return found


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")
