"""Random streams: one NumPy Generator for each named draw, independent of whatever else the study computes."""

from __future__ import annotations

import hashlib

import numpy as np


def generator(study_seed: int, role: str, seed_index: int, **depends_on: object) -> np.random.Generator:
    """Generator of one draw, keyed by what the draw depends on and never by a position in the grid.

    Parameters
    ----------
    study_seed
        Root of all streams.
    role
        What is drawn: "target", "initialization", …
    seed_index
        Which repetition, 0, 1, …
    **depends_on
        The settings that the draw depends on, such as its dimension.

    Notes
    -----
    The key is hashed (BLAKE2) into the entropy of a `numpy.random.SeedSequence`: extending the grid
    changes no stream, and draws with the same key are shared by all cells (paired comparisons).
    """
    key = "/".join([role, *(f"{name}={depends_on[name]}" for name in sorted(depends_on))])
    words = np.frombuffer(hashlib.blake2b(key.encode(), digest_size=16).digest(), dtype="<u4")
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([study_seed, seed_index, *map(int, words)])))
