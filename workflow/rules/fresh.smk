# What is made again although no date and no record of Snakemake asks for it: result files say themselves what they
# came from. Aggregates are compared with the configuration; if one differs or is missing, so are its jobs' files.
import functools

from deepbures import freshness


@functools.cache
def outdated(experiment):
    """Result files of an experiment that are there and came from something else."""
    tables = tables_of(experiment)
    aggregates = [f"{RESULTS}/{experiment}/{table}.parquet" for table in tables]
    expected = {**provenance_of(experiment), "code": run_code(experiment)}
    found = {path for path in aggregates if freshness.is_outdated(path, expected)}
    if found or not all(Path(path).exists() for path in aggregates):
        target = target_checksum(experiment)
        for job, parts in JOBS[experiment].items():
            asked_for = [part.key for part in parts], run_code(experiment), target
            files = [
                f"{RESULTS}/{experiment}/{table}/{job}.parquet" for table in tables
            ]
            found |= {path for path in files if freshness.lacks_parts(path, *asked_for)}
    return found


def fresh_job_files(experiment, table):
    """Files of an experiment's jobs as input; asking for them has what is outdated made again, the aggregates too."""
    if workflow.is_main_process:
        workflow.dag.forcefiles |= outdated(experiment)
    return job_files(experiment, table)
