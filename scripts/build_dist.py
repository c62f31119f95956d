#!/usr/bin/env python3
"""Build wheel and sdist so that the same commit gives the same bytes, wherever and whenever.

python scripts/build_dist.py dist

Built is a copy of the tracked files in a folder of its own, with fixed permissions, dated by the
last commit. The packages `build` and `hatchling` must be installed (extra `dev`); another version
of hatchling, or of the interpreter's zlib, may write other bytes.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from tritier.errors import InputError, TritierError
from tritier.files import sha256_bytes, write_file

ROOT = Path(__file__).resolve().parent.parent


def build_dist(output: Path, with_changes: bool = False) -> list[Path]:
    """Write wheel and sdist into `output`, in place of files of their names; returns their paths.

    Raises InputError without a git checkout, and for files that no commit has unless
    `with_changes`; untracked files are never built.
    """
    _refuse_changes(with_changes)
    with tempfile.TemporaryDirectory(prefix="tritier-dist-") as name:
        tree, made = Path(name) / "tritier", Path(name) / "made"
        _export(tree)
        _build(tree, made)
        written = []
        for path in sorted(made.iterdir()):
            write_file(output / path.name, path.read_bytes())
            written.append(output / path.name)
    return written


def _git(*arguments: str) -> str:
    try:
        done = subprocess.run(
            ["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        raise InputError("git is not installed: what to build is what it tracks") from None
    if done.returncode:
        raise InputError(
            f"{ROOT} can't be read by git ({done.stderr.strip()}): build in a checkout, or call "
            "`python -m build` elsewhere, which fixes no dates"
        )
    return done.stdout


def _refuse_changes(allowed: bool) -> None:
    changed = [line[3:] for line in _git("status", "--porcelain").splitlines()]
    if changed and not allowed:
        raise InputError(
            [
                "the tree differs from the last commit, whose date the files would bear: commit "
                "first, or pass --with-changes to build the tracked files as they are",
                *changed[:10],
            ]
        )


def _export(folder: Path) -> None:
    """Copy the tracked files; of their permissions only whether they may be run is kept."""
    for name in filter(None, _git("ls-files", "-z").split("\0")):
        source, target = ROOT / name, folder / name
        if not source.is_file():  # deleted, which --with-changes allows
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(source.read_bytes())
        target.chmod(0o755 if source.stat().st_mode & 0o100 else 0o644)


def _build(tree: Path, output: Path) -> None:
    environment = {
        **os.environ,
        "SOURCE_DATE_EPOCH": _git("log", "-1", "--format=%ct").strip(),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    command = [
        sys.executable, "-m", "build", "--no-isolation", "--sdist", "--wheel",
        "--outdir", str(output), str(tree),
    ]  # fmt: skip
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise InputError(
            f"`python -m build` failed with code {done.returncode} (build and hatchling are of "
            f"the extra `dev`):\n{(done.stdout + done.stderr).strip()}"
        )


def main(argv: list[str] | None = None) -> int:
    """Read the command line, build, and tell each file with its SHA-256."""
    parser = argparse.ArgumentParser(description="Build wheel and sdist reproducibly.")
    parser.add_argument("output", metavar="DIST", type=Path, help="folder to write into: dist")
    parser.add_argument(
        "--with-changes",
        action="store_true",
        help="build the tracked files as they are, whatever the last commit has",
    )
    args = parser.parse_args(argv)
    try:
        for path in build_dist(args.output, args.with_changes):
            print(f"{sha256_bytes(path.read_bytes())}  {path}")
        return 0
    except TritierError as error:
        print(f"build_dist: {error}", file=sys.stderr)
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
