"""A study of all that claims are about, in some seconds, and the claims on it."""

import numpy as np
from collected import collect_cells

from deepbures import claims

SHARED = {
    "study_seed": 1,
    "loss": "bures-wasserstein",
    "dimension": 4,
    "target": {"spectrum": "zipf", "mode": "eigenvalues"},
    "smin": 0.5,
    "rank": 4,
}
FLOW = {"integration": {"rtol": 1e-6, "excess_tolerance": 1e-12, "max_time": 100, "max_steps": 2000, "samples": 100}}
CLOSE, SMALL = {"initialization": {"kind": "close"}}, {"initialization": {"kind": "small", "scale": 0.1}}
STUDY = {
    "flows": ("flow", {**FLOW, **CLOSE}, [{"epsilon": 0, "depth": 1}, {"epsilon": 0.1, "depth": 3}]),
    "steps": (
        "descent",
        {"descent": {"max_steps": 2000, "excess_tolerance": 1e-8, "samples": 50}, **CLOSE},
        [{"epsilon": 0.1, "depth": 2, "relative_step": step} for step in (0.5, 0.99, 1.01, 1.2)],
    ),
    "to_flow": (
        "descent",
        {"descent": {"end_time": 0.02, "samples": 5, "compare_with_flow": True}, **CLOSE},
        [{"epsilon": 0.1, "depth": 2, "step_size": step} for step in (1e-4, 5e-5, 2.5e-5)],
    ),
    "aligned": (
        "flow",
        {"integration": {**FLOW["integration"], "samples": 600}, "initialization": {"kind": "aligned", "scale": 0.01}},
        [{"epsilon": 0.1, "depth": 2, "rank": 2}],
    ),
    "at_the_edge": (
        "flow",
        {"integration": {**FLOW["integration"], "max_time": 1000, "excess_tolerance": 1e-16}, **CLOSE},
        [{"epsilon": 0.75, "depth": depth} for depth in (1, 3)],
    ),
    "broken": (
        "flow",
        {**FLOW, "dimension": 1, "rank": 1, "smin": -1, **SMALL},
        [{"epsilon": 1, "depth": 1, "initial_scale": 0.5}, {"epsilon": 0.5, "depth": 1, "initial_scale": 0.2}],
    ),
    "broken_steps": (
        "descent",
        {"descent": {"max_steps": 200, "samples": 20}, "dimension": 1, "rank": 1, "smin": -1, **SMALL},
        [{"epsilon": 1, "depth": depth, "theorem_step": 1, "initial_scale": 0.1} for depth in (1, 2)],
    ),
    "bounded": (
        "flow",
        {**FLOW, "dimension": 1, "rank": 1, "smin": -1, **SMALL},
        [{"epsilon": 0.5, "depth": depth, "initial_scale": 1.1} for depth in (1, 2)],
    ),
    "allowed": (
        "descent",
        {"descent": {"max_steps": 3000, "samples": 50}, "dimension": 2, "rank": 2, "smin": 5, **CLOSE},
        [{"epsilon": 2.75, "depth": depth, "theorem_step": 1, "initial_scale": 0.1} for depth in (1, 2)],
    ),
    "samples": (
        "finite_sample",
        {"sampling": {"sizes": [100], "draws": 2000}, "integration": FLOW["integration"], **SMALL},
        [{"epsilon": 0, "depth": 2}],
    ),
    "losses": (
        "descent",
        {
            "descent": {"max_steps": 3000, "excess_tolerance": 1e-8, "samples": 100},
            "initialization": {"kind": "small", "scale": 0.5},
        },
        [
            {"loss_name": loss, "loss": loss, "epsilon": 0, "depth": depth, "relative_step": 0.25}
            for loss in ("bures-wasserstein", "frobenius")
            for depth in (1, 2)
        ],
    ),
    "levels": (
        "flow",
        {"integration": {**FLOW["integration"], "rtol": 1e-9}, "rank": 2},
        [
            {"start": {"kind": "saddle", "scale": 1e-3}, "epsilon": 0, "depth": 1},
            {"start": {"kind": "level", "scale": 0.3}, "epsilon": 0.1, "depth": 2},
        ],
    ),
    "on_the_saddle": (
        "flow",
        {**FLOW, "dimension": 4, "rank": 2},
        [{"start": {"kind": "saddle", "scale": 1}, "epsilon": 0.1, "depth": 1}],
    ),
    "level_steps": (
        "descent",
        {"descent": {"max_steps": 3000, "excess_tolerance": 1e-9, "samples": 60}, "proved_step": 1},
        [
            {"start": {"kind": "level", "scale": 0.9, "imbalance": 0}, "epsilon": 0, "depth": 1},
            {"start": {"kind": "level", "scale": 0.9, "imbalance": 0.1}, "epsilon": 0.1, "depth": 2},
            {"start": {"kind": "saddle", "scale": 0.1, "imbalance": 0}, "epsilon": 0.1, "depth": 2, "rank": 2},
        ],
    ),
    "one_layer": (
        "descent",
        {"descent": {"max_steps": 1000, "excess_tolerance": 1e-9, "samples": 60}, "rank": 2},
        [{"start": {"kind": "saddle", "scale": 1e-3}, "epsilon": 0, "depth": 1, "step_size": 1e-3}],
    ),
    "step_starts": (
        "descent",
        {"descent": {"max_steps": 2000, "excess_tolerance": 1e-18, "samples": 20}, "epsilon": 0, "depth": 2},
        [
            {"start": start, "relative_step": step}
            for start in (
                {"kind": "level", "scale": 1e-3},
                {"kind": "saddle", "scale": 1e-3},
                {"kind": "small", "scale": 10},
            )
            for step in (0.8, 0.99, 1.01, 1.2)
        ],
    ),
    "turned": (
        "descent",
        {
            "descent": {"max_steps": 200, "excess_tolerance": 1e-8, "samples": 100},
            **{"dimension": 1, "rank": 1, "smin": -1, "epsilon": 0, "depth": 1, "relative_step": 0.95},
            **SMALL,
        },
        [{"loss_name": loss, "loss": loss} for loss in ("bures-wasserstein", "frobenius")],
    ),
    "unbalanced": (
        "layers",
        {**FLOW, "integration": {**FLOW["integration"], "rtol": 1e-9}, "dimension": 3, "rank": 3, "epsilon": 0},
        [
            {"start": {"kind": "saddle", "scale": 1e-3, "imbalance": size}, "depth": depth}
            for size in (0, 1e-4)
            for depth in (2, 3)
        ],
    ),
    "single_steps": (
        "deep_steps",
        {
            "landscape": {"conditions": [1], "shares": [0, 0.5], "step_shares": [0.5, 1], "starts": 20, "steps": 20},
            **{"dimension": 2, "smin": -1, "epsilon": 0},
        },
        [{"rank": 2, "depth": 2}],
    ),
    "widths": (
        "descent",
        {
            "descent": {"max_steps": 100, "samples": 20},
            "epsilon": 0.1,
            "depth": 2,
            "relative_step": 0.1,
            "dimension": 4,
        },
        [{"start": {"kind": "xavier_normal", "balance": "end_to_end", "width": width}} for width in (4, 8)],
    ),
    "fillings": (
        "escape",
        {"landscape": {"points": 5, "perturbation": 1e-5, "lower_ranks": True}, "dimension": 4, "rank": 2},
        [{"epsilon": 0, "depth": 2}, {"epsilon": 0.1, "depth": 1}, {"epsilon": 0.1, "depth": 2}],
    ),
    "hessian": (
        "hessian",
        {"landscape": {"points": 3, "matrices": 20}, "epsilon": 0.1, "rank": 2},
        [{"depth": 2}, {"depth": 1}],
    ),
    "blow_up": (
        "blow_up",
        {"landscape": {"singular_values": [1, 1e-2, 1e-3, 1e-4], "vanishing": [1]}},
        [{"epsilon": epsilon, "depth": 1, "rank": rank} for epsilon in (0, 0.1) for rank in (2, 4)],
    ),
    "escape": ("escape", {"landscape": {"points": 3, "perturbation": 1e-5}}, [{"epsilon": 0.1, "depth": 2, "rank": 2}]),
    "search": ("critical_search", {"landscape": {"starts": 4}}, [{"epsilon": 0.1, "depth": 1, "rank": 2}]),
}
AXES = (
    *("loss_name", "initialization", "balance", "initial_scale", "imbalance", "width", "epsilon", "smin", "rank"),
    *("depth", "step_size", "relative_step", "proved_step"),
)
#: Axes of a start that a cell describes.
OF_START = {
    "kind": "initialization",
    "scale": "initial_scale",
    **{key: key for key in ("balance", "imbalance", "width")},
}


