"""The grid: cells, seed blocks, canonical spellings, paths."""

import json
import re

import pytest

from deepbures.study.grid.axes import AXES, STEP_AXES, axes_of, canonical
from deepbures.study.grid.cells import cells, jobs, parts, seed_blocks, seeds_of

#: The axes of every experiment.
FOUR = ("epsilon", "smin", "rank", "depth")


@pytest.mark.parametrize(
    ("value", "spelling"),
    [
        (0, "0"),
        (0.0, "0"),
        (-0.0, "0"),
        (1, "1"),
        (1.0, "1"),
        (-1, "-1"),
        (0.1, "0.1"),
        (0.1 + 0.2, "0.3"),
        (1e-3, "0.001"),
        (1e-6, "1e-06"),
        (100, "100"),
        (3.5, "3.5"),
        (True, "1"),
        ("bures-wasserstein", "bures-wasserstein"),
    ],
)
def test_one_spelling_for_each_value(value, spelling):
    assert canonical(value) == spelling


def test_spelling_keeps_values_apart(shipped):
    for block in shipped()["experiments"].values():
        for values in block["grid"].values():
            assert len({canonical(value) for value in values}) == len(values)
            assert [value if isinstance(value, str) else float(canonical(value)) for value in values] == values


def test_authors_grid_has_924_cells(shipped):
    # ε ∈ {0, 0.1, 0.5, 1} × smin ∈ {−1, 0.5, 1, …, 5} × depth ∈ {1, 7, 10, 15, …, 100}, n = width = 20.
    found = cells(shipped(), "convergence")
    assert len(found) == 4 * 11 * 21 == 924
    epsilon, smin, rank, depth = (sorted({cell.axes[axis] for cell in found}) for axis in FOUR)
    assert {tuple(cell.axes) for cell in found} == {FOUR}
    assert epsilon == [0, 0.1, 0.5, 1]
    assert smin == [-1, *(0.5 * i for i in range(1, 11))]
    assert (rank, depth) == ([20], [1, 7, *range(10, 101, 5)])
    assert found[0].settings["dimension"] == 20


def test_cells_that_are_one_problem_are_computed_once(shipped):
    # ε is limited to λ_n = 1/20 for smin = −1: there ε = 0.1, 0.5 and 1 share settings and folder, 21 depths each.
    # λ_n = 0.55 for smin = 0.5 limits ε = 1, and coincides with nothing.
    found = cells(shipped(), "convergence")
    assert len({cell.path for cell in found}) == 924 - 2 * 21
    by_path = {cell.path: cell.settings for cell in found}
    for cell in found:
        assert by_path[cell.path] == cell.settings
        smin = cell.axes["smin"]
        least = 0.05 if smin == -1 else smin + 0.05
        assert cell.settings["epsilon"] == min(cell.axes["epsilon"], least)
    assert {cell.axes["epsilon"] for cell in found if cell.path.startswith("epsilon=0.05/")} == {0.1, 0.5, 1}


def test_different_problems_have_different_folders(shipped):
    for experiment in shipped()["experiments"]:
        found = cells(shipped(), experiment)
        settings = {json.dumps(cell.settings, sort_keys=True) for cell in found}
        assert len({cell.path for cell in found}) == len(settings)


def test_epsilon_is_kept_where_the_least_eigenvalue_is_not_known(shipped):
    # Random spectra have no λ_n before the draw.
    config = shipped()
    config["experiments"]["convergence"]["target"]["spectrum"] = "random"
    assert all(cell.settings["epsilon"] == cell.axes["epsilon"] for cell in cells(config, "convergence"))


def test_cells_nest_in_the_order_of_the_axes(shipped):
    order = ["loss_name", "initialization", "balance", "initial_scale", *FOUR, *STEP_AXES]
    assert [axis for axis in AXES if axis in order] == order
    assert STEP_AXES == ("step_size", "relative_step", "theorem_step", "proved_step")
    found = cells(shipped(), "convergence")
    assert found[0].path == "epsilon=0/smin=-1/rank=20/depth=1"
    assert found[1].path == "epsilon=0/smin=-1/rank=20/depth=7"
    assert found[-1].path == "epsilon=1/smin=5/rank=20/depth=100"
    values = [tuple(cell.axes.values()) for cell in found]
    assert values == sorted(values)


