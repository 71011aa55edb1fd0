"""Whatever a file holds, it gives a covariance or one line that names it: thousands of files from a fixed seed."""

import io
import time
import warnings

import numpy as np
import pandas as pd
import pytest
from mutations import mutated, outcome

from deepbures.files.targets import read_target

N = 3


def _stored(save, *arguments, **options):
    buffer = io.BytesIO()
    save(buffer, *arguments, **options)
    return buffer.getvalue()


def _files():
    """Suffix and content of files that are read, and of some that are refused."""
    rng = np.random.default_rng(28)
    samples = rng.standard_normal((12, N))
    frame = pd.DataFrame(samples, columns=list("abc"))
    named = frame.set_axis([f"s{i}" for i in range(12)])
    covariance = pd.DataFrame(np.cov(samples.T))
    arrays = [samples, samples.astype(np.float32), np.asfortranarray(samples), (9 * samples).astype(int), samples > 0]
    arrays += [samples.astype(complex), samples.astype(object), samples[None], covariance.to_numpy()]
    texts = [
        *(frame.to_csv(index=False), named.to_csv(), covariance.to_csv(), frame.to_csv(sep="\t", header=False)),
        *(covariance.to_csv(index=False, header=False), frame.to_csv(sep=";", decimal=","), frame.to_csv(quoting=1)),
        *(frame.to_string(index=False), "# a\n" + frame.to_csv(index=False), covariance.round(3).to_csv()),
    ]
    return [
        *((".npy", _stored(np.save, array)) for array in arrays),
        *((".npz", _stored(save, samples)) for save in (np.savez, np.savez_compressed)),
        (".npz", _stored(np.savez, samples, covariance)),
        *(
            (".parquet", one.to_parquet())
            for one in (frame, named, covariance.rename(columns=str), frame.reset_index())
        ),
        *((suffix, text.encode()) for text in texts for suffix in (".csv", ".txt")),
        (".txt", texts[0].encode("utf-16")),
    ]


FILES = _files()
OPTIONS = {
    "sep": [",", ";", "\t", r"\s+", "x", "||"],
    "decimal": [".", ","],
    "header": [None, 0, 1, 50],
    "index_col": [None, 0, 2, 50],
    "comment": ["#", "a", "\x1a"],
    "skiprows": [0, 1, 500],
    "encoding": ["utf-8", "latin-1", "utf-16", "klingon", "idna", "zip"],
}


def _read(folder, number):
    """Read one mutated file; what it gave."""
    rng = np.random.default_rng([28, number])
    suffix, content = FILES[rng.integers(len(FILES))]
    if rng.random() < 0.03:
        suffix = FILES[rng.integers(len(FILES))][0]
    path = folder / f"{number}{suffix}"
    path.write_bytes(mutated(rng, content, [other for _, other in FILES]))
    options = {}
    while rng.random() < 0.2:
        option = list(OPTIONS)[rng.integers(len(OPTIONS))]
        options[option] = OPTIONS[option][rng.integers(len(OPTIONS[option]))]
    kind = "samples" if rng.random() < 0.7 else "covariance"
    start = time.process_time()
    read, refusal = outcome(lambda: read_target({kind: str(path), **options}, N), ValueError)
    assert time.process_time() - start < 2, path
    if read is None:
        assert str(path) in refusal, path
    else:
        assert read.shape == (N, N), path
        assert np.isfinite(read).all(), path
        np.testing.assert_array_equal(read, read.T)
    path.unlink()
    return read is not None


def _all(folder, numbers):
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a warning is a line that nobody asked for
        read = [_read(folder, number) for number in numbers]
    assert 0.02 < np.mean(read) < 0.98


def test_mutated_files_give_a_covariance_or_one_line(tmp_path):
    _all(tmp_path, range(200))


@pytest.mark.slow
def test_many_mutated_files_give_a_covariance_or_one_line(tmp_path):
    _all(tmp_path, range(200, 2000))


@pytest.mark.fuzz
def test_very_many_mutated_files_give_a_covariance_or_one_line(tmp_path):
    _all(tmp_path, range(2000, 50_000))