def make(root, folders=STUDY, covariance=None, unit=1.0):
    """Write the aggregates of these experiments into a folder.

    With a file of a covariance in place of the drawn targets; with all that has the unit of Σ0, of a loss, of W or of
    time in the unit of Σ0 that is given, which the target in the file then has too.
    """
    for name in folders:
        kind, own, cells = STUDY[name]
        points = []
        for cell in cells:
            described = {key: value for key, value in cell.items() if key != "start"}
            start = {"initialization": cell["start"]} if "start" in cell else {}
            point = in_units({**SHARED, **own, **described, **start, "kind": kind}, unit)
            if covariance is not None:
                point |= {"target": {"covariance": str(covariance)}, "smin": -1}
            settings = {key: value for key, value in point.items() if key not in ("loss_name", "initial_scale")}
            values = {key: value for key, value in point.items() if key != "initialization"}
            values |= {OF_START[key]: value for key, value in cell.get("start", {}).items()}
            points.append(({axis: values[axis] for axis in AXES if axis in values}, settings))
        collect_cells(root / name, points, range(2), {"experiment": name, "seeds": 2})
    return root


def in_units(point, unit):
    """Settings of a cell where Σ0 has another unit: W that of its root, time that of W over the gradient of a layer."""
    degree = 2 if point["loss"] == "frobenius" else 1
    time = unit ** (1 / point["depth"] - degree)
    scaled = {**point, "epsilon": point["epsilon"] * unit}
    if "initialization" in point:
        start = {**point["initialization"], **({"scale": point["initial_scale"]} if "initial_scale" in point else {})}
        if "scale" in start and start["kind"] in ("small", "aligned"):  # else it is a fraction
            start["scale"] *= np.sqrt(unit)
        scaled["initialization"] = start
    for section in {"integration", "descent"} & set(point):
        factors = {"excess_tolerance": unit**degree, "max_time": time, "end_time": time}
        scaled[section] = {
            key: value * factors[key] if key in factors else value for key, value in point[section].items()
        }
    if "step_size" in point:
        scaled["step_size"] = point["step_size"] * time
    return scaled


def claims_of(root, names=None, folders=STUDY):
    """Claims on experiments of a study, by name."""
    experiments = {name: claims.Tables(root / name, STUDY[name][0], "4 zipf") for name in folders}
    return {claim.name: claim for claim in claims.evaluate(claims.Study(experiments), names)}
