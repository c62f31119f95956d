"""Runs the blocks of a page as a person would type them, one after the other in one folder."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.docs.pages import ROOT, Block
from tritier.deployment.lab import Lab

LIMIT_S = 120
_TRITIER = '#!/bin/sh\nexec "{python}" -m tritier "$@"\n'


class Shell:
    """A folder for a page; `tritier` there is that of this checkout."""

    def __init__(self, folder: Path, tools: Path) -> None:
        self.folder, self._here = folder, folder
        tools.mkdir()
        (tools / "tritier").write_text(_TRITIER.format(python=sys.executable))
        (tools / "tritier").chmod(0o755)
        self._after = tools / "after"
        paths = f"{tools}:{Path(sys.executable).parent}:{os.environ['PATH']}"
        self._environment = {
            **os.environ,
            "PATH": paths,
            "PYTHONPATH": str(ROOT / "generator"),
            "COLUMNS": "120",
        }

    def run(self, block: Block, commands: list[str]) -> str:
        """Run commands of a block where the last one ended; what they print. Raises AssertionError
        with the block's place and all output if one fails."""
        script = "\n".join(["set -eu", *commands, 'pwd > "$AFTER"'])
        done = subprocess.run(
            ["bash", "-c", script],
            cwd=self._here,
            env={**self._environment, "AFTER": str(self._after)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=LIMIT_S,
            check=False,
        )
        assert done.returncode == 0, f"{block.where}: exit code {done.returncode}\n{done.stdout}"
        self._here = Path(self._after.read_text().strip())
        return done.stdout

    def close(self) -> None:
        """Stop what the page left running."""
        for workspace in self.folder.rglob(".tritier"):
            Lab(workspace / "lab").down()
