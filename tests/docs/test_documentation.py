"""What the documentation says: its links lead somewhere, its examples run, its numbers are those of the code."""

import importlib.util
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from page_examples import examples
from projects import copy_of_project

import deepbures
from deepbures.__main__ import main
from deepbures.study import configuration

ROOT = Path(__file__).parents[2]
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


def test_the_examples_of_the_readme_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    code = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), flags=re.DOTALL)
    assert code
    exec("\n".join(code), {})
    assert "converged" in capsys.readouterr().out
    # What it shows of the study of a covariance is what the command prints.
    assert main(["study", "my_covariance.npy"]) == 0
    assert capsys.readouterr().out in (ROOT / "README.md").read_text(encoding="utf-8")


# The site.


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / page).read_text(encoding="utf-8"), flags=re.DOTALL)


def test_every_page_of_the_site_is_in_its_navigation():
    site = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    assert {path.name for path in (ROOT / "docs").glob("*.md")} == set(re.findall(r": (\w+\.md)$", site, re.MULTILINE))


def test_the_api_begins_with_every_public_name():
    table = (ROOT / "docs/api.md").read_text(encoding="utf-8").partition("The packages")[0]
    assert set(deepbures.__all__) <= set(re.findall(r"`(\w+)`", table))


def test_the_tutorial_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, object] = {}
    for block in blocks("docs/tutorial.md", "python"):
        exec(block, namespace)
    printed = capsys.readouterr().out
    assert printed.count("converged") == 1
    shown = [line for _, output in examples("tutorial.md") for line in output.splitlines()]
    assert len(shown) == 8
    # The line of a trajectory holds an excess of 1e-10, which another machine may round differently.
    assert all(line in printed.splitlines() for line in shown if not line.startswith("<"))
    measured, predicted = map(float, re.findall(r"measured ([\d.]+), predicted ([\d.]+)", printed)[0])
    assert measured == pytest.approx(predicted, rel=0.02)
    assert np.diag(namespace["covariance"]) - 0.1 == pytest.approx(np.array([3.9, 1.9, 0.9]))


def test_what_the_tutorial_lays_over_the_study_makes_sense(tmp_path, shipped):
    (text,) = blocks("docs/tutorial.md", "yaml")
    (tmp_path / "mine.yaml").write_text(text)
    config = configuration.merged([ROOT / "config/config.yaml", tmp_path / "mine.yaml"])
    checked = configuration.check(config)
    assert checked["experiments"]["low_rank"]["grid"]["depth"] == [1, 2, 3, 4, 5, 10]


COMMANDS = sorted(
    {
        command
        for page in (ROOT / "docs").glob("*.md")
        for command in re.findall(
            r"^    (snakemake .*?|python -m .*?)(?: #.*)?$", page.read_text("utf-8"), re.MULTILINE
        )
        # Those of the worked examples run in test_workflow, those on a cluster in tests/slurm.
        if not re.search(r"profiles/slurm|random_values|relative\.yaml|heavy_ball|--unlock", command)
    }
)


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_commands_of_the_pages_find_what_they_name(tmp_path, command):
    folder = copy_of_project(tmp_path)
    page = "tutorial" if "results/mine/low_rank" in command or "cells" in command else "extending"
    overlay = next(block for block in reversed(blocks(f"docs/{page}.md", "yaml")) if "experiments:" in block)
    (folder / "mine.yaml").write_text(overlay)
    np.save(folder / "my_covariance.npy", np.eye(5))
    words = shlex.split(command)
    if words[0] == "snakemake":
        words = [sys.executable, "-m", *words[:1], "--dry-run", *words[1:]]
    else:
        words[0] = sys.executable
    environment = {**os.environ, "PYTHONPATH": str(folder / "src")}
    run = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr[-2000:]


def test_formulas_become_mathml_and_code_stays():
    converter = pytest.importorskip("latex2mathml.converter")
    hooks = importlib.util.spec_from_file_location("hooks", ROOT / "docs/hooks.py")
    module = importlib.util.module_from_spec(hooks)
    hooks.loader.exec_module(module)

    def rendered_as_site(text):
        markdown = pytest.importorskip("markdown")
        return module.on_page_content(markdown.markdown(module.on_page_markdown(text), extensions=["fenced_code"]))

    page = rendered_as_site("and\n$T_*^{1/2}$\nand `$HOME`\n\n$$\nL \\le \\sqrt{x}\n$$\n\n```\n$a$\n```\n")
    # A line that begins with a formula goes on in its paragraph.
    assert page.startswith(f"<p>and\n{converter.convert('T_*^{1/2}')}\nand <code>$HOME</code></p>\n")
    assert 'display="block"' in page
    assert page.endswith("<pre><code>$a$\n</code></pre>")
    text = (ROOT / "docs/paper.md").read_text(encoding="utf-8")
    rendered = module.on_page_content(module.on_page_markdown(text))
    # Nothing of LaTeX is left, and nothing of a formula outside the dollars.
    assert "$" not in rendered
    assert "\\" not in re.sub(r"`[^`]*`", "", rendered)
    prose = re.sub(
        r"<span class.*?>|<math.*?</math>|`[^`]*`|\*\*.*?\*\*|^#.*?$", "", rendered, flags=re.DOTALL | re.MULTILINE
    )
    assert not re.findall(r"[_^=≤≥√∇∂]|\b[A-Z]\*", prose)
