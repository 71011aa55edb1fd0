"""Collect the files of an experiment's jobs into its tables."""

from deepbures.aggregate import collect, collect_runs

if __name__ == "__main__":
    axes, positions, keys = snakemake.params.axes, snakemake.params.positions, snakemake.params.parts
    provenance = dict(snakemake.params.provenance)
    # Several cells may be in one file, and one problem may stand at several places of the grid.
    inputs = {table: [files[i] for i in positions] for table, files in snakemake.input.items()}
    try:
        for table, destination in snakemake.output.items():
            if table == "runs":
                collect_runs(destination, axes, inputs["runs"], inputs["trajectories"], keys, provenance)
            else:
                collect(destination, axes, inputs[table], keys, provenance)
    except ValueError as broken:
        raise SystemExit(f"{broken}; delete the file and run again") from None
