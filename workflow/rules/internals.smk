# What Snakemake's documentation does not have: each attribute that is used, and why. tests/workflow/test_internals.py
# says which is missing in another version.


def is_main_process():
    """Whether this process plans the run: only it may date stamps, not those that read the workflow for their jobs."""
    return workflow.is_main_process


def given_configuration():
    """Configuration files, each laid over the one before, and what follows --config.

    Snakemake's own reading loses a block that is given twice, and merges a target with the one that it replaces. None
    where another workflow, which uses this one as a module, gives the configuration.
    """
    if workflow.modifier.skip_configfile:
        return None
    settings = workflow.config_settings
    own = [] if settings.replace_workflow_config else workflow.configfiles[len(settings.configfiles) :]
    return [*map(str, [*own, *settings.configfiles])], settings.config or {}


def original(path):
    """Where a file of the workflow is from what source_path gives, a copy whose path is another one in every run."""
    return str(path.flags["sourcecache_entry"])


def jobs_to_run():
    """Rule, and job wildcard if there is one, of every job that will run: before the run it says what that costs."""
    return [(job.rule.name, job.wildcards.get("job")) for job in workflow.dag.needrun_jobs()]


def let_jobs_start_at_any_rate():
    """Take the limit from the rate of local jobs, before the run.

    With one (100 a second by default) Snakemake examines all jobs that are ready once a second for each job that has
    started or ended so far: in a study of 67 jobs its process took 4.1 s of CPU, and without the limit 2.4 s.
    """
    if workflow.local_exec:
        workflow.scheduler.job_rate_limiter = None
