# The tables of an experiment, each from the files of all its jobs.


def positions_of(experiment):
    """For each part in grid order, which of the experiment's job files holds it."""
    number = {
        part.key: i
        for i, parts in enumerate(JOBS[experiment].values())
        for part in parts
    }
    return [number[part.key] for part in grid.parts(STUDY, experiment)]


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
        localrule: True
        params:
            code=store.code_digest("aggregate"),
            provenance={
                "experiment": experiment,
                "configuration": configuration_digest(experiment),
                "study_seed": STUDY["study"]["seed"],
                "seeds": STUDY["experiments"][experiment]["seeds"],
            },
            axes=[dict(part.cell.axes) for part in grid.parts(STUDY, experiment)],
            parts=[part.key for part in grid.parts(STUDY, experiment)],
            positions=positions_of(experiment),
        script:
            "../scripts/collect.py"
