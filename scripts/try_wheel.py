#!/usr/bin/env python3
"""Install a wheel into a new virtual environment, as a user does, and run the demo there.

python scripts/try_wheel.py dist/tritier-0.1.0-py3-none-any.whl

First without extras, where `tritier demo` must name the command that installs them; then that very
command is run. All installs are plain pip with the project's constraints.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tritier.errors import CheckFailed, InputError, TritierError

CONSTRAINTS = Path(__file__).resolve().parent.parent / "constraints.txt"
_INSTALL = re.compile(r"pip install '(tritier\[[\w,]+\])'")
_WRONG_USAGE = 2


class Trial:
    """A new environment in a folder, without the checkout on its path; `seconds` are the steps."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._bin = folder / "environment" / "bin"
        self._variables = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
        self.seconds: dict[str, float] = {}

    def step(
        self, name: str, command: Sequence[object], code: int = 0
    ) -> subprocess.CompletedProcess[str]:
        """Run a program in the folder. Raises CheckFailed unless it ends with this code."""
        started = time.perf_counter()
        done = subprocess.run(
            [str(word) for word in command], cwd=self._folder, env=self._variables,
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        self.seconds[name] = time.perf_counter() - started
        if done.returncode != code:
            raise CheckFailed(
                f"{name}: code {done.returncode} instead of {code}\n{done.stdout}{done.stderr}"
            )
        return done

    def pip(self, name: str, *arguments: object) -> None:
        """Run the environment's pip."""
        self.step(name, [self._bin / "python", "-m", "pip", "--quiet",
                         "--disable-pip-version-check", *arguments])  # fmt: skip

    def run(self, wheel: Path) -> None:
        """All steps. Raises CheckFailed at the first that goes wrong."""
        create = [sys.executable, "-m", "venv", self._folder / "environment"]
        self.step("new environment", create)
        self.pip("install the wheel", "install", "-c", CONSTRAINTS, wheel)
        tritier = self._bin / "tritier"
        version = self.step("tritier --version", [tritier, "--version"]).stdout.strip()
        if version != wheel.name.split("-")[1]:
            raise CheckFailed(f"tritier --version says {version}, the wheel is {wheel.name}")
        refused = self.step("demo without extras", [tritier, "demo"], _WRONG_USAGE).stderr
        extras = _INSTALL.search(refused)
        if extras is None:
            raise CheckFailed(f"the demo names no command to install what it lacks: {refused}")
        self.pip(f"pip install '{extras[1]}'", "install", "-c", CONSTRAINTS, extras[1])
        self.pip("pip check", "check")
        check_equal(self.step("tritier demo", [tritier, "demo"]).stdout)


def check_equal(printed: str) -> None:
    """Raise CheckFailed unless the demo's table of comparisons has rows of both kinds, chained and
    live, and in each the split network equals the whole one, bit for bit."""
    lines = printed.partition("against the whole model (measured)")[2].splitlines()
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in lines if "│" in line]
    if {row[0] for row in rows} != {"chained", "live"}:
        raise CheckFailed(f"the demo compares nothing, or not both ways:\n{printed}")
    for row in rows:
        if row[-1] != "yes" or float(row[4]) != 0:
            raise CheckFailed(f"the split network differs: {' | '.join(row)}")


def main(argv: list[str] | None = None) -> int:
    """Read the command line, try, and tell what each step took."""
    parser = argparse.ArgumentParser(description="Try a wheel in a new virtual environment.")
    parser.add_argument("wheel", metavar="WHEEL", type=Path)
    wheel: Path = parser.parse_args(argv).wheel
    try:
        if not wheel.is_file():
            raise InputError("no such file: give a wheel that `make dist` made", str(wheel))
        with tempfile.TemporaryDirectory(prefix="tritier-wheel-") as folder:
            trial = Trial(Path(folder))
            try:
                trial.run(wheel.resolve())
            finally:
                for name, seconds in trial.seconds.items():
                    print(f"{seconds:7.1f} s  {name}", flush=True)
        print(f"{wheel.name}: the demo runs, the split network equals the whole one")
        return 0
    except TritierError as error:
        print(f"try_wheel: {error}", file=sys.stderr)
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
