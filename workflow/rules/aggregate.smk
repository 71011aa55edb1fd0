# One table of all runs, and one of all trajectories, for each experiment.


rule collect:
    input:
        runs=lambda wildcards: job_files(wildcards.experiment, "runs"),
        trajectories=lambda wildcards: job_files(wildcards.experiment, "trajectories"),
    output:
        runs=f"{RESULTS}/{{experiment}}/runs.parquet",
        trajectories=f"{RESULTS}/{{experiment}}/trajectories.parquet",
    log:
        f"logs/{RESULTS}/{{experiment}}/collect.log",
    params:
        code=store.code_digest("aggregate"),
        axes=lambda wildcards: [
            cell.axes for cell, _ in grid.jobs(STUDY, wildcards.experiment)
        ],
    script:
        "../scripts/collect.py"
