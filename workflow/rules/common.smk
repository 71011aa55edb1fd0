# The checked configuration, and what the rules take from it.
import json
import os
import sys

import deepbures
from deepbures.study import configuration, cost
from deepbures.process import environment
from deepbures.study.grid import cells as grid
from deepbures.study.results import aggregate, parquet, stamps, store
from deepbures.study.grid import target
from deepbures.study.results.code_digest import code_digest, modules_of
from deepbures.study.run import roots
from deepbures.study.kinds import kind
from deepbures.study.results.atomic import digest_of

# An environment that was copied or moved with its folder would run the code of another one, in silence.
own = os.path.abspath("src/deepbures/__init__.py")
if os.path.exists(own) and not os.path.samefile(own, deepbures.__file__):
    sys.exit(
        f"the environment runs {os.path.dirname(deepbures.__file__)}, not src/deepbures of this folder: "
        "call make, which makes one for this folder"
    )

# Jobs inherit it: the user's settings for other programs change no result and no figure.
# Jobs run in the interpreter that runs Snakemake, whatever python is first on the path.
neutral = environment.neutral(os.environ)
os.environ.clear()
os.environ.update(neutral, DEEPBURES_PYTHON=sys.executable)
if sys.flags.no_user_site:
    os.environ.update(PYTHONNOUSERSITE="1")


def workflow_file(path):
    """A file of the workflow as input, from what source_path gives: for a local one the file itself and no copy.

    Relative where it lies below the working directory, so that a study may be moved.
    """
    full = os.path.abspath(original(path) if os.path.exists(original(path)) else path)
    inside = os.path.commonpath([full, os.getcwd()]) == os.getcwd()
    return os.path.relpath(full) if inside else full


def checked_study():
    """The configuration and the families of figures, checked; on a mistake, one line and no job."""
    try:
        study = config
        if given_configuration():
            files, changes = given_configuration()
            study = configuration.merged(files)
            configuration.lay_over(study, configuration.of_command_line(changes))
        families = configuration.check_families(configuration.read(workflow.source_path("../figures.yaml")))
        study = configuration.check(study, families)
    except configuration.ConfigurationError as mistake:
        sys.exit(f"configuration: {mistake}")
    return study, families


STUDY, ALL_FAMILIES = checked_study()
RESULTS = STUDY["study"]["results"]
FIGURE_FOLDER = STUDY["study"]["figures"]
# Below logs/, wherever the results are.
LOGS = os.path.join("logs", *(part for part in Path(RESULTS).parts if part not in (os.sep, "..")))

# What jobs took on this machine: used only to tell how long the next run will take.
COSTS = "logs/costs.csv"

# Jobs by experiment and path: paths are never parsed back.
JOBS = {experiment: grid.jobs(STUDY, experiment) for experiment in STUDY["experiments"]}


wildcard_constraints:
    job=r"shared/\d+-of-\d+|[a-z_]+=[^/]+(/[a-z_]+=[^/]+)*",


def stamp(name, wanted, files, as_wanted):
    """The stamp of some files as an input: newer than they are if they are not what is wanted (see `stamps`)."""
    path = f"{RESULTS}/.wanted/{name}"
    if is_main_process():
        stamps.date(Path(path), wanted, files, as_wanted)
    return local(path)


def signed_stamp(name, wanted, files):
    """The stamp of files the first of which says what they were made from."""
    first, *others = map(str, files)
    return stamp(name, wanted, files, lambda: stamps.is_signed(first, wanted, others))


def table_paths(experiment):
    """Files of an experiment's tables."""
    tables = kind(STUDY["experiments"][experiment]["kind"]).TABLES
    return [f"{RESULTS}/{experiment}/{table}.parquet" for table in tables]


def planned_code(*roots):
    """Digest of the code that a job depends on, and its modules, by which the job checks that it is still that code."""
    return [code_digest(*roots), *roots]


def expected_of(experiment):
    """What the tables of an experiment must say of themselves: the code and the configuration that they came from."""
    block, seed = STUDY["experiments"][experiment], STUDY["study"]["seed"]
    checksums = target.checksums_of(block["target"])
    return {
        "experiment": experiment,
        "configuration": digest_of({"seed": seed, **block, **({"target_files": checksums} if checksums else {})}),
        "code": code_digest(*roots(block["kind"])),
        "collected_by": code_digest(aggregate.ROOT),
        "study_seed": seed,
        "seeds": block["seeds"],
    }


EXPECTED = {experiment: expected_of(experiment) for experiment in STUDY["experiments"]}
# Digest of all that the parts of an experiment are computed from.
PLANS = {
    experiment: digest_of([EXPECTED[experiment], grid.shared_jobs(STUDY, experiment)])
    for experiment in STUDY["experiments"]
}


def part_of_job(experiment, job):
    """The file of a job's cells."""
    return f"{RESULTS}/{experiment}/{store.FOLDER}/{PLANS[experiment]}/{job}{store.PART}"


def tables_are_current(experiment):
    """Whether the tables of an experiment say that they came from what is wanted; a broken one ends the run."""
    claims = map(parquet.claimed, table_paths(experiment))
    if all(EXPECTED[experiment].items() <= claim.items() for claim in claims):
        return True
    try:
        cost.cells_of(STUDY, experiment)
    except ValueError as broken:
        sys.exit(str(broken))
    return False


def wanted_tables(experiment):
    """What is to be collected, for the command line."""
    study = {
        "study": {"seed": STUDY["study"]["seed"]},
        "experiments": {experiment: STUDY["experiments"][experiment]},
    }
    return json.dumps({"config": study, "wanted": EXPECTED[experiment]}, sort_keys=True)


def target_files(experiment):
    """By path, where a run finds the files of a target: a folder whose name is what they must hold, whatever their date."""
    given = STUDY["experiments"][experiment]["target"]
    return {
        path: f"{RESULTS}/.targets/{content}/{os.path.basename(path)}"
        for path, content in zip(target.files_of(given), target.checksums_of(given))
    }


def settings_of(part, files):
    """The settings of a cell for the command line, with the files of its target where they are."""
    moved = target.with_files(part.cell.settings["target"], files)
    return json.dumps({**part.cell.settings, "target": moved}, sort_keys=True)


def folder_of_parts(part, job):
    """The folder of an experiment's parts, from the path of a job's part."""
    return str(part).removesuffix(os.path.join(os.sep, f"{job}{store.PART}"))
