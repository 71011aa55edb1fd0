"""What the aggregates of a study came from: as JSON, and as a table."""

import csv
import json

from deepbures.study.results import stamps
from deepbures.study.results.atomic import replacing
from deepbures.study.results.provenance import of_study, table

if __name__ == "__main__":
    about = snakemake.params
    try:
        content = of_study(about.configuration, dict(zip(about.tables, snakemake.input, strict=False)))
    except ValueError as mistake:
        raise SystemExit(str(mistake)) from None
    with replacing(snakemake.output.json) as temporary:
        signed = {**content, "signature": stamps.UNSIGNED}
        temporary.write_text(json.dumps(signed, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    rows = table(content)
    with replacing(snakemake.output.table) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    stamps.sign(snakemake.output.json, about.made_from, [snakemake.output.table])
