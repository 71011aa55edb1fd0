"""Run all benchmarks and write what they print to benchmarks/RESULTS.md: python benchmarks/results.py"""

import datetime
import os
import platform
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

FOLDER = Path(__file__).parent
SECTIONS = {
    "pipeline.py": "The pipeline",
    "scaling.py": "The library: how times grow",
    "scale.py": "The losses at large n, beside their limits and the distance of others",
    "flow.py": "Gradient flow, beside its limits and a flow of all layers",
    "descent.py": "Gradient descent, beside its limits and PyTorch",
    "hessians.py": "Hessians, beside their limits",
    "losses.py": "Value and gradient at once, beside a plain form",
    "barycenters.py": "Barycenters, beside pyriemann",
}


def main() -> None:
    versions = ", ".join(f"{name} {version(name)}" for name in ("numpy", "scipy", "pyarrow", "snakemake"))
    parts = [
        "# Times",
        f"Measured on {datetime.date.today()} with Python {platform.python_version()}, {versions}; "
        f"{os.cpu_count()} cores, one thread a process. Made by `make bench`. Other work on the machine changes all "
        "times: compare those of one section.",
    ]
    for script, heading in SECTIONS.items():
        print(f"{script} …", flush=True)
        run = subprocess.run([sys.executable, FOLDER / script], check=True, stdout=subprocess.PIPE, text=True)
        text = run.stdout.strip()
        parts += [f"## {heading}", text if "|---" in text else "\n".join(f"    {line}" for line in text.splitlines())]
    (FOLDER / "RESULTS.md").write_text("\n\n".join(parts) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
