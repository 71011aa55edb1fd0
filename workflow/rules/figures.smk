# Figures and tables: one parameterised notebook a family (of the family's name, if it names no other), which
# reads the tables of one experiment.
# F: what the authors' program draws, T: its tables, G: ours; config.yaml says under `figures` what they show.
FAMILIES = {
    "trajectories": {"figures": ["F1_trajectories"]},
    "rates": {
        "figures": [
            "main_result",
            "F2_rate_contours_authors",
            "F2_rate_contours_tail",
            "F3_rate_against_depth_authors",
            "F3_rate_against_depth_tail",
            "G1_measured_against_sharp",
            "G2_bound_tightness",
            "G8_spread_over_seeds",
            "G14_algebraic_tail",
        ],
        "tables": ["T3_rates"],
    },
    "constants": {"tables": ["T2_constants"]},
    "spectra": {"figures": ["F7_alignment", "F9_spectra"]},
    "low_rank": {
        "figures": [
            "F3_low_rank",
            "F4_ranks",
            "F5_energy_levels",
            "F6_eigenvalue_distances",
            "G1_low_rank",
        ],
        "tables": ["T3_rates_low_rank"],
    },
    "plateaus": {"figures": ["F5_aligned"]},
    **{
        f"bounds_n{n}": {
            "notebook": "bounds",
            "parameters": {"suffix": f"_n{n}"},
            "figures": [f"G2_bounds_n{n}"],
        }
        for n in (1, 2, 5)
    },
    "finite_sample": {"figures": ["G13_finite_sample"]},
    "authors_descent": {
        "figures": ["F1_authors_descent"],
        "tables": ["T2_descent"],
    },
    "step_sizes": {
        "figures": ["G1_descent", "G4_largest_stable_step"],
        "tables": ["T4_step_sizes"],
    },
    "step_sizes_low_rank": {
        "notebook": "step_sizes",
        "parameters": {"suffix": "_low_rank"},
        "figures": ["G1_descent_low_rank", "G4_largest_stable_step_low_rank"],
        "tables": ["T4_step_sizes_low_rank"],
    },
    "descent_to_flow": {
        "figures": ["G3_descent_to_flow", "G6_balancedness_drift"],
    },
    "unbalanced": {
        "figures": ["F8_samples", "G7_without_balance"],
        "tables": ["T5_unbalanced"],
    },
    "loss_comparison": {
        "figures": ["G10_loss_comparison"],
        "tables": ["T6_loss_comparison"],
    },
    "hessian": {
        "figures": ["F10_hessian_top_eigenvalue", "F11_conditioning"],
        "tables": ["T1_hessian"],
    },
    "blow_up": {
        "figures": ["G5_hessian_blow_up"],
        "tables": ["T7_blow_up"],
    },
    "paths": {"figures": ["F12_paths"]},
    "expansion": {"figures": ["F13_second_order_model"]},
    "escape": {
        "figures": ["G11_escape_rates"],
        "tables": ["T8_escape_rates"],
    },
    "surface": {"figures": ["G12_whole_landscape"]},
    "critical_search": {"tables": ["T9_critical_search"]},
    "digits": {"figures": ["G9_digits"]},
}
# The configuration says which of them there are: config/digits.yaml adds the last one.
FAMILIES = {
    name: family for name, family in FAMILIES.items() if name in STUDY["figures"]
}
PLOTTING_CODE = store.code_digest(
    "plotting.bounds",
    "plotting.convergence",
    "plotting.descent",
    "plotting.images",
    "plotting.landscape",
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
            notebook=f"workflow/notebooks/{family.get('notebook', name)}.ipynb",
        output:
            [in_report(path, experiment) for path in family_outputs(family)],
            notebook=f"{RESULTS}/notebooks/{name}.ipynb",
        log:
            f"logs/{RESULTS}/notebooks/{name}.log",
        retries: 2  # kernels that start at once may collide on a port
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
