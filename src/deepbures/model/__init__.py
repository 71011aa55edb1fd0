"""Networks, targets, starts, trajectories, and quantities measured along them."""
