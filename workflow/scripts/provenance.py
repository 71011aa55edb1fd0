"""What the aggregates of a study came from: as JSON, and as a table."""

import csv
import json

from deepbures.study.results import freshness
from deepbures.study.results.atomic import replacing
from deepbures.study.results.provenance import of_study, table

if __name__ == "__main__":
    content = of_study(snakemake.params.configuration, snakemake.input)
    with replacing(snakemake.output.json) as temporary:
        temporary.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    rows = table(content)
    with replacing(snakemake.output.table) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    freshness.record(snakemake.output.made, snakemake.params.made_from, snakemake.output[:2])
