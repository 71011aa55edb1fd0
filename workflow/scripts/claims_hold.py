"""Fail if a claim is violated that is not known to be false."""

from deepbures import claims

if __name__ == "__main__":
    table = claims.read(snakemake.input[0])
    violated = table.loc[(table["verdict"] == "violated") & (table["refuted"] == ""), "name"]
    if len(violated):
        raise SystemExit(f"violated: {', '.join(violated)} (see {snakemake.input[0]})")
