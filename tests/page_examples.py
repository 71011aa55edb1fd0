"""Examples of the pages with what the page says that they print."""

import re
from pathlib import Path

_DOCS = Path(__file__).parents[1] / "docs"


def examples(page, line=""):
    """Code and output of the examples of a page that hold a line."""
    text = (_DOCS / page).read_text(encoding="utf-8")
    found = re.findall(r"```python\n(.*?)```\n+```text\n(.*?)```", text, flags=re.DOTALL)
    chosen = [example for example in found if line in example[0]]
    assert chosen, (page, line)
    return chosen
