# One job: one cell of an experiment's grid for a block of seeds, or several; one file for each of its tables.
# Snakemake removes the files of a job before it starts and when it fails. What cells that share a job computed
# stays beside them, by `--keep`: only the others are computed when cells join them, or after one failed.


def output_files(experiment):
    """Where the tables of a job go, by name."""
    return {
        table: f"{RESULTS}/{experiment}/{table}/{{job}}.parquet"
        for table in tables_of(experiment)
    }


for experiment, block in STUDY["experiments"].items():

    rule:
        name:
            f"run_{experiment}"
        input:
            target=target_file(block),  # a target from a file; else none
        output:
            **output_files(experiment),
        log:
            f"logs/{RESULTS}/{experiment}/{{job}}.log",
        group:
            "cells"  # several in one job of a cluster: profiles say how many
        params:
            cells=lambda wildcards, jobs=JOBS[experiment]: [
                json.dumps(part.cell.settings, sort_keys=True)
                for part in jobs[wildcards.job]
            ],
            seeds=lambda wildcards, jobs=JOBS[experiment]: [
                part.seeds for part in jobs[wildcards.job]
            ],
            files=lambda wildcards, output: [
                f"{table}={file}" for table, file in output.items()
            ],
            keep=lambda wildcards: (
                "--keep" if wildcards.job.startswith("shared/") else ""
            ),
            # Reruns the cells when a module that they use changes.
            code=store.code_digest(f"experiment.{block['kind']}"),
        shell:
            "python -m deepbures run --cell {params.cells:q} --seeds {params.seeds}"
            " --write {params.files:q} {params.keep} 2> {log:q}"
