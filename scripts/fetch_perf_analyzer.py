#!/usr/bin/env python3
"""Provide NVIDIA's perf_analyzer, a real and pinned one, on old and new Linux systems.

    python scripts/fetch_perf_analyzer.py .tools/perf_analyzer
    .tools/perf_analyzer/perf_analyzer -m MODEL -i grpc -u 127.0.0.1:8001 ...

``pip install perf-analyzer`` gives the program only where glibc is 2.38 or newer. Elsewhere pip
silently installs release 0.1.0, a placeholder of 2 kB without the program. There this script
takes the program out of the wheel of tritonclient 2.51.0, which also carries it, and puts the
two libraries next to it that such systems lack. It needs no root.

DEST then holds ``perf_analyzer``, a shell script that starts the program, and ``lib/``. It is
built in a temporary folder beside DEST, started once there, and moved into place only if it
starts: DEST is either whole or as it was before.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import NoReturn

PROGRAM = "perf_analyzer"
LIB = "lib"
# Written last into lib/. It marks a folder as made by this script: only such a folder is ever
# replaced, so a mistyped DEST costs nobody their files.
MARKER = "SOURCE"

Version = tuple[int, int]


class FetchError(Exception):
    """Something that stops the script: what, why, and what to do, in one line."""


@dataclass(frozen=True)
class Wheel:
    """A pinned wheel and where perf_analyzer lies in it."""

    project: str
    version: str
    tag: str  # the platform tag, given to pip so that nothing but this wheel can match
    sha256: str
    member: str
    min_glibc: Version

    @property
    def filename(self) -> str:
        """Tell the wheel's file name."""
        return f"{self.project.replace('-', '_')}-{self.version}-py3-none-{self.tag}.whl"

    @property
    def source(self) -> str:
        """Tell what is fetched, as pip names it."""
        return f"{self.project}=={self.version}"


# The newest first: the first that the system's glibc can run is taken.
WHEELS = (
    Wheel(
        project="perf-analyzer",
        version="2.60.0",
        tag="manylinux_2_38_x86_64",
        sha256="23ef56b107ae9233e5cf09fbdf508dd9b936a52f1bae2f63f53c8117087b3f25",
        member="perf_analyzer/bin/perf_analyzer",
        min_glibc=(2, 38),
    ),
    Wheel(
        project="tritonclient",
        version="2.51.0",
        tag="manylinux1_x86_64",
        sha256="c485bb0123bdf310f90bc8b03d3489b28df2ffed55b30c7eee0b795b48113d52",
        member="tritonclient-2.51.0.data/data/bin/perf_analyzer",
        min_glibc=(2, 34),  # the wheel's tag promises less than the program in it needs
    ),
)

