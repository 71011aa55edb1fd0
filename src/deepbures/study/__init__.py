"""A study: grid, results, cells, kinds of experiment, configuration, cost."""
