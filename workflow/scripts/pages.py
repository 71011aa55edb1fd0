"""What the tables of a study came from, as JSON and CSV; and what was found, as one page that needs no other file."""

import base64
import json
from pathlib import Path

import pandas as pd

from deepbures import claims
from deepbures.study.results import provenance, stamps
from deepbures.study.results.atomic import replacing

if __name__ == "__main__":
    given, about = snakemake.input, snakemake.params
    origin, table, page = snakemake.output
    try:
        provenance.check_code(*about.code)
        content = provenance.of_study(about.configuration, dict(zip(about.tables, given.tables, strict=True)))
    except ValueError as mistake:
        raise SystemExit(str(mistake)) from None
    with replacing(origin) as temporary:
        signed = {**content, "signature": stamps.UNSIGNED}
        temporary.write_text(json.dumps(signed, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    with replacing(table) as temporary:
        pd.DataFrame(provenance.table(content)).to_csv(temporary, index=False, lineterminator="\r\n")
    picture = base64.b64encode(Path(given.picture).read_bytes()).decode() if given.get("picture") else None
    with replacing(page) as temporary:
        temporary.write_text(claims.page(claims.read(given.claims), picture), encoding="utf-8")
    stamps.sign(origin, about.made_from, [table, page])
