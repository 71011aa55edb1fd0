"""The examples of docs/distances.md print what it shows."""

import pytest
from page_examples import examples


@pytest.mark.parametrize(("code", "printed"), examples("distances.md"))
def test_examples_print_what_the_page_shows(capsys, code, printed):
    exec(code, {})
    assert capsys.readouterr().out == printed
