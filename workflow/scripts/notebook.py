"""Execute a notebook with the parameters of its rule."""

import shutil
from pathlib import Path

import papermill

#: How often a kernel is started: of those that start at once, two may collide on a port.
STARTS = 3


def execute(notebook: str, output: str, log: str, parameters: dict) -> None:
    """Run `notebook` and keep it as `output`; a parameter that it does not declare is an error.

    When a cell fails, its traceback goes to `log`, and the notebook as far as it got beside it.
    """
    unknown = parameters.keys() - papermill.inspect_notebook(notebook).keys()
    if unknown:
        raise SystemExit(f"{notebook} declares no parameter {', '.join(sorted(unknown))}")
    partial = Path(f"{log}.ipynb")
    partial.parent.mkdir(parents=True, exist_ok=True)
    for start in range(1, STARTS + 1):
        try:
            papermill.execute_notebook(notebook, str(partial), parameters, progress_bar=False)
            break
        except Exception as error:
            # A kernel that dies raises a RuntimeError; a cell that fails would fail again.
            if isinstance(error, RuntimeError) and start < STARTS:
                continue
            Path(log).write_text(f"{error}\nSee {partial}.\n", encoding="utf-8")
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
