"""Command line: compute and collect cells, list the cells of a configuration, print the origin of a table."""

import argparse
import json
import logging
import os
import sys
from pathlib import Path
from typing import Any

from .process.shipped import WORKFLOW


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns 0 if all went well, 2 on a user's mistake."""
    parser = argparse.ArgumentParser(prog="deepbures", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="compute cells, each for a block of seeds, into one file, a part")
    run.add_argument("--cell", required=True, nargs="+", help="settings of each cell, as JSON")
    run.add_argument("--seeds", required=True, nargs="+", help="seed indices FIRST-LAST for each cell")
    run.add_argument("--part", required=True, type=Path, help="file to write")
    run.add_argument("--code", help="digest of the code with which the run was planned; another one is refused")
    run.add_argument("--costs", metavar="FILE", help="table of CPU times that what was computed is added to")
    collect = commands.add_parser("collect", help="collect the parts of an experiment into its tables")
    collect.add_argument("--experiment", required=True, help="what is collected, as JSON: see workflow/rules")
    collect.add_argument("--parts", required=True, type=Path, help="folder of the parts")
    collect.add_argument("--tables", required=True, nargs="+", type=Path, help="files to write, in the kind's order")
    cells = commands.add_parser("cells", help="list what a configuration would compute")
    cells.add_argument("configurations", nargs="+", metavar="CONFIG", help="YAML files, each laid over the one before")
    cells.add_argument("--experiment", help="one experiment: its cells, each with its settings as JSON")
    check = commands.add_parser("check", help="check a configuration, and print the folder of its results")
    check.add_argument("configurations", nargs="+", metavar="CONFIG", help="YAML files, each laid over the one before")
    info = commands.add_parser("info", help="print what a result file came from")
    info.add_argument("file", help="Parquet file of this package")
    _add_study(commands)
    claims = commands.add_parser("claims", help="put the table of claims into a page, or list what the claims detect")
    claims.add_argument("files", nargs="+", metavar="FILE", help="claims.csv and a page; with --power, configurations")
    claims.add_argument(
        "--power", action="store_true", help="judge the claims of a study that was made on changed tables"
    )
    options = parser.parse_args(arguments)

    logging.basicConfig(format="%(asctime)s %(message)s", datefmt="%H:%M:%S", level=logging.INFO)
    try:
        commands_of = {"run": _run, "collect": _collect, "check": _check, "cells": _cells, "info": _info}
        {**commands_of, "study": _study, "claims": _claims}[options.command](options)
    except BrokenPipeError:  # the reader of the output has seen enough
        sys.stderr.close()
    except (ValueError, OSError) as error:
        print(f"deepbures: {error}", file=sys.stderr)
        return 2
    return 0


def _add_study(commands: Any) -> None:
    """The command `study` with its options."""
    study = commands.add_parser("study", help="write the configuration of a study of your own covariance")
    study.add_argument("file", help="covariance, or samples (one per row): .npy, .csv, .parquet and others")
    study.add_argument("--samples", action="store_true", help="the file holds samples, even if its matrix is symmetric")
    study.add_argument("--rank", type=int, nargs="+", help="k; by default at the largest gaps of the spectrum")
    study.add_argument("--depth", type=int, nargs="+", help="N; by default from 1 to 50")
    study.add_argument("--epsilon", type=float, nargs="+", help="ε; by default 0 and fractions of λ_k")
    study.add_argument("--seeds", type=int, default=5, help="number of random starts (default 5)")
    study.add_argument("--output", type=Path, help="YAML file to write; by default named after FILE, in this folder")


def _run(options: argparse.Namespace) -> None:
    from .study import cost
    from .study.grid.cells import seeds_of
    from .study.grid.target import checksums_of, files_of
    from .study.results.provenance import check_code
    from .study.run import complete, roots

    if len(options.cell) != len(options.seeds):
        raise ValueError(f"each cell needs its seeds: {len(options.cell)} cells, {len(options.seeds)} blocks of seeds")
    cells = [_settings(cell) for cell in options.cell]
    kinds = sorted({str(cell.get("kind")) for cell in cells})
    if len(kinds) > 1:
        raise ValueError(f"cells that are computed together must be of one kind, not {', '.join(kinds)}")
    if options.code:  # files of a target are in folders that are named by their checksums
        check_code(options.code, *roots(kinds[0]))
        for file, checksum in zip(files_of(cells[0]["target"]), checksums_of(cells[0]["target"]), strict=False):
            if Path(file).parent.name != checksum:
                raise ValueError(f"{os.path.realpath(file)} was changed after this run was planned: run again")
    runs = complete(options.part, [(cell, seeds_of(seeds)) for cell, seeds in zip(cells, options.seeds, strict=True)])
    if options.costs and runs:
        cost.note(options.costs, kinds[0], cells[0]["dimension"], runs)


