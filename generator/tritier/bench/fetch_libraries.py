"""The shared libraries that perf_analyzer needs and older systems lack, found without root."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path

from tritier.errors import TritierError

PROGRAM = "perf_analyzer"


class FetchError(TritierError):
    """Something that stops the fetching: what, why, and what to do, in one line."""


# Inside nvidia-pytriton's wheel both libraries have a hash in their names.
EMBEDDED_LIBS = "nvidia_pytriton.libs"
EMBEDDED_HINT = (
    "install the `embedded` extra (pip install 'tritier[embedded]'), which carries a copy, "
    "for the Python that fetches"
)
B64 = "libb64.so.0d"
B64_PACKAGE = "libb64-0d"
CUDART = "libcudart.so.12"

# Libraries of the system that every desktop and server has; a bare container may not.
SYSTEM_PACKAGES: Mapping[str, str] = {
    "libz.so.1": "zlib1g",
    "libssl.so.3": "libssl3 (libssl3t64 on newer systems)",
    "libcrypto.so.3": "libssl3 (libssl3t64 on newer systems)",
    "libstdc++.so.6": "libstdc++6",
    "libgcc_s.so.1": "libgcc-s1",
}

PIP_TIMEOUT_S = 900  # 14 MB over a slow line, with pip's own retries
START_TIMEOUT_S = 60


def run(
    command: list[str],
    what: str,
    timeout_s: int,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end; its exit status is left to the caller.

    It gets a process group of its own, which is ended as a whole when this script is stopped: a
    Python that is a wrapper script may start another one, which would go on writing.
    """
    try:
        process = subprocess.Popen(
            command,
            cwd=cwd,
            env={**os.environ, "LC_ALL": "C.UTF-8", **(env or {})},
            stdin=subprocess.DEVNULL,  # pip and apt must not wait for an answer
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            start_new_session=True,
        )
    except OSError as error:
        raise FetchError(
            f"{what}: cannot run {command[0]}: {error.strerror}; check that it is there, is "
            "executable and is not on a file system mounted noexec"
        ) from None
    try:
        stdout, stderr = process.communicate(timeout=timeout_s)
    except BaseException as error:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()  # until the last of the group has closed its end of the pipes
        if isinstance(error, subprocess.TimeoutExpired):
            raise FetchError(f"{what}: no end after {timeout_s} s; try again") from None
        raise
    return subprocess.CompletedProcess(command, process.returncode, stdout, stderr)


def reason(done: subprocess.CompletedProcess[str]) -> str:
    """Pick the line of a failed command that says most: its first error line, or its last one."""
    lines = [line.strip() for line in (done.stderr + done.stdout).splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith(("ERROR:", "E:"))]
    return (errors or lines[-1:] or [f"exit status {done.returncode}"])[0]


def missing_libraries(program: Path) -> list[str]:
    """List the libraries that the dynamic loader does not find for this program.

    The loader itself is asked, as ldd does: it knows its cache and its folders better than any
    guess. LD_LIBRARY_PATH holds the program's own folder only, because what this shell happens to
    have in it may be gone at the program's next start.
    """
    trace = {"LD_TRACE_LOADED_OBJECTS": "1", "LD_LIBRARY_PATH": str(program.parent)}
    done = run([str(program)], f"libraries of {PROGRAM}", START_TIMEOUT_S, env=trace)
    return [
        line.split()[0] for line in done.stdout.splitlines() if line.strip().endswith("not found")
    ]


def embedded_libraries(python: str) -> list[Path]:
    """List the shared libraries that nvidia-pytriton brought into that Python."""
    done = run(
        [python, "-c", "import json, sys; print(json.dumps(sys.path))"], python, START_TIMEOUT_S
    )
    if done.returncode != 0:
        raise FetchError(f"{python}: does not run Python: {reason(done)}; fetch with another one")
    folders = [Path(entry) / EMBEDDED_LIBS for entry in json.loads(done.stdout) if entry]
    return sorted(file for folder in folders if folder.is_dir() for file in folder.iterdir())


def debian_b64(work: Path) -> Path:
    """Take libb64 out of its Debian package; as nothing is installed, this needs no root."""
    if not (shutil.which("apt-get") and shutil.which("dpkg")):
        raise FetchError(
            f"{B64}: not found, and without apt-get and dpkg it cannot be fetched; install this "
            f"system's package that holds it, or {EMBEDDED_HINT}"
        )
    work.mkdir()
    done = run(
        ["apt-get", "download", f"{B64_PACKAGE}:amd64"],
        f"download of {B64_PACKAGE}",
        PIP_TIMEOUT_S,
        cwd=work,
    )
    if done.returncode != 0:
        # With empty lists apt-get says only that it does not know the package.
        raise FetchError(
            f"download of the Debian package {B64_PACKAGE} failed: {reason(done)}; run `apt-get "
            f"update` first (as root: apt's lists are empty or old), or {EMBEDDED_HINT}"
        )
    for package in work.glob("*.deb"):
        done = run(["dpkg", "-x", package.name, "tree"], package.name, START_TIMEOUT_S, cwd=work)
        if done.returncode != 0:
            raise FetchError(f"{package.name}: cannot be unpacked: {reason(done)}; try again")
    for file in (work / "tree").rglob(B64):
        return file.resolve()
    raise FetchError(f"{B64}: not in this system's package {B64_PACKAGE}; {EMBEDDED_HINT}")


def find_library(name: str, python: str, work: Path) -> tuple[Path, str]:
    """Find a file for a library that the loader did not find, and say where it is from."""
    if name in (B64, CUDART):
        stem, suffix = name.split(".so")
        for file in embedded_libraries(python):
            # libcudart-<hash>.so.12.6.77, libb64-<hash>.so.0d
            if file.name.startswith(f"{stem}-") and f".so{suffix}" in file.name:
                return file, EMBEDDED_LIBS
    if name == B64:
        return debian_b64(work / "deb"), f"Debian's {B64_PACKAGE}"
    if name == CUDART:
        raise FetchError(
            f"{CUDART}: not found on this system and not among the libraries of {python}; "
            f"{EMBEDDED_HINT}"
        )
    package = SYSTEM_PACKAGES.get(name, f"that holds {name}")
    raise FetchError(
        f"{name}: {PROGRAM} needs it and this system lacks it; install the package {package}"
    )
