"""Compare the aggregates of a study in two folders, byte for byte: python same_bytes.py FOLDER FOLDER CONFIG."""

import sys
from pathlib import Path

import yaml


def aggregates(folder: Path, config: Path) -> dict[str, bytes]:
    results = folder / yaml.safe_load(config.read_text(encoding="utf-8"))["study"]["results"]
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(results.glob("*/*.parquet"))}


if __name__ == "__main__":
    config = Path(sys.argv[3])
    one, other = (aggregates(Path(folder), config) for folder in sys.argv[1:3])
    different = [name for name in one.keys() | other.keys() if one.get(name) != other.get(name)]
    if different or not one:
        sys.exit(f"{len(different)} of {len(one)} aggregates differ: {', '.join(sorted(different))}")
    print(f"all {len(one)} aggregates are the same bytes")
