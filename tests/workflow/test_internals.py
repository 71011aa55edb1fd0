"""What the workflow uses of Snakemake without its documentation: which attribute is missing in another version."""

import ast
import re
import subprocess
import sys
from pathlib import Path

WORKFLOW = Path(__file__).parents[2] / "workflow"
#: Attributes of the workflow that Snakemake's documentation has.
DOCUMENTED = {"source_path"}
SNAKEFILE = """
include: "internals.smk"

rule one:
    output: "{job}.txt"
    params: main=is_main_process()
    shell: "touch {output}"

rule all:
    default_target: True
    input: "a.txt"

print(given_configuration())
print(original(workflow.source_path("Snakefile")))

onstart:
    print(jobs_to_run())
    print(type(workflow.scheduler.job_rate_limiter).__name__)
    let_jobs_start_at_any_rate()
    print(workflow.scheduler.job_rate_limiter)
"""


def test_internals_stand_in_one_file():
    used = {}
    for path in [*WORKFLOW.rglob("*.smk"), WORKFLOW / "Snakefile", *WORKFLOW.glob("scripts/*.py")]:
        text = path.read_text(encoding="utf-8")
        found = set(re.findall(r"[^\w./]workflow\.(\w+)", text)) - DOCUMENTED
        used |= {path.name: found} if found or "sourcecache" in text or ".dag" in text else {}
    internals = {"is_main_process", "modifier", "configfiles", "config_settings", "dag", "local_exec", "scheduler"}
    assert used == {"internals.smk": internals}


def test_every_internal_is_there_and_says_what_we_take_it_for(tmp_path):
    (tmp_path / "internals.smk").write_text((WORKFLOW / "rules/internals.smk").read_text(encoding="utf-8"))
    (tmp_path / "Snakefile").write_text(SNAKEFILE)
    (tmp_path / "mine.yaml").write_text("a: 1")
    command = [sys.executable, "-m", "snakemake", "--cores", "1", "--configfile", "mine.yaml", "--config", "beta=2"]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr
    given, where, jobs, *rate_limits = run.stdout.splitlines()[:5]
    files, changes = ast.literal_eval(given)
    assert [Path(file).name for file in files] == ["mine.yaml"]
    assert changes == {"beta": 2} or changes == {"beta": "2"}
    assert Path(where) == tmp_path / "Snakefile"
    assert sorted(ast.literal_eval(jobs), key=str) == [("all", None), ("one", "a")]
    assert rate_limits == ["JobRateLimiter", "None"]
