# The checked configuration, and what the rules take from it.
import json
import sys

from deepbures import configuration, grid, store, target_files
from deepbures.code_digest import code_digest
from deepbures.experiment import root
from deepbures.experiment.kinds import kind
from deepbures.files import digest_of


def read_yaml(path):
    """A file of the workflow."""
    return configuration.read(workflow.source_path(path))


def checked_study():
    """The configuration and the families of figures, checked; on a mistake, one line and no job."""
    try:
        families = configuration.check_families(
            read_yaml("../figures.yaml"), read_yaml("../schemas/figures.schema.yaml")
        )
        study = configuration.check(
            config, read_yaml("../schemas/config.schema.yaml"), families
        )
    except configuration.ConfigurationError as mistake:
        sys.exit(f"configuration: {mistake}")
    return study, families


STUDY, ALL_FAMILIES = checked_study()
RESULTS = STUDY["study"]["results"]
FIGURE_FOLDER = STUDY["study"]["figures"]

# Jobs by experiment and path: paths are never parsed back.
JOBS = {experiment: grid.jobs(STUDY, experiment) for experiment in STUDY["experiments"]}


wildcard_constraints:
    job=r"shared/\d+-of-\d+|[a-z_]+=[^/]+(/[a-z_]+=[^/]+)*",


def job_list(experiment, job):
    """What a job leaves behind: the list of its cells, once all of them are in the store of the experiment."""
    return f"{RESULTS}/{experiment}/jobs/{job}.json"


def tables_of(experiment):
    """Names of an experiment's tables."""
    return list(kind(STUDY["experiments"][experiment]["kind"]).TABLES)


def key_of(experiment, part):
    """What the store of an experiment knows a part by."""
    content = store.part_of(part.cell.settings, part.seeds)
    return store.key_of(content, run_code(experiment))


def run_code(experiment):
    """Digest of the code that the cells of an experiment depend on."""
    return code_digest(root(STUDY["experiments"][experiment]["kind"]))


def target_file(block):
    """The file that an experiment's target comes from, as a list; [] if targets are drawn."""
    file = target_files.file_of(block["target"])
    return [] if file is None else [file]


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


def configuration_digest(experiment):
    """Digest of all that the configuration says of an experiment, and of the study's seed."""
    return digest_of(
        {"seed": STUDY["study"]["seed"], **STUDY["experiments"][experiment]}
    )


def shown(experiment, show):
    """What a figure shows, as a line for its caption."""
    block = STUDY["experiments"][experiment]
    grid_shown = {**block["grid"], **show}
    values = "; ".join(
        f"{axis} {', '.join(map(str, grid_shown[axis]))}" for axis in grid_shown
    )
    return f"Experiment {experiment}: n = {block['dimension']}, {block['seeds']} seeds; {values}."
