# Figures and tables: one parameterised notebook per family, which reads the tables of one experiment.
# workflow/figures.yaml lists the families; `figures` in the configuration says which are drawn and what they show.
FAMILIES = {name: ALL_FAMILIES[name] for name in STUDY["figures"]}
PLOTTING_CODE = code_digest(*modules_of("plotting"))


def family_outputs(family):
    return figure_files(*family.get("figures", [])) + table_files(
        *family.get("tables", [])
    )


def caption_of(name):
    """A figure's own caption, or else what it shows."""
    try:
        workflow.source_path(f"../report/{name}.rst")
    except FileNotFoundError:
        return "../report/shown.rst"
    return f"../report/{name}.rst"


def in_report(path, family):
    """The same file, flagged for the report if it is one that a browser shows: under its title, with whose it is."""
    name, suffix = Path(path).stem, Path(path).suffix
    if suffix not in (".png", ".csv"):
        return path
    about = (family.get("figures", {}) | family.get("tables", {}))[name]
    if suffix == ".csv":
        category = "5 Tables"
    elif name == "main_result":
        category = "1 Main result"
    else:
        category = (
            "3 Figures of the program" if about["source"] == "program" else "4 Ours"
        )
    # "F 9", with a blank of a digit's width, comes before "F10" as the report sorts them. One label: the report takes
    # others for switches where two values are equally frequent.
    number = name.partition("_")[0]
    number = f"{number[0]}{number[1:]:\u2007>2} " if number[1:].isdecimal() else ""
    return report(
        path,
        caption=caption_of(name),
        category=category,
        labels={"title": f"{number}{about['title']} ({about['source']})"},
    )


# The notebook that draws a family, a file of the workflow.
NOTEBOOKS = {
    name: workflow_file(
        workflow.source_path(f"../notebooks/{family.get('notebook', name)}.ipynb")
    )
    for name, family in FAMILIES.items()
}


def notebook_parameters(name):
    """What the notebook of a family is given."""
    return {
        "results": f"{RESULTS}/{STUDY['figures'][name]['experiment']}",
        "figures": FIGURE_FOLDER,
        "tables": f"{RESULTS}/tables",
        **FAMILIES[name].get("parameters", {}),
    }


def family_made_from(name):
    """Digest of all that decides what the figures and tables of a family are."""
    return digest_of(
        {
            "aggregates": expected_of([STUDY["figures"][name]["experiment"]]),
            "notebook": checksum(NOTEBOOKS[name]),
            "parameters": notebook_parameters(name),
            "show": STUDY["figures"][name].get("show", {}),
            "code": PLOTTING_CODE,
        }
    )


for name, family in FAMILIES.items():
    experiment = STUDY["figures"][name]["experiment"]

    rule:
        name:
            f"notebook_{name}"
        input:
            **{
                table: f"{RESULTS}/{experiment}/{table}.parquet"
                for table in tables_of(experiment)
            },
            notebook=lambda wildcards, name=name, family=family: unless_current(
                name,
                family_made_from(name),
                family_outputs(family),
                NOTEBOOKS[name],
            ),
        output:
            [in_report(path, family) for path in family_outputs(family)],
            notebook=f"{RESULTS}/notebooks/{name}.ipynb",
            made=record_of(name),
        log:
            f"{LOGS}/notebooks/{name}.log",
        localrule: True
        params:
            show=STUDY["figures"][name].get("show", {}),
            shown=shown(experiment, STUDY["figures"][name].get("show", {})),
            fixed=notebook_parameters(name),
            files=family_outputs(family),
            made_from=family_made_from(name),
            costs=COSTS,
            code=PLOTTING_CODE,
        script:
            "../scripts/notebook.py"
