"""Rewrite all golden files: `make regen`, then review the diff."""

from __future__ import annotations

import sys

from tests.golden.cases import ROOT, committed, differences, golden
from tritier.files import write_file


def main() -> None:
    """Write what is missing or differs, and remove what is too many."""
    wanted, found = golden(), committed()
    for path in found.keys() - wanted.keys():
        (ROOT / path).unlink()
    for path, data in wanted.items():
        if found.get(path) != data:
            write_file(ROOT / path, data)
    lines = differences(found, wanted)
    sys.stdout.write("".join(f"{line}\n" for line in lines) + f"{len(lines)} files changed\n")


if __name__ == "__main__":
    main()
