"""Fail unless every figure and table that the study promises is there, as PDF and PNG, CSV and LaTeX, not empty."""

import sys
from pathlib import Path

FIGURES = [
    "main_result",
    "F1_trajectories",
    "F2_rate_contours_authors",
    "F2_rate_contours_tail",
    "F3_rate_against_depth_authors",
    "F3_rate_against_depth_tail",
    "F3_low_rank",
    "F4_ranks",
    "F5_energy_levels",
    "F6_eigenvalue_distances",
    "F7_alignment",
    "F9_spectra",
    "G1_low_rank",
    "G1_measured_against_sharp",
    "G2_bound_tightness",
    "G8_spread_over_seeds",
]
TABLES = ["T2_constants", "T3_rates", "T3_rates_low_rank"]
STARTS = {"pdf": b"%PDF", "png": b"\x89PNG"}


def missing(results: Path, figures: Path) -> list[Path]:
    """Promised files that are absent or are not what their name says."""
    files = [(figures / f"{name}.{suffix}", start) for name in FIGURES for suffix, start in STARTS.items()]
    files += [(results / "tables" / f"{name}.csv", b"epsilon,") for name in TABLES]
    files += [(results / "tables" / f"{name}.tex", b"\\begin{longtable}") for name in TABLES]
    return [path for path, start in files if not (path.is_file() and path.read_bytes().startswith(start))]


if __name__ == "__main__":
    absent = missing(*map(Path, sys.argv[1:3]))
    if absent:
        sys.exit("missing or broken: " + ", ".join(map(str, absent)))
    print(f"{len(FIGURES)} figures and {len(TABLES)} tables are there")
