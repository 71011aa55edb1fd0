# One job: one cell of an experiment's grid for a block of seeds; one file for each of its tables.


for experiment, block in STUDY["experiments"].items():

    rule:
        name:
            f"run_{experiment}"
        input:
            target=target_file(block),  # a target from a file; else none
        output:
            **{
                table: f"{RESULTS}/{experiment}/{table}/{{cell}}/seeds={{seeds}}.parquet"
                for table in tables_of(experiment)
            },
        log:
            f"logs/{RESULTS}/{experiment}/{{cell}}/seeds={{seeds}}.log",
        params:
            cell=lambda wildcards, cells=CELLS[experiment]: json.dumps(
                cells[wildcards.cell].settings, sort_keys=True
            ),
            files=lambda wildcards, output: [
                f"{table}={file}" for table, file in output.items()
            ],
            # Reruns the cells when a module that they use changes.
            code=store.code_digest(f"experiment.{block['kind']}"),
        shell:
            "python -m deepbures run --cell {params.cell:q} --seeds {wildcards.seeds}"
            " --write {params.files:q} 2> {log:q}"
