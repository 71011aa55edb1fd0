"""Formulas of the pages, LaTeX between dollars as code hosts render it, become MathML as the site is built."""

import re

from latex2mathml.converter import convert

#: Code, which stays as it is; a displayed formula; one in the line, and the punctuation that follows it.
_PARTS = re.compile(r"(```.*?```|`[^`]*`)|\$\$(.+?)\$\$|\$([^$]+)\$([.,;:]?)", flags=re.DOTALL)
#: A formula in the line of more signs than this may be wider than a narrow window: it has a line of its own.
_LONG = 40
#: What has no width in LaTeX, and commands, which have that of a sign.
_NO_WIDTH, _COMMAND = re.compile(r"[{}^_\s]|\\[,;!]"), re.compile(r"\\[a-zA-Z]+")

#: MathML by the word that stands for it while Markdown is read, which would end a paragraph at a line of MathML.
_formulas: dict[str, str] = {}


def on_page_markdown(markdown: str, **_: object) -> str:
    """Replace every formula by a word."""

    def word(part: re.Match[str]) -> str:
        code, displayed, inline, after = part.groups()
        if code:
            return code
        latex = (displayed or inline).strip()
        mathml = convert(latex, display="block" if displayed else "inline")
        long = displayed or len(_NO_WIDTH.sub("", _COMMAND.sub("x", latex))) > _LONG
        if long or after:
            mathml = f'<span class="{"own" if long else "inline"} formula">{mathml}{after or ""}</span>'
        name = f"formula{len(_formulas)}x"
        _formulas[name] = mathml
        return name

    return _PARTS.sub(word, markdown)


def on_page_content(html: str, **_: object) -> str:
    """Replace the words by MathML; browsers draw it themselves, without scripts, fonts or a network."""
    return re.sub(r"formula\d+x", lambda word: _formulas.get(word[0], word[0]), html)
