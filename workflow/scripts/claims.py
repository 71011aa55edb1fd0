"""Test every claim on the aggregates: as CSV, Markdown and figure."""

from pathlib import Path

from deepbures import claims
from deepbures.plotting import save, verdicts
from deepbures.study.results import freshness
from deepbures.study.results.atomic import replacing

if __name__ == "__main__":
    csv, markdown, figure, _ = map(Path, snakemake.output[:4])
    experiments = {name: claims.Tables(**about) for name, about in snakemake.params.experiments.items()}
    table = claims.table(claims.evaluate(claims.Study(experiments)))
    with replacing(csv) as temporary:
        table.to_csv(temporary, index=False)
    with replacing(markdown) as temporary:
        text = (
            f"{claims.markdown(table)}\nHow each was tested, and what the test can see:\n\n{claims.explanation(table)}"
        )
        temporary.write_text(text, encoding="utf-8")
    save(verdicts.claims(table), figure.parent, figure.stem)
    freshness.record(snakemake.output.made, snakemake.params.made_from, snakemake.output[:4])
