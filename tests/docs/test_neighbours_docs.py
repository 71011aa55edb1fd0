"""The examples of docs/neighbours run as they stand, and the pages link to what exists."""

import doctest
from pathlib import Path

import pytest
import test_documentation

PAGES = sorted((test_documentation.ROOT / "docs" / "neighbours").glob("*.md"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: Path(page).stem)
def test_examples_run(page):
    found = doctest.testfile(str(page), module_relative=False, encoding="utf-8")
    assert found.failed == 0
    assert found.attempted > 0 or page.stem == "index"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: Path(page).stem)
def test_links(page):
    test_documentation.test_links_lead_somewhere(page)
