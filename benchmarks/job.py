"""CPU time of one run job beside its limit: python benchmarks/job.py

A job is a process that imports the library, computes a cell for ten seeds and writes two files. What it
costs beyond the computation is its overhead.
"""

import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

from deepbures import grid

ROOT = Path(__file__).parents[1]
ENVIRONMENT = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}


def cpu(command: list[str]) -> float:
    """User and system seconds of a child process."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True, env=ENVIRONMENT)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def median(command: list[str], runs: int = 7) -> float:
    return statistics.median(cpu(command) for _ in range(runs))


def main() -> None:
    imports = {
        "start of python": "",
        "numpy": "import numpy",
        "numpy, pyarrow.parquet": "import numpy, pyarrow.parquet",
        "numpy, scipy.integrate": "import numpy, scipy.integrate",
        "deepbures.experiment": "import deepbures.experiment",
    }
    for name, code in imports.items():
        print(f"{name}: {median([sys.executable, '-c', code]):.2f} s CPU")

    config = yaml.safe_load((ROOT / "config/config.yaml").read_text(encoding="utf-8"))
    cell = next(c for c in grid.cells(config, "convergence") if c.path == "epsilon=0.1/smin=1/rank=20/depth=10")
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "deepbures", "run", "--cell", json.dumps(cell.settings), "--seeds", "0-9"]
        command += ["--runs", f"{folder}/runs.parquet", "--trajectories", f"{folder}/trajectories.parquet"]
        whole = median(command)
    from deepbures.experiment import run_cell

    times = []
    for _ in range(5):
        start = time.process_time()
        run_cell(cell.settings, range(10))
        times.append(time.process_time() - start)
    inside = statistics.median(times)
    print(f"a job (n = 20, N = 10, ten seeds): {whole:.2f} s CPU, {inside:.2f} s of it computing, "
          f"overhead {whole - inside:.2f} s")  # fmt: skip


if __name__ == "__main__":
    main()
