"""Fail if a claim is violated."""

import pandas as pd

if __name__ == "__main__":
    claims = pd.read_csv(snakemake.input[0])
    violated = claims.loc[claims["verdict"] == "violated", "name"]
    if len(violated):
        raise SystemExit(f"violated: {', '.join(violated)} (see {snakemake.input[0]})")
