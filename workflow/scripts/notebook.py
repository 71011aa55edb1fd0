"""Execute a notebook with the parameters of its rule."""

from pathlib import Path

import papermill


def execute(notebook: str, output: str, log: str, parameters: dict) -> None:
    """Run `notebook` and keep it as `output`; a parameter that it does not declare is an error.

    The notebook as far as it got is left in `log` when a cell fails.
    """
    unknown = parameters.keys() - papermill.inspect_notebook(notebook).keys()
    if unknown:
        raise SystemExit(f"{notebook} declares no parameter {', '.join(sorted(unknown))}")
    Path(log).parent.mkdir(parents=True, exist_ok=True)
    papermill.execute_notebook(notebook, log, parameters, progress_bar=False)
    Path(log).replace(output)


if __name__ == "__main__":
    execute(
        snakemake.input.notebook,
        snakemake.output.notebook,
        f"{snakemake.log[0]}.ipynb",
        {
            "results": str(Path(snakemake.input.runs).parent),
            "figures": snakemake.params.figures,
            "tables": snakemake.params.tables,
            "show": dict(snakemake.params.show),
        },
    )