def _collect(options: argparse.Namespace) -> None:
    from .study.grid import cells as grid
    from .study.kinds import kind
    from .study.results import aggregate, provenance, store
    from .study.run import roots

    config, wanted = json.loads(options.experiment).values()
    name, code = wanted["experiment"], wanted["code"]
    schemas = kind(config["experiments"][name]["kind"]).TABLES
    provenance.check_code(code, *roots(config["experiments"][name]["kind"]))
    provenance.check_code(wanted["collected_by"], aggregate.ROOT)
    points = [
        (part.cell.axes, store.key_of(store.part_of(part.cell.settings, part.seeds), code))
        for part in grid.parts(config, name)
    ]
    parts = sorted(options.parts.rglob("*.part"))
    tables = dict(zip(schemas, options.tables, strict=True))
    aggregate.collect(parts, tables, schemas, points, wanted)


def _settings(cell: str) -> dict[str, Any]:
    try:
        settings = json.loads(cell)
    except json.JSONDecodeError as error:
        raise ValueError(f"cell must be JSON: {error}") from None
    if not isinstance(settings, dict):
        raise ValueError(f"cell must be JSON with the settings of a cell, not {cell[:60]!r}")
    return settings


def _configuration(files: list[str]) -> dict[str, Any]:
    from .study import configuration

    families = configuration.check_families(configuration.read(WORKFLOW / "figures.yaml"))
    return configuration.check(configuration.merged(files), families)


def _check(options: argparse.Namespace) -> None:
    print(_configuration(options.configurations)["study"]["results"])


def _cells(options: argparse.Namespace) -> None:
    from .study import cost
    from .study.grid import cells as grid

    config = _configuration(options.configurations)
    if options.experiment is not None:
        if options.experiment not in config["experiments"]:
            known = ", ".join(config["experiments"])
            raise ValueError(f"there is no experiment {options.experiment!r}; there are {known}")
        for path, cell in {cell.path: cell for cell in grid.cells(config, options.experiment)}.items():
            print(f"{path}\t{json.dumps(cell.settings, sort_keys=True)}")
        return
    print(
        f"{'experiment':20} {'kind':16} {'cells':>6} {'computed':>9} {'seeds':>6} {'jobs':>6} {'new':>6} {'CPU min':>8}"
    )
    total_jobs, total_new, total = 0, 0, 0.0
    for name, block in config["experiments"].items():
        cells, jobs, new = grid.cells(config, name), len(grid.jobs(config, name)), cost.missing(config, name)
        minutes = cost.of_parts([], block, new.values(), min(jobs, len(new))) / 60
        total_jobs, total_new, total = total_jobs + jobs, total_new + len(new), total + minutes
        counts = f"{len(cells):6} {len({cell.path for cell in cells}):9} {block['seeds']:6} {jobs:6} {len(new):6}"
        print(f"{name:20} {block['kind']:16} {counts} {minutes:8.1f}")
    print(
        f"{total_jobs} jobs; {total_new} cells are new, about {total:.0f} min of CPU if they take as long as by default"
    )


def _info(options: argparse.Namespace) -> None:
    from .study.results.parquet import Table

    table = Table(options.file)
    table.verify()
    print(json.dumps(table.metadata, indent=1, sort_keys=True))


def _study(options: argparse.Namespace) -> None:
    from .study import configuration
    from .study.own_target import configuration_of, name_of, target_of

    target = target_of(options.file, options.samples)
    output = options.output or Path(f"{name_of(options.file)}.yaml")
    text = configuration_of(
        target, output.stem, ranks=options.rank, depths=options.depth, epsilons=options.epsilon, seeds=options.seeds
    )
    try:
        with output.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise ValueError(f"{output} is there already: name another file with --output, or delete it") from None
    block = configuration.read(output)["experiments"]["low_rank"]["grid"]
    chosen = "; ".join(f"{axis} {', '.join(map(str, values))}" for axis, values in block.items())
    print(f"{options.file}: {next(iter(target))}; below full rank: {chosen}")
    print(f"{output} holds the study, with comments. What it will compute, and the report:")
    print(f"  python -m deepbures cells config/config.yaml {output}\n  make report CONFIG={output}")


def _claims(options: argparse.Namespace) -> None:
    from .claims import insert, read
    from .study.results.atomic import replacing

    if options.power:
        return _power(options.files)
    if len(options.files) != 2:
        raise ValueError(f"the table of claims and a page are needed, not {len(options.files)} files")
    table, page = options.files
    with open(page, encoding="utf-8") as file:
        text = insert(file.read(), read(table))
    with replacing(page) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _power(configurations: list[str]) -> None:
    from .claims import Study, Tables, about, detections
    from .study.grid import target

    config = _configuration(configurations)
    experiments = {
        name: Tables(
            Path(config["study"]["results"], name),
            block["kind"],
            **target.stream_of(block["dimension"], block["target"]),
        )
        for name, block in config["experiments"].items()
    }
    study, silent = Study(experiments), []
    for statement in about(study):
        claim, found = detections(statement, study)
        print(f"{claim.name}: {claim.verdict}")
        for one in found:
            change = one.mutation.described((one.sign,))
            print(f"    {'detected' if one.seen else 'silent  '}  {change}: {one.verdict}")
            if claim.cases and not one.seen:
                silent.append(f"{claim.name} ({change})")
    if silent:
        raise ValueError(f"changes that were not detected: {', '.join(silent)}")


if __name__ == "__main__":
    sys.exit(main())
