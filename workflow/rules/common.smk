# The checked configuration, and what the rules take from it.
import json
import sys

import yaml

from deepbures import configuration, grid, store


def checked_study():
    """The configuration, checked; on a mistake, one line and no job."""
    schema = yaml.safe_load(
        Path(workflow.source_path("../schemas/config.schema.yaml")).read_text(
            encoding="utf-8"
        )
    )
    try:
        return configuration.check(config, schema)
    except configuration.ConfigurationError as mistake:
        sys.exit(f"configuration: {mistake}")


STUDY = checked_study()
RESULTS = STUDY["study"]["results"]
FIGURE_FOLDER = STUDY["study"]["figures"]

# Cells by experiment and path: paths are never parsed back. Cells that are one problem share a path.
CELLS = {
    experiment: {cell.path: cell for cell in grid.cells(STUDY, experiment)}
    for experiment in STUDY["experiments"]
}


wildcard_constraints:
    cell="[a-z_]+=[^/]+(/[a-z_]+=[^/]+)*",
    seeds="[0-9]+-[0-9]+",


def job_files(experiment, table):
    """Result files of an experiment's jobs, in grid order."""
    return [
        f"{RESULTS}/{experiment}/{table}/{cell.path}/seeds={seeds}.parquet"
        for cell, seeds in grid.jobs(STUDY, experiment)
    ]


def tables_of(experiment):
    """Names of an experiment's tables."""
    return list(store.SCHEMAS[STUDY["experiments"][experiment]["kind"]])


def figure_files(*names):
    """The two files of each figure."""
    return [
        f"{FIGURE_FOLDER}/{name}.{suffix}"
        for name in names
        for suffix in ("pdf", "png")
    ]


def table_files(*names):
    """The two files of each table."""
    return [
        f"{RESULTS}/tables/{name}.{suffix}"
        for name in names
        for suffix in ("csv", "tex")
    ]
