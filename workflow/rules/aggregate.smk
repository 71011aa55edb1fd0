# The tables of an experiment, each from the files of all its jobs.


for experiment in STUDY["experiments"]:

    rule:
        name:
            f"collect_{experiment}"
        input:
            **{table: job_files(experiment, table) for table in tables_of(experiment)},
        output:
            **{
                table: f"{RESULTS}/{experiment}/{table}.parquet"
                for table in tables_of(experiment)
            },
        log:
            f"logs/{RESULTS}/{experiment}/collect.log",
        params:
            code=store.code_digest("aggregate"),
            provenance={
                "experiment": experiment,
                "configuration": configuration_digest(experiment),
                "study_seed": STUDY["study"]["seed"],
                "seeds": STUDY["experiments"][experiment]["seeds"],
            },
            axes=[dict(cell.axes) for cell, _ in grid.jobs(STUDY, experiment)],
        script:
            "../scripts/collect.py"
