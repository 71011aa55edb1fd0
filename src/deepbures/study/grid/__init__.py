"""The grid of a study: axes, cells, jobs, seeds."""
