"""Test every claim on the aggregates: as CSV, Markdown and figure."""

from pathlib import Path

from deepbures import claims
from deepbures.files import replacing
from deepbures.plotting import save, verdicts

if __name__ == "__main__":
    csv, markdown, figure, _ = map(Path, snakemake.output)
    results = claims.evaluate(claims.Study(snakemake.params.folders))
    table = claims.table(results)
    with replacing(csv) as temporary:
        table.to_csv(temporary, index=False)
    with replacing(markdown) as temporary:
        temporary.write_text(claims.markdown(results), encoding="utf-8")
    save(verdicts.claims(table), figure.parent, figure.stem)
