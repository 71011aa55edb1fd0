# One job: one or more cells of an experiment's grid, each for a block of seeds. Every cell goes into the store of the
# experiment, a folder, as soon as it is computed; the job's own output is the list of its cells. So Snakemake, which
# removes the output of a job before it starts and when it fails, removes no cell.
for experiment, block in STUDY["experiments"].items():

    rule:
        name:
            f"run_{experiment}"
        input:
            target=target.files_of(block["target"]),
        output:
            job_list(experiment, "{job}"),
        log:
            f"{LOGS}/{experiment}/{{job}}.log",
        group:
            "cells"  # several in one cluster job: profiles say how many
        params:
            cells=lambda wildcards, jobs=JOBS[experiment]: [
                json.dumps(part.cell.settings, sort_keys=True)
                for part in jobs[wildcards.job]
            ],
            seeds=lambda wildcards, jobs=JOBS[experiment]: [
                part.seeds for part in jobs[wildcards.job]
            ],
            store=lambda wildcards, experiment=experiment: f"{RESULTS}/{experiment}",
            # Reruns the cells when a module that they use changes.
            code=run_code(experiment),
            target=target_checksums(experiment),
        shell:
            '"$DEEPBURES_PYTHON" -m deepbures run --cell {params.cells:q} --seeds {params.seeds}'
            f" --store {{params.store:q}} --list {{output:q}} --costs {COSTS} 2> {{log:q}}"
