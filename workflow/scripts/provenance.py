"""What the aggregates of a study came from."""

import json

from deepbures.provenance import of_study
from deepbures.store import replacing

if __name__ == "__main__":
    content = of_study(snakemake.params.configuration, snakemake.input)
    with replacing(snakemake.output[0]) as temporary:
        temporary.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n", encoding="utf-8")