def test_settings_hold_all_that_the_numbers_depend_on(shipped):
    config = shipped()
    cell = cells(config, "low_rank")[0]
    settings = json.loads(json.dumps(cell.settings))
    assert settings == cell.settings
    assert settings["study_seed"] == config["study"]["seed"]
    block = config["experiments"]["low_rank"]
    for key in ("kind", "loss", "dimension", "target", "initialization", "integration"):
        assert settings[key] == block[key]
    assert {axis: settings[axis] for axis in FOUR} == cell.axes  # ε = 0 needs no limit
    # And nothing that they do not depend on: adding seeds or renaming folders recomputes nothing.
    assert set(settings).isdisjoint({"seeds", "seeds_per_job", "results", "figures", "experiment", "grid"})


def test_extending_the_grid_keeps_the_cells(shipped):
    config = shipped()
    before = {cell.path: cell.settings for cell in cells(config, "convergence")}
    config["experiments"]["convergence"]["grid"]["epsilon"].insert(1, 0.02)
    after = {cell.path: cell.settings for cell in cells(config, "convergence")}
    assert len(after) == len(before) + 11 * 21
    assert before.items() <= after.items()


@pytest.mark.parametrize(
    ("seeds", "size", "blocks"),
    [
        (10, 10, ["0-9"]),
        (15, 10, ["0-9", "10-14"]),
        (3, 2, ["0-1", "2-2"]),
        (3, 1, ["0-0", "1-1", "2-2"]),
        (2, 10, ["0-1"]),
    ],
)
def test_seed_blocks_cover_every_seed_once(shipped, seeds, size, blocks):
    config = shipped()
    config["experiments"]["low_rank"].update(seeds=seeds, seeds_per_job=size)
    assert seed_blocks(config, "low_rank") == blocks
    assert [seed for block in blocks for seed in seeds_of(block)] == list(range(seeds))


def test_jobs_are_cells_times_blocks(shipped):
    config = shipped("smoke.yaml")
    found = [(part.cell.path, part.seeds) for part in parts(config, "low_rank")]
    expected = [(cell.path, block) for cell in cells(config, "low_rank") for block in seed_blocks(config, "low_rank")]
    assert found == expected
    assert len(found) == 2 * 2 * 3
    config["study"]["shared_jobs"] = 0
    alone = jobs(config, "low_rank")
    assert [[part.path for part in job] for job in alone.values()] == [[path] for path in alone]
    assert list(alone) == [f"{path}/seeds={block}" for path, block in expected]


@pytest.mark.parametrize(("asked", "number"), [(1, 8), (7, 14), (8, 8), (32, 32)])
def test_shared_jobs_hold_every_part_once_and_not_too_many(shipped, asked, number):
    # 924 points of the grid and 128 in a job at most, on average: one job is doubled to 8.
    config = shipped()
    config["study"]["shared_jobs"] = asked
    found = jobs(config, "convergence")
    assert len(found) == number
    assert all(re.fullmatch(rf"shared/\d{{3}}-of-{number}", path) for path in found)
    held = [part.path for job in found.values() for part in job]
    assert sorted(held) == sorted({part.path for part in parts(config, "convergence")})
    sizes = [len(job) for job in found.values()]
    assert max(sizes) < 2 * len(held) / number + 5  # dealt evenly


def test_added_cells_and_seeds_move_no_other_part(shipped):
    config = shipped()
    before = {part.path: path for path, job in jobs(config, "low_rank").items() for part in job}
    config["experiments"]["low_rank"]["grid"]["depth"] = [200, 1, 2, 3, 4, 5, 10]
    config["experiments"]["low_rank"]["seeds"] = 20
    after = {part.path: path for path, job in jobs(config, "low_rank").items() for part in job}
    assert len(after) == 2 * 7 * len(before) // 5
    assert before.items() <= after.items()


