"""Command line: run one cell of the grid, list the cells of a configuration, print a file's provenance."""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Iterable
from typing import Any

from .process.shipped import WORKFLOW


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns 0 if all went well, 2 on a user's mistake."""
    parser = argparse.ArgumentParser(prog="deepbures", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="compute cells, each for a block of seeds")
    run.add_argument("--cell", required=True, nargs="+", help="settings of each cell, as JSON")
    run.add_argument("--seeds", required=True, nargs="+", help="seed indices FIRST-LAST for each cell")
    run.add_argument("--write", nargs="+", default=[], metavar="TABLE=FILE", help="Parquet files to write")
    run.add_argument("--store", metavar="FOLDER", help="folder of an experiment: compute what its store does not hold")
    run.add_argument("--list", metavar="FILE", help="with --store: JSON file that lists the cells, once all are there")
    run.add_argument(
        "--costs", metavar="FILE", help="with --store: table of CPU times that what was computed is added to"
    )
    cells = commands.add_parser("cells", help="list what a configuration would compute")
    cells.add_argument("configurations", nargs="+", metavar="CONFIG", help="YAML files, each laid over the one before")
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
    from .study import cost
    from .study.grid.cells import seeds_of
    from .study.results.atomic import replacing
    from .study.results.parquet import write
    from .study.results.store import Store
    from .study.run import complete, run_cell, tables_of

    if len(options.cell) != len(options.seeds):
        raise ValueError(f"each cell needs its seeds: {len(options.cell)} cells, {len(options.seeds)} blocks of seeds")
    if not options.write and not (options.store and options.list):
        raise ValueError("run needs --write, or --store and --list")
    cells = [_settings(cell) for cell in options.cell]
    kinds = sorted({str(cell.get("kind")) for cell in cells})
    if len(kinds) > 1:
        raise ValueError(f"cells that are computed together must be of one kind, not {', '.join(kinds)}")
    schemas = tables_of(cells[0])
    files = _files(options.write, schemas)
    parts = [(cell, seeds_of(seeds)) for cell, seeds in zip(cells, options.seeds, strict=True)]
    if options.store:
        start = cost.cpu_seconds()
        held, mistakes, runs = complete(Store(options.store, schemas), parts)
        if options.costs and runs:
            cost.note(options.costs, cost.Spent(kinds[0], runs, start, cost.cpu_seconds() - start))
        if mistakes:
            raise ValueError("; ".join(mistakes))
        with replacing(options.list) as temporary:
            temporary.write_text(json.dumps(held, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    if files:
        computed = [run_cell(cell, seeds) for cell, seeds in parts]
        for table, file in files.items():
            write(file, [tables[table] for tables in computed])


def _settings(cell: str) -> dict[str, Any]:
    try:
        settings = json.loads(cell)
    except json.JSONDecodeError as error:
        raise ValueError(f"cell must be JSON: {error}") from None
    if not isinstance(settings, dict):
        raise ValueError(f"cell must be JSON with the settings of a cell, not {cell[:60]!r}")
    return settings


def _cells(options: argparse.Namespace) -> None:
    from .study import configuration, cost
    from .study.grid import cells as grid

    families = configuration.check_families(configuration.read(WORKFLOW / "figures.yaml"))
    config = configuration.check(configuration.merged(options.configurations), families)
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
        computed, jobs = len({cell.path for cell in cells}), grid.jobs(config, name)
        minutes = sum(cost.Costs().of_job(block["kind"], parts) for parts in jobs.values()) / 60
        total_jobs, total = total_jobs + len(jobs), total + minutes
        counts = f"{len(cells):6} {computed:9} {block['seeds']:6} {len(jobs):6} {minutes:8.1f}"
        print(f"{name:20} {block['kind']:16} {counts}")
    print(f"{total_jobs} jobs, about {total:.0f} min of CPU if cells take as long as those of the default study")


def _info(options: argparse.Namespace) -> None:
    from .study.results.parquet import read_metadata

    print(json.dumps(read_metadata(options.file), indent=1, sort_keys=True))


def _claims(options: argparse.Namespace) -> None:
    from .claims import insert, read
    from .study.results.atomic import replacing

    with open(options.page, encoding="utf-8") as page:
        text = insert(page.read(), read(options.table))
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
