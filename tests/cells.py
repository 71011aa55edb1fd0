"""Settings of a small cell."""

SETTINGS = {
    "study_seed": 5,
    "kind": "flow",
    "loss": "bures-wasserstein",
    "dimension": 6,
    "target": {"spectrum": "zipf", "mode": "eigenvalues"},
    "initialization": {"kind": "close"},
    "integration": {"rtol": 1e-6, "excess_tolerance": 1e-12, "max_time": 100, "max_steps": 500, "samples": 20},
    "epsilon": 0.1,
    "smin": 0.5,
    "rank": 6,
    "depth": 3,
}
SMALL = {"initialization": {"kind": "small", "scale": 0.01}, "rank": 2}
