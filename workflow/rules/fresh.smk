# What is made again although no date and no record of Snakemake asks for it: results themselves say what they came
# from. Aggregates are compared with the configuration; if one differs or is missing, so are the lists of its jobs.
# Figures, tables and pages cannot; a record beside them does, with their checksums.
import functools

from deepbures.study.results import freshness


@functools.cache
def outdated(experiment):
    """Aggregates and job lists of an experiment that are there and came from something else."""
    aggregates = [
        f"{RESULTS}/{experiment}/{table}.parquet" for table in tables_of(experiment)
    ]
    expected = expected_of([experiment])[experiment]
    found = {path for path in aggregates if freshness.differs(path, expected)}
    if found or not all(Path(path).exists() for path in aggregates):
        for job, parts in JOBS[experiment].items():
            keys = [key_of(experiment, part) for part in parts]
            if freshness.lists_other_cells(job_list(experiment, job), keys):
                found.add(job_list(experiment, job))
    return found


def fresh_job_lists(experiment):
    """Lists of an experiment's jobs as input; asking for them has what is outdated made again, the aggregates too."""
    if workflow.is_main_process:
        workflow.dag.forcefiles |= outdated(experiment)
    return [job_list(experiment, job) for job in JOBS[experiment]]


def record_of(name):
    """The record of what the files of a rule were made from."""
    return f"{RESULTS}/made/{name}.json"


def expected_of(experiments):
    """What the aggregates of experiments must say of themselves."""
    return {
        experiment: {**provenance_of(experiment), "code": run_code(experiment)}
        for experiment in experiments
    }


def unless_current(name, made_from, files, needed):
    """What a rule needs as input; asking for it has its files made again if they are not as its record says."""
    if workflow.is_main_process:
        if not freshness.is_as_recorded(record_of(name), made_from, files):
            workflow.dag.forcefiles |= set(map(str, files))
    return needed
