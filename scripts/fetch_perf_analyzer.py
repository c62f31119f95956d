#!/usr/bin/env python3
"""Provide NVIDIA's perf_analyzer in a folder, without root; `tritier bench --fetch` does the same.

python scripts/fetch_perf_analyzer.py .tools/perf_analyzer
.tools/perf_analyzer/perf_analyzer -m MODEL -i grpc -u 127.0.0.1:8001 ...
"""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import NoReturn

from tritier.bench.fetch import provide
from tritier.bench.fetch_libraries import FetchError


def stop(signum: int, _frame: FrameType | None) -> NoReturn:
    """Turn the signal into an exception, so that the temporary folder is removed."""
    raise FetchError(f"stopped by {signal.Signals(signum).name}; run it again")


def main(argv: list[str] | None = None) -> int:
    """Read the command line, fetch, and tell the outcome in one line."""
    parser = argparse.ArgumentParser(
        description="Provide NVIDIA's perf_analyzer in the folder DEST, without root."
    )
    parser.add_argument("dest", metavar="DEST", type=Path, help="for example .tools/perf_analyzer")
    parser.add_argument(
        "--python",
        metavar="PY",
        default=sys.executable,
        help="the Python whose pip fetches and whose `embedded` extra is looked into "
        "(default: the one that runs this script)",
    )
    parser.add_argument("--force", action="store_true", help="fetch again even if it is there")
    args = parser.parse_args(argv)
    signal.signal(signal.SIGTERM, stop)
    try:
        print(provide(args.dest.resolve(), args.python, args.force))
        return 0
    except FetchError as error:
        message = str(error)
    except OSError as error:
        message = (
            f"{error.filename or args.dest}: {error.strerror or error}; DEST must be a folder that "
            "can be written and renamed (no mount point), on a disk with 60 MB free"
        )
    except KeyboardInterrupt:
        message = "stopped by Ctrl-C; run it again"
    print(f"fetch_perf_analyzer: {message}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
