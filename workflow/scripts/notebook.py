"""Execute a notebook with the parameters of its rule."""

import shutil
from pathlib import Path

import papermill

from deepbures.process.kernel import logging_to
from deepbures.study import cost
from deepbures.study.results import freshness
from deepbures.study.results.atomic import replacing

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
    shutil.move(partial, output)


if __name__ == "__main__":
    execute(
        snakemake.input.notebook,
        snakemake.output.notebook,
        snakemake.log[0],
        {**snakemake.params.fixed, "show": dict(snakemake.params.show)},
    )
    for path, text in snakemake.params.captions.items():
        with replacing(path) as temporary:
            temporary.write_text(f"{text}\n", encoding="utf-8")
    freshness.record(snakemake.output.made, snakemake.params.made_from, snakemake.params.files)
    cost.note(snakemake.params.costs, cost.Spent("notebook", 1, 0.0, cost.cpu_seconds()))