@pytest.mark.parametrize(("cells_of_grid", "shared"), [(1499, False), (1500, True)])
def test_only_many_jobs_are_shared_by_default(shipped, cells_of_grid, shared):
    config = shipped()
    del config["study"]["shared_jobs"]
    config["experiments"]["low_rank"]["grid"] = {
        "epsilon": [0],
        "smin": [0.5],
        "rank": [5],
        "depth": list(range(1, cells_of_grid + 1)),
    }
    found = jobs(config, "low_rank")
    assert len(found) == (255 if shared else cells_of_grid)  # one of 256 holds none of these
    assert all(path.startswith("shared/") == shared for path in found)


@pytest.mark.parametrize("block", ["", "3", "-1-2", "2-1", "0-9-10", "a-b", "0 - 9", "1.0-2", "0–9"])
def test_bad_seed_blocks_are_refused(block):
    with pytest.raises(ValueError, match=r"seeds must be FIRST-LAST with 0 ≤ FIRST ≤ LAST"):
        seeds_of(block)


# --- Optional axes ----------------------------------------------------------------------------------------------


def study(**block):
    """Study of one experiment with four axes and more."""
    grid = {"depth": [1, 2], "rank": [3], "smin": [1], "epsilon": [0, 0.1], **block.pop("grid")}
    shared = {"kind": "descent", "dimension": 5, "target": {"spectrum": "zipf", "mode": "eigenvalues"}}
    descent = {"max_steps": 10, "samples": 2}
    experiment = {**shared, "initialization": {}, "seeds": 1, "seeds_per_job": 1, "descent": descent, **block}
    return {"study": {"seed": 1}, "experiments": {"trial": {**experiment, "grid": grid}}}


def test_axes_of_keeps_their_order():
    assert axes_of(["seed", "step_size", "depth", "epsilon", "loss", "loss_name"]) == [
        "loss_name",
        "epsilon",
        "depth",
        "step_size",
    ]
    assert axes_of(dict.fromkeys(reversed(AXES))) == list(AXES)


def test_optional_axes_stand_in_the_path_around_the_four():
    grid = {"relative_step": [0.5, 1.05], "balance": ["none"], "initialization": ["normal"], "loss_name": ["frobenius"]}
    found = cells(study(grid=grid), "trial")
    common = "loss_name=frobenius/initialization=normal/balance=none/epsilon=0/smin=1/rank=3"
    assert [cell.path for cell in found[:4]] == [
        f"{common}/depth={depth}/relative_step={step}" for depth in (1, 2) for step in (0.5, 1.05)
    ]
    path = cells(study(loss="bures-wasserstein", grid={"step_size": [1e-5]}), "trial")[-1].path
    assert path == "epsilon=0.1/smin=1/rank=3/depth=2/step_size=1e-05"


@pytest.mark.parametrize(("axis", "value"), [("step_size", 1e-3), ("relative_step", 0.9)])
def test_step_sizes_are_settings(axis, value):
    found = cells(study(loss="bures-wasserstein", grid={axis: [value, 2 * value]}), "trial")
    assert [cell.settings[axis] for cell in found] == [value, 2 * value] * 4
    assert all(cell.settings["descent"] == {"max_steps": 10, "samples": 2} for cell in found)


def test_loss_axis_sets_the_loss():
    found = cells(study(grid={"loss_name": ["bures-wasserstein", "frobenius"]}), "trial")
    assert [cell.settings["loss"] for cell in found] == ["bures-wasserstein"] * 4 + ["frobenius"] * 4
    assert "loss_name" not in found[0].settings  # a cell has the same settings from the axis and from the block
    fixed = cells(study(loss="bures-wasserstein", grid={}), "trial")
    assert [cell.settings for cell in fixed] == [cell.settings for cell in found[:4]]


