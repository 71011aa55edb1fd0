"""Large files of samples, streamed: the covariance of what is read whole, and one line for what cannot be."""

import tracemalloc

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from deepbures.files import sample_files
from deepbures.files.datasets import patch_shape, samples_of
from deepbures.files.sample_files import streamed_file
from deepbures.files.targets import read_target, target_rank


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(sample_files, "LARGE", 1)


def stored(path, X, rows=7):
    if path.suffix == ".npy":
        np.save(path, X)
    else:
        columns = [pa.array(column, from_pandas=True) for column in X.T]
        pq.write_table(
            pa.table(dict(zip(map(str, range(X.shape[1])), columns, strict=True))), path, row_group_size=rows
        )
    return path


@pytest.mark.parametrize("suffix", [".npy", ".parquet"])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_the_covariance_is_that_of_the_whole(tmp_path, rng, monkeypatch, suffix, dtype):
    X = (rng.standard_normal((50, 4)) + np.array([0, 100, 0, -3])).astype(dtype)
    X[:, 2] = 7  # a constant column
    path = stored(tmp_path / f"x{suffix}", X)
    streamed = read_target({"samples": str(path)}, 4)
    monkeypatch.setattr(sample_files, "LARGE", 2**40)
    whole = read_target({"samples": str(path)}, 4)
    np.testing.assert_allclose(streamed, whole, rtol=1e-13, atol=1e-12)
    assert not streamed[2].any()


@pytest.mark.parametrize("suffix", [".npy", ".parquet"])
def test_bad_input_is_one_line(tmp_path, rng, suffix):
    X = rng.standard_normal((30, 3))
    X[23, 1] = np.nan
    with pytest.raises(ValueError, match="must be finite, but row 24, column 2 is nan") as error:
        streamed_file(stored(tmp_path / f"nan{suffix}", X))
    assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match="all samples are equal"):
        streamed_file(stored(tmp_path / f"equal{suffix}", np.full((30, 3), 0.1)))
    with pytest.raises(ValueError, match="at least 2 samples"):
        streamed_file(stored(tmp_path / f"one{suffix}", X[:1]))
    with pytest.raises(ValueError, match="it is of dimension 3, but the experiment of dimension 5"):
        read_target({"samples": str(stored(tmp_path / f"dim{suffix}", X[:20]))}, 5)


def test_a_covariance_that_does_not_fit_is_refused_before_it_is_made(tmp_path):
    wide = np.lib.format.open_memmap(tmp_path / "wide.npy", mode="w+", dtype=np.float32, shape=(2, 10**7))
    wide.flush()
    with pytest.raises(ValueError, match="would be an n × n array of 8e"):
        streamed_file(tmp_path / "wide.npy")


def test_other_files_are_left_to_the_reader_of_whole_files(tmp_path):
    (tmp_path / "x.csv").write_text("1,2\n3,4\n")
    assert streamed_file(tmp_path / "x.csv") is streamed_file(tmp_path / "absent.npy") is None


def test_row_names_of_a_large_table_are_no_samples(tmp_path, rng):
    frame = pd.DataFrame(rng.standard_normal((40, 3)), columns=list("abc"))
    expected = np.cov(frame.to_numpy().T, bias=True)
    path = tmp_path / "x.parquet"
    for stored_frame in (frame.set_axis([f"s{i}" for i in range(40)]), frame.iloc[rng.permutation(40)]):
        stored_frame.to_parquet(path, row_group_size=9)
        np.testing.assert_allclose(read_target({"samples": str(path)}, 3), expected, atol=1e-14)
    for times in (np.arange(40), 0.1 * np.arange(40)):
        frame.assign(time=times)[["time", *"abc"]].to_parquet(path, row_group_size=9)
        for dimension in (3, 4):
            with pytest.raises(
                ValueError, match=r"its first column, 0, .* may be row names, times or data: say index_col"
            ):
                read_target({"samples": str(path)}, dimension)
        np.testing.assert_allclose(read_target({"samples": str(path), "index_col": 0}, 3), expected, atol=1e-14)
        assert read_target({"samples": str(path), "index_col": None}, 4).shape == (4, 4)


def test_large_files_that_are_no_samples_are_refused_as_small_ones(tmp_path, rng, monkeypatch):
    np.save(tmp_path / "cube.npy", rng.standard_normal((2, 2, 2)))
    (tmp_path / "page.npy").write_text("<html>")
    with (tmp_path / "two.npy").open("wb") as file:
        for _ in range(2):
            np.save(file, rng.standard_normal((50, 3)))
    whole = (tmp_path / "two.npy").read_bytes()
    (tmp_path / "cut.npy").write_bytes(whole[:600])
    table = stored(tmp_path / "cut.parquet", rng.standard_normal((500, 3)), rows=100).read_bytes()
    (tmp_path / "cut.parquet").write_bytes(table[:900] + bytes(3000) + table[3900:])
    for name, message in (
        ("cube.npy", r"matrix.* shape \(2, 2, 2\)"),
        ("page.npy", "it is an HTML page"),
        ("two.npy", "1328 bytes follow its array"),
        ("cut.npy", "."),
        ("cut.parquet", "."),
    ):
        for large in (1, 2**40):
            monkeypatch.setattr(sample_files, "LARGE", large)
            with pytest.raises(ValueError, match=rf"{name}: .*{message}") as error:
                read_target({"samples": str(tmp_path / name)}, 3)
            assert "\n" not in str(error.value)


def test_memory_is_a_block_and_n_squared(tmp_path, rng):
    X = rng.standard_normal((400_000, 30)).astype(np.float32)
    path = stored(tmp_path / "x.npy", X)
    tracemalloc.start()
    try:
        moments = streamed_file(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert moments.count == 400_000
    assert peak < 8 * X.size  # a few blocks of 16 MB, less than one copy in float64
    np.testing.assert_allclose(moments.covariance, np.cov(X.astype(float), rowvar=False, bias=True), atol=1e-12)


def test_patches():
    pytest.importorskip("sklearn")
    grey, colour = samples_of("patches", 64), samples_of("patches", 192)
    assert grey.shape == (133140, 64)
    np.testing.assert_allclose(grey, colour.reshape(-1, 64, 3).mean(axis=-1), atol=1e-6)
    assert grey.min() >= 0
    assert grey.max() == 1
    from sklearn.datasets import load_sample_images

    first = load_sample_images().images[0]
    np.testing.assert_allclose(colour[1].reshape(8, 8, 3), first[:8, 2:10] / 255, atol=1e-7)
    assert (patch_shape(3072), patch_shape(256)) == ((32, 3), (16, 1))
    for dimension in (0, 10, 3):
        with pytest.raises(ValueError, match="patches have the dimension"):
            samples_of("patches", dimension)
    assert target_rank({"dataset": "patches"}, 64, 5) >= 5
