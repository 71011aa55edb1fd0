"""Files: replaced whole or not at all, and known by their content."""

import os
import stat

import pytest

from deepbures.study.grid.target import checksum
from deepbures.study.results.atomic import digest_of, replacing


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_failed_write_leaves_nothing(tmp_path, error):
    with pytest.raises(error), replacing(tmp_path / "new.parquet") as temporary:  # noqa: PT012
        temporary.write_text("half")
        raise error
    assert list(tmp_path.iterdir()) == []


def test_failed_write_keeps_the_old_file(tmp_path):
    path = tmp_path / "old.parquet"
    path.write_text("old")
    with pytest.raises(RuntimeError), replacing(path) as temporary:  # noqa: PT012
        temporary.write_text("half")
        assert path.read_text() == "old"
        raise RuntimeError
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
def test_file_has_the_usual_permissions(tmp_path):
    # Not the 0600 of a temporary file.
    before = os.umask(0o027)
    try:
        with replacing(tmp_path / "new") as temporary:
            temporary.write_text("whole")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o640


def test_digests_follow_the_content_alone(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).write_bytes(b"abc")
    assert checksum(tmp_path / "a") == checksum(tmp_path / "b") != checksum(__file__)
    assert checksum(tmp_path / "a").startswith("ba7816bf8f01cfea")  # the standard's example
    assert digest_of({"a": 1, "b": [2]}) == digest_of({"b": [2], "a": 1}) != digest_of({"a": 1, "b": [3]})
