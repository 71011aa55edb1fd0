"""Networks, targets, starts, trajectories, and what is measured along them."""
