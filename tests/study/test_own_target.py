"""The study of one's own covariance: choices from its spectrum, and a configuration that is valid as it stands."""

import numpy as np
import pytest

from deepbures.__main__ import main
from deepbures.study import configuration
from deepbures.study.own_target import configuration_of, name_of, ranks_at_gaps, target_of

#: Spectra of targets: with gaps, singular, of two directions, ill-conditioned, without any gap.
SPECTRA = {
    "gaps": [9, 7, 3, 1.2, 1, 0.4, 0.3, 0.2],
    "singular": [3, 2, 1, 0, 0],
    "plane": [2, 1],
    "condition": [1, 1e-3, 1e-5, 1e-8],
    "equal": [1, 1, 1],
    "many": [1 / i for i in range(1, 31)],
}


@pytest.fixture
def covariance(tmp_path, rng):
    """Writer of a covariance with given eigenvalues; returns the path."""

    def write(eigenvalues):
        Q, _ = np.linalg.qr(rng.standard_normal((len(eigenvalues),) * 2))
        np.save(tmp_path / "mine.npy", (Q * np.array(eigenvalues)) @ Q.T)
        return tmp_path / "mine.npy"

    return write


def checked(shipped, families, tmp_path, text):
    """The shipped study with a text laid over it, checked, figures included."""
    (tmp_path / "own.yaml").write_text(text, encoding="utf-8")
    config = shipped()
    configuration.lay_over(config, configuration.read(tmp_path / "own.yaml"))
    return configuration.check(config, families)


@pytest.mark.parametrize(
    ("eigenvalues", "ranks"),
    [
        ([9, 7, 3, 1.2, 1, 0.4, 0.3, 0.2], [2, 3, 5]),  # ratios 2.33, 2.5 and 2.5
        ([8, 4, 2, 1], [1, 2, 3]),
        ([3, 2, 1, 0, 0], [1, 2, 3]),  # nothing is behind the last positive eigenvalue
        ([1, 1, 1, 0.1, 0.1], [1, 2, 3]),
        ([100, 1], [1]),
    ],
)
def test_ranks_are_those_before_the_largest_gaps(eigenvalues, ranks):
    assert ranks_at_gaps(np.array(eigenvalues, dtype=float)) == ranks


@pytest.mark.parametrize("name", SPECTRA)
def test_the_configuration_fits_its_target(shipped, families, tmp_path, covariance, name):
    eigenvalues, path = np.array(SPECTRA[name], dtype=float), covariance(SPECTRA[name])
    study = checked(shipped, families, tmp_path, configuration_of(target_of(path), "mine"))
    assert study["experiments"].keys() >= {"convergence", "low_rank", "hessian", "blow_up", "escape"}
    assert ("descent" in study["experiments"]) == (name != "condition")  # 1e8: a step would be taken 1e9 times
    for block in study["experiments"].values():
        assert (block["target"], block["dimension"]) == ({"covariance": str(path)}, len(eigenvalues))
        least = eigenvalues[max(block["grid"]["rank"]) - 1]
        if block["kind"] in ("hessian", "escape"):  # a direction that is left empty can replace one that is retained
            assert max(block["grid"]["epsilon"]) < eigenvalues[max(block["grid"]["rank"])]
        assert 0 <= min(block["grid"]["epsilon"]) <= max(block["grid"]["epsilon"]) < least
        if "integration" in block:
            assert block["integration"]["excess_tolerance"] < least
    assert study["study"]["results"] != study["study"]["figures"]


@pytest.mark.parametrize("suffix", ["csv", "npy"])
def test_a_matrix_that_is_not_symmetric_is_read_as_samples(tmp_path, rng, suffix):
    path = tmp_path / f"six.{suffix}"
    samples = rng.standard_normal((6, 6))
    np.save(path, samples) if suffix == "npy" else np.savetxt(path, samples, delimiter=",")
    assert target_of(path) == {"samples": str(path)}
    np.save(tmp_path / "s.npy", samples @ samples.T)
    assert target_of(tmp_path / "s.npy") == {"covariance": str(tmp_path / "s.npy")}
    assert target_of(tmp_path / "s.npy", samples=True) == {"samples": str(tmp_path / "s.npy")}


def test_what_is_asked_for_is_in_the_configuration(shipped, families, tmp_path, covariance):
    target = target_of(covariance(SPECTRA["gaps"]))
    text = configuration_of(target, "mine", ranks=[4, 2], depths=[1, 7], epsilons=[0, 0.05], seeds=3)
    block = checked(shipped, families, tmp_path, text)["experiments"]["low_rank"]
    assert block["grid"] == {"epsilon": [0, 0.05], "smin": [-1], "rank": [2, 4], "depth": [1, 7]}
    assert block["seeds"] == block["seeds_per_job"] == 3


def test_the_command_writes_once_and_says_what_to_run(tmp_path, covariance, monkeypatch, capsys):
    path = covariance(SPECTRA["gaps"])
    monkeypatch.chdir(tmp_path)
    assert main(["study", "mine.npy"]) == 0
    said = capsys.readouterr().out
    assert "make report CONFIG=mine.yaml" in said
    written = (tmp_path / "mine.yaml").read_text(encoding="utf-8")
    assert main(["study", str(path)]) == 2
    assert "mine.yaml is there already" in capsys.readouterr().err
    assert (tmp_path / "mine.yaml").read_text(encoding="utf-8") == written


@pytest.mark.parametrize(
    ("eigenvalues", "options", "line"),
    [
        ([3, 2, 1], ["--rank", "2", "5", "9"], "ranks must be from 1 to the rank of the covariance, 3, not 5, 9"),
        ([3, 2, 0], ["--rank", "3"], "ranks must be from 1 to the rank of the covariance, 2, not 3"),
        ([3, 0, 0], [], "a study needs a covariance of rank at least 2, not 1"),
    ],
)
def test_what_does_not_fit_is_one_line(tmp_path, covariance, monkeypatch, capsys, eigenvalues, options, line):
    path = covariance(eigenvalues) if 0 not in eigenvalues else tmp_path / "diagonal.npy"
    np.save(path, np.diag(np.array(eigenvalues, dtype=float)))
    monkeypatch.chdir(tmp_path)
    assert main(["study", str(path), *options]) == 2
    error = capsys.readouterr().err
    assert line in error
    assert error.count("\n") == 1
    assert main(["study", "absent.npy"]) == 2
    assert "there is no such file" in capsys.readouterr().err


def test_names_of_studies_are_those_of_files():
    assert name_of("data/my covariance.v2.npy") == "my_covariance_v2"
