# The tables of an experiment, from all its cells.
for experiment, block in STUDY["experiments"].items():

    rule:
        name:
            f"collect_{experiment}"
        input:
            [job_list(experiment, job) for job in JOBS[experiment]],
        output:
            [
                f"{RESULTS}/{experiment}/{table}.parquet"
                for table in tables_of(experiment)
            ],
        log:
            f"logs/{RESULTS}/{experiment}/collect.log",
        localrule: True
        params:
            code=code_digest("aggregate"),
            kind=block["kind"],
            folder=f"{RESULTS}/{experiment}",
            provenance={
                "experiment": experiment,
                "configuration": configuration_digest(experiment),
                "study_seed": STUDY["study"]["seed"],
                "seeds": block["seeds"],
            },
            axes=[dict(part.cell.axes) for part in grid.parts(STUDY, experiment)],
            cells=[key_of(experiment, part) for part in grid.parts(STUDY, experiment)],
            jobs={
                job_list(experiment, job): [key_of(experiment, part) for part in parts]
                for job, parts in JOBS[experiment].items()
            },
        script:
            "../scripts/collect.py"
