# One job: one cell of an experiment's grid for a block of seeds.


rule run_cell:
    output:
        runs=f"{RESULTS}/{{experiment}}/runs/{{cell}}/seeds={{seeds}}.parquet",
        trajectories=f"{RESULTS}/{{experiment}}/trajectories/{{cell}}/seeds={{seeds}}.parquet",
    log:
        f"logs/{RESULTS}/{{experiment}}/{{cell}}/seeds={{seeds}}.log",
    params:
        cell=lambda wildcards: json.dumps(
            CELLS[wildcards.experiment][wildcards.cell].settings, sort_keys=True
        ),
        code=store.code_digest("experiment"),  # reruns the cells when a module that they use changes
    shell:
        "python -m deepbures run --cell {params.cell:q} --seeds {wildcards.seeds}"
        " --runs {output.runs:q} --trajectories {output.trajectories:q} 2> {log:q}"
