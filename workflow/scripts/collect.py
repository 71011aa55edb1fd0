"""Collect the files of an experiment's jobs into its two tables."""

from deepbures.aggregate import collect_runs, collect_trajectories

if __name__ == "__main__":
    axes, inputs, outputs = snakemake.params.axes, snakemake.input, snakemake.output
    collect_runs(outputs.runs, axes, inputs.runs, inputs.trajectories)
    collect_trajectories(outputs.trajectories, axes, inputs.trajectories)
