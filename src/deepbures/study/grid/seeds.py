"""Random streams: one NumPy Generator for each named draw, whatever else the study computes."""

import hashlib

import numpy as np


def generator(study_seed: int, role: str, seed_index: int, **depends_on: object) -> np.random.Generator:
    """Generator of one draw, with a key of everything that the draw depends on and not of its position in the grid.

    Parameters
    ----------
    study_seed
        Root of all streams.
    role
        Name of the draw: "target", "initialization", …
    seed_index
        Number of the repetition, 0, 1, …
    **depends_on
        The settings that the draw depends on, such as its dimension.

    Notes
    -----
    The BLAKE2 hash of the key is entropy of a `numpy.random.SeedSequence`. Extending the grid changes no stream, and
    cells with the same key use the same draws, so their results are compared in pairs.
    """
    key = "/".join([role, *(f"{name}={depends_on[name]}" for name in sorted(depends_on))])
    words = np.frombuffer(hashlib.blake2b(key.encode(), digest_size=16).digest(), dtype="<u4")
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([study_seed, seed_index, *map(int, words)])))
