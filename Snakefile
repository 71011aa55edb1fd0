# snakemake --cores 16


include: "workflow/Snakefile"


rule study:
    default_target: True
    input:
        rules.all.input,
