# The study in one file: snakemake --cores 1 archive


rule archive:
    input:
        rules.all.input,
        [f"{RESULTS}/notebooks/{name}.ipynb" for name in FAMILIES],
    output:
        f"{RESULTS}/archive.zip",
    log:
        f"{LOGS}/archive.log",
    localrule: True
    params:
        configuration=STUDY,
        workflow=workflow_file(workflow.source_path("../Snakefile")),
        code=code_digest("study.results.archive"),
    script:
        "../scripts/archive.py"
