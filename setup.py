"""What the package needs of the workflow is copied into it as it is built."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

SHIPPED = ("figures.yaml", "own_target.yaml")


class BuildWithWorkflow(build_py):
    """Copies of the files, in `deepbures/workflow`."""

    def run(self) -> None:
        """Build as usual, then copy."""
        super().run()
        for name in SHIPPED if not self.editable_mode else ():
            target = Path(self.build_lib, "deepbures/workflow", name)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(Path("workflow", name), target)


setup(cmdclass={"build_py": BuildWithWorkflow})
