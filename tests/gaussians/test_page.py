"""The examples of some pages print what they show."""

import pytest
from page_examples import examples


@pytest.mark.parametrize(
    ("code", "printed"),
    [example for page in ("distances.md", "sinkhorn.md", "samples.md") for example in examples(page)],
)
def test_examples_print_what_the_page_shows(capsys, code, printed):
    exec(code, {})
    assert capsys.readouterr().out == printed
