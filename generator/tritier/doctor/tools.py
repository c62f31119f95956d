"""Programs and solvers that single commands call."""

from __future__ import annotations

import re
import shutil
from collections.abc import Collection
from pathlib import Path

from tritier.bench.perf_analyzer import USUAL, Program, find_program
from tritier.doctor.fixes import pip_install, shown_path
from tritier.documents import MachineCheck
from tritier.errors import InputError
from tritier.planner.pulp_solvers import CBC, DEFAULT_SOLVER

# How the message of `find_program` ends: what is done about it stands in the fix.
_HOW = re.compile(r"[:;]? fetch it with .*$", re.DOTALL)
# Programs that look at the page of a report: name -> package of Debian.
_BROWSER = {"chromium": "chromium", "chromedriver": "chromium-driver"}


def check_perf_analyzer(program: Program | None, reason: str = "") -> MachineCheck:
    """The real program; `reason`: why there is none, such as pip's placeholder without it."""
    fix = f"tritier bench --fetch {USUAL.parent}"
    return MachineCheck(
        name="perf_analyzer",
        status="ok" if program else "missing",
        found=f"{program.version}, {shown_path(program.path)}" if program else _HOW.sub("", reason),
        needed_for="`tritier bench`, `tritier calibrate`",
        fix=None if program else fix,
    )


def check_locust(version: str | None, python: str = "python") -> MachineCheck:
    """Locust, by the version of its package."""
    return MachineCheck(
        name="Locust",
        status="ok" if version else "missing",
        found=version or "not installed",
        needed_for="`tritier load`",
        fix=None if version else pip_install(python, "locust>=2.40"),
    )


def check_browser(found: Collection[str]) -> MachineCheck:
    """`found`: which of browser and driver are in PATH."""
    absent = [name for name in _BROWSER if name not in found]
    packages = " ".join(_BROWSER[name] for name in absent)
    return MachineCheck(
        name="chromium",
        status="missing" if absent else "ok",
        found=f"{' and '.join(absent)} not in PATH" if absent else "with chromedriver",
        needed_for="tests of the report's page and pictures of it; no command needs it",
        fix=f"sudo apt-get install -y {packages}" if absent else None,
    )


def check_solvers(installed: Collection[str], python: str = "python") -> list[MachineCheck]:
    """`installed`: names of solvers that PuLP can call here."""
    uses = {
        DEFAULT_SOLVER: ("`tritier plan` where limits bind", "highspy>=1.10"),
        CBC: ("`tritier plan --solver CBC`, as a second opinion", "pulp>=3.3,<4"),
    }
    return [
        MachineCheck(
            name=f"solver {name}",
            status="ok" if name in installed else "missing",
            found="can be called" if name in installed else "not installed",
            needed_for=use,
            fix=None if name in installed else pip_install(python, "--force-reinstall", package),
        )
        for name, (use, package) in uses.items()
    ]


def perf_analyzer_here(folders: tuple[Path, ...]) -> MachineCheck:
    """The check with what `tritier bench` would find in these folders and in PATH."""
    try:
        return check_perf_analyzer(find_program(None, folders))
    except InputError as error:
        return check_perf_analyzer(None, str(error))


def browsers_here() -> list[str]:
    """Which of browser and driver are in PATH."""
    return [name for name in _BROWSER if shutil.which(name)]
