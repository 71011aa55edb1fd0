"""Pack a study into one file."""

from deepbures.study.results.archive import write_archive

if __name__ == "__main__":
    experiments = ", ".join(snakemake.params.configuration["experiments"])
    description = f"Replication of Bréchet et al. (ICML 2023): aggregates, figures and tables of {experiments}."
    try:
        write_archive(
            snakemake.output[0],
            snakemake.params.configuration,
            snakemake.input,
            description,
            workflow=snakemake.params.workflow,
        )
    except ValueError as mistake:
        raise SystemExit(str(mistake)) from None
