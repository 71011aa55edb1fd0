# The checked configuration, and what the rules take from it.
import json
import os
import sys

from deepbures.study import configuration, cost
from deepbures.process import environment
from deepbures.study.grid import cells as grid
from deepbures.study.results import store
from deepbures.study.grid import target
from deepbures.study.results.code_digest import code_digest, modules_of
from deepbures.study.run import roots
from deepbures.study.kinds import kind
from deepbures.study.results.atomic import checksum, digest_of

# Jobs inherit it: the user's settings for other programs change no result and no figure.
# Jobs run in the interpreter that runs Snakemake, whatever python is first on the path.
neutral = environment.neutral(os.environ)
os.environ.clear()
os.environ.update(neutral, DEEPBURES_PYTHON=sys.executable)


def read_yaml(path):
    """A file of the workflow."""
    return configuration.read(workflow.source_path(path))


def workflow_file(path):
    """A file of the workflow as input, from what source_path gives: for a local one the file itself and no copy.

    Relative where it lies below the working directory, so that a study may be moved.
    """
    original = path.flags["sourcecache_entry"]
    full = os.path.abspath(original if os.path.exists(original) else path)
    inside = os.path.commonpath([full, os.getcwd()]) == os.getcwd()
    return os.path.relpath(full) if inside else full


def checked_study():
    """The configuration and the families of figures, checked; on a mistake, one line and no job."""
    try:
        if (
            not workflow.modifier.skip_configfile
        ):  # Snakemake's own reading loses a block that is given twice
            for file in dict.fromkeys(map(str, workflow.configfiles)):
                configuration.read(file)
            configuration.lay_over(
                config,
                configuration.of_command_line(workflow.config_settings.config or {}),
            )
        families = configuration.check_families(read_yaml("../figures.yaml"))
        study = configuration.check(config, families)
    except configuration.ConfigurationError as mistake:
        sys.exit(f"configuration: {mistake}")
    return study, families


STUDY, ALL_FAMILIES = checked_study()
RESULTS = STUDY["study"]["results"]
FIGURE_FOLDER = STUDY["study"]["figures"]
# Below logs/, wherever the results are.
LOGS = os.path.join(
    "logs", *(part for part in Path(RESULTS).parts if part not in (os.sep, ".."))
)

# What jobs took on this machine: used only to tell how long the next run will take.
COSTS = "logs/costs.csv"

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
    return code_digest(*roots(STUDY["experiments"][experiment]["kind"]))


def target_checksums(experiment):
    """Checksums of a target's files: a parameter of what is computed from them, as their dates say nothing."""
    return target.checksums_of(STUDY["experiments"][experiment]["target"]) or None


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
    """Digest of all that the configuration says of an experiment, of its target's files, and of the study's seed."""
    target = target_checksums(experiment)
    return digest_of(
        {
            "seed": STUDY["study"]["seed"],
            **STUDY["experiments"][experiment],
            **({"target_files": target} if target else {}),
        }
    )


def provenance_of(experiment):
    """What an aggregate says of itself besides what its cells say: the configuration that it came from."""
    return {
        "experiment": experiment,
        "configuration": configuration_digest(experiment),
        "collected_by": code_digest("study.results.aggregate"),
        "study_seed": STUDY["study"]["seed"],
        "seeds": STUDY["experiments"][experiment]["seeds"],
    }


def shown(experiment, show):
    """What a figure shows, as a line for its caption."""
    block = STUDY["experiments"][experiment]
    grid_shown = {**block["grid"], **show}
    values = "; ".join(
        f"{axis} {', '.join(map(str, grid_shown[axis]))}" for axis in grid_shown
    )
    return f"Experiment {experiment}: n = {block['dimension']}, {block['seeds']} seeds; {values}."
