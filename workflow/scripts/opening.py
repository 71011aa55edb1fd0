"""What was found, as one page that needs no other file: the main figure and the claims."""

import base64
from pathlib import Path

from deepbures import claims
from deepbures.study.results import stamps
from deepbures.study.results.atomic import replacing

if __name__ == "__main__":
    picture = snakemake.input.get("picture")
    data = base64.b64encode(Path(picture).read_bytes()).decode() if picture else None
    page = claims.page(claims.read(snakemake.input.claims), data)
    with replacing(snakemake.output[0]) as temporary:
        temporary.write_text(f"{page}<!-- {stamps.UNSIGNED} -->\n", encoding="utf-8")
    stamps.sign(snakemake.output[0], snakemake.params.made_from, [])
