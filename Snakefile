# snakemake --cores 16


include: "workflow/Snakefile"
