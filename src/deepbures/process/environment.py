"""The environment in which jobs run, without what a user or a machine sets for other programs."""

from __future__ import annotations

import os
from collections.abc import Mapping

#: Python's variables that are kept: where modules are found, and how text is read and written.
_KEPT = (
    *("PYTHONPATH", "PYTHONHOME", "PYTHONNOUSERSITE", "PYTHONUSERBASE", "PYTHONSAFEPATH"),
    *("PYTHONUTF8", "PYTHONIOENCODING", "PYTHONDONTWRITEBYTECODE", "PYTHONUNBUFFERED"),
)
#: Variables by which Jupyter, IPython and matplotlib find settings, kernels, backends and extensions.
_SETTINGS = ("JUPYTER_PATH", "JUPYTER_CONFIG_DIR", "JUPYTER_CONFIG_PATH", "IPYTHONDIR", "MPLBACKEND", "MATPLOTLIBRC")


def neutral(environment: Mapping[str, str]) -> dict[str, str]:
    """Environment without settings that change what a program prints, draws or loads.

    Python's own variables are removed (`PYTHONSTARTUP`, `PYTHONWARNINGS`, `PYTHONOPTIMIZE`, …), except those that say
    where modules are and how text is encoded; so are those by which Jupyter and IPython find settings and kernels.
    matplotlib draws without windows (`MPLBACKEND`), and takes its settings from an empty file (`MATPLOTLIBRC`); the
    figures set their own.
    """
    kept = {
        name: value
        for name, value in environment.items()
        if name not in _SETTINGS and (name in _KEPT or not name.startswith("PYTHON"))
    }
    return {**kept, "MPLBACKEND": "agg", "MATPLOTLIBRC": os.devnull, "JUPYTER_NO_CONFIG": "1"}
