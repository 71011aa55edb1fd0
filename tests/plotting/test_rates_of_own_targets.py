"""The family `rates` on one's own target: what can be drawn is drawn, the rest says what it lacks, T3 is written."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from collected import collect_cells

from deepbures.plotting import style
from deepbures.study.grid.cells import cells

NOTEBOOK = Path(__file__).parents[2] / "workflow/notebooks/rates.ipynb"
CODE = ["".join(cell["source"]) for cell in json.loads(NOTEBOOK.read_text())["cells"] if cell["cell_type"] == "code"]


@pytest.mark.parametrize(
    ("loss", "grid", "drawn"),
    [
        # Two depths and ε below λ_n: everything but contours over s_min, of which there is one.
        pytest.param(
            "bures-wasserstein",
            {"epsilon": [0, 0.1], "rank": [4], "depth": [1, 2]},
            {"G1", "G2", "F3", "main_result"},
            marks=pytest.mark.slow,
        ),
        # ε is limited to λ_n: no exponential tail, but a power law.
        ("bures-wasserstein", {"epsilon": [9.0], "rank": [4], "depth": [2]}, {"G14", "main_result"}),
    ],
)
def test_what_can_be_drawn_of_an_own_target_is(tmp_path, monkeypatch, loss, grid, drawn):
    A = np.random.default_rng(0).standard_normal((4, 9))
    np.save(tmp_path / "own.npy", A @ A.T)
    block = {
        "kind": "flow",
        "loss": loss,
        "dimension": 4,
        "target": {"covariance": str(tmp_path / "own.npy")},
        "initialization": {"kind": "small", "scale": 0.1},
        "seeds": 2,
        "seeds_per_job": 2,
        "grid": {"smin": [-1], **grid},
        "integration": {"rtol": 1e-6, "excess_tolerance": 1e-9, "max_time": 300, "max_steps": 500, "samples": 60},
    }
    own = cells({"study": {"seed": 1}, "experiments": {"own": block}}, "own")
    collect_cells(tmp_path, [(cell.axes, cell.settings) for cell in own], range(2))
    names = dict.fromkeys(("results", "figures", "tables"), str(tmp_path)) | {"show": {"epsilon": grid["epsilon"][:1]}}
    lacking, without = [], style.without
    monkeypatch.setattr(style, "without", lambda data: lacking.append(data) or without(data))
    for code in CODE:
        if not code.startswith("results ="):
            exec(code, names)
    figures = {path.stem for path in tmp_path.glob("*.png")}
    assert len(figures) == 9
    assert len([text for text in lacking if "contours need two depths and two values" in text]) == 2  # both slopes
    assert len(lacking) == 2 or "G2" not in drawn
    assert ("no flow has an exponential tail" in " ".join(lacking)) == ("G1" not in drawn)
    table = pd.read_csv(tmp_path / "T3_rates.csv")
    assert len(table) == len(own)
    assert (table["tails"] > 0).any() == ("G1" in drawn)
