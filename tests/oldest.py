"""Print pip's constraints for the oldest versions that pyproject.toml allows: python tests/oldest.py."""

import re
import tomllib
from pathlib import Path

BOUND = re.compile(r"([A-Za-z0-9_.-]+)>=([0-9.]+)")

if __name__ == "__main__":
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for name, version in BOUND.findall("\n".join(project["dependencies"])):
        major, minor = (*version.split("."), "0")[:2]
        print(f"{name}=={major}.{minor}.*")
