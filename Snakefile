# Critical points and convergence of deep linear networks trained with the Bures-Wasserstein loss.
# snakemake --cores 16


configfile: "config/config.yaml"


include: "workflow/rules/common.smk"
include: "workflow/rules/runs.smk"
include: "workflow/rules/aggregate.smk"
include: "workflow/rules/figures.smk"
include: "workflow/rules/claims.smk"


report: "workflow/report/workflow.rst"


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
        AGGREGATES,


rule all:
    default_target: True
    input:
        [path for family in FAMILIES.values() for path in family_outputs(family)],
        AGGREGATES,
        rules.claims.output,
        rules.provenance.output,
        rules.claims_hold.output if STUDY["study"]["fail_on_violated_claims"] else [],


include: "workflow/rules/archive.smk"
