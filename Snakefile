# Critical points and convergence of deep linear networks trained with the Bures-Wasserstein loss.
# snakemake --cores 16


configfile: "config/config.yaml"


include: "workflow/rules/common.smk"
include: "workflow/rules/runs.smk"
include: "workflow/rules/aggregate.smk"
include: "workflow/rules/figures.smk"


rule runs:
    input:
        [path for experiment in STUDY["experiments"] for path in run_files(experiment)],


rule aggregates:
    input:
        expand(
            f"{RESULTS}/{{experiment}}/{{table}}.parquet",
            experiment=STUDY["experiments"],
            table=["runs", "trajectories"],
        ),


rule all:
    default_target: True
    input:
        [path for family in FAMILIES.values() for path in family_outputs(family)],
        rules.aggregates.input,
