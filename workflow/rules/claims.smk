# What the study says about each statement, from all aggregates.


AGGREGATES = [
    f"{RESULTS}/{experiment}/{table}.parquet"
    for experiment in STUDY["experiments"]
    for table in tables_of(experiment)
]


CLAIMS_EXPERIMENTS = {
    experiment: {
        "folder": f"{RESULTS}/{experiment}",
        "kind": block["kind"],
        **target.stream_of(block["dimension"], block["target"]),
    }
    for experiment, block in STUDY["experiments"].items()
}
CLAIMS_CODE = code_digest("claims", "plotting.verdicts")
CLAIMS = [
    f"{RESULTS}/claims.csv",
    f"{RESULTS}/claims.md",
    f"{FIGURE_FOLDER}/claims.png",
    f"{FIGURE_FOLDER}/claims.pdf",
]
OPENING = f"{RESULTS}/opening.html"
MAIN_FIGURE = f"{FIGURE_FOLDER}/main_result.png" if "rates" in FAMILIES else []
PROVENANCE = [f"{RESULTS}/provenance.json", f"{RESULTS}/provenance.csv"]

# Digest of all that decides what each of these is.
EXPECTED = expected_of(STUDY["experiments"])
CLAIMS_FROM = digest_of([CLAIMS_EXPERIMENTS, CLAIMS_CODE, EXPECTED])
OPENING_FROM = digest_of([CLAIMS_FROM, family_made_from("rates") if MAIN_FIGURE else 0])
PROVENANCE_FROM = digest_of([EXPECTED, STUDY, code_digest("study.results.provenance")])


rule claims:
    input:
        lambda wildcards: unless_current("claims", CLAIMS_FROM, CLAIMS, AGGREGATES),
    output:
        report(
            CLAIMS[0],
            caption="../report/claims.rst",
            category="2 Claims",
            labels={"title": "Claims, as a table"},
        ),
        CLAIMS[1],
        report(
            CLAIMS[2],
            caption="../report/claims.rst",
            category="2 Claims",
            labels={"title": "Claims, as a picture"},
        ),
        CLAIMS[3],
        made=record_of("claims"),
    log:
        f"{LOGS}/claims.log",
    localrule: True
    params:
        experiments=CLAIMS_EXPERIMENTS,
        made_from=CLAIMS_FROM,
        code=CLAIMS_CODE,
    script:
        "../scripts/claims.py"


rule opening:
    # The first page of the report.
    input:
        claims=lambda wildcards: unless_current(
            "opening", OPENING_FROM, [OPENING], CLAIMS[0]
        ),
        picture=MAIN_FIGURE,
    output:
        report(
            OPENING,
            category="1 Main result",
            labels={"title": "What was found"},
        ),
        made=record_of("opening"),
    log:
        f"{LOGS}/opening.log",
    localrule: True
    params:
        made_from=OPENING_FROM,
        code=code_digest("claims"),
    script:
        "../scripts/opening.py"


rule claims_hold:
    # Part of the study only where the configuration asks for it: study.fail_on_violated_claims.
    input:
        CLAIMS[0],
    output:
        touch(f"{RESULTS}/.claims_hold"),
    log:
        f"{LOGS}/claims_hold.log",
    localrule: True
    script:
        "../scripts/claims_hold.py"


rule provenance:
    input:
        lambda wildcards: unless_current(
            "provenance", PROVENANCE_FROM, PROVENANCE, AGGREGATES
        ),
    output:
        json=PROVENANCE[0],
        table=report(
            PROVENANCE[1],
            caption="../report/provenance.rst",
            category="6 Provenance",
            labels={"title": "What the study was made from"},
        ),
        made=record_of("provenance"),
    log:
        f"{LOGS}/provenance.log",
    localrule: True
    params:
        configuration=STUDY,
        digest=digest_of(STUDY),
        made_from=PROVENANCE_FROM,
        code=code_digest("study.results.provenance"),
    script:
        "../scripts/provenance.py"
