"""The tritonserver that the nvidia-pytriton wheel carries: there, loadable, and how old."""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tritier.deployment import embedded
from tritier.deployment.versions import RELEASES, dotted, insecurity
from tritier.doctor.fixes import pip_install
from tritier.documents import MachineCheck
from tritier.errors import ServerError

WHEEL = "nvidia-pytriton"
# Version of the wheel -> release of the Triton in it.
CARRIED = {"0.7.0": "24.10"}
_PIN = f"{WHEEL}==0.7.0"
_LDD_TIMEOUT_S = 60
_USE = "the lab, the demo and the tests"
# Library -> package of Debian and Ubuntu. Others of the server lie in its wheel.
_SYSTEM_PACKAGES = {
    "libpython": "libpython3-dev",
    "libstdc++": "libstdc++6",
    "libgcc_s": "libgcc-s1",
    "libz.": "zlib1g",
}


def check_server(obstacle: str | None, version: str | None, python: str) -> MachineCheck:
    """`obstacle`: why it can't work, as `embedded.require_embedded` says; `version`: of the
    wheel."""
    release = CARRIED.get(version or "")
    carried = f"tritonserver {dotted(RELEASES[release])} ({release})" if release else "tritonserver"
    return MachineCheck(
        name="embedded tritonserver",
        status="missing" if obstacle else "ok",
        found=obstacle or f"{carried}, from {WHEEL} {version}",
        needed_for=_USE,
        fix=_install(python) if obstacle else None,
        demo=True,
    )


def check_libraries(missing: Sequence[str] | None, python: str = "python") -> MachineCheck:
    """`missing`: names of shared libraries that the loader does not find; None: there is no server
    to ask about."""
    if missing is None:
        found, fix = "not checked: there is no server", _install(python)
    elif missing:
        found = f"{', '.join(missing)} not found"
        packages = sorted({_package(name) for name in missing})
        fix = f"sudo apt-get install -y {' '.join(packages)}"
    else:
        found, fix = "all are found", None
    return MachineCheck(
        name="libraries of tritonserver",
        status="missing" if fix else "ok",
        found=found,
        needed_for=_USE,
        fix=fix,
        demo=True,
    )


def check_stub(
    version: tuple[int, int], stubs: Sequence[str], python: str = "python"
) -> MachineCheck:
    """`stubs`: the versions of Python for which the wheel has the program that runs models, oldest
    first; none without the wheel."""
    own = f"{version[0]}.{version[1]}"
    if not stubs:
        found, fix = "not checked: there is no server", _install(python)
    else:
        found = f"Python {own}; the server has stubs for {', '.join(stubs)}"
        fix = f"python{stubs[-1]} -m venv .venv && .venv/bin/pip install {_PIN}"
    return MachineCheck(
        name="stub of Python models",
        status="ok" if own in stubs else "missing",
        found=found,
        needed_for=_USE,
        fix=None if own in stubs else fix,
        demo=True,
    )


def check_age(version: str | None) -> MachineCheck:
    """The security floor: the server that is here is not for production."""
    if version is None:
        reason, found = None, "there is none"
    else:
        release = CARRIED.get(version)
        reason = insecurity(dotted(RELEASES[release])) if release else "its version is not known"
        found = reason or "it has the known fixes"
    return MachineCheck(
        name="age of tritonserver",
        status="warning" if reason else "ok",
        found=found,
        needed_for="production; the embedded server is for loopback and tests (docs/security.md)",
    )


def _install(python: str) -> str:
    return pip_install(python, _PIN, "numpy>=1.26,<2")


def obstacle_now() -> str | None:
    """Why the embedded server can't work here; None if it can."""
    try:
        embedded.require_embedded()
    except (ServerError, importlib.metadata.PackageNotFoundError) as error:
        return str(error)
    return None


def stub_versions() -> list[str]:
    """Versions of Python that the installed wheel has stubs for, oldest first; none without it."""
    try:
        folders = embedded.server_dir() / "python_backend_stubs"
    except ServerError:
        return []
    found = [path.name for path in folders.iterdir()] if folders.is_dir() else []
    return sorted(found, key=lambda text: [int(part) for part in text.split(".")])


def missing_libraries() -> list[str] | None:
    """What the dynamic loader does not find for the server, its stub and its Python backend in the
    environment in which they are started; None without a server."""
    try:
        server = embedded.server_dir()
    except ServerError:
        return None
    stub = server / "python_backend_stubs" / f"{sys.version_info.major}.{sys.version_info.minor}"
    programs = [server / "bin" / "tritonserver", stub / "triton_python_backend_stub"]
    variables = {**os.environ, "LD_LIBRARY_PATH": embedded.library_path()}
    found = (_not_found(path, variables) for path in programs if path.is_file())
    return sorted({name for names in found for name in names})


def _not_found(program: Path, variables: dict[str, str]) -> list[str]:
    """The loader itself is asked, as ldd does: nothing of the program runs."""
    try:
        done = subprocess.run(
            [str(program)],
            env={**variables, "LD_TRACE_LOADED_OBJECTS": "1"},
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_LDD_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.SubprocessError):  # a program of another system, or another libc
        return [program.name]
    lines = [line.strip() for line in done.stdout.splitlines()]
    return [line.split()[0] for line in lines if line.endswith("not found")]


def _package(library: str) -> str:
    fitting = (name for start, name in _SYSTEM_PACKAGES.items() if library.startswith(start))
    return next(fitting, library.split(".so")[0])
