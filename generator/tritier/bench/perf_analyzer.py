"""The program perf_analyzer: finding the real one, its command line, and running it once."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from types import FrameType
from typing import NoReturn

from tritier.bench.results import STABLE_WINDOWS
from tritier.bench.target import Target
from tritier.deployment.access import access_of
from tritier.documents import BenchSettings
from tritier.errors import InputError, ServerError

PROGRAM = "perf_analyzer"
# Where `tritier bench --fetch` and `make perf-analyzer` put it.
USUAL = Path(".tools") / PROGRAM / PROGRAM
CSV, PROFILE, LOG = "level.csv", "profile.json", "log.txt"
_FETCH = f"fetch it with `tritier bench --fetch {USUAL.parent}`"
_START_TIMEOUT_S = 60.0
_ANY_PERCENT = 1e5
_PLACEHOLDER_BYTES = 1 << 16


@dataclass(frozen=True)
class Program:
    """A perf_analyzer that starts, and the version that it tells."""

    path: Path
    version: str


@dataclass(frozen=True)
class Ended:
    """A run that has ended by itself. 0: stable; 2: unstable; anything else: failed."""

    status: int
    folder: Path

    @property
    def log(self) -> str:
        """What it printed."""
        return (self.folder / LOG).read_text(encoding="utf-8", errors="replace")


def find_program(given: Path | None, folders: tuple[Path, ...] = (Path(),)) -> Program:
    """The program: what is given, else the fetched one of these folders, else that of PATH.

    Raises InputError if it is none, does not start, or is the placeholder without the program.
    """
    if given is not None:
        path = given / PROGRAM if given.is_dir() else given
        if not path.is_file():
            raise InputError(f"--perf-analyzer {given}: is no such file; {_FETCH}")
        return _started(path)
    fetched = next((folder / USUAL for folder in folders if (folder / USUAL).is_file()), None)
    found = fetched or _of_path()
    if found is None:
        raise InputError(f"{PROGRAM} is not here: {_placeholder_note()}{_FETCH}")
    return _started(found)


@dataclass(frozen=True)
class LevelRun:
    """One run: `data` is relative to the folder of the run. Not `stable`: three windows, however
    far they are apart. `exported`: every request's times are wanted."""

    batch: int
    offered: float
    window: int
    data: str
    stable: bool = True
    exported: bool = True


def command_line(
    program: Path, target: Target, settings: BenchSettings, run: LevelRun
) -> list[str]:
    """Arguments of a run. The files that it writes are relative to its folder: with an absolute
    name it would leave some of them out."""
    number = f"{run.offered:.12g}"
    load = (
        ["--concurrency-range", f"{number}:{number}"]
        if settings.arrivals == "closed"
        else [
            *("--request-rate-range", f"{number}:{number}"),
            *("--request-distribution", settings.arrivals),
            "--async",  # else its few threads would hold requests back
        ]
    )
    # Where the batch is the first dimension of the shapes, it is in the data.
    own_batch = run.batch if target.max_batch_size else 1
    percent, trials = settings.stability_percent, settings.max_windows
    if not run.stable:
        percent, trials = _ANY_PERCENT, STABLE_WINDOWS
    return [
        *(str(program), "-v", "-m", target.model, "-i", settings.protocol, "-u", str(target.url)),
        *("-b", str(own_batch), "--input-data", run.data, *load),
        *("--measurement-mode", "count_windows"),
        *("--measurement-request-count", str(run.window)),
        *("--stability-percentage", f"{percent:g}", "--max-trials", str(trials)),
        # With a percentile it prints neither the mean nor the deviation, and only without times
        # of all requests they are needed.
        *(("--percentile", str(settings.percentile)) if run.exported else ()),
        *("-f", CSV),
        *(("--profile-export-file", PROFILE) if run.exported else ()),
        *_tls(target.url),
    ]


def shown(command: list[str]) -> str:
    """The command as one would type it."""
    return shlex.join(command)


