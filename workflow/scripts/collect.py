"""Collect the files of an experiment's jobs into its tables."""

from deepbures.aggregate import collect, collect_runs

if __name__ == "__main__":
    axes, inputs = snakemake.params.axes, dict(snakemake.input.items())
    provenance = dict(snakemake.params.provenance)
    for table, destination in snakemake.output.items():
        if table == "runs":
            collect_runs(destination, axes, inputs["runs"], inputs["trajectories"], provenance)
        else:
            collect(destination, axes, inputs[table], provenance)
