"""Fail unless every figure and table that the study promises is there, as PDF and PNG, CSV and LaTeX, not empty."""

import sys
from pathlib import Path

FIGURES = [
    "claims",
    "main_result",
    "F1_trajectories",
    "F1_authors_descent",
    "F2_rate_contours_authors",
    "F2_rate_contours_tail",
    "F3_rate_against_depth_authors",
    "F3_rate_against_depth_tail",
    "F3_low_rank",
    "F4_ranks",
    "F5_energy_levels",
    "F5_aligned",
    "F6_eigenvalue_distances",
    "F7_alignment",
    "F8_samples",
    "F9_spectra",
    "F10_hessian_top_eigenvalue",
    "F11_conditioning",
    "F12_paths",
    "F13_second_order_model",
    "G1_descent",
    "G1_descent_low_rank",
    "G1_low_rank",
    "G1_measured_against_sharp",
    "G2_bound_tightness",
    "G2_bounds_n1",
    "G2_bounds_n2",
    "G2_bounds_n5",
    "G3_descent_to_flow",
    "G4_largest_stable_step",
    "G4_largest_stable_step_low_rank",
    "G6_balancedness_drift",
    "G7_without_balance",
    "G8_spread_over_seeds",
    "G5_hessian_blow_up",
    "G10_loss_comparison",
    "G11_escape_rates",
    "G12_whole_landscape",
    "G13_finite_sample",
    "G14_algebraic_tail",
    "G19_levels",
    "G20_step_starts",
    "G21_imbalance",
    "G22_widths",
]
#: Tables, with the axis that their first column is.
TABLES = {
    "T1_hessian": "loss_name",
    "T2_constants": "epsilon",
    "T2_descent": "epsilon",
    "T2_levels": "initialization",
    "T3_rates": "epsilon",
    "T3_rates_low_rank": "epsilon",
    "T4_step_sizes": "epsilon",
    "T4_step_sizes_low_rank": "epsilon",
    "T5_unbalanced": "initialization",
    "T5_widths": "initialization",
    "T6_loss_comparison": "loss_name",
    "T7_blow_up": "epsilon",
    "T8_escape_rates": "epsilon",
    "T9_critical_search": "loss_name",
}
STARTS = {"pdf": b"%PDF", "png": b"\x89PNG"}


def missing(results: Path, figures: Path) -> list[Path]:
    """Promised files that are absent or are not what their name says."""
    files = [(figures / f"{name}.{suffix}", start) for name in FIGURES for suffix, start in STARTS.items()]
    files += [(results / "tables" / f"{name}.csv", f"{axis},".encode()) for name, axis in TABLES.items()]
    files += [(results / "tables" / f"{name}.tex", b"\\begin{longtable}") for name in TABLES]
    return [path for path, start in files if not (path.is_file() and path.read_bytes().startswith(start))]


if __name__ == "__main__":
    absent = missing(*map(Path, sys.argv[1:3]))
    if absent:
        sys.exit("missing or broken: " + ", ".join(map(str, absent)))
    print(f"{len(FIGURES)} figures and {len(TABLES)} tables are there")