def run_program(
    command: list[str], folder: Path, limit_s: float, tell: Callable[[str], None] = lambda _: None
) -> Ended:
    """Run it in a folder, where it leaves its files and log.

    It runs in a process group of its own, which is ended if this is interrupted. Raises ServerError
    if it can't be started or does not end.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tell(shown(command))
    with (folder / LOG).open("wb") as log:
        try:
            process = subprocess.Popen(
                command,
                cwd=folder,
                env={**os.environ, "LC_ALL": "C.UTF-8"},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except OSError as error:
            raise ServerError(f"{command[0]}: can't be started: {error.strerror}") from None
        try:
            with _ending_signals():
                status = process.wait(limit_s)
        except subprocess.TimeoutExpired:
            _end(process)
            raise ServerError(
                f"{PROGRAM} did not end within {limit_s:.0f} s, see {folder / LOG}; fewer requests "
                "(--requests) or a longer --level-limit-s may help, if the server still answers"
            ) from None
        except BaseException:
            _end(process)
            raise
    return Ended(status, folder)


@contextlib.contextmanager
def _ending_signals() -> Iterator[None]:
    """SIGTERM and SIGHUP end this as an exception does, so that the program is ended too. One that
    is ignored, as by nohup, stays so; only a main thread can."""

    def ended(number: int, _frame: FrameType | None) -> NoReturn:
        raise SystemExit(128 + number)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    taken = [
        number
        for number in (signal.SIGTERM, signal.SIGHUP)
        if signal.getsignal(number) == signal.SIG_DFL
    ]
    for number in taken:
        signal.signal(number, ended)
    try:
        yield
    finally:
        for number in taken:
            signal.signal(number, signal.SIG_DFL)


def _end(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _tls(url: str) -> list[str]:
    access = access_of(url)
    if access.ca is None:
        return []
    pairs = (
        ("--ssl-grpc-root-certifications-file", access.ca),
        ("--ssl-grpc-private-key-file", access.client_key),
        ("--ssl-grpc-certificate-chain-file", access.client_cert),
    )
    given = [(option, str(path.resolve())) for option, path in pairs if path is not None]
    return ["--ssl-grpc-use-ssl", "true", *(text for pair in given for text in pair)]


def _of_path() -> Path | None:
    found = shutil.which(PROGRAM)
    return Path(found) if found else None


def _started(path: Path) -> Program:
    path = path.absolute()
    try:
        path = _behind_script(path)
        done = subprocess.run(
            [str(path), "--version"],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_START_TIMEOUT_S,
            stdin=subprocess.DEVNULL,
            check=False,
        )
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:
        raise InputError(f"{path}: does not start: {error}; {_FETCH}") from None
    words = (done.stdout + done.stderr).split()  # 2.51.0 tells its version on stderr
    if done.returncode != 0 or "Version" not in words[:-1]:
        last = (done.stderr or done.stdout).strip().splitlines()[-1:] or ["it prints nothing"]
        raise InputError(f"{path}: is no {PROGRAM} that starts here ({last[0]}); {_FETCH}")
    # 2.60.0 calls itself 0.0.0; whoever fetched it knows better.
    told = words[words.index("Version") + 1]
    source = path.parent / "lib" / "SOURCE"
    pinned = source.read_text(encoding="utf-8").split(",")[0].strip() if source.is_file() else ""
    return Program(path, f"{told} ({pinned})" if pinned else told)


def _behind_script(path: Path) -> Path:
    """The program behind the script that pip installs, which drops the exit code; raises InputError
    if there is none, as in the placeholder."""
    with path.open("rb") as file:
        first = file.readline(4096)
    if not (first.startswith(b"#!") and b"python" in first):
        return path
    interpreter = shlex.split(first[2:].decode(errors="replace"))
    done = subprocess.run(
        [*interpreter, "-c", "import perf_analyzer; print(*perf_analyzer.__path__, sep='\\n')"],
        capture_output=True,
        text=True,
        errors="replace",
        timeout=_START_TIMEOUT_S,
        stdin=subprocess.DEVNULL,
        check=False,
    )
    for folder in done.stdout.splitlines():
        program = Path(folder) / "bin" / PROGRAM
        if program.is_file() and program.stat().st_size > _PLACEHOLDER_BYTES:
            return program
    raise InputError(
        f"{path}: is a script without the program: pip installs the placeholder release 0.1.0 of "
        f"perf-analyzer where glibc is older than 2.38; {_FETCH}"
    )


def _placeholder_note() -> str:
    try:
        version = metadata.version("perf-analyzer")
    except metadata.PackageNotFoundError:
        return ""
    return f"the package perf-analyzer {version} that pip installed is the placeholder without it; "
