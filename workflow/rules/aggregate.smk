# The tables of an experiment, from all its cells.
for experiment, block in STUDY["experiments"].items():

    rule:
        name:
            f"collect_{experiment}"
        input:
            lambda wildcards, experiment=experiment: fresh_job_lists(experiment),
        output:
            [
                f"{RESULTS}/{experiment}/{table}.parquet"
                for table in tables_of(experiment)
            ],
        log:
            f"{LOGS}/{experiment}/collect.log",
        localrule: True
        params:
            kind=block["kind"],
            folder=lambda wildcards, output: str(Path(output[0]).parent),
            provenance=provenance_of(experiment),
            axes=[dict(part.cell.axes) for part in grid.parts(STUDY, experiment)],
            cells=[key_of(experiment, part) for part in grid.parts(STUDY, experiment)],
            jobs={
                job_list(experiment, job): [key_of(experiment, part) for part in parts]
                for job, parts in JOBS[experiment].items()
            },
        script:
            "../scripts/collect.py"
