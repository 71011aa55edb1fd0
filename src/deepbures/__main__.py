"""Command line: `python -m deepbures run` computes one cell of the grid for a block of seeds."""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Iterable


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; 0 when all went well, 2 on a user's mistake."""
    parser = argparse.ArgumentParser(prog="deepbures", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="compute one cell for a block of seeds")
    run.add_argument("--cell", required=True, help="settings of the cell, as JSON")
    run.add_argument("--seeds", required=True, help="seed indices FIRST-LAST")
    run.add_argument("--write", required=True, nargs="+", metavar="TABLE=FILE", help="Parquet files to write")
    options = parser.parse_args(arguments)

    from .experiment import run_cell
    from .grid import seeds_of
    from .store import write_table

    logging.basicConfig(format="%(asctime)s %(message)s", datefmt="%H:%M:%S", level=logging.INFO)
    try:
        tables = run_cell(json.loads(options.cell), seeds_of(options.seeds))
        files = _files(options.write, tables)
    except ValueError as error:
        print(f"deepbures: {error}", file=sys.stderr)
        return 2
    for table, file in files.items():
        write_table(file, tables[table])
    return 0


def _files(assignments: list[str], tables: Iterable[str]) -> dict[str, str]:
    """File by table, from TABLE=FILE."""
    files = dict(assignment.partition("=")[::2] for assignment in assignments)
    wrong = sorted(name for name in files if name not in tables or not files[name])
    if wrong:
        raise ValueError(f"write must be TABLE=FILE with a table of {', '.join(tables)}, not {wrong[0]!r}")
    return files


if __name__ == "__main__":
    sys.exit(main())
