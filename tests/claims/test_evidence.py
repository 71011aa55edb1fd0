"""Claims read large tables in blocks: how large these are changes no number."""

from claims_study import STUDY, claims_of, make

from deepbures.claims import evidence
from deepbures.study.results import parquet


def test_the_size_of_blocks_changes_nothing(tmp_path, monkeypatch):
    names = [next(name for name, (of, *_) in STUDY.items() if of == kind) for kind in ("flow", "descent")]
    monkeypatch.setattr(parquet, "_GROUP", 1)  # each cell is a group of rows
    root = make(tmp_path, names)
    groups = parquet.Table(root / names[0] / "trajectories.parquet")._groups
    assert len(groups) > 1
    whole = claims_of(root, folders=names)
    monkeypatch.setattr(evidence, "_BLOCK", 1)
    assert repr(claims_of(root, folders=names)) == repr(whole)
    assert sum(claim.cases > 100 for claim in whole.values()) > 3
