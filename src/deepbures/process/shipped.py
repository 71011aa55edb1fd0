"""Files of the workflow that the package needs wherever it is called: those of the repository, or copies in a wheel."""

from pathlib import Path

_COPIES = Path(__file__).parents[1] / "workflow"
#: Folder of `figures.yaml`.
WORKFLOW = _COPIES if _COPIES.is_dir() else Path(__file__).parents[3] / "workflow"
