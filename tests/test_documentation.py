"""What the documentation says: its links lead somewhere, its examples run, its numbers are those of the code."""

import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("config/*.md"), *ROOT.glob("benchmarks/*.md")])


def anchors(page: Path) -> set[str]:
    """Anchors of a page's headings, as Markdown renderers make them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=[str(page.relative_to(ROOT)) for page in PAGES])
def test_links_lead_somewhere(page):
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    links = re.findall(r"\]\(([^)\s]+)\)", text)
    for link in links:
        if link.startswith("https://"):
            continue
        file, _, anchor = link.partition("#")
        target = (page.parent / file).resolve() if file else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize(
    "file",
    re.findall(
        r"`((?:src|workflow|tests|config|docs|benchmarks|profiles)/[\w./-]*)`",
        "".join(page.read_text(encoding="utf-8") for page in PAGES),
    ),
)
def test_files_that_are_named_exist(file):
    assert (ROOT / file).exists()


def keys_of(schema: object) -> set[str]:
    """Names of all properties in a JSON schema."""
    if isinstance(schema, list):
        return set().union(*map(keys_of, schema))
    if not isinstance(schema, dict):
        return set()
    named = set(schema["properties"]) if isinstance(schema.get("properties"), dict) else set()
    return named.union(*map(keys_of, schema.values()))


def test_every_key_of_the_configuration_is_explained():
    schema = yaml.safe_load((ROOT / "workflow/schemas/config.schema.yaml").read_text(encoding="utf-8"))
    text = (ROOT / "config/README.md").read_text(encoding="utf-8")
    known = set(re.findall(r"[a-z_]+", "".join(re.findall(r"`[^`]*`|^#+ .*$", text, flags=re.MULTILINE))))
    assert keys_of(schema) <= known


def test_the_examples_of_the_readme_run(capsys):
    examples = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), flags=re.DOTALL)
    assert len(examples) == 3
    exec("\n".join(examples), {})
    assert "converged" in capsys.readouterr().out
