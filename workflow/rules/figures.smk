# Figures and tables: one parameterised notebook per family, which reads the tables of one experiment.
# workflow/figures.yaml lists the families; `figures` in the configuration says which are drawn and what they show.
# An entry with another name than its family is drawn in folders of its own.
FAMILY_OF = {name: figure.get("family", name) for name, figure in STUDY["figures"].items()}
FAMILIES = {name: ALL_FAMILIES[family] for name, family in FAMILY_OF.items()}
# A workflow on a code host looks for captions there, where those of a study are not.
HAS_CAPTIONS = os.path.exists(original(workflow.source_path("../figures.yaml")))
PLOTTING_CODE = planned_code(*modules_of("plotting"))


def family_folder(folder, name):
    """Where files of an entry of `figures` are."""
    return folder if FAMILY_OF[name] == name else f"{folder}/{name}"


def family_outputs(name):
    """Figures and tables of a family, each in two formats, and the caption of each."""
    figures, tables = FAMILIES[name].get("figures", {}), FAMILIES[name].get("tables", {})
    return [
        *(f"{family_folder(FIGURE_FOLDER, name)}/{item}.{suffix}" for item in figures for suffix in ("pdf", "png")),
        *(
            f"{family_folder(f'{RESULTS}/tables', name)}/{item}.{suffix}"
            for item in tables
            for suffix in ("csv", "tex")
        ),
        *(caption_file(name, item) for item in (*figures, *tables)),
    ]


def caption_file(name, item):
    """What the report says below a figure or table: it takes the text from a file, which the notebook's job writes."""
    return f"{family_folder(f'{RESULTS}/captions', name)}/{item}.rst"


def captions(name):
    """By file: the own caption of a figure or table of a family, if it has one, and what is shown."""
    family, figure = FAMILIES[name], STUDY["figures"][name]
    block, about = STUDY["experiments"][figure["experiment"]], family.get("figures", {}) | family.get("tables", {})
    values = {**block["grid"], **figure.get("show", {})}
    shown = "; ".join(f"{axis} {', '.join(map(str, some))}" for axis, some in values.items())
    line = f"Experiment {figure['experiment']}: n = {block['dimension']}, {block['seeds']} seeds; {shown}."
    return {
        caption_file(name, item): "\n\n".join([*filter(None, [text.get("caption")]), line])
        for item, text in about.items()
    }


def in_report(path, name):
    """The same file, flagged for the report if it is one that a browser shows: under its title, with its source."""
    item, suffix = Path(path).stem, Path(path).suffix
    if suffix not in (".png", ".csv"):
        return path
    about = (FAMILIES[name].get("figures", {}) | FAMILIES[name].get("tables", {}))[item]
    if suffix == ".csv":
        category = "5 Tables"
    elif item == "main_result":
        category = "1 Main result"
    else:
        category = "3 Figures of the program" if about["source"] == "program" else "4 Ours"
    # "F 9", with a blank of a digit's width, comes before "F10" as the report sorts them. One label: the report takes
    # others for switches where two values are equally frequent.
    number = item.partition("_")[0]
    number = f"{number[0]}{number[1:]:\u2007>2} " if number[1:].isdecimal() else ""
    own = "" if FAMILY_OF[name] == name else f", {name}"
    return report(
        path,
        caption=os.path.abspath(caption_file(name, item)) if HAS_CAPTIONS else None,
        category=category,
        labels={"title": f"{number}{about['title']}{own} ({about['source']})"},
    )


# The notebook that draws a family, a file of the workflow.
NOTEBOOKS = {
    name: workflow_file(workflow.source_path(f"../notebooks/{family.get('notebook', FAMILY_OF[name])}.ipynb"))
    for name, family in FAMILIES.items()
}


def notebook_parameters(name):
    """What the notebook of a family is given."""
    return {
        "results": f"{RESULTS}/{STUDY['figures'][name]['experiment']}",
        "figures": family_folder(FIGURE_FOLDER, name),
        "tables": family_folder(f"{RESULTS}/tables", name),
        **FAMILIES[name].get("parameters", {}),
    }


def family_made_from(name):
    """Digest of all that decides what the figures and tables of a family are."""
    return digest_of(
        {
            "aggregates": EXPECTED[STUDY["figures"][name]["experiment"]],
            "notebook": target.checksum(NOTEBOOKS[name]),
            "parameters": notebook_parameters(name),
            "show": STUDY["figures"][name].get("show", {}),
            "captions": captions(name),
            "code": PLOTTING_CODE,
        }
    )


for name in FAMILIES:
    experiment = STUDY["figures"][name]["experiment"]

    rule:
        name:
            f"notebook_{name}"
        input:
            tables=table_paths(experiment),
            wanted=signed_stamp(
                f"figures/{name}",
                family_made_from(name),
                [f"{RESULTS}/notebooks/{name}.ipynb", *family_outputs(name)],
            ),
        output:
            f"{RESULTS}/notebooks/{name}.ipynb",
            [in_report(path, name) for path in family_outputs(name)],
        log:
            f"{LOGS}/notebooks/{name}.log",
        localrule: True
        params:
            notebook=NOTEBOOKS[name],
            show=STUDY["figures"][name].get("show", {}),
            captions=captions(name),
            fixed=notebook_parameters(name),
            tables=table_paths(experiment),
            files=[f"{RESULTS}/notebooks/{name}.ipynb", *family_outputs(name)],
            made_from=family_made_from(name),
            costs=COSTS,
            code=PLOTTING_CODE,
        script:
            "../scripts/notebook.py"
