"""The folder of the workflow, in the repository, or copied into a wheel."""

from pathlib import Path

_COPIES = Path(__file__).parents[1] / "workflow"
#: Holds `figures.yaml` and `own_target.yaml`.
WORKFLOW = _COPIES if _COPIES.is_dir() else Path(__file__).parents[3] / "workflow"
