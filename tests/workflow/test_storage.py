"""Without a shared file system: every file goes through a storage provider, and the results are the same bytes."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from projects import computed_cells, copy_of_project, edit, planned, snakemake

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not shutil.which("rsync"), reason="the plugin for folders copies with rsync"),
]
SMALL = """
study: {results: results/small, figures: figures/small, shared_jobs: 2, only: [flows, mine]}
experiments:
  flows: &flows
    kind: flow
    loss: bures-wasserstein
    dimension: 3
    target: {spectrum: zipf, mode: eigenvalues}
    initialization: {kind: small, scale: 0.01}
    seeds: 2
    seeds_per_job: 1
    grid: {epsilon: [0], smin: [0.5], rank: [2], depth: [1, 2]}
    integration: {rtol: 1.0e-6, excess_tolerance: 1.0e-6, max_time: 1000, max_steps: 300, samples: 10}
  mine:
    <<: *flows
    target: {covariance: my own.npy}
    grid: {epsilon: [0], smin: [-1], rank: [2], depth: [1]}
figures:
  low_rank: {experiment: flows, show: {epsilon: [0], rank: [2], depth: [1, 2]}}
"""


def project(folder: Path) -> Path:
    copy_of_project(folder)
    (folder / "tiny.yaml").write_text(SMALL)
    np.save(folder / "my own.npy", np.diag([3.0, 2.0, 1.0]))
    return folder


def results(folder: Path) -> dict[str, bytes]:
    """Bytes of all results; executed notebooks hold times and paths."""
    files = [path for place in ("results/small", "figures/small") for path in (folder / place).rglob("*")]
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in files
        if path.is_file() and ".wanted" not in path.parts and path.suffix != ".ipynb"
    }


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = project(tmp_path_factory.mktemp("shared"))
    run = snakemake(folder)
    assert run.returncode == 0, run.stderr[-2000:]
    return results(folder)


@pytest.mark.parametrize("shared", ["persistence software-deployment sources source-cache", "none"])
def test_a_study_through_storage_gives_the_same_bytes(tmp_path, undisturbed, shared):
    folder, storage = project(tmp_path / "project"), tmp_path / "storage"
    options = ["--default-storage-provider", "fs", "--default-storage-prefix", str(storage)]
    options += ["--shared-fs-usage", *shared.split()]
    run = snakemake(folder, *options)
    assert run.returncode == 0, run.stderr[-2000:]
    assert results(storage) == undisturbed
    assert results(folder) == {}
    if shared != "none":  # there Snakemake keeps no records, and dates of copies are those of the copying
        assert planned(folder, *options) == {}
    # A depth is added: without a disk to look at, every cell of the experiment is computed, and no other.
    computed_cells(storage)
    edit(folder / "tiny.yaml", "rank: [2], depth: [1, 2]}", "rank: [2], depth: [1, 2, 3]}")
    assert snakemake(folder, "aggregates", *options).returncode == 0
    logs = "".join(path.read_text() for path in storage.glob("logs/results/small/flows/**/*.log"))
    assert logs.count("are there") == 2
