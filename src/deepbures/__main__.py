"""Command line: `python -m deepbures run` computes one cell of the grid for a block of seeds."""

from __future__ import annotations

import argparse
import json
import sys


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; 0 when all went well, 2 on a user's mistake."""
    parser = argparse.ArgumentParser(prog="deepbures", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="compute one cell for a block of seeds")
    run.add_argument("--cell", required=True, help="settings of the cell, as JSON")
    run.add_argument("--seeds", required=True, help="seed indices FIRST-LAST")
    run.add_argument("--runs", required=True, help="Parquet file to write, one row a run")
    run.add_argument("--trajectories", required=True, help="Parquet file to write, one row a sample")
    options = parser.parse_args(arguments)

    from .experiment import run_cell
    from .grid import seeds_of
    from .store import write_table

    try:
        runs, trajectories = run_cell(json.loads(options.cell), seeds_of(options.seeds))
    except ValueError as error:
        print(f"deepbures: {error}", file=sys.stderr)
        return 2
    write_table(options.runs, runs)
    write_table(options.trajectories, trajectories)
    return 0


if __name__ == "__main__":
    sys.exit(main())
