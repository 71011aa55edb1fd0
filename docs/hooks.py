"""Formulas of the pages, LaTeX between dollars as code hosts render it, become MathML as the site is built."""

import re

from latex2mathml.converter import convert

#: Code, which stays as it is; a displayed formula; one in the line.
_PARTS = re.compile(r"(```.*?```|`[^`]*`)|\$\$(.+?)\$\$|\$([^$]+)\$", flags=re.DOTALL)


def on_page_markdown(markdown: str, **_: object) -> str:
    """Replace every formula; browsers draw MathML themselves, without scripts, fonts or a network."""

    def mathml(part: re.Match[str]) -> str:
        code, displayed, inline = part.groups()
        if code:
            return code
        return convert((displayed or inline).strip(), display="block" if displayed else "inline")

    return _PARTS.sub(mathml, markdown)
