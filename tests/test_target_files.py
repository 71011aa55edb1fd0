"""Targets from files: what is read, and the one line that each mistake gets."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from deepbures.experiment import run_cell
from deepbures.target_files import file_of, read_target


@pytest.fixture
def covariance(rng):
    A = rng.standard_normal((4, 6))
    return A @ A.T


def save(path, array):
    if path.suffix == ".npy":
        np.save(path, array)
    elif path.suffix == ".csv":
        np.savetxt(path, array, delimiter=",", fmt="%.17g")
    else:
        pq.write_table(pa.table({f"x{j}": column for j, column in enumerate(np.asarray(array).T)}), path)
    return str(path)


@pytest.mark.parametrize("suffix", [".npy", ".csv", ".parquet"])
def test_a_covariance_is_read_as_it_was_written(tmp_path, covariance, suffix):
    path = save(tmp_path / f"target{suffix}", covariance)
    np.testing.assert_array_equal(read_target({"covariance": path}, 4), (covariance + covariance.T) / 2)


@pytest.mark.parametrize("suffix", [".npy", ".csv", ".parquet"])
def test_samples_give_the_maximum_likelihood_estimate(tmp_path, rng, suffix):
    samples = rng.standard_normal((50, 4)) + 3
    path = save(tmp_path / f"samples{suffix}", samples)
    np.testing.assert_allclose(read_target({"samples": path}, 4), np.cov(samples.T, bias=True), rtol=1e-12)


def with_entry(matrix, value, place=(0, 1)):
    changed = matrix.copy()
    changed[place] = value
    return changed


MISTAKES = [
    ("covariance", ".npy", lambda S: S[:3], r"target.npy: a covariance must be a square matrix, not of shape \(3, 4\)"),
    ("covariance", ".csv", lambda S: with_entry(S, 9), r"target.csv must be symmetric"),
    ("covariance", ".npy", lambda S: S - 50 * np.eye(4), r"target.npy must be positive semidefinite.*eigenvalue is -"),
    ("covariance", ".parquet", lambda S: with_entry(S, np.nan), r"target.parquet must be finite, but it holds 1 NaN"),
    ("covariance", ".npy", lambda S: S[None], r"target.npy: it must hold a matrix, not an array of shape \(1, 4, 4\)"),
    ("covariance", ".npy", lambda S: S[:2, :2], r"it is of dimension 2, but the experiment of dimension 4"),
    ("covariance", ".npy", lambda S: S.astype(complex), r"target.npy must hold real numbers, not complex128"),
    ("samples", ".csv", lambda S: S[:1], r"an estimate needs at least 2 samples \(rows\), not 1"),
    ("samples", ".npy", lambda S: S[:, :3], r"it is of dimension 3, but the experiment of dimension 4"),
    ("samples", ".npy", lambda S: with_entry(S, np.inf), r"must be finite"),
]


@pytest.mark.parametrize(("kind", "suffix", "change", "message"), MISTAKES)
def test_a_wrong_matrix_is_refused_in_one_line(tmp_path, covariance, kind, suffix, change, message):
    path = save(tmp_path / f"target{suffix}", change(covariance))
    with pytest.raises(ValueError, match=message) as error:
        read_target({kind: path}, 4)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("missing.npy", None, "missing.npy: there is no such file"),
        ("target.txt", b"1", r"the format must be one of .npy, .csv, .parquet, not '.txt'"),
        ("target.npy", b"no array", "target.npy: cannot be read as npy"),
        ("target.csv", b"a,b\n1,2\n", "target.csv: cannot be read as csv"),
        ("target.parquet", b"PAR1", "target.parquet: cannot be read as parquet"),
    ],
)
def test_a_wrong_file_is_refused_in_one_line(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message) as error:
        read_target({"covariance": str(tmp_path / name)}, 4)
    assert "\n" not in str(error.value)


def test_targets_that_are_drawn_have_no_file():
    assert file_of({"spectrum": "zipf", "mode": "eigenvalues"}) is None
    assert file_of({"samples": "x.npy"}) == "x.npy"


def test_a_cell_trains_on_the_target_of_its_file(tmp_path, covariance):
    settings = {
        "study_seed": 1,
        "kind": "flow",
        "loss": "bures-wasserstein",
        "dimension": 4,
        "target": {"covariance": save(tmp_path / "own.npy", covariance)},
        "initialization": {"kind": "small", "scale": 0.1},
        "integration": {"rtol": 1e-6, "excess_tolerance": 1e-8, "max_time": 100, "max_steps": 1000, "samples": 10},
        **{"epsilon": 0, "smin": -1, "rank": 4, "depth": 2},
    }
    runs = run_cell(settings, range(2))["runs"].to_pylist()
    eigenvalues = np.linalg.eigvalsh(covariance)[::-1]
    for run in runs:
        np.testing.assert_allclose(run["eigenvalues_target"], eigenvalues, rtol=1e-12)
        np.testing.assert_allclose(run["eigenvalues_final"], eigenvalues, rtol=1e-3)
    assert (
        runs[0]["eigenvalues_initial"] != runs[1]["eigenvalues_initial"] or runs[0]["alignment"] != runs[1]["alignment"]
    )
