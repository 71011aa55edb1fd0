# What the study says of each statement of the paper, from all aggregates.


AGGREGATES = [
    f"{RESULTS}/{experiment}/{table}.parquet"
    for experiment in STUDY["experiments"]
    for table in tables_of(experiment)
]


rule claims:
    input:
        AGGREGATES,
    output:
        report(
            f"{RESULTS}/claims.csv",
            caption="../report/claims.rst",
            category="2 Claims",
            labels={"title": "Claims, as a table"},
        ),
        f"{RESULTS}/claims.md",
        report(
            f"{FIGURE_FOLDER}/claims.png",
            caption="../report/claims.rst",
            category="2 Claims",
            labels={"title": "Claims, as a picture"},
        ),
        f"{FIGURE_FOLDER}/claims.pdf",
    log:
        f"logs/{RESULTS}/claims.log",
    localrule: True
    params:
        experiments={
            experiment: {
                "folder": f"{RESULTS}/{experiment}",
                "kind": block["kind"],
                **target_files.stream_of(block["dimension"], block["target"]),
            }
            for experiment, block in STUDY["experiments"].items()
        },
        code=code_digest("claims", "plotting.verdicts"),
    script:
        "../scripts/claims.py"


rule opening:
    # The first page of the report.
    input:
        claims=f"{RESULTS}/claims.csv",
        picture=f"{FIGURE_FOLDER}/main_result.png" if "rates" in FAMILIES else [],
    output:
        report(
            f"{RESULTS}/opening.html",
            category="1 Main result",
            labels={"title": "What was found"},
        ),
    log:
        f"logs/{RESULTS}/opening.log",
    localrule: True
    params:
        code=code_digest("claims"),
    script:
        "../scripts/opening.py"


rule claims_hold:
    # Part of the study only where the configuration asks for it: study.fail_on_violated_claims.
    input:
        f"{RESULTS}/claims.csv",
    output:
        touch(f"{RESULTS}/.claims_hold"),
    log:
        f"logs/{RESULTS}/claims_hold.log",
    localrule: True
    script:
        "../scripts/claims_hold.py"


rule provenance:
    input:
        AGGREGATES,
    output:
        json=f"{RESULTS}/provenance.json",
        table=report(
            f"{RESULTS}/provenance.csv",
            caption="../report/provenance.rst",
            category="6 Provenance",
            labels={"title": "What the study was made from"},
        ),
    log:
        f"logs/{RESULTS}/provenance.log",
    localrule: True
    params:
        configuration=STUDY,
        digest=digest_of(STUDY),
        code=code_digest("provenance"),
    script:
        "../scripts/provenance.py"