# Inside nvidia-pytriton's wheel both libraries have a hash in their names.
EMBEDDED_LIBS = "nvidia_pytriton.libs"
EMBEDDED_HINT = (
    "install the `embedded` extra (pip install 'tritier[embedded]'), which carries a copy, "
    "or name with --python a Python that has it"
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

# $0 may be a link to the wrapper, and the folder may be moved: the place is found at each start.
# An empty element of LD_LIBRARY_PATH would mean the current folder, hence the :+ form. exec keeps
# the program's exit status: 2 (unstable measurement) and 99 (error) mean something to callers.
WRAPPER = """\
#!/bin/sh
# {source}; written by fetch_perf_analyzer.py
here=$(dirname -- "$(readlink -f -- "$0")") || exit 1
LD_LIBRARY_PATH=$here/{lib}${{LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}}
export LD_LIBRARY_PATH
exec "$here/{lib}/{program}" "$@"
"""

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


def glibc_version() -> Version:
    """Tell the version of the C library that programs on this system get."""
    try:
        name, _, number = (os.confstr("CS_GNU_LIBC_VERSION") or "").partition(" ")
        major, minor = number.split(".")[:2]
        if name == "glibc":
            return int(major), int(minor)
    except (ValueError, OSError):
        pass
    raise FetchError(
        f"{PROGRAM}: this system's C library is not glibc (Alpine's musl, for one, is not); "
        "run it on a glibc Linux or in Triton's SDK container image"
    )


def check_machine(system: str, machine: str) -> None:
    """Refuse a machine for which the wheels hold no program."""
    if (system, machine) != ("Linux", "x86_64"):
        raise FetchError(
            f"{PROGRAM}: this is {system} on {machine}, and the wheels hold a program for Linux on "
            "x86_64; use such a machine: the program reaches the server over the network"
        )


def choose_wheel(glibc: Version) -> Wheel:
    """Take the newest wheel whose program starts here."""
    for wheel in WHEELS:
        if glibc >= wheel.min_glibc:
            return wheel
    raise FetchError(
        f"{PROGRAM}: glibc {glibc[0]}.{glibc[1]} is too old, the program needs "
        f"{WHEELS[-1].min_glibc[0]}.{WHEELS[-1].min_glibc[1]} (Debian 12, Ubuntu 22.04 or newer); "
        "use a newer system or Triton's SDK container image"
    )


def download(wheel: Wheel, python: str, folder: Path) -> Path:
    """Fetch the wheel with the pip of that Python, as pip is configured, and verify it."""
    folder.mkdir()
    done = run(
        [python, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps",
         "--only-binary=:all:", "--platform", wheel.tag, "--dest", str(folder), wheel.source],
        f"download of {wheel.source}",
        PIP_TIMEOUT_S,
    )  # fmt: skip
    if done.returncode != 0:
        raise FetchError(
            f"download of {wheel.source} failed: {reason(done)}; check that {python} has pip and "
            "that pip reaches an index with that release"
        )
    path = folder / wheel.filename
    if not path.is_file():
        found = ", ".join(sorted(item.name for item in folder.iterdir())) or "nothing"
        raise FetchError(
            f"download of {wheel.source}: expected {wheel.filename}, got {found}; check pip's "
            "configured index"
        )
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != wheel.sha256:
        raise FetchError(
            f"{wheel.filename}: sha256 is {digest}, expected {wheel.sha256}; nothing of it was "
            "used; check pip's configured index, or clear a damaged cache (pip cache purge)"
        )
    return path


def is_x86_64_elf(path: Path) -> bool:
    """Whether the file is a 64-bit x86 ELF file (by its header, not by its name)."""
    with path.open("rb") as file:
        head = file.read(20)
    return head[:6] == b"\x7fELF\x02\x01" and head[18:20] == b"\x3e\x00"


def unpack(path: Path, member: str, target: Path) -> None:
    """Take the program out of the wheel; refuse a wheel without one, such as the placeholder."""
    try:
        with (
            zipfile.ZipFile(path) as archive,
            archive.open(member) as source,
            target.open("wb") as file,
        ):
            shutil.copyfileobj(source, file)
    except KeyError:
        raise FetchError(
            f"{path.name}: holds no {member}; it looks like the placeholder release, which is "
            "without the program; check pip's configured index"
        ) from None
    except zipfile.BadZipFile as error:
        raise FetchError(f"{path.name}: damaged ({error}); try again") from None
    if not is_x86_64_elf(target):
        raise FetchError(
            f"{path.name}: {member} is not an x86_64 ELF program; check pip's configured index"
        )
    target.chmod(0o755)


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
        raise FetchError(f"{python}: does not run Python: {reason(done)}; name another (--python)")
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


def check_start(wrapper: Path, advice: str) -> str:
    """Start the program through its wrapper; give back the version that it tells."""
    done = run([str(wrapper), "--version"], str(wrapper), START_TIMEOUT_S)
    words = (done.stdout + done.stderr).split()  # 2.51.0 tells its version on stderr
    if done.returncode != 0 or "Version" not in words[:-1]:
        raise FetchError(
            f"{wrapper}: does not start (exit status {done.returncode}): {reason(done)}; {advice}"
        )
    return words[words.index("Version") + 1]


def build(wheel: Wheel, python: str, work: Path) -> Path:
    """Make the whole folder inside the temporary one and prove that the program starts there."""
    tree = work / "new"
    lib = tree / LIB
    lib.mkdir(parents=True)
    program = lib / PROGRAM
    unpack(download(wheel, python, work / "wheel"), wheel.member, program)
    origins = [wheel.source]
    for name in missing_libraries(program):
        file, origin = find_library(name, python, work)
        # A copy, not a link: the Python that it is from may be rebuilt or removed.
        shutil.copyfile(file, lib / name)
        origins.append(f"{name} from {origin}")
    source = ", ".join(origins)
    wrapper = tree / PROGRAM
    wrapper.write_text(WRAPPER.format(source=source, lib=LIB, program=PROGRAM), encoding="utf-8")
    wrapper.chmod(0o755)
    check_start(wrapper, f"nothing was installed; this system cannot run {wheel.source}")
    (lib / MARKER).write_text(source + "\n", encoding="utf-8")
    return tree


def source_of(dest: Path) -> str:
    """Tell where the program in DEST is from; nothing if there is none."""
    marker = dest / LIB / MARKER
    return marker.read_text(encoding="utf-8").strip() if marker.is_file() else ""


def check_replaceable(dest: Path) -> None:
    """Refuse a DEST with anything in it that this script did not make."""
    if dest.exists() and not dest.is_dir():
        raise FetchError(f"{dest}: is there and is not a folder; name another DEST")
    entries = {item.name for item in dest.iterdir()} if dest.exists() else set()
    if entries and (entries != {PROGRAM, LIB} or not (dest / LIB / MARKER).is_file()):
        raise FetchError(
            f"{dest}: holds other files, which would be lost; name a new or an empty folder"
        )
    if ":" in str(dest):
        raise FetchError(f"{dest}: a ':' splits LD_LIBRARY_PATH; name a folder without one")


def move_into_place(tree: Path, dest: Path, work: Path) -> None:
    """Put the new folder at DEST; if that fails, what was there before is there again."""
    old = work / "old"
    try:
        if dest.exists():
            dest.replace(old)
        tree.replace(dest)
    except BaseException:  # a signal, too, must not cost what was there
        if old.exists() and not dest.exists():
            old.replace(dest)
        raise


@contextlib.contextmanager
def temporary_folder(beside: Path) -> Iterator[Path]:
    """Make a folder on the file system of DEST, so that a rename moves the result."""
    beside.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{PROGRAM}-", dir=beside))
    try:
        yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)


def provide(dest: Path, python: str, force: bool) -> str:
    """Make DEST if it is not there; in any case prove that it starts. Gives the line to print."""
    check_replaceable(dest)
    check_machine(platform.system(), platform.machine())
    wheel = choose_wheel(glibc_version())
    word = "already there"
    # A folder with another release than the one pinned for this system is out of date.
    if force or source_of(dest).split(", ")[0] != wheel.source:
        with temporary_folder(dest.parent) as work:
            move_into_place(build(wheel, python, work), dest, work)
        word = "fetched"
    wrapper = dest / PROGRAM
    told = check_start(wrapper, "fetch it again with --force")
    # The program of release 2.60.0 calls itself 0.0.0: the pin is what tells the release.
    own = "" if told == wheel.version else f", calls itself {told}"
    return f"{PROGRAM} {wheel.version} {word}: {wrapper} (from {source_of(dest)}{own})"


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
