"""Test every claim on the aggregates: as Markdown, CSV and figure."""

from pathlib import Path

from deepbures import claims
from deepbures.plotting import save, verdicts
from deepbures.study.results import provenance, stamps
from deepbures.study.results.atomic import replacing

if __name__ == "__main__":
    about = snakemake.params
    try:
        provenance.check_code(*about.code)
        # With a storage provider, tables are elsewhere than declared.
        places = {
            str(Path(one).parent): str(Path(other).parent)
            for one, other in zip(about.tables, snakemake.input.tables, strict=True)
        }
        experiments = {
            name: claims.Tables(**{**tables, "folder": places[tables["folder"]]})
            for name, tables in about.experiments.items()
        }
        table = claims.table(claims.evaluate(claims.Study(experiments), power=True))
    except ValueError as mistake:
        raise SystemExit(str(mistake)) from None
    markdown, csv, figure, _ = map(Path, snakemake.output)
    with replacing(csv) as temporary:
        table.to_csv(temporary, index=False)
    with replacing(markdown) as temporary:
        how = f"How each was tested:\n\n{claims.explanation(table)}"
        text = f"{claims.markdown(table)}\n{how}\n<!-- {stamps.UNSIGNED} -->\n"
        temporary.write_text(text, encoding="utf-8")
    save(verdicts.claims(table), figure.parent, figure.stem)
    stamps.sign(markdown, about.made_from, snakemake.output[1:])
