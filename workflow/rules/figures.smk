# Figures and tables: one parameterised notebook a family, which reads the tables of one experiment. workflow/figures.yaml
# lists the families, and the configuration says under `figures` which of them there are and what they show.
FAMILIES = {name: ALL_FAMILIES[name] for name in STUDY["figures"]}
PLOTTING_CODE = code_digest(
    "plotting.bounds",
    "plotting.convergence",
    "plotting.descent",
    "plotting.images",
    "plotting.landscape",
    "plotting.neighbours",
    "plotting.sampling",
    "plotting.sampling",
    "plotting.spectral",
    "plotting.tables",
)


def family_outputs(family):
    return figure_files(*family.get("figures", [])) + table_files(
        *family.get("tables", [])
    )


def in_report(path, category):
    """The same file, flagged for the report if it is one that a browser shows."""
    name, suffix = Path(path).stem, Path(path).suffix
    if suffix not in (".png", ".csv"):
        return path
    kind = "figure" if suffix == ".png" else "table"
    return report(
        path,
        caption=f"../report/{name}.rst",
        category=category.replace("_", " "),
        labels={kind: name},
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
            notebook=workflow_file(
                workflow.source_path(
                    f"../notebooks/{family.get('notebook', name)}.ipynb"
                )
            ),
        output:
            [in_report(path, experiment) for path in family_outputs(family)],
            notebook=f"{RESULTS}/notebooks/{name}.ipynb",
        log:
            f"logs/{RESULTS}/notebooks/{name}.log",
        localrule: True
        params:
            show=STUDY["figures"][name].get("show", {}),
            shown=shown(experiment, STUDY["figures"][name].get("show", {})),
            fixed={
                "results": f"{RESULTS}/{experiment}",
                "figures": FIGURE_FOLDER,
                "tables": f"{RESULTS}/tables",
                **family.get("parameters", {}),
            },
            code=PLOTTING_CODE,
        script:
            "../scripts/notebook.py"
