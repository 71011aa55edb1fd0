"""Execute a notebook with the parameters of its rule."""

import json
from pathlib import Path

import papermill

from deepbures.process.kernel import logging_to
from deepbures.study import cost
from deepbures.study.results import provenance, stamps
from deepbures.study.results.atomic import replacing

#: For whoever opens the executed notebook where it lies.
GO_THERE = """# Paths are relative to the folder of the study: go there from wherever this notebook was opened.
import os
from pathlib import Path

above = (Path.cwd(), *Path.cwd().parents)
os.chdir(next((folder for folder in above if (folder / results).exists()), Path.cwd()))"""
#: How often a kernel is started: of those that start at once, two may collide on a port.
STARTS = 3


def execute(notebook: str, output: str, log: str, parameters: dict) -> None:
    """Run `notebook` and keep it as `output`; a parameter that it does not declare is an error.

    What the kernel says goes to `log`. When a cell fails, its traceback does, too, and the notebook as far as it got
    stands beside it.
    """
    unknown = parameters.keys() - papermill.inspect_notebook(notebook).keys()
    if unknown:
        raise SystemExit(f"{notebook} declares no parameter {', '.join(sorted(unknown))}")
    partial = Path(f"{log}.ipynb")
    partial.parent.mkdir(parents=True, exist_ok=True)
    Path(log).unlink(missing_ok=True)  # of an earlier run
    for start in range(1, STARTS + 1):
        try:
            papermill.execute_notebook(
                notebook, str(partial), parameters, progress_bar=False, kernel_manager_class=logging_to(log)
            )
            break
        except Exception as error:
            # A kernel that dies raises a RuntimeError; a cell that fails would fail again.
            if isinstance(error, RuntimeError) and start < STARTS:
                continue
            with Path(log).open("a", encoding="utf-8") as file:
                file.write(f"{error}\nSee {partial}.\n")
            what = getattr(error, "evalue", error)
            raise SystemExit(f"{notebook}: {what} (see {log})") from None
    executed = json.loads(partial.read_text(encoding="utf-8"))
    executed["metadata"]["deepbures"] = stamps.UNSIGNED
    tags = [cell["metadata"].get("tags", []) for cell in executed["cells"]]
    cell = {"cell_type": "code", "execution_count": None, "id": "go-there", "metadata": {}, "outputs": []}
    executed["cells"].insert(tags.index(["injected-parameters"]) + 1, {**cell, "source": GO_THERE})
    with replacing(output) as temporary:
        temporary.write_text(json.dumps(executed, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    partial.unlink()


if __name__ == "__main__":
    about = snakemake.params
    try:
        provenance.check_code(*about.code)
    except ValueError as mistake:
        raise SystemExit(str(mistake)) from None
    # With a storage provider, files are elsewhere than declared.
    places = {
        **dict(zip(about.tables, snakemake.input.tables, strict=True)),
        **dict(zip(about.files, snakemake.output, strict=True)),
    }
    folders = {str(Path(declared).parent): str(Path(place).parent) for declared, place in places.items()}
    fixed = {
        name: folders.get(value, value) if isinstance(value, str) else value for name, value in about.fixed.items()
    }
    execute(about.notebook, snakemake.output[0], snakemake.log[0], {**fixed, "show": dict(about.show)})
    for path, text in about.captions.items():
        with replacing(places[path]) as temporary:
            temporary.write_text(f"{text}\n", encoding="utf-8")
    stamps.sign(snakemake.output[0], about.made_from, snakemake.output[1:])
    cost.note(about.costs, "notebook", 0, 1)
