"""Examples of docs/autograd.md with what the page says that they print."""

import re
from pathlib import Path

_PAGE = Path(__file__).parents[2] / "docs/autograd.md"


def outputs(line):
    """Code and output of the examples that hold a line."""
    blocks = re.findall(r"```python\n(.*?)```\n+```text\n(.*?)```", _PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)
    found = [block for block in blocks if line in block[0]]
    assert found, line
    return found
