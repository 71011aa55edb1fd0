# One HTML file with every figure, table and claim: snakemake --cores 1 html_report, or make report.


rule html_report:
    input:
        rules.all.input,
    output:
        f"{RESULTS}/report.html",
    log:
        f"{LOGS}/report.log",
    localrule: True
    params:
        snakefile=workflow.main_snakefile,
        configuration=lambda wildcards: (
            ["--configfile", *workflow.overwrite_configfiles]
            if workflow.overwrite_configfiles
            else []
        )
        + (
            [
                "--config",
                *(
                    f"{key}={json.dumps(value)}"
                    for key, value in workflow.config_settings.config.items()
                ),
            ]
            if workflow.config_settings.config
            else []
        ),
    shell:
        # The records of the finished jobs exist already, and the lock is this call's own.
        '"$DEEPBURES_PYTHON" -m snakemake --snakefile {params.snakefile:q} --cores 1 --nolock {params.configuration:q}'
        " --report {output:q} 2> {log:q}"
