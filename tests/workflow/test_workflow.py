"""The real Snakemake on tiny grids: fresh runs, reruns, extensions, order, mistakes."""

import ast
import fcntl
import html
import json
import math
import os
import re
import shutil
import subprocess
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from projects import (
    JOBS,
    ROOT,
    TABLES,
    collected_cells,
    computed_cells,
    contents,
    copy_of_project,
    edit,
    new_cells,
    planned,
    run_jobs,
    snakemake,
)
from promised_outputs import FIGURES, missing
from promised_outputs import TABLES as PROMISED_TABLES

from deepbures.study.results.archive import MANIFEST


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished tiny study, made once for all workers; tests copy it before they change it."""
    base = tmp_path_factory.getbasetemp()
    base = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    folder, done = base / "finished", base / "finished.done"
    with (base / "finished.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            run = snakemake(copy_of_project(folder))
            assert run.returncode == 0, run.stderr[-3000:]
            done.touch()
    return folder


@pytest.fixture
def study(finished: Path, tmp_path: Path) -> Path:
    """A copy of the finished study, times of files and Snakemake's records included."""
    return Path(shutil.copytree(finished, tmp_path / "study"))


@pytest.mark.slow
def test_default_study_holds_the_authors_grid(tmp_path):
    # 4 ε × 11 smin × 21 depths = 924 cells, of which 2 × 21 stand twice more (smin = -1, ε limited to λ_n),
    # and the whole grids of the others; the square loss is computed once for all ε.
    blocks = yaml.safe_load((ROOT / "config/config.yaml").read_text(encoding="utf-8"))["experiments"]
    expected = {
        name: math.prod(map(len, block["grid"].values())) * (block["seeds"] // block["seeds_per_job"])
        for name, block in blocks.items()
    }
    assert expected["convergence"] == 924
    expected["convergence"] -= 42
    for name, block in blocks.items():
        if "frobenius" in block["grid"].get("loss_name", []):
            grid = block["grid"]
            others = math.prod(len(values) for axis, values in grid.items() if axis not in ("loss_name", "epsilon"))
            expected[name] -= (len(grid["epsilon"]) - 1) * others
    folder = copy_of_project(tmp_path)
    shared = run_jobs(planned(folder, "aggregates", config=None))
    assert shared.keys() == expected.keys()
    assert all(count <= min(32, expected[name]) for name, count in shared.items())
    edit(folder / "config/config.yaml", "shared_jobs: 4", "shared_jobs: 0")
    assert run_jobs(planned(folder, "aggregates", config=None)) == expected


@pytest.mark.slow
def test_an_experiment_is_pointed_at_a_file_and_shows_the_figures_of_another_under_its_name(tmp_path):
    folder = copy_of_project(tmp_path)
    np.save(folder / "mine.npy", np.diag([5.0, 4, 3, 2, 1]))
    # Snakemake itself would merge the file with the drawn target below it.
    overlay = {
        "study": {"only": ["low_rank", "plateaus"]},
        "experiments": {"low_rank": {"target": {"covariance": "mine.npy"}}},
        "figures": {"low_rank": {"show": {"epsilon": [0.1]}}, "mine": {"family": "low_rank", "experiment": "plateaus"}},
    }
    (folder / "own.yaml").write_text(yaml.safe_dump(overlay), encoding="utf-8")
    dry = snakemake(folder, "--dry-run", "--configfile", "tiny.yaml", "own.yaml", config=None)
    assert dry.returncode == 0, dry.stderr
    made = set(re.findall(r"[\w/.]+\.(?:png|csv|rst)", dry.stdout))
    for place in ("figures/tiny/{}F4_ranks.png", "results/tiny/tables/{}T3_rates_low_rank.csv"):
        assert {place.format(""), place.format("mine/")} <= made
    assert "results/tiny/captions/mine/F4_ranks.rst" in made
    assert "mine.npy" in dry.stdout


def test_snakemake_lint_asks_for_nothing_but_environments(tmp_path):
    # The environment of every rule is the one that the lock installs and Snakemake itself runs in.
    folder = copy_of_project(tmp_path)
    report = snakemake(folder, "--lint", config=None).stderr
    titles = set(re.findall(r"^ +\* (.*)$", report, flags=re.MULTILINE))
    assert titles == {"Specify a conda environment or container for each rule.:"}


@pytest.mark.slow
def test_one_command_makes_every_promised_output(finished):
    assert missing(finished / "results/tiny", finished / "figures/tiny") == []


@pytest.mark.slow
@pytest.mark.parametrize("experiment", ["convergence", "low_rank"])
def test_loss_falls_and_the_papers_bound_holds_at_every_recorded_point(finished, experiment):
    # L(t) − L* ≤ (L(0) − L*) exp(−8 N c^{2(2N−1)/N} K t) where c > 0
    cell = ["epsilon", "smin", "rank", "depth", "seed"]
    runs, samples = (
        pd.read_parquet(finished / f"results/tiny/{experiment}/{table}.parquet") for table in ("runs", "trajectories")
    )
    excess = samples.groupby(cell, sort=False)["excess"]
    assert (excess.diff().dropna() <= 0).all()
    joined = samples.merge(runs[[*cell, "excess_initial", "bound_rate"]], on=cell).dropna(subset=["bound_rate"])
    bound = joined["excess_initial"] * np.exp(-joined["bound_rate"] * joined["time"])
    assert (joined["excess"] <= bound * (1 + 1e-12)).all()
    # From a small start below full rank no run has a margin: there the bound says nothing.
    assert len(joined) > 500 if experiment == "convergence" else joined.empty


def test_notebooks_show_by_default_what_the_configuration_names():
    import papermill

    # The defaults of a notebook are those of the family of its name; other families may share it.
    files = [path for path in (ROOT / "config").glob("*.yaml") if "smoke" not in path.name]
    figures = {}
    for file in files:
        figures |= yaml.safe_load(file.read_text(encoding="utf-8")).get("figures", {})
    families = yaml.safe_load((ROOT / "workflow/figures.yaml").read_text(encoding="utf-8"))
    shared = {name: family["notebook"] for name, family in families.items() if "notebook" in family}
    assert {"step_sizes_low_rank", "bounds_n1"} <= shared.keys()
    notebooks = {path.stem for path in (ROOT / "workflow/notebooks").glob("*.ipynb")}
    assert notebooks == (figures.keys() - shared.keys()) | set(shared.values())
    for name in figures.keys() - shared.keys():
        parameters = papermill.inspect_notebook(str(ROOT / f"workflow/notebooks/{name}.ipynb"))
        assert ast.literal_eval(parameters["show"]["default"]) == figures[name].get("show", {}), name
        experiment = ast.literal_eval(parameters["results"]["default"])
        assert experiment == f"../../results/{figures[name]['experiment']}"


@pytest.mark.slow
def test_nothing_is_left_to_do_after_a_run(study):
    assert "Nothing to be done" in snakemake(study, "--dry-run").stdout


@pytest.mark.slow
def test_an_added_depth_runs_only_the_new_cells_and_changes_no_number(study):
    before = collected_cells(study)
    computed_cells(study)  # of the first run
    edit(study / "tiny.yaml", "rank: [4], depth: [1, 10]}", "rank: [4], depth: [1, 10, 200]}")
    assert new_cells(study) == {"convergence": 4}
    assert run_jobs(planned(study, "aggregates")) == {"convergence": 12}
    assert snakemake(study, "aggregates").returncode == 0
    assert computed_cells(study) == {"convergence": 4}
    after = collected_cells(study)
    assert len(after) == len(before) + 2 * 4
    assert {name: after[name] for name in before} == before
    assert list(study.glob("results/tiny/*/.cells")) == []  # each number is there once
    assert len(list(study.glob("results/**/runs.parquet"))) == len(list(study.glob("results/tiny/*/runs.parquet")))


@pytest.mark.slow
def test_an_added_epsilon_and_seed_block_run_only_what_is_new(study):
    edit(study / "tiny.yaml", "grid: {epsilon: [0, 0.1], smin", "grid: {epsilon: [0, 0.05, 0.1], smin")
    assert new_cells(study) == {"convergence": 4}
    edit(
        study / "tiny.yaml",
        "seeds: 2\n    seeds_per_job: 2\n    grid: {epsilon: [0, 0.05",
        "seeds: 4\n    seeds_per_job: 2\n    grid: {epsilon: [0, 0.05",
    )
    assert new_cells(study) == {"convergence": 4 + 12}
    edit(
        study / "tiny.yaml",
        "relative_step: [0.5, 1.05]}\n    descent: {max_steps: 300}\n  descent_low",
        "relative_step: [0.5, 0.9, 1.05]}\n    descent: {max_steps: 300}\n  descent_low",
    )
    assert new_cells(study) == {"convergence": 4 + 12, "descent": 4}


@pytest.mark.slow
def test_a_changed_setting_reruns_its_experiment_only(study):
    edit(study / "config/config.yaml", "      scale: 0.01", "      scale: 0.02")
    assert run_jobs(planned(study, "aggregates")) == {name: JOBS[name] for name in ("low_rank", "plateaus")}
    edit(study / "tiny.yaml", "{max_steps: 2000}", "{max_steps: 2001}")
    changed = {name: JOBS[name] for name in ("low_rank", "plateaus", "loss_comparison")}
    assert run_jobs(planned(study, "aggregates")) == new_cells(study) == changed


@pytest.mark.slow
def test_forcing_everything_computes_nothing_and_says_so_and_a_clean_start_is_one(study):
    before = contents(study)
    computed_cells(study)
    run = snakemake(study, "--forceall", "aggregates")
    assert run.returncode == 0
    assert computed_cells(study) == {}
    assert contents(study) == before
    assert f"{sum(JOBS.values())} cells are there: they are not computed again, not even with -F" in run.stderr
    assert snakemake(study, "--delete-all-output").returncode == 0
    assert [path for path in contents(study, "results/**/*") if ".wanted" not in path] == []
    assert contents(study, "figures/**/*") == {}
    assert new_cells(study) == JOBS


@pytest.mark.slow
def test_an_edited_numerical_module_reruns_the_cells_and_a_comment_does_not(study):
    edit(study / "src/deepbures/linalg/psd.py", '"""Symmetric part', '"""The symmetric part')
    edit(study / "src/deepbures/losses/dense.py", "_EIGH_CONDITION = 1e-6", "_EIGH_CONDITION = 1e-6  # a comment")
    assert "Nothing to be done" in snakemake(study, "--dry-run").stdout
    edit(study / "src/deepbures/losses/dense.py", "_EIGH_CONDITION = 1e-6", "_EIGH_CONDITION = 1e-7")
    assert run_jobs(planned(study)) == JOBS


@pytest.mark.slow
def test_an_edited_descent_reruns_no_flow(study):
    edit(study / "src/deepbures/descent/gradient_descent.py", "CHECK_INTERVAL = 10", "CHECK_INTERVAL = 20")
    blocks = yaml.safe_load((study / "config/config.yaml").read_text(encoding="utf-8"))["experiments"]
    descents = {name: count for name, count in JOBS.items() if blocks[name]["kind"] in ("descent", "deep_steps")}
    assert run_jobs(planned(study)) == descents


@pytest.mark.slow
def test_an_edited_figure_function_reruns_notebooks_and_no_cell(study):
    edit(study / "src/deepbures/plotting/style.py", "COLUMN, TEXT = 3.3, 6.8", "COLUMN, TEXT = 3.4, 6.8")
    jobs = planned(study)
    assert {rule.partition("_")[0] for rule in jobs} == {"notebook", "claims", "pages", "study", "total"}
    notebooks = {rule for rule in jobs if rule.startswith("notebook_")}
    assert len(notebooks) >= 18
    assert jobs["total"] == len(notebooks) + 3  # claims, pages, and the study itself
    assert jobs["notebook_rates"] == 1


@pytest.mark.slow
def test_results_do_not_depend_on_cores_or_order(finished, tmp_path):
    folder = copy_of_project(tmp_path)
    edit(folder / "tiny.yaml", "depth: [1, 10]}\n  low", "depth: [10, 1]}\n  low")  # another order of jobs
    edit(folder / "tiny.yaml", "epsilon: [0, 0.1]", "epsilon: [0.1, 0]")
    edit(folder / "tiny.yaml", "relative_step: [0.5, 1.05]", "relative_step: [1.05, 0.5]")
    assert snakemake(folder, "--cores", "1", "aggregates").returncode == 0
    here, there = (collected_cells(place) for place in (folder, finished))
    assert here == there
    assert len(here) == sum(count * TABLES.get(name, 2) for name, count in JOBS.items())


@pytest.mark.slow
def test_aggregates_do_not_depend_on_cores_or_how_cells_share_jobs(finished, tmp_path):
    folder = copy_of_project(tmp_path)
    edit(folder / "tiny.yaml", "shared_jobs: 0", "shared_jobs: 3")
    assert snakemake(folder, "--cores", "4", "aggregates").returncode == 0
    here, there = (contents(place, "results/tiny/*/*.parquet") for place in (folder, finished))
    assert [name for name in here.keys() | there.keys() if here.get(name) != there.get(name)] == []
    assert len(here) == sum(TABLES.get(name, 2) for name in JOBS)
    # Other jobs ask for the same cells: every one is found, none is computed.
    computed_cells(folder)
    edit(folder / "tiny.yaml", "shared_jobs: 3", "shared_jobs: 2")
    assert new_cells(folder) == {}
    assert snakemake(folder, "--forceall", "aggregates").returncode == 0
    assert computed_cells(folder) == {}
    assert contents(folder, "results/tiny/*/*.parquet") == there


@pytest.mark.slow
@pytest.mark.parametrize("name", ["rates", "low_rank", "step_sizes", "hessian", "surface"])
def test_a_notebook_runs_alone_with_its_default_parameters(finished, tmp_path, name):
    # Of the others, test_notebooks_show_by_default_… reads the defaults, and the rules run them.
    import papermill

    folder = tmp_path / "project"  # laid out like the repository after a full study
    shutil.copytree(finished / "workflow", folder / "workflow")
    shutil.copytree(finished / "results/tiny", folder / "results")
    notebooks = folder / "workflow/notebooks"
    papermill.execute_notebook(
        str(notebooks / f"{name}.ipynb"), str(tmp_path / "out.ipynb"), cwd=str(notebooks), progress_bar=False
    )
    assert list(folder.glob("figures/*.png")) or list((folder / "results/tables").glob("*.csv"))


@pytest.mark.slow
def test_an_executed_notebook_runs_where_it_lies(finished, tmp_path):
    import papermill

    folder = Path(shutil.copytree(finished, tmp_path / "project", ignore=shutil.ignore_patterns(".snakemake", "src")))
    (folder / "figures/tiny/main_result.png").unlink()
    notebook = folder / "results/tiny/notebooks/rates.ipynb"
    before = sorted(notebook.parent.iterdir())
    papermill.execute_notebook(str(notebook), str(tmp_path / "out.ipynb"), cwd=str(notebook.parent), progress_bar=False)
    assert (folder / "figures/tiny/main_result.png").exists()
    assert sorted(notebook.parent.iterdir()) == before


def examples_of_the_documentation() -> list[str]:
    """YAML files that docs/extending.md tells a reader to write."""
    text = (ROOT / "docs/extending.md").read_text(encoding="utf-8")
    return re.findall(r"```yaml\n# mine.yaml\n(.*?)```", text, flags=re.DOTALL)


@pytest.mark.slow
def test_an_added_depth_as_documented_adds_its_cells(tmp_path):
    folder = copy_of_project(tmp_path)
    edit(folder / "config/config.yaml", "shared_jobs: 4", "shared_jobs: 0")
    (folder / "mine.yaml").write_text(examples_of_the_documentation()[0])
    before, after = (run_jobs(planned(folder, "aggregates", config=config)) for config in (None, "mine.yaml"))
    assert after.pop("low_rank") == before.pop("low_rank") * 6 // 5
    assert after == before


@pytest.mark.slow
def test_an_own_covariance_as_documented_gets_its_results_and_figure(tmp_path):
    folder = copy_of_project(tmp_path)
    edit(folder / "config/config.yaml", "shared_jobs: 4", "shared_jobs: 0")
    places = "study: {results: my results/a b, figures: my figures}\n"  # spaces pass through every command
    (folder / "mine.yaml").write_text(examples_of_the_documentation()[1] + places)
    rng = np.random.default_rng(0)
    A = rng.standard_normal((5, 8))
    np.save(folder / "my_covariance.npy", A @ A.T)
    targets = ["my results/a b/mine/runs.parquet", "my figures/F5_energy_levels.png"]
    run = snakemake(folder, *targets, config="mine.yaml")
    assert run.returncode == 0, run.stderr[-2000:]
    runs = pd.read_parquet(folder / targets[0])
    assert len(runs) == 2 * 2 * 4 * 10
    np.testing.assert_allclose(runs["eigenvalues_target"].iloc[0], np.linalg.eigvalsh(A @ A.T)[::-1], rtol=1e-12)
    assert (folder / targets[1]).exists()
    np.save(folder / "my_covariance.npy", A @ A.T + np.eye(5))
    assert run_jobs(planned(folder, *targets, config="mine.yaml")) == {"mine": 16}
    np.save(folder / "my_covariance.npy", A)
    refused = snakemake(folder, *targets, config="mine.yaml")
    assert refused.returncode != 0
    assert "my_covariance.npy: a covariance must be a square matrix, not of shape (5, 8)" in refused.stderr
    assert len(pd.read_parquet(folder / targets[0])) == 160  # nothing was lost


def commands_of_the_documentation(patch: str) -> list[str]:
    """What docs/extending.md says to run after a patch is applied."""
    text = (ROOT / "docs/extending.md").read_text(encoding="utf-8")
    command = text.split(f"    git apply docs/examples/{patch}\n")[1].splitlines()[0]
    assert command.startswith("    snakemake --cores 2 --configfile ")
    return command.split()[4:]


def patched(folder: Path, patch: str) -> list[str]:
    """Apply a worked example to a copy of the project; its configuration file, and what to make."""
    copy_of_project(folder)
    command = ["git", "apply", str(ROOT / "docs/examples" / patch)]
    subprocess.run(command, cwd=folder, check=True, env={**os.environ, "GIT_CEILING_DIRECTORIES": str(folder.parent)})
    words = commands_of_the_documentation(patch)
    edit(folder / words[0], "seeds: 10\n    seeds_per_job: 10", "seeds: 2\n    seeds_per_job: 2")  # for less time
    return words


@pytest.mark.slow
def test_the_worked_example_of_a_loss_trains_to_its_minimum(tmp_path):
    config, _, *targets = patched(tmp_path, "new_loss.patch")
    run = snakemake(tmp_path, *targets, config=config)
    assert run.returncode == 0, run.stderr[-2000:]
    for target in targets:
        runs = pd.read_parquet(tmp_path / target)
        assert (runs["sharp_rate"] > 0).all()  # from its local rates in closed form
        done = runs[runs["stop_reason"] == "converged"]
        assert len(done) >= len(runs) / 2
        np.testing.assert_allclose(done["loss_final"], done["loss_minimum"], rtol=1e-6)
        eigenvalues = np.stack(done["eigenvalues_target"])
        missing = np.array([np.sum(e[k:] ** 2) / np.sum(e**2) for e, k in zip(eigenvalues, done["rank"], strict=True)])
        np.testing.assert_allclose(done["loss_minimum"], missing, rtol=1e-12)  # Eckart-Young, in units of ‖Σ0‖²
    edit(tmp_path / config, "step_size: [0.2]", "relative_step: [0.2]")
    assert snakemake(tmp_path, targets[1], config=config).returncode == 0  # relative to 2/λ_max, which these rates give


@pytest.mark.slow
def test_the_worked_example_of_an_experiment_makes_its_figure(tmp_path):
    config, _, *targets = patched(tmp_path, "new_experiment.patch")
    run = snakemake(tmp_path, *targets, config=config)
    assert run.returncode == 0, run.stderr[-2000:]
    assert (tmp_path / targets[0]).stat().st_size > 10_000
    values = pd.read_parquet(tmp_path / "results/random_values/values.parquet")
    assert len(values) == 4 * 2 * 200
    assert (values["loss"] >= values["loss_minimum"]).all()


@pytest.mark.slow
def test_the_worked_example_on_digits_makes_its_figure(tmp_path):
    folder = copy_of_project(tmp_path)
    edit(folder / "config/digits.yaml", "rank: [16]", "rank: [3]")
    edit(folder / "config/digits.yaml", "max_steps: 3000", "max_steps: 300")
    run = snakemake(folder, "figures/G9_digits.png", config="config/digits.yaml")
    assert run.returncode == 0, run.stderr[-2000:]
    assert (folder / "figures/G9_digits.png").stat().st_size > 10_000


@pytest.mark.slow
def test_the_report_holds_every_figure_and_table_with_its_caption(study):
    run = snakemake(study, "--report", "results/tiny/report.html")
    assert run.returncode == 0, run.stderr[-2000:]
    page = (study / "results/tiny/report.html").read_text(encoding="utf-8")
    about = {}
    for family in yaml.safe_load((ROOT / "workflow/figures.yaml").read_text(encoding="utf-8")).values():
        about |= {**family.get("figures", {}), **family.get("tables", {})}
    for name in {*FIGURES, *PROMISED_TABLES} - {"claims"}:
        title = f"{about[name]['title']} ({about[name]['source']})"
        assert json.dumps(title)[1:-1] in page or title in html.unescape(page), name
        caption = (study / f"results/tiny/captions/{name}.rst").read_text(encoding="utf-8")
        assert caption.startswith(f"{about[name]['caption']}\n\nExperiment "), name
    assert "Every converged flow is included." in page  # from a caption
    assert "Claims, as a table" in page
    provenance = pd.read_csv(study / "results/tiny/provenance.csv")
    assert len(provenance) == sum(TABLES.get(name, 2) for name in JOBS)
    assert provenance["code"].str.fullmatch("[0-9a-f]{16}").all()
    assert "What the study was made from" in page
    assert "Experiment low_rank: n = 6, 2 seeds; epsilon 0.1; smin 0.5; rank 5; depth 1, 2." in page
    assert not re.search(r"<(?:script|link|img)\b[^>]*(?:src|href)\s*=\s*[\"']?https?:", page)  # nothing is fetched


@pytest.mark.slow
def test_an_archive_gives_the_figures_back_without_any_run(study, tmp_path):
    assert snakemake(study, "archive").returncode == 0
    archive = study / "results/tiny/archive.zip"
    elsewhere = copy_of_project(tmp_path / "elsewhere")
    with zipfile.ZipFile(archive) as content:
        content.extractall(elsewhere)
    subprocess.run(["sha256sum", "--check", "--quiet", MANIFEST], cwd=elsewhere, check=True)
    shutil.rmtree(elsewhere / "figures")
    jobs = planned(elsewhere, config="study.yaml")
    assert {rule.partition("_")[0] for rule in jobs} <= {
        "notebook",
        "claims",
        "pages",
        "study",
        "total",
    }
    names = ["F5_energy_levels", "G10_loss_comparison", "claims"]
    assert snakemake(elsewhere, *(f"figures/tiny/{name}.png" for name in names), config="study.yaml").returncode == 0
    for name in names:
        again, first = (place / f"figures/tiny/{name}.png" for place in (elsewhere, study))
        assert again.read_bytes() == first.read_bytes()


@pytest.mark.slow
def test_a_violated_claim_is_shown_and_fails_the_run_where_asked(study):
    claims = study / "results/tiny/claims.csv"
    edit(study / "tiny.yaml", "shared_jobs: 0}", "shared_jobs: 0, fail_on_violated_claims: true}")
    table = pd.read_csv(claims)
    known = table["refuted"].notna()
    assert table.loc[table["verdict"] == "violated", "name"].tolist() == ["bound of the flow"]
    assert table.loc[known, "name"].tolist() == ["bound of the flow", "contraction of descent"]
    assert snakemake(study).returncode == 0  # it is known to be false
    only = ("--forcerun", "claims_hold", "--allowed-rules", "claims_hold", "study")
    table.assign(verdict="violated").to_csv(claims, index=False)
    run = snakemake(study, *only)
    assert run.returncode != 0
    assert f"violated: {', '.join(table.loc[~known, 'name'])}" in run.stderr
    assert claims.exists()


def test_a_mistake_in_the_configuration_gives_one_line_and_no_job(tmp_path):
    # Which mistakes there are, tests/study/test_configuration.py shows.
    folder = copy_of_project(tmp_path)
    edit(folder / "tiny.yaml", "depth: [1, 10]", "dept: [1, -4]")
    run = snakemake(folder)
    assert run.returncode != 0
    lines = [
        line
        for line in run.stderr.splitlines()
        if line.strip() and not re.search("is extended by|Using .* profile", line)
    ]
    assert len(lines) == 1, run.stderr
    assert all(part in lines[0] for part in ("experiments.convergence.grid", "unknown key 'dept'", "mean 'depth'?"))
    assert not (folder / "results").exists()
    assert not (folder / "logs").exists()


def test_a_failing_run_names_its_mistake_in_its_log_and_the_profile_is_used(tmp_path):
    # ε > λ_n is limited, but a close start of rank 1 has L* > λ_1: no start has a margin
    folder = copy_of_project(tmp_path)
    edit(folder / "tiny.yaml", "rank: [4]", "rank: [1]")
    edit(folder / "tiny.yaml", "shared_jobs: 0", "shared_jobs: 1")
    run = snakemake(folder, "results/tiny/convergence/runs.parquet")
    assert run.returncode != 0
    assert "profiles/default" in run.stderr
    log = (folder / "logs/results/tiny/convergence/shared/000-of-1.log").read_text()
    assert log.splitlines()[-1].startswith("deepbures: no start close to the target has a margin")
    assert "Traceback" not in log