def test_square_loss_is_computed_once_for_all_smoothings():
    # It has no ε: cells that differ in it share settings and folder, and keep their place in the tables.
    found = cells(study(grid={"loss_name": ["bures-wasserstein", "frobenius"]}), "trial")
    square = [cell for cell in found if cell.settings["loss"] == "frobenius"]
    assert [cell.settings["epsilon"] for cell in square] == [0] * 4
    assert [cell.axes["epsilon"] for cell in square] == [0, 0, 0.1, 0.1]
    assert [cell.settings for cell in square[:2]] == [cell.settings for cell in square[2:]]
    assert [cell.path for cell in square[:2]] == [cell.path for cell in square[2:]]
    assert len({cell.path for cell in found}) == 4 + 2
    whole = cells(study(loss="frobenius", grid={}), "trial")
    assert [cell.settings["epsilon"] for cell in whole] == [0] * 4


def test_initialization_and_balance_axes_override_the_block():
    block = {"loss": "bures-wasserstein", "initialization": {"kind": "close", "balance": "none", "end_rank": 2}}
    grid = {"initialization": ["normal", "orthogonal"], "balance": ["product"], "epsilon": [0], "depth": [2]}
    found = cells(study(**block, grid=grid), "trial")
    assert [cell.settings["initialization"] for cell in found] == [
        {"kind": kind, "balance": "product", "end_rank": 2} for kind in ("normal", "orthogonal")
    ]
    assert found[0].settings["kind"] == "descent"
    assert "balance" not in found[0].settings
    plain = cells(study(**block, grid={}), "trial")
    assert all(cell.settings["initialization"] == block["initialization"] for cell in plain)


def test_optional_axis_with_one_value_changes_no_number():
    # Settings, that is: by the axis or by the block it is the same problem.
    settings = {"loss": "frobenius", "initialization": {"kind": "uniform", "balance": "end_to_end"}}
    by_block = cells(study(**settings, grid={"relative_step": [0.5]}), "trial")
    grid = {
        "loss_name": ["frobenius"],
        "initialization": ["uniform"],
        "balance": ["end_to_end"],
        "relative_step": [0.5],
    }
    by_axis = cells(study(grid=grid), "trial")
    assert [cell.settings for cell in by_block] == [cell.settings for cell in by_axis]
    assert by_block[0].path != by_axis[0].path


# --- Experiments on the landscape -------------------------------------------------------------------------------


def landscape(grid, **block):
    """Study of one experiment that trains nothing."""
    config = study(kind="hessian", landscape={"points": 3}, grid=grid, **block)
    for key in ("initialization", "descent"):
        del config["experiments"]["trial"][key]
    return config


def test_landscape_is_a_setting_and_nothing_of_training_is():
    found = cells(landscape({}, loss="bures-wasserstein"), "trial")
    assert [cell.path for cell in found[:2]] == [f"epsilon=0/smin=1/rank=3/depth={depth}" for depth in (1, 2)]
    for cell in found:
        assert cell.settings == {
            "study_seed": 1,
            "kind": "hessian",
            "loss": "bures-wasserstein",
            "dimension": 5,
            "target": {"spectrum": "zipf", "mode": "eigenvalues"},
            "landscape": {"points": 3},
            **cell.axes,
        }


def test_landscape_of_the_square_loss_is_computed_once_for_all_smoothings():
    found = cells(landscape({"loss_name": ["bures-wasserstein", "frobenius"]}), "trial")
    square = [cell for cell in found if cell.settings["loss"] == "frobenius"]
    assert [cell.axes["epsilon"] for cell in square] == [0, 0, 0.1, 0.1]
    assert [cell.settings for cell in square[:2]] == [cell.settings for cell in square[2:]]
    assert len({cell.path for cell in found}) == 4 + 2


def test_shipped_landscapes_have_no_start(shipped):
    config = shipped()
    kinds = {name: block["kind"] for name, block in config["experiments"].items() if "landscape" in block}
    assert kinds
    for name, kind in kinds.items():
        for cell in cells(config, name):
            assert set(cell.settings).isdisjoint({"initialization", "integration", "descent"})
            assert cell.settings["kind"] == kind
            assert cell.settings["landscape"] == config["experiments"][name]["landscape"]
