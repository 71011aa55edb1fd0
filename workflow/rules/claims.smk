# What the study says about each statement, from all aggregates.


AGGREGATES = [path for experiment in STUDY["experiments"] for path in table_paths(experiment)]


CLAIMS_EXPERIMENTS = {
    experiment: {
        "folder": f"{RESULTS}/{experiment}",
        "kind": block["kind"],
        **target.stream_of(block["dimension"], block["target"]),
    }
    for experiment, block in STUDY["experiments"].items()
}
CLAIMS_CODE = planned_code("claims", "plotting.verdicts")
CLAIMS = [
    f"{RESULTS}/claims.md",
    f"{RESULTS}/claims.csv",
    f"{FIGURE_FOLDER}/claims.png",
    f"{FIGURE_FOLDER}/claims.pdf",
]
# The entry that draws the main figure: none, or the first.
MAIN = [name for name, family in FAMILIES.items() if "main_result" in family.get("figures", {})][:1]
MAIN_FIGURE = next((f"{family_folder(FIGURE_FOLDER, name)}/main_result.png" for name in MAIN), [])
PAGES = [f"{RESULTS}/{name}" for name in ("provenance.json", "provenance.csv", "opening.html")]

# Digest of all that decides what each of these is.
CLAIMS_FROM = digest_of([CLAIMS_EXPERIMENTS, CLAIMS_CODE, EXPECTED])
PAGES_FROM = digest_of(
    [
        CLAIMS_FROM,
        [*map(family_made_from, MAIN)],
        STUDY,
        planned_code("study.results.provenance"),
    ]
)


rule claims:
    input:
        tables=AGGREGATES,
        wanted=signed_stamp("claims", CLAIMS_FROM, CLAIMS),
    output:
        CLAIMS[0],
        report(
            CLAIMS[1],
            caption="../report/claims.rst",
            category="2 Claims",
            labels={"title": "Claims, as a table"},
        ),
        report(
            CLAIMS[2],
            caption="../report/claims.rst",
            category="2 Claims",
            labels={"title": "Claims, as a picture"},
        ),
        CLAIMS[3],
    log:
        f"{LOGS}/claims.log",
    localrule: True
    params:
        experiments=CLAIMS_EXPERIMENTS,
        tables=AGGREGATES,
        made_from=CLAIMS_FROM,
        code=CLAIMS_CODE,
    script:
        "../scripts/claims.py"


rule pages:
    # What the study was made from, and the first page of the report.
    input:
        tables=AGGREGATES,
        claims=CLAIMS[1],
        picture=MAIN_FIGURE,
        wanted=signed_stamp("pages", PAGES_FROM, PAGES),
    output:
        PAGES[0],
        report(
            PAGES[1],
            caption="../report/provenance.rst",
            category="6 Provenance",
            labels={"title": "What the study was made from"},
        ),
        report(
            PAGES[2],
            category="1 Main result",
            labels={"title": "What was found"},
        ),
    log:
        f"{LOGS}/pages.log",
    localrule: True
    params:
        configuration=STUDY,
        digest=digest_of(STUDY),
        tables=AGGREGATES,
        made_from=PAGES_FROM,
        code=CLAIMS_CODE,
    script:
        "../scripts/pages.py"


rule claims_hold:
    # Part of the study only where the configuration asks for it: study.fail_on_violated_claims.
    input:
        CLAIMS[1],
    output:
        touch(f"{RESULTS}/.claims_hold"),
    log:
        f"{LOGS}/claims_hold.log",
    localrule: True
    script:
        "../scripts/claims_hold.py"
