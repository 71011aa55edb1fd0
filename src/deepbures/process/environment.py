"""The environment variables of jobs, without those that users and machines set for other programs."""

import os
from collections.abc import Mapping

#: Variables of Python that jobs inherit: paths of modules, isolation from the user's folder, and encodings of text.
_PYTHON = (
    *("PYTHONPATH", "PYTHONHOME", "PYTHONNOUSERSITE", "PYTHONUSERBASE", "PYTHONSAFEPATH"),
    *("PYTHONUTF8", "PYTHONIOENCODING", "PYTHONDONTWRITEBYTECODE", "PYTHONUNBUFFERED"),
)
#: Variables by which Jupyter, IPython and matplotlib find settings, kernels, backends and extensions.
_SETTINGS = ("JUPYTER_PATH", "JUPYTER_CONFIG_DIR", "JUPYTER_CONFIG_PATH", "IPYTHONDIR", "MPLBACKEND", "MATPLOTLIBRC")
#: glibc keeps freed memory up to 128 MB, and takes arrays of up to 32 MB from it: by default a flow of n = 20 spends a
#: tenth of its time in giving pages back to the system and getting them again. Elsewhere nothing reads them.
_MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(2**25), "MALLOC_TRIM_THRESHOLD_": str(2**27)}


def neutral(environment: Mapping[str, str]) -> dict[str, str]:
    """A copy of an environment without settings that change what a program prints, draws or loads.

    Variables of Python are removed (`PYTHONSTARTUP`, `PYTHONWARNINGS`, `PYTHONOPTIMIZE`, …), except paths of modules
    and encodings of text; so are variables by which Jupyter and IPython find settings and kernels. matplotlib draws
    without windows (`MPLBACKEND`) and reads an empty file of settings (`MATPLOTLIBRC`), because figures have their own.
    Where nothing gives the user a name, as in a container, it is nobody (`USERNAME`): Snakemake needs one. Unless the
    user says otherwise, memory that is freed is kept (`MALLOC_TRIM_THRESHOLD_`): bits do not depend on it.
    """
    inherited = {
        name: value
        for name, value in environment.items()
        if name not in _SETTINGS and (name in _PYTHON or not name.startswith("PYTHON"))
    }
    named = {"USERNAME": "nobody", **_MEMORY, **inherited}
    return {**named, "MPLBACKEND": "agg", "MATPLOTLIBRC": os.devnull, "JUPYTER_NO_CONFIG": "1"}
