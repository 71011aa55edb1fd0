# Critical points and convergence of deep linear networks trained with the Bures-Wasserstein loss.
# snakemake --cores 16


configfile: "config/config.yaml"


include: "workflow/rules/common.smk"
include: "workflow/rules/runs.smk"
include: "workflow/rules/aggregate.smk"
include: "workflow/rules/figures.smk"


rule runs:
    input:
        [
            path
            for experiment in STUDY["experiments"]
            for table in tables_of(experiment)
            for path in job_files(experiment, table)
        ],


rule aggregates:
    input:
        [
            f"{RESULTS}/{experiment}/{table}.parquet"
            for experiment in STUDY["experiments"]
            for table in tables_of(experiment)
        ],


rule all:
    default_target: True
    input:
        [path for family in FAMILIES.values() for path in family_outputs(family)],
        rules.aggregates.input,
