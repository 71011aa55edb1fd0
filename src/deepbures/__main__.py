"""Command line: run one cell of the grid, list the cells of a configuration, print a file's provenance."""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Iterable
from typing import Any

#: CPU seconds that a cell of the default study takes for one seed, on a small machine: what `cells` estimates with.
_COSTS = {
    "flow": 0.5,
    "descent": 0.4,
    "finite_sample": 0.5,
    "hessian": 0.08,
    "blow_up": 0.06,
    "paths": 0.04,
    "expansion": 0.08,
    "escape": 0.8,
    "surface": 1.4,
    "critical_search": 1.5,
}
#: CPU seconds for a process to start and load what it needs.
_START = 1.0


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; 0 when all went well, 2 on a user's mistake."""
    parser = argparse.ArgumentParser(prog="deepbures", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="compute cells, each for a block of seeds")
    run.add_argument("--cell", required=True, nargs="+", help="settings of each cell, as JSON")
    run.add_argument("--seeds", required=True, nargs="+", help="seed indices FIRST-LAST for each cell")
    run.add_argument("--write", required=True, nargs="+", metavar="TABLE=FILE", help="Parquet files to write")
    run.add_argument(
        "--keep", action="store_true", help="keep what went well in FILE.kept, and take from there what is up to date"
    )
    cells = commands.add_parser("cells", help="list what a configuration would compute")
    cells.add_argument("configurations", nargs="+", metavar="CONFIG", help="YAML files, each laid over the one before")
    cells.add_argument("--schema", default="workflow/schemas/config.schema.yaml", help="schema of configurations")
    cells.add_argument("--experiment", help="one experiment: its cells, each with its settings as JSON")
    info = commands.add_parser("info", help="print what a result file came from")
    info.add_argument("file", help="Parquet file of this package")
    claims = commands.add_parser("claims", help="put the table of claims into a page, between its marker lines")
    claims.add_argument("table", help="claims.csv of a study")
    claims.add_argument("page", help="Markdown file, such as README.md")
    options = parser.parse_args(arguments)

    logging.basicConfig(format="%(asctime)s %(message)s", datefmt="%H:%M:%S", level=logging.INFO)
    try:
        {"run": _run, "cells": _cells, "info": _info, "claims": _claims}[options.command](options)
    except BrokenPipeError:  # the reader of the output has seen enough
        sys.stderr.close()
    except (ValueError, OSError) as error:
        print(f"deepbures: {error}", file=sys.stderr)
        return 2
    return 0


def _run(options: argparse.Namespace) -> None:
    from .experiment import run_parts, tables_of
    from .grid import seeds_of
    from .store import write_parts

    if len(options.cell) != len(options.seeds):
        raise ValueError(f"each cell needs its seeds: {len(options.cell)} cells, {len(options.seeds)} blocks of seeds")
    cells = [_settings(cell) for cell in options.cell]
    blocks = [seeds_of(seeds) for seeds in options.seeds]
    files = _files(options.write, tables_of(cells[0]))
    kept = {table: f"{file}.kept" for table, file in files.items()} if options.keep else {}
    parts, mistakes = run_parts(list(zip(cells, blocks, strict=True)), kept)
    for table, file in kept.items():
        if parts[table]:
            write_parts(file, parts[table])
    if mistakes:
        raise ValueError("; ".join(mistakes))
    for table, file in files.items():
        write_parts(file, parts[table])


def _settings(cell: str) -> dict[str, Any]:
    try:
        settings = json.loads(cell)
    except json.JSONDecodeError as error:
        raise ValueError(f"cell must be JSON: {error}") from None
    if not isinstance(settings, dict):
        raise ValueError(f"cell must be JSON with the settings of a cell, not {cell[:60]!r}")
    return settings


def _cells(options: argparse.Namespace) -> None:
    from . import configuration, grid

    config = configuration.check(configuration.merged(options.configurations), configuration.read(options.schema))
    if options.experiment is not None:
        if options.experiment not in config["experiments"]:
            known = ", ".join(config["experiments"])
            raise ValueError(f"there is no experiment {options.experiment!r}; there are {known}")
        for path, cell in {cell.path: cell for cell in grid.cells(config, options.experiment)}.items():
            print(f"{path}\t{json.dumps(cell.settings, sort_keys=True)}")
        return
    print(f"{'experiment':20} {'kind':16} {'cells':>6} {'computed':>9} {'seeds':>6} {'jobs':>6} {'CPU min':>8}")
    total_jobs, total = 0, 0.0
    for name, block in config["experiments"].items():
        cells = grid.cells(config, name)
        computed, jobs = len({cell.path for cell in cells}), len(grid.jobs(config, name))
        minutes = (computed * block["seeds"] * _COSTS.get(block["kind"], 0.5) + jobs * _START) / 60
        total_jobs, total = total_jobs + jobs, total + minutes
        counts = f"{len(cells):6} {computed:9} {block['seeds']:6} {jobs:6} {minutes:8.1f}"
        print(f"{name:20} {block['kind']:16} {counts}")
    print(f"{total_jobs} jobs, about {total:.0f} min of CPU if cells take as long as those of the default study")


def _info(options: argparse.Namespace) -> None:
    from .store import read_metadata

    print(json.dumps(read_metadata(options.file), indent=1, sort_keys=True))


def _claims(options: argparse.Namespace) -> None:
    import pandas as pd

    from .claims import insert
    from .store import replacing

    with open(options.page, encoding="utf-8") as page:
        text = insert(page.read(), pd.read_csv(options.table))
    with replacing(options.page) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _files(assignments: list[str], tables: Iterable[str]) -> dict[str, Any]:
    """File by table, from TABLE=FILE."""
    files = dict(assignment.partition("=")[::2] for assignment in assignments)
    wrong = sorted(name for name in files if name not in tables or not files[name])
    if wrong:
        raise ValueError(f"write must be TABLE=FILE with a table of {', '.join(tables)}, not {wrong[0]!r}")
    return files


if __name__ == "__main__":
    sys.exit(main())
